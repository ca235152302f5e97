"""The offline transformer: shapes, masks, windows, attention, streaming, and the pieces it reads features with."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import resnet18

from ptrack.errors import CheckpointError, ConfigError
from ptrack.models.base import OnlineModel
from ptrack.models.offline import PointTransformer, StreamingTransformer, TransformerConfig
from ptrack.models.offline.features import Pyramid
from ptrack.models.offline.model import plan_windows, random_windows
from ptrack.models.offline.sampling import best_place, gather_bilinear, local_correlation

SMALL = TransformerConfig(
    norm="group", input_size=(64, 64), levels=3, window=4, dim=32, heads=4, layers=2, iterations=2, radius=2
)


def network(config: TransformerConfig = SMALL, seed: int = 0) -> PointTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = PointTransformer(config)
        torch.nn.init.normal_(model.head.weight[:4], std=0.5)  # a trained head moves points
        torch.nn.init.normal_(model.head.weight[4:], std=0.03)  # and follows a part of the matches
    return model.eval()


def clip(T: int, size: int = 80, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, T, size, size, 3), generator=generator, dtype=torch.uint8)


QUERIES = torch.tensor([[[0.0, 20.0, 30.0], [0.0, 61.5, 12.25], [2.0, 40.0, 70.0]]])


@torch.no_grad()
def test_outputs_have_the_stated_shapes_and_the_query_is_kept() -> None:
    out = network()(clip(6), QUERIES)
    assert out.xy.shape == (1, 6, 3, 2)
    assert out.visibility.shape == out.confidence.shape == (1, 6, 3)
    assert [w.start for w in out.windows] == [0, 2]
    assert out.windows[0].xy.shape == (2, 1, 4, 3, 2)
    for n in range(3):
        t = int(QUERIES[0, n, 0])
        torch.testing.assert_close(out.xy[0, t, n], QUERIES[0, n, 1:], rtol=0, atol=1e-5)
    assert (out.xy[0, 3:] - QUERIES[0, :, 1:]).abs().max() > 1  # and the points move elsewhere


@torch.no_grad()
def test_an_untrained_network_leaves_points_where_they_are() -> None:
    torch.manual_seed(0)
    out = PointTransformer(SMALL).eval()(clip(6), QUERIES)
    torch.testing.assert_close(out.xy, QUERIES[:, None, :, 1:].expand(1, 6, 3, 2), rtol=0, atol=1e-4)


@torch.no_grad()
def test_points_that_do_not_exist_yet_influence_nothing() -> None:
    model, frames = network(), clip(4)
    late = QUERIES.clone()
    late[0, 2, 0] = 3.0
    moved = late.clone()
    moved[0, 2, 1:] = torch.tensor([5.0, 5.0])
    a = model(frames, late, windows=[(0, 3)]).windows[0].xy[..., :2, :]
    b = model(frames, moved, windows=[(0, 3)]).windows[0].xy[..., :2, :]
    assert torch.equal(a, b)


@torch.no_grad()
def test_points_see_each_other_and_their_order_does_not_matter() -> None:
    model, frames = network(), clip(4)
    both = model(frames, QUERIES).xy
    alone = model(frames, QUERIES[:, :1]).xy
    assert (both[:, 1:, :1] - alone[:, 1:]).abs().max() > 1e-4
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(model(frames, QUERIES[:, order]).xy, both[:, :, order], rtol=0, atol=1e-3)


@torch.no_grad()
def test_clips_of_a_batch_do_not_influence_each_other() -> None:
    model = network()
    frames = torch.cat([clip(4), clip(4, seed=2)])
    queries = torch.cat([QUERIES, QUERIES + 3.0 * torch.tensor([0.0, 1.0, 1.0])])
    whole = model(frames, queries).xy
    for b in range(2):
        torch.testing.assert_close(model(frames[b : b + 1], queries[b : b + 1]).xy[0], whole[b], rtol=0, atol=1e-3)


@torch.no_grad()
def test_attention_maps_are_probabilities_and_skip_what_does_not_exist() -> None:
    out = network()(clip(4), QUERIES, attention=True)
    attention = out.windows[0].attention
    assert attention is not None
    assert attention.time.shape == (2, 1, 3, 4, 4)
    assert attention.points.shape == (2, 1, 4, 3, 3)
    for maps in (attention.time, attention.points):
        torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))
    assert attention.time[:, 0, 2, :, :2].abs().max() == 0  # the third point starts at frame 2
    assert attention.points[:, 0, :2, :, 2].abs().max() == 0


@pytest.mark.parametrize(("frames", "window"), [(1, 4), (4, 4), (5, 4), (11, 8), (16, 8), (9, 2)])
def test_window_plans_cover_every_frame_without_gaps(frames: int, window: int) -> None:
    generator = torch.Generator().manual_seed(3)
    for plan in [plan_windows(frames, window), *(random_windows(frames, window, generator) for _ in range(20))]:
        assert plan[0][0] == 0
        assert plan[-1][1] == frames
        for (_, stop), (start, end) in itertools.pairwise(plan):
            assert start < stop < end
        assert all(0 < stop - start <= window for start, stop in plan)


@torch.no_grad()
def test_streaming_equals_windows_that_slide_by_one() -> None:
    model, frames = network(), clip(7)
    queries = QUERIES[:, :2]
    windows = [(max(0, stop - 4), stop) for stop in range(1, 8)]
    clipwise = model(frames, queries, windows=windows)
    stream = StreamingTransformer(model)
    assert isinstance(stream, OnlineModel)
    state = stream.init_state()
    features = stream.encode(frames[0])
    for t in range(7):
        if t == 0:
            state = stream.add(state, features[0], queries[0, :, 1:])
        state, out = stream.step(state, features[t])
        wanted = clipwise.windows[t].xy[-1, 0, -1] * 80 / 64
        torch.testing.assert_close(out.xy, wanted, rtol=0, atol=1e-3)
        assert state.maps[0].shape[1] <= 4


@torch.no_grad()
def test_points_join_and_leave_a_stream() -> None:
    stream, frames = StreamingTransformer(network()), clip(6)
    features = stream.encode(frames[0])
    state, out = stream.step(stream.init_state(), features[0])
    assert out.xy.shape == (0, 2)
    state = stream.add(state, features[1], torch.tensor([[10.0, 10.0], [50.0, 60.0]]))
    state, out = stream.step(state, features[1])
    torch.testing.assert_close(out.xy, torch.tensor([[10.0, 10.0], [50.0, 60.0]]))
    state, _ = stream.step(state, features[2])
    state = stream.add(state, features[3], torch.tensor([[70.0, 20.0]]))
    state, out = stream.step(state, features[3])
    torch.testing.assert_close(out.xy[2], torch.tensor([70.0, 20.0]))
    before = state
    state = stream.keep(state, torch.tensor([2, 0]))
    torch.testing.assert_close(state.xy, before.xy[:, [2, 0]])
    state, out = stream.step(state, features[4])
    assert out.xy.shape == (2, 2)
    assert torch.isfinite(out.xy).all()
    assert ((out.visibility >= 0) & (out.visibility <= 1)).all()


@torch.no_grad()
def test_a_point_on_the_border_and_one_outside_stay_finite() -> None:
    out = network()(clip(4), torch.tensor([[[0.0, 80.0, 80.0], [0.0, 0.0, 0.0], [0.0, 200.0, -90.0]]]))
    assert torch.isfinite(out.xy).all()


@torch.no_grad()
def test_chunks_of_points_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, frames = network(), clip(4)
    whole = model(frames, QUERIES, iterations=1).xy
    monkeypatch.setattr("ptrack.models.offline.model.CORRELATION_BYTES", 1)
    torch.testing.assert_close(model(frames, QUERIES, iterations=1).xy, whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("backbone", ["resnet18", "lite0"])
def test_every_parameter_gets_a_gradient_but_packaged_weights(backbone: str) -> None:
    model = network(replace(SMALL, backbone=backbone)).train()
    out = model(clip(4), QUERIES)
    sum(w.xy.sum() + w.visibility_logit.sum() + w.confidence_logit.sum() for w in out.windows).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == [n for n, _ in model.named_parameters() if n.startswith("pyramid.encoder.net.")]
    assert (backbone == "lite0") == bool(without)


@torch.no_grad()
def test_an_untrained_network_can_follow_its_matches() -> None:
    """With nothing but the packaged features and the gate of the finest level open, points follow a picture that
    moves by 9 px: what training has to find is at hand from the first step on.
    """
    model = network(replace(SMALL, backbone="lite0", input_size=(96, 96), iterations=3, radius=3))
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias[4] = 1.0
    picture = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    picture = F.interpolate(picture, size=(140, 140), mode="bicubic").clamp(0, 1).mul(255)[0].permute(1, 2, 0)
    frames = torch.stack([picture[20 + 3 * t : 116 + 3 * t, 20:116] for t in range(4)])[None]
    queries = torch.tensor([[[0.0, 30.0, 40.0], [0.0, 60.5, 50.0], [0.0, 48.0, 70.0]]])
    truth = queries[:, None, :, 1:] - torch.tensor([0.0, 3.0]) * torch.arange(4.0)[None, :, None, None]
    assert (model(frames, queries).xy - truth)[:, 1:].norm(dim=-1).mean() < 1.5


def test_sampling_equals_grid_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 5, 7, 4, generator=generator)
    time = torch.tensor([[0, 2], [1, 1]])
    cells = torch.rand(2, 2, 2, generator=generator) * torch.tensor([9.0, 7.0]) - 1.0
    got = gather_bilinear(maps, time, cells)
    for b in range(2):
        for n in range(2):
            unit = (cells[b, n] + 0.5) * 2 / torch.tensor([7.0, 5.0]) - 1
            image = maps[b, time[b, n]].permute(2, 0, 1)[None]
            wanted = F.grid_sample(image, unit.view(1, 1, 1, 2), align_corners=False)
            torch.testing.assert_close(got[b, n], wanted.flatten(), rtol=0, atol=1e-5)


def test_local_correlation_equals_sampling_then_multiplying() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 2, 6, 8, 4, generator=generator)
    templates = torch.randn(1, 3, 9, 4, generator=generator)
    cells = torch.rand(1, 2, 3, 2, generator=generator) * 8 - 1
    got = local_correlation(maps, templates, cells, 2).view(1, 2, 3, 5, 5, 9)
    steps = torch.arange(-2, 3)
    around = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    for t in range(2):
        places = cells[:, t, :, None, None] + around
        sampled = gather_bilinear(maps, torch.full(places.shape[:-1], t), places)
        wanted = torch.einsum("bnyxc,bnkc->bnyxk", sampled, templates)
        torch.testing.assert_close(got[:, t], wanted, rtol=0, atol=1e-5)


def test_the_best_place_is_where_the_template_was_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = F.normalize(torch.randn(1, 1, 12, 12, 32, generator=generator), dim=-1)
    true = torch.tensor([[[[5.0, 6.0], [4.0, 8.0]]]])  # cells (x, y)
    steps = torch.arange(-1, 2)
    around = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).flatten(0, 1)
    cells = true[0, :, :, None] + around
    templates = gather_bilinear(maps, torch.zeros(cells.shape[:-1], dtype=torch.int64), cells)
    way = torch.tensor([[[[1.0, -2.0], [-3.0, 3.0]]]])  # the second one in a corner of the window
    products = local_correlation(maps, templates, true - way, 3)
    place, score = best_place(products, 3, torch.tensor(200.0))
    torch.testing.assert_close(place, way, rtol=0, atol=1e-3)
    torch.testing.assert_close(score, torch.ones(1, 1, 2, 1), rtol=0, atol=1e-3)
    place, _ = best_place(torch.zeros_like(products), 3, torch.tensor(200.0))
    torch.testing.assert_close(place, torch.zeros_like(way), rtol=0, atol=1e-6)  # nothing seen: no way to go


@pytest.mark.parametrize(("backbone", "levels"), [("resnet18", 3), ("lite0", 3), ("lite0", 4)])
def test_unlike_places_of_a_picture_have_unlike_features(backbone: str, levels: int) -> None:
    torch.manual_seed(0)
    maps = Pyramid(backbone, "group", 32, levels)(clip(1, 64)[0], (64, 96))
    assert [m.shape[2] for m in maps] == [24, 12, 6, 3][:levels]
    for m in maps:
        cells = m.flatten(0, 2)
        assert (cells @ cells.T).mean().abs() < 0.05  # 0.6 without centring: whatever is compared, it looks alike


@pytest.mark.parametrize("backbone", ["resnet18", "lite0"])
def test_a_plain_frame_has_no_features_and_harmless_gradients(backbone: str) -> None:
    torch.manual_seed(0)
    pyramid = Pyramid(backbone, "group", 32, 3)
    video = torch.full((1, 4, 64, 64, 3), 117.0)
    model = network(replace(SMALL, backbone=backbone)).train()
    model(video, QUERIES * 0.8).windows[0].xy.sum().backward()
    sizes = [p.grad.norm().item() for p in model.parameters() if p.grad is not None]
    reference = network(replace(SMALL, backbone=backbone)).train()
    reference(clip(4), QUERIES).windows[0].xy.sum().backward()
    usual = [p.grad.norm().item() for p in reference.parameters() if p.grad is not None]
    assert max(sizes) < 10 * max(usual)
    assert all(m.norm(dim=-1).max() <= 1 + 1e-5 for m in pyramid(video[0], (64, 64)))


def test_features_are_unit_vectors_at_four_strides() -> None:
    torch.manual_seed(0)
    maps = Pyramid("resnet18", "group", 32)(clip(1, 64)[0], (64, 96))
    assert [tuple(m.shape) for m in maps] == [(1, 16, 24, 32), (1, 8, 12, 32), (1, 4, 6, 32), (1, 2, 3, 32)]
    for m in maps:
        torch.testing.assert_close(m.norm(dim=-1), torch.ones(m.shape[:-1]))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints" / "resnet18-f37072fd.pth"


def test_imagenet_weights_fill_the_backbone_and_reproduce_its_features(hub: Path) -> None:
    torch.manual_seed(1)
    reference = resnet18()
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    torch.save(reference.state_dict(), hub)
    pyramid = Pyramid("resnet18", "frozen", 32)
    pyramid.load_imagenet()
    encoder = pyramid.encoder
    reference.eval()
    x = torch.randn(1, 3, 32, 32)
    wanted = reference.layer2(reference.layer1(reference.maxpool(reference.relu(reference.bn1(reference.conv1(x))))))
    torch.testing.assert_close(encoder.stages[1](encoder.stages[0](encoder.stem(x))), wanted, rtol=1e-4, atol=1e-5)


def test_without_network_the_error_says_which_file_belongs_where(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(CheckpointError, match=r"resnet18-f37072fd\.pth") as error:
        Pyramid("resnet18", "frozen", 32).load_imagenet()
    assert str(hub) in str(error.value)
    assert "--no-pretrained" in str(error.value)


def test_damaged_cached_weights_are_named(hub: Path) -> None:
    hub.write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="damaged"):
        Pyramid("resnet18", "frozen", 32).load_imagenet()


def test_other_cached_weights_do_not_fit(hub: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.9.conv1.weight": torch.zeros(1)}, hub)
    with pytest.raises(CheckpointError, match="do not fit"):
        Pyramid("resnet18", "frozen", 32).load_imagenet()


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "resnet19"}, {"norm": "none"}, {"input_size": (60, 64)}, {"dim": 40}, {"dropout": 1.0},
        {"levels": 5}, {"window": 1}, {"layers": 0}, {"radius": 0}, {"iterations": 0},
    ],
)  # fmt: skip
def test_wrong_configurations_are_refused(change: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(SMALL, **change)

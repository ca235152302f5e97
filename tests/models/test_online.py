"""The online model's own properties, on a small ResNet-based one."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from ptrack.errors import ConfigError, ModelError
from ptrack.models.backbones.imagenet import normalised
from ptrack.models.base import OnlineModel
from ptrack.models.layers import deformable, dropout, linear, winograd
from ptrack.models.layers.attention import AttentionBlock
from ptrack.models.online import model as module
from ptrack.models.online import state as state_module
from ptrack.models.online.config import OnlineConfig
from ptrack.models.online.heads import _add_doubled, best_cell, best_cells, correlation_volume
from ptrack.models.online.model import TrackOn2
from ptrack.models.online.preprocess import prepare
from ptrack.models.online.state import OnlineState

SMALL = OnlineConfig(backbone="resnet18", input_size=(64, 96), dim=64, hidden=96, memory=4, candidates=6)
CLOSE = {"atol": 2e-4, "rtol": 1e-4}


def _model(config: OnlineConfig = SMALL, **options) -> TrackOn2:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TrackOn2(config, **options).eval()
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name.endswith("sampling_offsets.weight") or "attention_weights" in name:
                    p.normal_(0, 0.1)
                if "embedding" in name:
                    p.normal_(0, 0.3)
    return model


def _video(t: int = 6, h: int = 70, w: int = 90) -> torch.Tensor:
    return torch.randint(0, 256, (t, h, w, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


XY = torch.tensor([[10.0, 20.0], [80.0, 60.0], [45.5, 33.0], [0.0, 0.0], [90.0, 70.0]])
STARTS = torch.tensor([0, 0, 2, 1, 3])


def _stream(model: TrackOn2, video: torch.Tensor, xy=XY, starts=STARTS, batch: int = 1, order=None):
    """Positions (T, N, 2) and visibility; NaN before a point's start."""
    order = list(range(len(xy))) if order is None else order
    features = [f for i in range(0, len(video), batch) for f in model.encode(video[i : i + batch])]
    state, rows = model.init_state(), []
    out = torch.full((len(video), len(xy), 3), float("nan"))
    for t, frame in enumerate(features):
        new = [i for i in order if starts[i] == t]
        if new:
            state = model.add(state, frame, xy[new])
            rows += new
        if rows:
            state, output = model.step(state, frame)
            out[t, rows] = torch.cat([output.xy, output.visibility[:, None]], dim=1)
    return out


def test_is_an_online_model() -> None:
    assert isinstance(_model(), OnlineModel)


@pytest.mark.parametrize("memory", [2, 4, 9])
def test_batched_encoding_and_the_order_of_queries_change_nothing(memory: int) -> None:
    model, video = _model(), _video()
    model.set_memory(memory)
    reference = _stream(model, video)
    assert torch.isnan(reference[0, 2]).all()
    assert torch.isfinite(reference[-1]).all()
    for found in (_stream(model, video, batch=3), _stream(model, video, order=[4, 2, 0, 3, 1])):
        torch.testing.assert_close(found, reference, equal_nan=True, **CLOSE)


def test_masked_slots_kept_or_dropped_change_nothing() -> None:
    model, video = _model(), _video()
    model.set_memory(9)
    reference = _stream(model, video)
    window = OnlineState.window
    try:
        OnlineState.window = lambda self, *, whole=False: window(self, whole=True)
        found = _stream(model, video)
    finally:
        OnlineState.window = window
    torch.testing.assert_close(found, reference, equal_nan=True, **CLOSE)


@pytest.mark.parametrize("memory", [3, 8])
def test_clips_in_a_batch_equal_streaming(memory: int) -> None:
    model = _model()
    model.set_memory(memory)
    videos = torch.stack([_video(), _video().flip(0)])
    queries = torch.cat([STARTS[:, None].float(), XY], dim=1)
    batch = torch.stack([queries, queries.flip(0)])
    kept = batch.clone()
    with torch.no_grad():
        outputs = list(model.unroll(videos, batch))
    assert torch.equal(batch, kept)
    scale = torch.tensor([90 / 96, 70 / 64])
    for b, starts in enumerate((STARTS, STARTS.flip(0))):
        reference = _stream(model, videos[b], batch[b, :, 1:], starts)
        active = torch.stack([o.active[b] for o in outputs])
        assert torch.equal(active, ~torch.isnan(reference[..., 0]))
        found = torch.stack([o.xy[b] for o in outputs]) * scale
        torch.testing.assert_close(found[active], reference[..., :2][active], **CLOSE)


def test_whole_buffers_and_failing_compilers_change_nothing() -> None:
    model, video = _model(), _video()
    reference = _stream(model, video)
    torch.testing.assert_close(
        _stream(_model().compile_steps(backend="eager"), video), reference, equal_nan=True, **CLOSE
    )

    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    with pytest.warns(UserWarning, match="runs uncompiled"):
        found = _stream(_model().compile_steps(backend=broken), video)
    torch.testing.assert_close(found, reference, equal_nan=True, **CLOSE)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "lite0", "dinov2_s"])
def test_folding_changes_nothing(backbone: str) -> None:
    config = dataclasses.replace(SMALL, backbone=backbone)
    model = _model(config)
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.running_mean.normal_(0, 0.1)
                m.running_var.uniform_(0.5, 1.5)
    video = _video(2)
    before = model.encode(video)
    kept = [(f.fused.clone(), f.tokens.clone()) for f in before]
    assert model.fold() is model
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    for f, (fused, tokens) in zip(model.encode(video), kept, strict=True):
        torch.testing.assert_close(f.tokens, tokens, atol=1e-5 * float(tokens.abs().max()), rtol=0)
        torch.testing.assert_close(f.fused, fused, atol=1e-4 * float(fused.abs().max()), rtol=0)


def test_folding_lays_out_weights_and_moving_the_model_drops_its_joined_ones() -> None:
    model, features = _model(), torch.randn(1, 9, SMALL.dim)
    block = model.reranking_head.local_decoder[0]
    plain = [*model.feature_attention[0].mha.project(features, 1, 3), *block.mha._plan(features[:, :, None])]
    assert model.projection1.weight not in linear._packed
    model.fold()
    with torch.no_grad():
        packed = [*model.feature_attention[0].mha.project(features, 1, 3), *block.mha._plan(features[:, :, None])]
    for a, b in zip(plain, packed, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
    if linear._LAY_OUT is not None:
        assert model.projection1.weight in linear._packed
    assert model.feature_attention[0].mha._parts
    assert block.mha._planning is not None
    model.double()
    assert not model.feature_attention[0].mha._parts
    assert block.mha._planning is None


def test_sampling_tokens_and_projecting_the_sum_equals_sampling_projected_values() -> None:
    shapes, generator = ((4, 6), (2, 3)), torch.Generator().manual_seed(0)
    module = deformable.DeformableAttention(16, 2, levels=2)
    torch.nn.init.normal_(module.value_proj.bias)
    tokens = torch.randn(2, 30, 16, generator=generator)
    x, y, weight = (torch.randn(2, 5, 2, 2, 4, generator=generator) * 3 for _ in range(3))  # some outside of the maps
    with torch.no_grad():
        values = module.values(tokens)
        sampled = deformable.sample_tokens(tokens, module.value_proj, shapes, x, y, weight)
        torch.testing.assert_close(sampled, deformable.sample_bags(values, shapes, x, y, weight), **CLOSE)
        assert module.few(10, tokens) is False
        assert module.few(2, tokens) is True


@pytest.mark.parametrize("bias", [None, torch.randn(5)])
def test_a_sum_inside_the_product_equals_the_sum_after_it(bias: torch.Tensor | None) -> None:
    weight, x, other = torch.randn(5, 8), torch.randn(2, 3, 8), torch.randn(2, 3, 5)
    expected = other + torch.nn.functional.linear(x, weight, bias)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(linear.linear_add(x, weight, bias, other), expected, **CLOSE)


@pytest.mark.parametrize("largest", [5.0, 59.0, 61.0, 500.0])  # without and with a maximum taken off
def test_softmax_of_few_entries_equals_the_plain_one(largest: float) -> None:
    logits = torch.randn(3, 2, 24, generator=torch.Generator().manual_seed(0))
    logits *= largest / logits.abs().max()
    with torch.no_grad():
        found = deformable._softmax(logits, 6)
    torch.testing.assert_close(found, logits.unflatten(-1, (6, 4)).softmax(-1).flatten(-2), rtol=1e-5, atol=1e-37)


def test_a_residual_added_in_the_product_equals_one_added_after_it() -> None:
    block = AttentionBlock(16, 2, 32).eval()
    q, k = torch.randn(3, 4, 16), torch.randn(3, 5, 16)
    some = torch.tensor([[False] * 5, [True, False, True, True, False], [True] * 5])
    with torch.no_grad():
        for ignore in (None, some):
            heads = (*block.mha.project(q, 0, 1), *block.mha.project(k, 1, 3))
            expected = block.finish(q, block.mha.attend(*heads, ignore))
            torch.testing.assert_close(block(q, k, k, ignore), expected, **CLOSE)


def test_coarse_maps_are_added_to_the_finest_as_after_resizing() -> None:
    shapes, generator = ((8, 12), (4, 6), (2, 3)), torch.Generator().manual_seed(0)
    levels = [torch.randn(2, h * w, 8, generator=generator) for h, w in shapes]
    weight = torch.tensor([1.0, 2.0, -0.5], requires_grad=True)
    expected = correlation_volume(levels, shapes, weight)
    with torch.no_grad():
        torch.testing.assert_close(correlation_volume(levels, shapes, weight), expected, **CLOSE)
    fine, coarse = (torch.randn(2, 8, *s).to(memory_format=torch.channels_last) for s in shapes[:2])
    doubled = _add_doubled(fine, coarse)
    assert torch.equal(doubled, fine + torch.nn.functional.interpolate(coarse, scale_factor=2))
    assert doubled.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("clips", [1, 3])
def test_dropout_by_clip_divides_no_tensor_that_has_a_gradient(clips: int) -> None:
    q, k, v = (torch.randn(6, 2, 4, 8, requires_grad=True) for _ in range(3))
    seen, each = torch.tensor([True, False, True, True]).repeat(6, 1, 1, 1), 6 // clips

    def draw(rows: slice, numbers: Sequence[int], mask: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)
        with dropout.by_clip(numbers):
            y = dropout.attend(q[rows], k[rows], v[rows], mask, 0.3)
            return dropout.dropout(y, 0.3, True) * dropout.chosen(y.shape, 0.5, y.device)

    for mask in (seen, seen[:1]):
        parts = [slice(i * each, (i + 1) * each) for i in range(clips)]
        single = [draw(p, [i], mask if len(mask) == 1 else mask[p]) for i, p in enumerate(parts)]
        torch.testing.assert_close(draw(slice(None), range(clips), mask), torch.cat(single), rtol=0, atol=0)
    with dropout.by_clip(range(clips)):
        y = dropout.dropout(dropout.attend(q, k, v, seen, 0.3), 0.3, True)
    assert not [name for name in _graph(y.grad_fn) if name.startswith(("Slice", "Split", "Cat"))]


def test_dropout_by_clip_of_one_clip_drops_as_much_and_scales_as_torch_does() -> None:
    q, k = torch.randn(2, 2, 50, 8), torch.randn(2, 2, 60, 8)
    seen = torch.arange(60) < 45
    v = torch.eye(60).expand(2, 2, -1, -1)  # the result is the weights
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[None])
    with dropout.by_clip([3]):
        found = dropout.attend(q, k, v, seen[None, None, None], 0.25)
        marks = dropout.chosen((100, 100), 0.25, q.device)
    kept = found != 0
    torch.testing.assert_close(found[kept], (whole / 0.75)[kept])
    assert not kept[..., 45:].any()
    assert kept[..., :45].float().mean() == pytest.approx(0.75, abs=0.03)
    assert marks.float().mean() == pytest.approx(0.25, abs=0.03)


def _graph(node: Any) -> set[str]:
    """The names of all steps of a backward pass."""
    return {node.name(), *(name for before, _ in node.next_functions if before for name in _graph(before))}


@pytest.mark.parametrize("rows", [1, 4])
def test_winograd_in_parts_equals_the_convolution(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "ROWS", rows)
    conv, x = torch.nn.Conv2d(64, 65, 3, 1, 1), torch.randn(2, 64, 12, 8)
    with torch.no_grad():
        torch.testing.assert_close(winograd.WinogradConv(conv)(x), conv(x), **CLOSE)


def test_many_points_in_chunks_equal_few(monkeypatch: pytest.MonkeyPatch) -> None:
    model, video = _model(), _video(3)
    xy = torch.rand(50, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor([90.0, 70.0])
    starts = torch.zeros(50, dtype=torch.long)
    reference = _stream(model, video, xy, starts)
    monkeypatch.setattr(module, "MEMORY_ROWS", 7)
    monkeypatch.setattr(module, "LOCATE_ROWS", 11)
    torch.testing.assert_close(_stream(model, video, xy, starts), reference, **CLOSE)


def test_points_leave_and_the_others_go_on_as_a_set() -> None:
    model, video = _model(), _video()
    a = b = None
    for t, f in enumerate(model.encode(video)):
        if t == 0:
            a = model.add(model.init_state(), f, XY)
            b = model.add(model.init_state(), f, XY[[3, 1]])
        if t == 1:  # both see the same set from here on, with the same past
            a = model.keep(a, torch.tensor([3, 1]))
            past = {x: getattr(b, x).clone() for x in ("slots", "init", "filled", "projected")}
            a = dataclasses.replace(a, **past)
        a, x = model.step(a, f)
        b, y = model.step(b, f)
        if t >= 1:
            torch.testing.assert_close(x.xy, y.xy)
    assert a.count == b.count == 2
    a = model.keep(a, torch.tensor([], dtype=torch.long))
    assert a.count == 0
    a = model.add(a, f, XY[:1])
    assert model.step(a, f)[1].xy.shape == (1, 2)


def test_state_grows_by_doubling_and_can_be_cloned() -> None:
    state = OnlineState.empty(3, 8, torch.device("cpu"))
    sizes = []
    with torch.inference_mode():
        for i in range(40):
            state = state.add(torch.full((1, 1, 8), float(i)))
            sizes.append(state.capacity)
        copy = state.clone()
        state = state.remember(torch.ones(1, 40, 8))
    assert sorted(set(sizes)) == [16, 32, 64]
    assert torch.equal(state.init[0, :40, 0], torch.arange(40.0))
    assert (copy.slots == 0).all()
    assert (state.slots[0, :40, 0] == 1).all()
    assert (state.cursor, copy.cursor) == (1, 0)


@pytest.mark.parametrize(("memory", "rows"), [(2, 32), (5, 2), (9, 3)])  # full and not, in one part and in several
def test_kept_projections_change_nothing(memory: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, video = _model().eval(), _video()
    model.set_memory(memory)
    monkeypatch.setattr(module, "MEMORY_ROWS", rows)
    with torch.no_grad():
        for block in model.memory_attention:
            torch.nn.init.normal_(block.mha.in_proj_bias)
    kept = _stream(model, video)
    monkeypatch.setattr(state_module, "PROJECTED", 0)
    torch.testing.assert_close(kept, _stream(model, video), equal_nan=True, **CLOSE)


def test_projections_follow_their_points_and_end_with_the_rows_they_are_kept_for() -> None:
    model, video = _model().eval(), _video()
    frames = model.encode(video)

    def follows(state: OnlineState) -> None:
        assert state.projected is not None
        expected = model.memory_attention[0].mha.project_only(state.slots)
        torch.testing.assert_close(state.projected[:, : state.count], expected[:, : state.count], **CLOSE)

    with torch.inference_mode():
        state = model.add(model.init_state(), frames[0], XY)
        for frame in frames[:4]:
            state = model.step(state, frame)[0]
            follows(state)
        follows(state.repeat_newest().clone())
        copy, state = state.clone(), model.keep(state, torch.tensor([3, 1]))
        follows(model.step(model.add(state, frames[4], XY.repeat(5, 1)), frames[4])[0])
        follows(copy)
        assert copy.add(torch.zeros(1, state_module.PROJECTED, copy.init.shape[2])).projected is None
        assert copy.remember(torch.zeros(1, copy.count, copy.init.shape[2])).projected is None
    assert _model().train().init_state().projected is None


def test_gradients_reach_every_trained_parameter_and_recomputing_changes_none() -> None:
    queries = torch.cat([STARTS[:, None].float(), XY], dim=1)[None]
    grads = []
    for again in (False, True):
        model = _model(dataclasses.replace(SMALL, dropout=0.0, memory_mask=0.0), checkpoint=again).train()
        for m in model.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.eval()

        def loss(t, o):
            parts = [o.c1, o.c2, o.offsets, o.visibility_logit, o.uncertainty_logit, o.candidate_uncertainty]
            return sum((p * p).mean() for p in [*parts, o.candidate_score]) * (t + 1)

        sum(model(_video(5)[None], queries, loss, checkpoint=again)).backward()
        missing = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []
        grads.append({k: p.grad for k, p in model.named_parameters()})
    for key, grad in grads[0].items():
        torch.testing.assert_close(grads[1][key], grad, rtol=1e-3, atol=1e-4 * float(grad.abs().max() + 1e-6), msg=key)


def test_training_hides_memory_at_random() -> None:
    model = _model(dataclasses.replace(SMALL, dropout=0.0, memory_mask=0.5)).train()
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.eval()
    queries = torch.cat([torch.zeros(5, 1), XY], dim=1)[None]
    with torch.no_grad():
        a, b = (torch.stack([o.query for o in model.unroll(_video()[None], queries)]) for _ in range(2))
    assert torch.equal(a[0], b[0])  # nothing to hide on the first frame
    assert not torch.allclose(a[-1], b[-1])


def test_half_precision_keeps_positions_in_float32() -> None:
    model, video = _model(), _video(3)
    model.set_dtype(torch.bfloat16)
    out = _stream(model, video)
    assert out.dtype == torch.float32
    assert torch.isfinite(out[-1, :2]).all()
    frame = model.encode(video[:1])[0]
    assert frame.volume.dtype == torch.float32


@pytest.mark.parametrize("backbone", ["resnet18", "dinov2_s"])
def test_a_folded_model_computes_in_bfloat16_on_a_cpu_too(backbone: str) -> None:
    video = _video(2)
    maps = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = _model(dataclasses.replace(SMALL, backbone=backbone))
        model.set_dtype(dtype)
        maps[dtype] = model.fold().encode(video[:1])[0]
        assert torch.isfinite(_stream(model, video)[-1, :2]).all()
    exact, half = maps[torch.float32], maps[torch.bfloat16]
    for a, b in ((exact.tokens, half.tokens), (exact.fused, half.fused)):
        error = (a - b.float()).abs().max() / a.abs().max()
        assert 1e-4 < error < 0.05  # of the largest value: float32 differs by 1e-6


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (4320, 7680)])
def test_any_frame_size(size: tuple[int, int]) -> None:
    model, frame = _model(), torch.full((1, *size, 3), 90, dtype=torch.uint8)
    features = model.encode(frame)[0]
    corners = torch.tensor([[0.0, 0.0], [size[1], size[0]], [size[1] / 2, 0]])
    _, out = model.step(model.add(model.init_state(), features, corners), features)
    assert torch.isfinite(out.xy).all()
    assert (out.visibility >= 0).all()


def test_prepare_equals_interpolate() -> None:
    for h, w in ((70, 90), (200, 310), (64, 96), (9, 5)):
        frames = _video(2, h, w)
        plain = torch.nn.functional.interpolate(frames.permute(0, 3, 1, 2) / 255, size=(64, 96), mode="bilinear")
        mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        found = normalised(prepare(frames, (64, 96)))
        torch.testing.assert_close(found, (plain - mean) / std, atol=1e-5, rtol=0)
    with pytest.raises(ModelError, match=r"\(B, H, W, 3\)"):
        prepare(torch.zeros(1, 3, 8, 8), (64, 96))


def test_best_cells_equal_one_long_search() -> None:
    scores = torch.randn(3, 7, 1536, generator=torch.Generator().manual_seed(3))
    scores[0, 0, 5] = scores[0, 0, 900] = 9.0
    values, cells = best_cells(scores, 16)
    wanted = scores.topk(16)
    assert torch.equal(values, wanted.values)
    assert torch.equal(scores.gather(-1, cells), wanted.values)
    assert torch.equal(best_cell(scores), scores.argmax(-1))
    assert best_cell(scores)[0, 0] == 5  # the first on ties
    assert torch.equal(best_cells(scores[..., :20], 18)[0], scores[..., :20].topk(18).values)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"backbone": "dinov2"}, "no backbone"),
        ({"dim": 100}, "multiple of 32"),
        ({"dim": 96, "heads": 7}, "multiple of heads"),
        ({"strides": (4, 16)}, "neighbours"),
        ({"strides": ()}, "neighbours"),
        ({"input_size": (64, 100)}, "multiples of 32"),
        ({"memory": 0}, "at least 1"),
        ({"dropout": 1.0}, "below 1"),
        ({"delta_v": 1.5}, "0..1"),
        ({"vit_upsample": 9.0}, "vit_upsample"),
        ({"candidates": 10_000}, "exceed"),
    ],
)
def test_configuration_is_checked(change: dict, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        dataclasses.replace(SMALL, **change)


@pytest.mark.parametrize("strides", [(4, 8, 16), (8, 16, 32), (8, 16), (16,)])
def test_other_strides(strides: tuple[int, ...]) -> None:
    for backbone in ("resnet18", "lite0"):
        model = _model(dataclasses.replace(SMALL, backbone=backbone, strides=strides, candidates=4))
        assert torch.isfinite(_stream(model, _video(4))[-1]).all()


def test_a_vit_has_its_own_strides() -> None:
    with pytest.raises(ConfigError, match="4, 8, 16, 32"):
        TrackOn2(dataclasses.replace(SMALL, backbone="dinov2_s", strides=(8, 16, 32)))


def test_wrong_use_is_refused() -> None:
    model = _model()
    with pytest.raises(ModelError, match="at least 1 frame"):
        model.set_memory(0)
    with pytest.raises(ModelError, match="clip batch"):
        list(model.unroll(_video(), XY[None]))


def test_no_warnings_in_plain_use() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _stream(_model(), _video(2), XY[:2], STARTS[:2])

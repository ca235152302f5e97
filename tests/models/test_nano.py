import dataclasses
import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._pytree import tree_flatten, tree_unflatten

import ptrack
from ptrack.config import to_mapping
from ptrack.errors import CheckpointError, ConfigError, ModelError
from ptrack.models import saved
from ptrack.models.backbones.lite0 import FUSED, packaged_weights
from ptrack.models.base import OnlineModel
from ptrack.models.layers import windows
from ptrack.models.layers.windows import bilinear_window, bordered, patch_ncc, patch_scores, peak, soft_argmax, window
from ptrack.models.nano import motion, weights
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.judgement import Verdict, visible_probability
from ptrack.models.nano.matcher import PatchMatcher
from ptrack.models.nano.matching import MATCHING
from ptrack.models.nano.model import Nano
from ptrack.models.nano.motion import PictureMotion
from ptrack.models.nano.refinement import Refiner, RefinerInputs
from ptrack.models.nano.search import Search, Steer
from ptrack.models.nano.state import FIRST, LAST, NanoState
from tests.fakes import moving_frames

SIZE = (96, 128)
SMALL = NanoConfig(input_size=SIZE, dim=32, hidden=32, token=16, memory=4, tune=True)


def scrambled(config: NanoConfig = SMALL) -> Nano:
    """A network whose learned parts say something, as after training."""
    torch.manual_seed(0)
    model = weights.untrained(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not name.startswith(("backbone", "projection")):
                value.add_(0.05 * torch.randn_like(value))
    return model.eval()


@pytest.fixture(scope="module")
def frames():
    return moving_frames(10, SIZE)


@pytest.fixture(scope="module")
def queries():
    rng = np.random.default_rng(0)
    xy = rng.uniform([20, 20], [100, 80], (12, 2)).round(2)
    return np.concatenate([np.r_[[0] * 8, [2] * 4][:, None], xy], axis=1)


def test_it_is_an_online_model():
    model = scrambled()
    assert isinstance(model, OnlineModel)
    feature = model.encode(torch.zeros(1, 48, 64, 3, dtype=torch.uint8))[0]
    assert feature.map.shape == (1, 24 + 2 * 17, 32 + 2 * 17, 32)
    assert feature.cells == (24, 32)
    assert feature.border == 17
    assert feature.fine.shape == (1, 48, 64, 16)


def test_untrained_the_learned_parts_change_nothing(frames, queries):
    """With its projection, refinement and memory, but before training, nano gives what ``matching`` gives."""
    plain = dataclasses.replace(MATCHING, input_size=SIZE)
    whole = dataclasses.replace(plain, project=True, iterations=2, memory=4, token=16, hidden=32)
    models = Nano(plain, packaged_weights()), Nano(whole, packaged_weights(), torch.eye(plain.dim))
    ours, theirs = (ptrack.Tracker(m.eval()).track(frames, queries) for m in models)
    np.testing.assert_allclose(ours.tracks, theirs.tracks, atol=1e-3)
    np.testing.assert_allclose(ours.visibility, theirs.visibility, atol=1e-3)
    np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-3)


def test_what_the_refiner_sees_is_as_wide_as_its_parts(frames, queries, monkeypatch):
    seen = []
    joined = RefinerInputs.joined
    monkeypatch.setattr(RefinerInputs, "joined", lambda self: seen.append(self) or joined(self))
    model = scrambled()
    ptrack.Tracker(model).track(frames[:2], queries[:4])
    assert len(seen) == 2 * SMALL.iterations
    widths = RefinerInputs.widths(SMALL)
    for inputs in seen:
        assert {f.name: getattr(inputs, f.name).shape[1] for f in dataclasses.fields(inputs)} == widths
    assert model.refiner.enter.in_features == sum(widths.values())


def test_the_learned_parts_matter(frames, queries):
    plain, moved = (ptrack.Tracker(m).track(frames, queries) for m in (weights.untrained(SMALL).eval(), scrambled()))
    assert np.nanmax(np.abs(plain.tracks - moved.tracks)) > 0.1
    assert np.nanmax(np.abs(plain.visibility - moved.visibility)) > 0.01


def test_streaming_equals_whole_clips(frames, queries):
    model = scrambled()
    streamed = ptrack.Tracker(model).track(frames, queries)
    video = torch.stack([torch.from_numpy(np.asarray(f)) for f in frames])
    pair = torch.stack([video, video.flip(2)])  # another clip beside it changes nothing
    rows = torch.from_numpy(queries).float()
    mirrored = torch.stack([rows[:, 0], SIZE[1] - rows[:, 1], rows[:, 2]], dim=1)
    with torch.inference_mode():
        out = model(pair, torch.stack([rows, mirrored]), lambda t, o: (o.shown, o.visible))
    n = len(queries)
    xy = torch.stack([model._to_pixels(o[0][:n], SIZE) for o in out]).numpy()
    visibility = torch.stack([o[1][:n] for o in out]).numpy()
    after = np.arange(len(frames))[:, None] > queries[:, 0]
    np.testing.assert_allclose(xy[after], streamed.tracks[after], atol=1e-3)
    np.testing.assert_allclose(visibility[after], streamed.visibility[after], atol=1e-4)


def test_order_company_and_threads_do_not_matter(frames, queries):
    tracker = ptrack.Tracker(scrambled())
    whole = tracker.track(frames, queries)
    order = np.random.default_rng(1).permutation(len(queries))
    mixed = tracker.track(frames, queries[order])
    np.testing.assert_allclose(mixed.tracks, whole.tracks[:, order], atol=1e-3)
    alone = tracker.track(frames, queries[3:4])
    np.testing.assert_allclose(alone.tracks[:, 0], whole.tracks[:, 3], atol=1e-3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        other = tracker.track(frames, queries)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(other.tracks, whole.tracks, atol=1e-3)


@pytest.mark.skipif(not FUSED, reason="this build of PyTorch has no oneDNN, whose products have one order")
def test_one_and_two_threads_add_up_in_one_order():
    torch.manual_seed(0)
    refiner, before = Refiner(NanoConfig()), torch.get_num_threads()
    seen = torch.randn(128, refiner.enter.in_features)
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                found.append(refiner(seen))
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-7)


def test_points_come_and_go(frames, queries):
    model = scrambled()
    whole = ptrack.Tracker(model).track(frames, queries[:4])
    state = model.init_state()
    features = [model.encode(torch.from_numpy(np.asarray(f))[None])[0] for f in frames]
    with torch.inference_mode():
        state = model.add(state, features[0], torch.tensor([[5.0, 5.0], *queries[:2, 1:].tolist()]))
        state, _ = model.step(state, features[0])
        state, _ = model.step(state, features[1])
        state = model.keep(state, torch.tensor([2, 1]))
        for t in range(2, 6):
            state, out = model.step(state, features[t])
    np.testing.assert_allclose(out.xy.numpy(), whole.tracks[5, [1, 0]], atol=1e-3)


def test_it_tracks_without_a_memory(frames, queries):
    found = ptrack.Tracker(scrambled(dataclasses.replace(SMALL, memory=0))).track(frames, queries[:4])
    assert np.isfinite(found.tracks).all()
    assert np.isfinite(found.visibility).all()


def test_no_points_is_fine(frames):
    model = scrambled()
    state = model.init_state()
    with torch.inference_mode():
        state, out = model.step(state, model.encode(torch.from_numpy(np.asarray(frames[0]))[None])[0])
    assert out.xy.shape == (0, 2)
    assert out.visibility.shape == (0,)


# ---- search and renewal ------------------------------------------------------------------------------------------


def test_steering_begins_neutral_and_its_prior_levels_off():
    steer = Steer(16, 9)
    found = steer(torch.randn(3, 16), torch.randn(3, 9), torch.randn(3, 1), torch.randn(3, 1))
    assert found.share.tolist() == [[0.5]] * 3
    assert found.gain.tolist() == [[1.0] * 9] * 3
    assert (found.sharpness.tolist(), found.strength.tolist()) == ([1.0] * 3, [0.0] * 3)
    assert found.lead.tolist() == [[0.5]] * 3
    costs = steer.prior(torch.tensor([0.0, Steer.REACH**2, 1e6]))
    torch.testing.assert_close(costs, torch.tensor([0.0, -Steer.PRIOR / 2, -Steer.PRIOR]), rtol=1e-4, atol=1e-4)


def test_the_steered_search_is_the_prior_added_to_the_scores_of_the_mixed_template(frames):
    model = scrambled(dataclasses.replace(SMALL, tune=False))
    with torch.no_grad():
        model.steer.out.weight.normal_(0, 0.3)
        model.steer.out.bias.normal_(0, 0.3)
        state, now = model.init_state(), model.encode(torch.from_numpy(np.asarray(frames[0]))[None])[0]
        points = model.add(state, now, torch.tensor([[50.0, 40.0], [90.0, 60.0]])).points
        first = points.templates.coarse[:, FIRST]
        last = torch.nn.functional.normalize(torch.randn_like(first), dim=-1)
        both = dataclasses.replace(points.templates, coarse=torch.stack([first, last], dim=1))
        points = dataclasses.replace(points, templates=both, velocity=torch.tensor([[1.0, -2.0], [0.5, 0.0]]))
        search = Search(SMALL, model.matcher, model.steer, now, torch.zeros(2, dtype=torch.long))
        found = search.find(points, points.xy, points.anchor)
        speed = points.velocity.norm(dim=1)[:, None] / 4
        steering = model.steer(points.token, (first * last).sum(-1), speed, torch.zeros(2, 1))
    n, dy, dx = 1, 3, 6  # one cell of one point's window, by hand
    x, y = int(found.origin[n, 0]) + dx, int(found.origin[n, 1]) + dy
    gained = model.matcher.weights * steering.gain[n]
    mixed = steering.share[n] * first[n] + (1 - steering.share[n]) * last[n]
    patch = now.map[0, now.border :, now.border :][y - 1 : y + 2, x - 1 : x + 2].reshape(9, -1)
    score = (gained / gained.sum() * (mixed * patch).sum(-1)).sum() * steering.sharpness[n] / SMALL.temperature
    away = torch.tensor([x, y]) - points.xy[n] - steering.lead[n] * points.velocity[n]
    expected = score + steering.strength[n] * model.steer.prior(away.square().sum())
    torch.testing.assert_close(found.logits[n, dy, dx], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("visible", "confident", "renewed"), [(3.0, 3.0, True), (3.0, 0.5, False), (-0.1, 3.0, False)])
def test_the_last_template_is_renewed_where_the_network_is_sure(frames, visible, confident, renewed):
    model = scrambled()
    with torch.no_grad():
        for part in (model.fit, model.heads.weight):
            part.zero_()
        model.heads.bias.copy_(torch.tensor([visible, confident]))
        one, two = model.encode(torch.from_numpy(np.stack([np.asarray(frames[i]) for i in (0, 5)])))
        state, _ = model.step(model.add(model.init_state(), one, torch.tensor([[50.0, 40.0]])), one)
        after, _ = model.step(state, two)
    old, new = state.points.templates, after.points.templates
    for a, b in ((old.coarse, new.coarse), (old.fine, new.fine)):
        assert torch.equal(a[:, LAST], b[:, LAST]) is not renewed
        assert torch.equal(a[:, FIRST], b[:, FIRST])


def test_a_point_far_outside_is_searched_for_at_the_border(frames):
    model = scrambled()
    with torch.no_grad():
        one = model.encode(torch.from_numpy(np.asarray(frames[0]))[None])[0]
        far = torch.tensor([[-400.0, 40.0], [9000.0, 9000.0], [-1e6, 1e6], [1e9, 40.0], [1e30, -1e30]])
        state = model.add(model.init_state(), one, far)
        for _ in range(3):
            state, out = model.step(state, one)
    for value in (out.xy, out.visibility, out.confidence):
        assert torch.isfinite(value).all()


# ---- points that are not seen --------------------------------------------------------------------------------------


def unseeing(config: NanoConfig = SMALL) -> Nano:
    """A network that calls every point hidden."""
    model = weights.untrained(dataclasses.replace(config, tune=False)).eval()
    with torch.no_grad():
        model.fit.zero_()
        model.heads.bias.copy_(torch.tensor([-3.0, -3.0]))
    return model


def panned(step: tuple[int, int], count: int = 6) -> list[np.ndarray]:
    """Pictures of smooth noise that moves by ``step`` pixels per frame."""
    noise = torch.rand(1, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    world = torch.nn.functional.interpolate(noise, scale_factor=6, mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0)
    world = (255 * world).to(torch.uint8).numpy()
    dx, dy = step
    return [world[70 - dy * t :, 110 - dx * t :][: SIZE[0], : SIZE[1]] for t in range(count)]


def follow(model: Nano, pictures: list[np.ndarray], xy: list[list[float]]) -> list[torch.Tensor]:
    with torch.inference_mode():
        seen = [model.encode(torch.from_numpy(p.copy())[None])[0] for p in pictures]
        state = model.add(model.init_state(), seen[0], torch.tensor(xy))
        found = []
        for features in seen:
            state, out = model.step(state, features)
            found.append(out.xy)
    return found


def test_the_picture_carries_points_that_are_not_seen_even_out_of_it():
    step, start = (8, -4), [[40.0, 60.0], [100.0, 40.0]]
    found = follow(unseeing(), panned(step), start)
    torch.testing.assert_close(found[0], torch.tensor(start), atol=1e-3, rtol=0)  # seen: it was pointed at
    for t in range(1, 6):
        torch.testing.assert_close(found[t], torch.tensor(start) + t * torch.tensor(step), atol=0.4 * t, rtol=0)
    assert found[5][1, 0] > SIZE[1]
    still = follow(unseeing(), [panned(step)[0]] * 3, start)
    torch.testing.assert_close(still[2], torch.tensor(start), atol=0.05, rtol=0)


def test_without_carrying_points_stay_where_they_are_found():
    model = unseeing(dataclasses.replace(SMALL, carry=0))
    pictures = panned((6, -3))
    found = follow(model, pictures, [[110.0, 30.0]])
    assert found[5][0, 0] <= SIZE[1]


def test_a_point_that_is_not_seen_is_searched_for_where_it_was_carried():
    model = unseeing(dataclasses.replace(SMALL, wide_radius=0))
    one, two = (model.encode(torch.from_numpy(p.copy())[None])[0] for p in (panned((12, 0))[i] for i in (0, 1)))
    with torch.inference_mode():
        state = model.add(model.init_state(), one, torch.tensor([[42.0, 42.0]] * 2))
        state, _ = model.track(state, one, torch.zeros(2, dtype=torch.long))
        points = dataclasses.replace(state.points, unseen=torch.tensor([0.0, 1.0]))
        after, out = model.track(NanoState(points, state.previous), two, torch.zeros(2, dtype=torch.long))
    assert (out.origin[1] - out.origin[0]).tolist() == [3, 0]  # 12 px are three cells
    assert after.points.unseen.tolist() == [1.0, 2.0]


def lost_state(model: Nano, features, at: list[float], gone_to: list[float]) -> NanoState:
    """A point that was queried at one place, and that something carried to another since it was last sure."""
    with torch.inference_mode():
        state = model.add(model.init_state(), features, torch.tensor([at]))
        state, _ = model.track(state, features, torch.zeros(1, dtype=torch.long))
        there = model._to_cells(torch.tensor([gone_to]), features.size)
        points = dataclasses.replace(state.points, xy=there, shown=there, doubted=torch.tensor([True]))
        return dataclasses.replace(state, points=points)


@pytest.mark.parametrize(("sure", "comes_back"), [(0.6, True), (0.0, False)])
def test_a_doubted_point_is_searched_for_where_the_picture_carried_it(sure, comes_back):
    model = weights.untrained(dataclasses.replace(SMALL, tune=False, sure=sure, wide_radius=0)).eval()
    features = model.encode(torch.from_numpy(panned((0, 0))[0].copy())[None])[0]
    state = lost_state(model, features, [24.0, 24.0], [100.0, 70.0])
    with torch.inference_mode():
        _, out = model.step(state, features)
    assert bool((out.xy[0] - torch.tensor([24.0, 24.0])).norm() < 5) is comes_back


def test_a_point_that_the_picture_has_left_is_visible_only_if_it_is_right():
    model = weights.untrained(dataclasses.replace(SMALL, tune=False)).eval()
    features = model.encode(torch.from_numpy(panned((0, 0))[0].copy())[None])[0]
    state = lost_state(model, features, [24.0, 24.0], [100.0, 70.0])
    verdict = Verdict(torch.tensor([3.0]), torch.tensor([-0.5]), *torch.tensor([[False], [True], [False]]))
    outside = dataclasses.replace(state.points, anchor=torch.tensor([[-3.0, 5.0]]))

    def probability(points, verdict):
        return float(visible_probability(points, features, verdict, model.config))

    assert probability(state.points, verdict) == pytest.approx(0.953, abs=1e-3)
    assert probability(outside, verdict) == pytest.approx(0.378, abs=1e-3)
    hardly_right = dataclasses.replace(verdict, confidence_logit=torch.tensor([-3.0]))
    assert probability(state.points, hardly_right) == pytest.approx(5.0 * 0.0474, abs=1e-3)


def test_positions_are_aligned_at_the_resolution_of_the_source():
    """The picture moves by a third of a pixel per frame, a fiftieth of a cell, which the map does not resolve."""
    noise = torch.rand(1, 3, 60, 80, generator=torch.Generator().manual_seed(0))
    world = torch.nn.functional.interpolate(noise, scale_factor=12, mode="bicubic").clamp(0, 1)
    pictures = []
    for t in range(4):
        shifted = torch.nn.functional.interpolate(world[..., t : t + 900], scale_factor=1 / 3, mode="area")
        pictures.append((255 * shifted[0, :, :192, :256]).to(torch.uint8).permute(1, 2, 0).numpy())
    start = [[100.0, 90.0], [60.0, 120.0], [180.0, 60.0]]
    wanted = torch.tensor(start) - torch.tensor([1.0, 0.0])
    errors = {}
    for closer in (True, False):
        model = weights.untrained(dataclasses.replace(SMALL, tune=False, closer=closer)).eval()
        errors[closer] = float((follow(model, pictures, start)[-1] - wanted)[:, 0].abs().max())
    assert errors[True] < 0.25
    assert errors[False] > 0.9


def test_frames_in_a_buffer_that_is_used_again_are_tracked_as_any():
    """Cameras fill one array over and over; the alignment compares with the frame before."""
    pictures = panned((2, 1))
    found = []
    for reused in (True, False):
        model = weights.untrained(dataclasses.replace(SMALL, tune=False)).eval()
        tracker, buffer = ptrack.Tracker(model), np.empty(pictures[0].shape, np.uint8)
        tracker.add([[40.0, 60.0], [100.0, 40.0]])
        for picture in pictures:
            buffer[:] = picture
            positions = tracker.step(buffer if reused else picture.copy()).positions
        found.append(positions)
    np.testing.assert_array_equal(*found)


def test_motion_is_that_of_the_nearest_places_that_can_be_trusted():
    place = motion.grid((24, 32), torch.device("cpu"))
    assert place.shape == (motion.SIDE**2, 2)
    assert (place.min(0).values.tolist(), place.max(0).values.tolist()) == ([2.0, 2.0], [29.0, 22.0])
    left = place[:, 0] < 16
    shift = torch.where(left[:, None], torch.tensor([1.0, 0.0]), torch.tensor([0.0, -2.0]))[None]
    clip, xy = torch.zeros(3, dtype=torch.long), torch.tensor([[1.0, 12.0], [31.0, 12.0], [500.0, 12.0]])
    found = PictureMotion(place, shift, torch.ones(1, len(place)), left[None] + 0.0, (24, 32)).near(clip, xy)
    torch.testing.assert_close(found.shift[:2], torch.tensor([[1.0, 0.0], [0.0, -2.0]]), atol=0.05, rtol=0)
    torch.testing.assert_close(found.shift[2], torch.tensor([0.0, -2.0]), atol=0.2, rtol=0)  # the near side most
    torch.testing.assert_close(found.trust[:2], torch.ones(2))
    trust, unique = torch.where(left, 1.0, 0.0)[None], torch.ones(1, len(place))
    found = PictureMotion(place, shift, trust, unique, (24, 32)).near(clip, xy)
    torch.testing.assert_close(found.shift[1], torch.tensor([1.0, 0.0]), atol=0.05, rtol=0)
    assert float(found.trust[1]) < 0.2 < float(found.trust[0])
    assert torch.isfinite(found.shift).all()


def test_what_returns_to_where_it_started_is_trusted():
    trust = motion.trust_of(torch.tensor([1.0, 1.0, 0.5, -0.2]), torch.tensor([0.0, 3.0, 0.0, 0.0]))
    torch.testing.assert_close(trust, torch.tensor([1.0, 0.0, 0.0625, 0.0]), atol=1e-4, rtol=0)


# ---- windows -----------------------------------------------------------------------------------------------------


def test_window_repeats_the_border():
    map = torch.arange(2 * 3 * 4, dtype=torch.float32).view(2, 3, 4, 1)
    cut = window(map, torch.tensor([1]), torch.tensor([[-1, 1]]), 3)[0, ..., 0]
    assert cut.tolist() == [[16, 16, 17], [20, 20, 21], [20, 20, 21]]


def test_bilinear_window_is_linear_and_stays_on_the_map():
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="ij")
    map = torch.stack([x, y], dim=-1)[None]
    centre = torch.tensor([[3.25, 2.5], [100.0, -5.0]])
    cut = bilinear_window(map, torch.zeros(2, dtype=torch.long), centre, 1)
    torch.testing.assert_close(cut[0, :, 1, 1], torch.tensor([1.5, 2.5, 3.5]))
    torch.testing.assert_close(cut[0, 1, :, 0], torch.tensor([2.25, 3.25, 4.25]))
    assert cut[1, 1, 1].tolist() == [7.0, 0.0]


def test_patch_scores_peak_where_the_patch_lies():
    torch.manual_seed(0)
    cells = torch.nn.functional.normalize(torch.randn(1, 9, 9, 16), dim=-1)
    template = cells[:, 3:6, 4:7].reshape(1, 1, 9, 16)
    score = patch_scores(cells, template, torch.full((9,), 1 / 9))[0, 0]
    assert score.shape == (7, 7)
    assert divmod(int(score.argmax()), 7) == (3, 4)
    assert float(score.max()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("radius", [1, 3, 8])
def test_on_a_cpu_windows_are_compared_in_tiles_with_the_same_scores(radius):
    torch.manual_seed(0)
    map, border = torch.randn(2, 11, 14, 5), 9
    count = windows.TILE // (2 * radius + 3) ** 2 + 3  # more than one tile, and the last one not whole
    centre = torch.stack([torch.randint(0, 14, (count,)), torch.randint(0, 11, (count,))], dim=1)
    centre[:2], clip = torch.tensor([[0, 0], [13, 10]]), torch.randint(0, 2, (count,))
    patch, matcher = torch.randn(count, 9, 5), PatchMatcher(1.0, border)
    with torch.no_grad():
        scores = matcher.scores(patch, bordered(map, border), clip, centre, radius)
    cells = window(map, clip, centre - radius - 1, 2 * radius + 3)
    expected = patch_scores(cells, patch[:, None], matcher.weights)[:, 0]
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    with torch.enable_grad():
        assert torch.equal(matcher.scores(patch, bordered(map, border), clip, centre, radius), expected)


def test_a_network_that_diverged_gives_nan_and_no_error(frames):
    model = scrambled()
    with torch.no_grad():
        model.projection.fill_(float("nan"))
    queries = torch.tensor([[0.0, 40.0, 40.0], [0.0, 90.0, 60.0]])
    video = torch.from_numpy(np.stack(frames[:3]))[None].float()
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            out = model(video, queries[None], lambda t, o: o.xy[-1])
        assert out[-1].isnan().all()


def test_patch_ncc_is_the_cosine_of_whole_patches():
    torch.manual_seed(0)
    cells, template = torch.randn(2, 7, 7, 3), torch.randn(2, 2, 3, 3, 3)
    match = patch_ncc(cells, template, 2)
    for n, k, y, x in [(0, 0, 0, 0), (1, 1, 4, 2), (0, 1, 3, 4)]:
        cut = cells[n, y : y + 3, x : x + 3].flatten()
        wanted = torch.cosine_similarity(cut, template[n, k].flatten(), dim=0)
        torch.testing.assert_close(match[n, k, y, x], wanted)


def test_patch_ncc_ignores_gain():
    torch.manual_seed(0)
    cells = torch.randn(1, 9, 9, 3)
    match = patch_ncc(3 * cells, cells[:, None, 2:7, 3:8], 2)[0, 0]
    assert match.shape == (5, 5)
    assert divmod(int(match.argmax()), 5) == (2, 3)
    assert float(match.max()) == pytest.approx(1, abs=1e-5)


def test_peak_of_a_parabola_between_cells():
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(7.0), indexing="ij")
    scores = torch.stack([1 - (x - 2.3) ** 2 - 2 * (y - 4.4) ** 2, -(x + y)])
    scores[1, :, 1] = float("-inf")
    torch.testing.assert_close(peak(scores), torch.tensor([[2.3, 4.4], [0.0, 0.0]]))
    torch.testing.assert_close(peak(torch.zeros(1, 3, 3)), torch.zeros(1, 2))


def test_soft_argmax_between_two_cells():
    logits = torch.full((1, 7, 7), -50.0)
    logits[0, 3, 2] = logits[0, 3, 3] = 5.0
    torch.testing.assert_close(soft_argmax(logits), torch.tensor([[2.5, 3.0]]))


# ---- weights and the zoo -----------------------------------------------------------------------------------------


def test_weights_come_back(tmp_path, frames, queries):
    model = scrambled()
    path = tmp_path / "a.safetensors"
    weights.save_weights(path, model)
    assert not any(k.startswith("backbone") for k in load_file(path))
    config, state = weights.read_weights(path)
    assert config == SMALL
    again = weights.untrained(config).eval()
    weights.fill(again, state, "a")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_a_trained_backbone_comes_back_too(tmp_path):
    model = scrambled()
    with torch.no_grad():
        model.backbone.stem.bias.add_(0.01)
    weights.save_weights(tmp_path / "a.safetensors", model)
    config, state = weights.read_weights(tmp_path / "a.safetensors")
    again = weights.untrained(config)
    weights.fill(again, state, "a")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_features_and_state_are_trees_of_tensors(frames, queries):
    """A step of what was taken apart and put together is the step: what a captured graph does."""
    model = scrambled()
    features = model.encode(torch.from_numpy(np.stack(frames)))
    state = model.add(model.init_state(), features[0], torch.from_numpy(queries[:, 1:]).float())
    with torch.inference_mode():
        for feature in features[:4]:
            leaves, layout = tree_flatten((state, feature))
            assert sum(isinstance(x, torch.Tensor) for x in leaves) == 18 + 2 * (state.previous is not None)
            again = tree_unflatten([x.clone() if isinstance(x, torch.Tensor) else x for x in leaves], layout)
            wanted, (state, out) = model.step(*again), model.step(state, feature)
            for a, b in zip(tree_flatten(wanted[0])[0], tree_flatten(state)[0], strict=True):
                assert torch.equal(a, b)
            assert torch.equal(wanted[1].xy, out.xy)


def test_a_checkpoint_is_loaded_by_name(tmp_path, frames, queries):
    weights.save_weights(tmp_path / "a.safetensors", scrambled())
    tracker = ptrack.load("nano", checkpoint=tmp_path / "a.safetensors", device="cpu", quality="fast")
    assert tracker.model.config.input_size == weights.QUALITIES["fast"].sizes[0]
    assert tracker.track(frames, queries).tracks.shape == (10, 12, 2)


def test_files_that_cannot_be_used(tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        weights.read_weights(broken)
    save_file({"a": torch.zeros(1)}, broken, metadata={"format": "else"})
    with pytest.raises(CheckpointError, match="another model"):
        weights.read_weights(broken)
    with pytest.raises(CheckpointError, match="cannot be read"):
        weights.read_weights(tmp_path / "none.safetensors")
    config = json.dumps({"dim": "many"})
    save_file({"a": torch.zeros(1)}, broken, metadata={"format": weights.FORMAT, "config": config})
    with pytest.raises(CheckpointError, match="configuration"):
        weights.read_weights(broken)
    torch.save({"config": {"model": "online"}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="no training checkpoint of nano"):
        weights.read_weights(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        weights.read_weights(tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="do not fit"):
        weights.fill(weights.untrained(SMALL), {"heads.weight": torch.zeros(1)}, "x")


def test_configurations_written_before_fields_were_renamed_are_read(tmp_path):
    state = {k: v for k, v in scrambled().state_dict().items() if not k.startswith("backbone")}
    old = to_mapping(SMALL)
    old["judged"], old["carry_apart"] = old.pop("learned_renewal"), 2.0
    old.pop("own_motion")
    save_file(state, tmp_path / "a.safetensors", metadata={"format": weights.FORMAT, "config": json.dumps(old)})
    assert weights.read_weights(tmp_path / "a.safetensors")[0] == dataclasses.replace(SMALL, own_motion=2.0)
    torch.save({"format": saved.TRAINING, "config": {"model": "nano", "arch": old}, "model": state}, tmp_path / "a.pth")
    assert weights.read_weights(tmp_path / "a.pth")[0].own_motion == 2.0


def test_bad_settings():
    with pytest.raises(ModelError, match="fast, default, best"):
        ptrack.load("nano", quality="fastest", device="cpu")
    with pytest.raises(ModelError, match="no option 'quality'"):
        ptrack.load("matching", quality="fast")
    with pytest.raises(ConfigError, match="dim must be 176"):
        Nano(NanoConfig(project=False), packaged_weights())
    for wrong in (
        {"input_size": (100, 128)},
        {"radius": 0},
        {"threshold": 1.0},
        {"memory": -1},
        {"carry": 1.0},
        {"own_motion": 0.0},
    ):
        with pytest.raises(ConfigError):
            NanoConfig(**wrong)


@pytest.mark.parametrize("quality", list(weights.QUALITIES))
def test_qualities_change_size_and_nothing_learned(quality):
    config, _ = weights.packaged()
    sizes, iterations = weights.QUALITIES[quality]
    for changed, size in zip(weights.at_quality(config, quality), sizes, strict=True):
        assert changed == dataclasses.replace(config, input_size=size, iterations=iterations)


def test_the_shipped_weights_track_the_packaged_clip_as_recorded():
    recorded = np.load(Path(__file__).parent / "data" / "nano_demo.npz")
    tracker = ptrack.load("nano", device="cpu")
    assert len(tracker.weights_sha256) == 64
    clip = resources.files("ptrack") / "assets" / "demo.mp4"
    with ptrack.open_source(str(clip)) as source:
        frames = [frame.rgb for _, frame in zip(range(24), source, strict=False)]
    found = tracker.track(np.stack(frames), recorded["queries"])
    np.testing.assert_allclose(found.tracks[::4], recorded["tracks"], atol=0.05)
    np.testing.assert_allclose(found.visibility[::4], recorded["visibility"], atol=0.01)
    assert found.visible.mean() > 0.8

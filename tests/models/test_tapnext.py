"""TAPNext's own properties, on a small network."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch

from ptrack.errors import ConfigError, ModelError
from ptrack.models.base import OnlineModel, ReservesSlots
from ptrack.models.tapnext.config import TapNextConfig
from ptrack.models.tapnext.model import TapNext
from ptrack.models.tapnext.state import State
from ptrack.models.tapnext.weights import TapNextCheckpoint, build_model
from ptrack.tracking.tracker import Tracker
from tests.parity.tapnext.recorded import TINY, tiny, video

QUERIES = np.float32([[0, 10.2, 20.7], [2, 50.0, 3.0], [0, 33.3, 39.0], [4, 0.4, 12.0]])


@pytest.fixture
def model() -> TapNext:
    return build_model(TapNextCheckpoint(config=TINY, state=tiny(), model="tapnextpp"))


def _tensors(state: State) -> list[torch.Tensor]:
    blocks = [x for block in state.blocks for x in (block.hidden, *block.inputs)]
    return [*blocks, state.seen, state.query, state.delay]


def _stream(model: TapNext, frames: torch.Tensor, queries: np.ndarray, reserve: int | None = None):
    """Positions, visibility and confidence (T, N, 4), NaN before a start; by default every later point has a slot."""
    state, order = model.init_state(), []
    out = torch.full((len(frames), len(queries), 4), float("nan"))
    for t, frame in enumerate(model.encode(frames)):
        new = [i for i, row in enumerate(queries) if row[0] == t]
        if new:
            state = model.add(state, frame, torch.from_numpy(queries[new, 1:]))
        if t == 0:
            state = model.reserve_slots(state, len(queries) - len(new) if reserve is None else reserve)
        order += new
        state, output = model.step(state, frame)
        out[t, order] = torch.cat([output.xy, output.visibility[:, None], output.confidence[:, None]], dim=1).cpu()
    return out


def _same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4, equal_nan=True)


def test_is_an_online_model(model: TapNext) -> None:
    assert isinstance(model, OnlineModel)
    assert isinstance(model, ReservesSlots)
    assert not isinstance(torch.nn.Linear(1, 1), ReservesSlots)


def test_one_call_chunks_and_single_steps_are_the_same(model: TapNext) -> None:
    frames, queries = video(6), torch.from_numpy(QUERIES)
    whole = model(frames, queries, chunk=6)
    for chunk in (1, 4):
        part = model(frames, queries, chunk=chunk)
        for name in ("xy", "visibility", "confidence"):
            _same(getattr(part, name), getattr(whole, name))
    steps = _stream(model, frames, QUERIES)
    started = ~steps.isnan()
    wanted = torch.cat([whole.xy, whole.visibility[..., None], whole.confidence[..., None]], dim=2)
    assert started.sum() == 4 * (6 + 4 + 6 + 2)
    _same(steps[started], wanted[started])
    assert 0 <= whole.visibility.min() < whole.visibility.max() <= 1
    assert 0 <= whole.confidence.min() < whole.confidence.max() <= 1


def test_a_late_point_in_a_reserved_slot_is_as_if_known_from_the_start(model: TapNext) -> None:
    """To the bit: the coordinates are not looked at before the frame of the query."""
    frames = model.encode(video(6))
    xy = torch.from_numpy(QUERIES[[0, 2, 1], 1:])
    early = model._joined(model.init_state(), xy, torch.tensor([0, 0, 3]), (40, 56))
    late = model.reserve_slots(model.add(model.init_state(), frames[0], xy[:2]), 1)
    for t, frame in enumerate(frames):
        if t == 3:
            late = model.add(late, frame, xy[2:])
        early, a = model.step(early, frame)
        late, b = model.step(late, frame)
        assert torch.equal(a.xy[: late.count], b.xy)
        assert torch.equal(a.visibility[: late.count], b.visibility)
    assert all(torch.equal(a, b) for a, b in zip(_tensors(early), _tensors(late), strict=True))


def test_a_point_without_a_slot_starts_as_a_new_token(model: TapNext) -> None:
    """It is tracked, differently; what it shows in its first frame is what a first frame shows."""
    frames = video(6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = _stream(model, frames, QUERIES, reserve=0)
    assert any("reserve" in str(w.message) for w in caught)
    exact = _stream(model, frames, QUERIES)
    assert torch.equal(found.isnan(), exact.isnan())
    assert (found - exact)[:, 1].abs().nan_to_num().max() > 1e-3
    # A state with tokens that have seen nothing equals one at its first frame.
    a = model.init_state().reserved(2)
    b = dataclasses.replace(model.init_state(), frames=1).reserved(2)
    assert all(torch.equal(x, y) for x, y in zip(_tensors(a), _tensors(b), strict=True))
    rows = model.blocks[0].ssm_block.recurrent_block.rg_lru
    x, seen = torch.randn(1, 4, TINY.width), torch.tensor([1.0, 1, 0, 0])[None, :, None]
    h = torch.zeros(4, TINY.width)
    torch.testing.assert_close(rows(x, h, seen)[0][:, 2:], torch.sigmoid(rows.input_gate(x[:, 2:])) * x[:, 2:])
    assert (rows(x, h, seen)[0] - rows(x, h, seen * 0)[0])[:, :2].abs().max() > 1e-3


def test_points_depend_on_each_other_and_their_order_does_not_matter(model: TapNext) -> None:
    frames, queries = video(4), torch.from_numpy(QUERIES)
    together = model(frames, queries).xy
    order = [3, 1, 0, 2]
    _same(model(frames, queries[order]).xy, together[:, order])
    alone = model(frames, queries[:3]).xy
    assert (alone - together[:, :3])[0].abs().max() > 1e-3  # although the fourth has not even started


def test_keep_takes_points_out_and_leaves_the_reserved_slots(model: TapNext) -> None:
    frames = model.encode(video(4))
    state = model.add(model.init_state(), frames[0], torch.from_numpy(QUERIES[:, 1:]))
    state, _ = model.step(model.reserve_slots(state, 2), frames[0])
    fewer = model.keep(state, torch.tensor([3, 0]))
    assert (fewer.count, fewer.slots) == (2, 4)
    n = TINY.image_tokens
    rows = [*range(n), n + 3, n, n + 4, n + 5]
    assert torch.equal(fewer.blocks[1].hidden, state.blocks[1].hidden[rows])
    fewer, output = model.step(fewer, frames[1])
    assert output.xy.shape == (2, 2)
    assert (output.xy - model.step(state, frames[1])[1].xy[[3, 0]]).abs().max() > 1e-4  # the others are gone
    assert model.step(model.keep(fewer, torch.tensor([], dtype=torch.int64)), frames[2])[1].xy.shape == (0, 2)


def test_a_state_is_never_written_to_and_does_not_grow(model: TapNext) -> None:
    frames = model.encode(video(3))
    state = model.add(model.init_state(), frames[0], torch.from_numpy(QUERIES[:, 1:]))
    sizes, kept = [], [x.clone() for x in _tensors(state)]
    after, first = model.step(state, frames[0])
    assert all(torch.equal(a, b) for a, b in zip(kept, _tensors(state), strict=True))
    assert torch.equal(model.step(state, frames[0])[1].xy, first.xy)
    for t in range(20):
        after, _ = model.step(after, frames[t % 3])
        sizes.append(sum(x.nelement() * x.element_size() for x in _tensors(after)))
    assert len(set(sizes)) == 1


def test_shapes_stay_the_same(model: TapNext) -> None:
    """What a captured graph needs, with points that join later."""
    shapes = set()
    plain = model.transform

    def watched(tokens, blocks, seen):
        shapes.add((tokens.shape, seen.shape, *(x.shape for b in blocks for x in (b.hidden, *b.inputs))))
        return plain(tokens, blocks, seen)

    model.transform = watched
    wanted = _stream(model, video(6), QUERIES)
    assert len(shapes) == 1
    model._advance = model.replay  # which runs without a graph here
    model.replay.works = False
    assert torch.equal(_stream(model, video(6), QUERIES).nan_to_num(), wanted.nan_to_num())


def test_half_precision_leaves_the_recurrence_alone(model: TapNext) -> None:
    frames, queries = video(5), torch.from_numpy(QUERIES)
    exact = model(frames, queries).visibility
    model.set_dtype(torch.bfloat16)
    state = model._joined(model.init_state(), queries[:, 1:], queries[:, 0].long(), (40, 56))
    for frame in model.encode(frames):
        outputs, state = model.advance(frame.tokens[None], state)
    assert {x.dtype for x in _tensors(state)[:-1]} == {torch.float32}
    assert outputs.coordinate_logits.dtype == torch.float32
    halves = {k for k, v in model.state_dict().items() if v.dtype == torch.bfloat16}
    assert all(word in " ".join(halves) for word in ("linear_x", "ffw_up.w", "in_proj_weight", "mlp.3"))
    assert not any(word in key for key in halves for word in ("rg_lru", "conv_1d", "norm", "ln_", "head", "token"))
    assert (outputs.visibility_logit[0].sigmoid() - exact[-1]).abs().max() < 0.05


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_what_the_cpu_gives_captured_or_not(model: TapNext) -> None:
    frames = video(8)
    wanted = _stream(model, frames, QUERIES)
    there = build_model(TapNextCheckpoint(config=TINY, state=tiny())).to("cuda")
    captured = _stream(there, frames, QUERIES)
    there.replay.works = False
    plain = _stream(there, frames, QUERIES)
    torch.testing.assert_close(captured, plain, atol=1e-5, rtol=0, equal_nan=True)
    torch.testing.assert_close(captured, wanted, atol=1e-2, rtol=1e-3, equal_nan=True)


def test_several_frames_are_encoded_at_once(model: TapNext) -> None:
    frames = video(3)
    for one, several in zip([model.encode(f[None])[0] for f in frames], model.encode(frames), strict=True):
        _same(one.tokens, several.tokens)
        assert one.size == (40, 56)


def test_wrong_shapes_and_settings() -> None:
    with pytest.raises(ModelError, match="queries"):
        build_model(TapNextCheckpoint(config=TINY, state=tiny()))(video(2), torch.zeros(3, 2))
    for wrong, words in (
        ({"width": 30}, "heads"), ({"raster": 16}, "at least 17"), ({"input_size": 50}, "multiple of patch"),
        ({"threshold": 1.0}, "threshold"), ({"radius": 9.0}, "radius"), ({"depth": 0}, "depth"),
        ({"temperature": 0.0}, "temperature"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            dataclasses.replace(TINY, **wrong)
    assert (TapNextConfig().image_tokens, TapNextConfig(input_size=512).image_tokens) == (1024, 4096)


# ---- through the tracker --------------------------------------------------------------------------------------------


def test_tracker_gives_every_point_a_slot_from_the_first_frame(model: TapNext) -> None:
    """``track`` is the published joint run, also when no point starts at frame 0."""
    frames = video(6)
    for queries in (QUERIES, QUERIES[[1, 3]]):
        tracks = Tracker(model).track(frames.numpy(), queries)
        whole = model(frames, torch.from_numpy(queries))
        later = np.arange(6)[:, None] > queries[:, 0]
        assert np.abs(tracks.tracks - whole.xy.numpy())[later].max() < 1e-3
        assert np.abs(tracks.confidence - whole.confidence.numpy())[later].max() < 1e-4
        start = queries[:, 0].astype(int)
        assert np.array_equal(tracks.tracks[start, np.arange(len(queries))], queries[:, 1:])
        assert np.isnan(tracks.tracks[~later & (np.arange(6)[:, None] < queries[:, 0])]).all()


def test_tracker_reserves_slots_for_points_nobody_knows_yet(model: TapNext) -> None:
    frames = video(6).numpy()
    model.reserve = 2
    known, unknown = Tracker(model), Tracker(model)
    known.add(QUERIES[[0, 1, 3]])
    model.reserve = 0
    rows = [known.step(frame) for frame in frames]
    model.reserve = 2
    unknown.add(QUERIES[:1])
    for t, frame in enumerate(frames):
        late = [i for i in (1, 3) if QUERIES[i, 0] == t]
        unknown.add(QUERIES[late]) if late else None
        row = unknown.step(frame)
        n = len(row.positions)
        assert np.array_equal(row.positions, rows[t].positions[:n], equal_nan=True)
    assert n == 3


def test_backward_runs_all_points_through_the_whole_mirrored_clip(model: TapNext) -> None:
    frames = video(6)
    tracks = Tracker(model).track(frames.numpy(), QUERIES, backward=True)
    mirrored = QUERIES.copy()
    mirrored[:, 0] = 5 - mirrored[:, 0]
    back = model(frames.flip(0), torch.from_numpy(mirrored)).xy.flip(0).numpy()
    before = np.arange(6)[:, None] < QUERIES[:, 0]
    assert np.abs(tracks.tracks - back)[before].max() < 1e-3


def test_points_are_removed_and_a_frame_may_be_missing(model: TapNext) -> None:
    tracker, frames = Tracker(model), video(5).numpy()
    tracker.add(QUERIES, ids=list("abcd"))
    for frame in (frames[0], None, frames[2]):
        tracker.step(frame)
    tracker.remove(["c", "d"])
    assert tracker.state.model.slots == 3  # the slot of the point that had not started stays
    assert tracker.step(frames[3]).positions.shape == (2, 2)
    tracker.remove(["a", "b"])
    assert tracker.needs_features()
    assert tracker.step(frames[4]).positions.shape == (0, 2)


def test_a_run_is_saved_and_goes_on_to_the_bit(model: TapNext, tmp_path) -> None:
    from ptrack.tracking.snapshot import load_snapshot, save_snapshot

    tracker, frames = Tracker(model), video(6).numpy()
    tracker.add(QUERIES)
    for frame in frames[:3]:
        tracker.step(frame)
    save_snapshot(tmp_path / "state", {"tracker": tracker.state})
    other = Tracker(model)
    other.state = load_snapshot(tmp_path / "state", model.device)["tracker"]
    for frame in frames[3:]:
        for a, b in zip(tracker.step(frame), other.step(frame), strict=True):
            assert np.array_equal(a, b, equal_nan=True)

import threading

import numpy as np
import pytest
import torch

from ptrack.errors import QueryError
from ptrack.tracking import ahead
from ptrack.tracking.stream import stream_rows
from ptrack.tracking.tracker import Tracker
from ptrack.tracks import Queries
from ptrack.video import Frame
from tests.fakes import DriftModel


def clip(count=10):
    return np.random.default_rng(0).integers(0, 255, (count, 48, 64, 3), dtype=np.uint8)


def test_track_fills_everything():
    tracker = Tracker(DriftModel(), weights_sha256="abc")
    seen = []
    tracks = tracker.track(clip(), [[0, 1, 2], [4, 10, 10]], progress=seen.append)
    assert tracks.tracks.shape == (10, 2, 2)
    assert tracks.tracks[:, 0, 0].tolist() == list(range(1, 11))
    assert np.isnan(tracks.tracks[:4, 1]).all()
    assert (tracks.visibility[:4, 1] == 0).all()
    assert tracks.tracks[4, 1].tolist() == [10, 10]
    assert tracks.frame_index.tolist() == list(range(10))
    assert seen == list(range(1, 11))
    assert (tracks.info.model, tracks.info.width, tracks.info.height) == ("drift", 64, 48)
    assert tracks.info.weights_sha256 == "abc"
    assert not tracks.visible[:, 0].all()


def test_default_queries_are_a_grid():
    tracks = Tracker(DriftModel()).track(clip(2), grid=3)
    assert tracks.num_points == 9
    assert (tracks.queries[:, 0] == 0).all()


def test_backward_mirrors_forward():
    tracks = Tracker(DriftModel()).track(clip(), [[6, 30, 20], [0, 1, 1], [9, 8, 8]], backward=True)
    assert tracks.tracks[6, 0].tolist() == [30, 20]
    assert tracks.tracks[:6, 0, 0].tolist() == [36, 35, 34, 33, 32, 31]  # the model drifts by +1 per step either way
    assert tracks.tracks[9, 0].tolist() == [33, 21.5]
    assert tracks.tracks[0, 1].tolist() == [1, 1]
    assert tracks.tracks[9, 2].tolist() == [8, 8]
    assert tracks.tracks[0, 2, 0] == 17
    assert np.isfinite(tracks.tracks).all()


def test_backward_needs_a_source_that_can_be_read_again():
    with pytest.raises(QueryError, match="reads the source twice"):
        Tracker(DriftModel()).track(iter(clip()), [[3, 1, 1]], backward=True)


def test_iterators_work_forward():
    tracks = Tracker(DriftModel()).track(iter(clip(3)), [[0, 1, 1]])
    assert tracks.num_frames == 3


def test_queries_beyond_the_end_and_duplicates_are_named():
    tracks = Tracker(DriftModel()).track(clip(3), Queries([[0, 1, 1], [3, 2, 2], [0, 1, 1]], ["a", "late", "b"]))
    assert np.isnan(tracks.tracks[:, 1]).all()
    assert any("never start: late" in w for w in tracks.info.warnings)
    assert any("1 of the 3 query points repeat" in w for w in tracks.info.warnings)


def test_outside_queries_fail_before_decoding():
    model = DriftModel()
    with pytest.raises(QueryError, match="outside"):
        Tracker(model).track(clip(3), [[0, 100, 100]])
    assert model.encoded == []


def test_batches_give_the_same_rows_and_skip_useless_frames():
    frames = [Frame(rgb, i, i / 10, ok=i != 3) for i, rgb in enumerate(clip(9))]
    rows = {}
    for batch in (1, 4, 100):
        model = DriftModel(batch)
        tracker = Tracker(model)
        tracker.reset((48, 64))
        tracker.add([[2, 5, 5], [5, 6, 6]])
        rows[batch] = [r.result.positions for r in stream_rows(tracker, frames)]
        assert sum(model.encoded) == 6  # frames 2, 4, 5, 6, 7, 8
    for batch in (4, 100):
        np.testing.assert_array_equal(rows[1], rows[batch])
    assert np.isnan(rows[1][3]).all()


class SideBySide(DriftModel):
    """A model whose frames are encoded in a thread."""

    encodes_ahead = range(64, 65)

    def encode(self, frames):
        self.thread, self.threads = threading.current_thread().name, torch.get_num_threads()
        return super().encode(frames)


def read_ahead(frames, model):
    """Track 64 points, two of which start late, with two threads; the positions and the error that ended it."""
    tracker, rows, before = Tracker(model), [], torch.get_num_threads()
    tracker.reset((48, 64))
    tracker.add([[2, 5, 5], [5, 6, 6], *[[3, 1, i / 2] for i in range(62)]])
    torch.set_num_threads(2)
    error = None
    try:
        for row in stream_rows(tracker, frames):
            rows.append(row.result.positions)
    except ValueError as raised:
        error = raised
    finally:
        left = torch.get_num_threads()
        torch.set_num_threads(before)
    assert left == 2
    return np.stack(rows), error


def test_frames_are_encoded_ahead_in_a_thread_with_the_same_rows():
    frames = [Frame(rgb, i, i / 10, ok=i != 3) for i, rgb in enumerate(clip(9))]
    model = SideBySide()
    rows, _ = read_ahead(frames, model)
    assert (model.thread.startswith("ptrack-encoder"), model.threads) == (True, 1)
    assert model.encoded == [1] * 6  # frames 2, 4, 5, 6, 7, 8
    np.testing.assert_array_equal(rows, read_ahead(frames, DriftModel())[0])


def test_an_error_of_the_source_comes_after_the_rows_before_it():
    def broken():
        yield from (Frame(rgb, i, i / 10) for i, rgb in enumerate(clip(5)))
        raise ValueError("no more")

    rows, error = read_ahead(broken(), SideBySide())
    assert (len(rows), str(error)) == (5, "no more")


@pytest.mark.parametrize(("most", "read"), [(1, 1), (1 << 20, 3)])
def test_very_large_frames_are_not_read_ahead(monkeypatch, most, read):
    monkeypatch.setattr(ahead, "MOST_BYTES", most)
    before, came = torch.get_num_threads(), []

    def frames():
        for i, rgb in enumerate(clip(6)):
            came.append(i)
            yield Frame(rgb, i, i / 10)

    tracker = Tracker(SideBySide())
    tracker.reset((48, 64))
    tracker.add([[0, 1, i / 2] for i in range(64)])
    torch.set_num_threads(2)
    try:
        rows = ahead.encoded_ahead(tracker, frames())
        assert next(rows)[0].index == 0
        rows.close()
    finally:
        torch.set_num_threads(before)
    assert len(came) == read


def test_two_runs_at_once_leave_the_threads_as_they_were():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        runs = []
        for _ in range(2):
            tracker = Tracker(SideBySide())
            tracker.reset((48, 64))
            tracker.add([[0, 1, i / 2] for i in range(64)])
            runs.append(stream_rows(tracker, [Frame(rgb, i, i / 10) for i, rgb in enumerate(clip(5))]))
            next(runs[-1])
        for run in runs:  # the first one ends first
            run.close()
        left = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert left == 4


def test_one_thread_encodes_and_steps_in_turn():
    model, before = SideBySide(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        Tracker(model).track(clip(3), grid=8)
    finally:
        torch.set_num_threads(before)
    assert model.thread == threading.current_thread().name


@pytest.mark.parametrize(("side", "beside"), [(7, False), (8, True), (9, False)])
def test_frames_are_encoded_ahead_with_the_numbers_of_points_that_suit_the_model(side, beside):
    model, before = SideBySide(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Tracker(model).track(clip(3), grid=side)
    finally:
        torch.set_num_threads(before)
    assert model.thread.startswith("ptrack-encoder") == beside


def test_zero_points():
    assert Tracker(DriftModel()).track(clip(3), np.zeros((0, 3))).tracks.shape == (3, 0, 2)


def test_ten_thousand_points():
    points = np.column_stack([np.zeros(10_000), np.full((10_000, 2), 20.0)])
    assert Tracker(DriftModel()).track(clip(2), points).tracks.shape == (2, 10_000, 2)

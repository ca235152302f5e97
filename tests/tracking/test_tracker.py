import numpy as np
import pytest
import torch

from ptrack.errors import InputError, ModelError, QueryError
from ptrack.tracking.tracker import Tracker
from ptrack.tracks import Queries
from tests.fakes import DriftModel

FRAME = np.zeros((48, 64, 3), np.uint8)


@pytest.fixture
def tracker():
    return Tracker(DriftModel())


def test_query_frame_is_returned_exactly_and_points_follow(tracker):
    tracker.add([[3.25, 4.75], [10, 10]])
    first, second = tracker.step(FRAME), tracker.step(FRAME)
    assert first.positions.tolist() == [[3.25, 4.75], [10, 10]]
    assert first.visibility.tolist() == [1, 1]
    assert second.positions.tolist() == [[4.25, 5.25], [11, 10.5]]
    assert second.confidence.tolist() == [0.25, 0.25]


def test_points_join_on_their_frame(tracker):
    tracker.add(np.asarray([[2, 5, 5], [0, 1, 1]]))
    rows = [tracker.step(FRAME) for _ in range(4)]
    assert np.isnan(rows[1].positions[0]).all()
    assert rows[1].visibility[0] == rows[1].confidence[0] == 0
    assert rows[2].positions[0].tolist() == [5, 5]
    assert rows[3].positions.tolist() == [[6, 5.5], [4, 2.5]]


def test_nothing_is_encoded_before_the_first_point(tracker):
    tracker.add([[2, 5, 5]])
    for _ in range(4):
        tracker.step(FRAME)
    assert tracker.model.encoded == [1, 1]


def test_add_and_remove_leave_others_alone(tracker):
    alone, both = Tracker(DriftModel()), tracker
    alone.add([[1, 1]], ids=["a"])
    both.add([[1, 1], [7, 7]], ids=["a", "b"])
    for _ in range(3):
        alone.step(FRAME), both.step(FRAME)
    both.remove(["b"])
    assert both.add([[20, 20]]).tolist() == ["0"]
    left, right = alone.step(FRAME), both.step(FRAME)
    assert both.ids.tolist() == ["a", "0"]
    assert right.positions[0].tolist() == left.positions[0].tolist()
    assert right.positions[1].tolist() == [20, 20]


def test_remove_a_waiting_point(tracker):
    tracker.add([[5, 1, 1], [0, 2, 2]])
    tracker.step(FRAME)
    tracker.remove([0])
    assert tracker.step(FRAME).positions.tolist() == [[3, 2.5]]
    with pytest.raises(QueryError, match="no point with the id '0'"):
        tracker.remove([0])


def test_ids(tracker):
    assert tracker.add(Queries([[0, 1, 1]], ["paw"])).tolist() == ["paw"]
    assert tracker.add([[1, 1], [2, 2]]).tolist() == ["0", "1"]
    assert tracker.add([[3, 3]], ids=[9]).tolist() == ["9"]
    assert tracker.add([[3, 3]]).tolist() == ["10"]
    with pytest.raises(QueryError, match="'paw' is already in use"):
        tracker.add([[1, 1]], ids=["paw"])


def test_a_query_in_the_past_or_outside_is_refused(tracker):
    tracker.step(FRAME)
    with pytest.raises(QueryError, match="starts at frame 0, but the tracker is at frame 1"):
        tracker.add([[0, 1, 1]])
    with pytest.raises(QueryError, match="outside the 64x48 frame"):
        tracker.add([[100, 1]])
    tracker.reset()
    tracker.add([[100, 1]])
    with pytest.raises(QueryError, match="outside the 64x48 frame"):
        tracker.step(FRAME)


def test_the_callers_array_is_untouched(tracker):
    rows = np.asarray([[0.0, 1.0, 1.0]])
    tracker.add(rows)
    tracker.step(FRAME)
    assert rows.tolist() == [[0, 1, 1]]


def test_a_missing_frame_is_a_row_of_nan_and_time_passes(tracker):
    tracker.add([[1, 1]])
    tracker.step(FRAME)
    gap = tracker.step(None)
    assert np.isnan(gap.positions).all()
    assert gap.visibility.tolist() == [0]
    assert tracker.state.frame == 2
    assert tracker.step(FRAME).positions.tolist() == [[2, 1.5]]


def test_a_point_whose_frame_is_missing_joins_on_the_next(tracker):
    tracker.add([[1, 5, 5]])
    tracker.step(FRAME)
    assert np.isnan(tracker.step(None).positions).all()
    assert tracker.step(FRAME).positions.tolist() == [[5, 5]]


def test_coordinates_refer_to_the_given_size():
    tracker = Tracker(DriftModel())
    tracker.reset(size=(96, 128))
    tracker.add([[100, 80]])
    assert tracker.step(FRAME).positions.tolist() == [[100, 80]]
    assert tracker.step(FRAME).positions.tolist() == [[102, 81]]  # one reduced pixel is two of the original


def test_support_grid_is_tracked_and_not_returned():
    tracker = Tracker(DriftModel(), support_grid=3)
    tracker.add([[1, 5, 5]])
    tracker.step(FRAME)
    assert len(tracker.state.model.xy) == 9  # from the first frame on, as the published program does
    tracker.add([[9, 9]])
    rows = [tracker.step(FRAME) for _ in range(2)]
    assert rows[1].positions.tolist() == [[6, 5.5], [10, 9.5]]
    assert len(tracker.state.model.xy) == 2 + 9
    tracker.remove(["0"])
    assert tracker.step(FRAME).positions.tolist() == [[11, 10]]
    assert len(tracker.state.model.xy) == 1 + 9
    with pytest.raises(ModelError, match="support_grid is -1"):
        Tracker(DriftModel(), support_grid=-1)


@pytest.mark.parametrize(
    "frame", [np.zeros((5, 4, 2), np.uint8), np.full((4, 4, 3), 9.0, np.float32), "frame", torch.zeros(2, 4, 4, 3)]
)
def test_frames_of_another_kind_are_refused(tracker, frame):
    with pytest.raises(InputError, match=r"must be \(H, W, 3\)|between 0 and 1|must be an array \(H, W, 3\)"):
        tracker.step(frame)


def test_no_points(tracker):
    assert tracker.step(FRAME).positions.shape == (0, 2)
    assert tracker.add(np.zeros((0, 3))).shape == (0,)
    assert "0 points, frame 1" in repr(tracker)

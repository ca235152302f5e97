"""The public API as README and types promise it."""

import threading

import numpy as np
import pytest

import ptrack
from ptrack.errors import InputError, ModelError
from tests.fakes import DriftModel
from tests.typed_api import streamed, tracked

FRAMES = np.zeros((3, 8, 8, 3), np.uint8)


def test_what_the_type_checker_accepts_works(tmp_path):
    found = tracked(ptrack.Tracker(DriftModel()), FRAMES, tmp_path)
    assert [t.tracks[2, 0].tolist() for t in found] == [[3, 3]] * 7
    assert np.isnan(streamed(ptrack.Tracker(DriftModel()), FRAMES)).all()


def test_one_picture_is_no_video():
    for picture in (FRAMES[0], np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(InputError, match=r"One picture .*frames\[None\]"):
            ptrack.Tracker(DriftModel()).track(picture, [[0, 1, 2]])
    assert ptrack.Tracker(DriftModel()).track(FRAMES[0][None], [[0, 1, 2]]).num_frames == 1


def test_two_threads_take_turns():
    started, tracker = threading.Event(), ptrack.Tracker(DriftModel())

    def frames(number):
        for t in range(6):
            if number == 0:
                started.set()
            threading.Event().wait(0.002)
            yield np.full((8, 8, 3), 10 * number + t, np.uint8)

    found = {}

    def work(number):
        if number:
            started.wait()
        found[number] = tracker.track(frames(number), [[0, number, number]])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert found[number].num_points == 1
        assert found[number].tracks[:, 0, 0].tolist() == [number + t for t in range(6)]


def test_a_frame_of_another_size_is_refused():
    tracker = ptrack.Tracker(DriftModel())
    tracker.add([[1, 2]])
    tracker.step(FRAMES[0])
    with pytest.raises(ModelError, match="Frame 1 is 9x8, but the frames before it are 8x8; resize it"):
        tracker.step(np.zeros((8, 9, 3), np.uint8))
    assert tracker.step(FRAMES[1]).positions.tolist() == [[2, 2.5]]  # the refused frame left no trace
    tracker.reset((480, 640))
    tracker.step(np.zeros((45, 60, 3), np.uint8))
    tracker.reset((640, 480))
    with pytest.raises(ModelError, match="A 60x45 frame is not the 480x640 picture reduced"):
        tracker.step(np.zeros((45, 60, 3), np.uint8))


def test_a_point_that_is_no_number_is_named_in_plain_digits():
    with pytest.raises(ptrack.PTrackError, match=r"Query 0 is \(0, nan, 2\); NaN"):
        ptrack.Queries([[0, float("nan"), 2]])

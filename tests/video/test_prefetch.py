"""Reading ahead: same frames, bounded queue, errors passed on, no thread left behind."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from ptrack.errors import InputError
from ptrack.video import Frame, PrefetchedFrames, open_source

from . import clips


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "ptrack-prefetch"]


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


class Counted:
    """Frames that count those taken and note whether they were closed."""

    def __init__(self, count, size=(4, 5), fail_at=None):
        self.taken, self.closed, self.thread = 0, False, None
        self._count, self._size, self._fail_at = count, size, fail_at

    def __iter__(self):
        self.thread = threading.current_thread().name
        try:
            for i in range(self._count):
                if i == self._fail_at:
                    raise InputError("frame cannot be read")
                self.taken += 1
                yield Frame(np.full((*self._size, 3), i % 256, np.uint8), i, i / 10)
        finally:
            self.closed = True


def test_same_frames_in_order(tmp_path):
    source = open_source(clips.write_clip(tmp_path / "a.mp4", 30))
    assert [clips.number_of(f.rgb) for f in PrefetchedFrames(source)] == list(range(30))
    assert threads() == []


def test_frames_too_large_to_hold_two_of_are_not_read_ahead():
    frames = Counted(5, size=(10, 10))
    ahead = iter(PrefetchedFrames(frames, max_bytes=299))
    for index in range(5):
        assert next(ahead).index == index
        time.sleep(0.02)
        assert frames.taken == index + 1
    assert list(ahead) == []


def test_reads_ahead_in_another_thread_and_no_further_than_depth():
    frames = Counted(100)
    ahead = iter(PrefetchedFrames(frames, depth=4))
    assert next(ahead).index == 0
    assert wait_until(lambda: frames.taken == 6)  # one consumed, four ready, one waiting for room
    time.sleep(0.05)
    assert frames.taken == 6
    assert frames.thread == "ptrack-prefetch"
    assert [f.index for f in ahead] == list(range(1, 100))
    assert frames.closed
    assert threads() == []


def test_queue_is_bounded_in_bytes_too():
    frames = Counted(20, size=(100, 100))
    ahead = iter(PrefetchedFrames(frames, depth=100, max_bytes=2 * 30_000 + 5))
    next(ahead)
    assert wait_until(lambda: frames.taken == 4)  # one consumed, two ready, one waiting for room
    time.sleep(0.05)
    assert frames.taken == 4
    assert len(list(ahead)) == 19


def test_one_frame_larger_than_the_bound_still_passes():
    assert len(list(PrefetchedFrames(Counted(3, size=(100, 100)), max_bytes=10))) == 3


def test_errors_come_after_the_frames_before_them():
    frames = Counted(10, fail_at=5)
    got = []
    with pytest.raises(InputError, match="cannot be read"):
        for frame in PrefetchedFrames(frames):
            got.append(frame.index)
    assert got == [0, 1, 2, 3, 4]
    assert threads() == []


def test_error_before_the_first_frame():
    source = open_source(iter(Counted(2)._size and [np.zeros((4, 4, 3), np.uint8)]))
    list(source)
    with pytest.raises(InputError, match="cannot be read again"):
        list(PrefetchedFrames(source))
    assert threads() == []


def test_leaving_early_stops_the_thread_and_closes_the_frames():
    frames = Counted(1000)
    for frame in PrefetchedFrames(frames):
        if frame.index == 3:
            break
    assert wait_until(lambda: threads() == [])
    assert frames.closed
    assert frames.taken < 20


def test_an_exception_in_the_consumer_stops_the_thread():
    frames = Counted(1000)

    def consume():
        with PrefetchedFrames(frames) as ahead:
            for frame in ahead:
                if frame.index == 2:
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert threads() == []
    assert frames.closed


def test_close_without_use_and_twice():
    ahead = PrefetchedFrames(Counted(3))
    ahead.close()
    ahead.close()
    assert list(ahead) == []
    assert threads() == []

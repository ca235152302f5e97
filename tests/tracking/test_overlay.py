import threading
from types import SimpleNamespace

import pytest

from ptrack.tracking.overlay import AHEAD, OverlayThread


class Sink:
    """Takes numbers for frames; ``work`` is done with each."""

    def __init__(self, work):
        self.work, self.left = work, []

    def write(self, frame, result):
        self.work(frame)

    def __exit__(self, kind, *_):
        self.left.append(kind)


def row(number):
    return SimpleNamespace(frame=number, result=None)


def test_frames_are_drawn_in_order():
    seen = []
    sink = Sink(seen.append)
    with OverlayThread(sink) as thread:
        for i in range(20):
            thread.put(row(i))
    assert seen == list(range(20))
    assert sink.left == [None]


def test_an_error_reaches_the_producer_and_ends_the_drawing():
    tried = []

    def work(item):
        tried.append(item)
        raise ValueError(f"bad {item}")

    sink = Sink(work)
    with pytest.raises(ValueError, match="bad 0"), OverlayThread(sink) as thread:
        for i in range(50):
            thread.put(row(i))
    with pytest.raises(ValueError, match="bad 7"), OverlayThread(sink) as thread:
        thread.put(row(7))
    assert tried == [0, 7]
    assert len(sink.left) == 2
    assert None not in sink.left


def test_an_error_elsewhere_drops_what_waits_and_leaves_no_thread():
    gate, seen = threading.Event(), []

    def work(item):
        gate.wait(10)
        seen.append(item)

    before = threading.active_count()
    with pytest.raises(KeyError), OverlayThread(Sink(work)) as thread:
        for i in range(AHEAD):
            thread.put(row(i))
        threading.Timer(0.05, gate.set).start()
        raise KeyError
    assert len(seen) <= 1
    assert threading.active_count() <= before + 1  # the timer may still be ending

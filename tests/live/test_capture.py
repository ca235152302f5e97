import threading
import time

import pytest

from ptrack.errors import ConfigError, InputError
from ptrack.live import capture as capture_module
from ptrack.live.capture import Capture, CaptureOptions, without_password
from tests.live.fakes import FakeCamera


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(capture_module, "BACKOFF", (0.01,))


def connections(*sources):
    """Return what gives the sources one after the other, and then fails."""
    rest = list(sources)

    def connect():
        if not rest:
            raise InputError("refused")
        found = rest.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return connect


def numbers(capture):
    with capture:
        return [item.number for item in capture]


def test_every_frame_of_a_file_comes_in_order():
    capture = Capture(connections(FakeCamera(20, live=False)), CaptureOptions(realtime=False))
    assert numbers(capture) == list(range(20))
    assert capture.dropped == 0


def test_in_real_time_the_oldest_waiting_frames_are_dropped_and_counted():
    ended = threading.Event()
    camera = FakeCamera(10, live=False, gate=lambda i: i == 9 and ended.set())
    with Capture(connections(camera), CaptureOptions(waiting=2)) as capture:
        assert ended.wait(5)
        seen = [item.number for item in capture]
    assert seen == [8, 9]
    assert capture.dropped == 8


def test_a_stream_that_breaks_off_is_connected_again_and_that_is_said():
    notes = []
    first, second = FakeCamera(3, error=InputError("it broke.")), FakeCamera(2)
    connect = connections(first, InputError("refused"), OSError("refused"), second)
    capture = Capture(connect, CaptureOptions(realtime=False), notes.append)
    with capture:
        seen = [capture.next(5).number for _ in range(5)]
        assert capture.next(0.05) is None  # it tries for ever
        assert not capture.over
    assert seen == [0, 1, 2, 3, 4]
    assert capture.reconnects == 1
    assert first.closed
    assert notes[0] == "The connection to tcp://host:1 is lost (it broke); connecting again."
    assert notes[1].startswith("tcp://host:1 is back after 0.")


def test_without_reconnecting_a_stream_ends():
    capture = Capture(connections(FakeCamera(3)), CaptureOptions(realtime=False, reconnect=False))
    assert numbers(capture) == [0, 1, 2]
    assert capture.over


def test_a_file_that_breaks_is_an_error_and_a_source_that_is_not_there_too():
    with (
        Capture(connections(FakeCamera(1, live=False, error=InputError("cut"))), CaptureOptions(realtime=False)) as c,
        pytest.raises(InputError, match="cut"),
    ):
        list(c)
    with pytest.raises(InputError, match="refused"):
        Capture(connections())


def test_pictures_of_another_size_are_brought_to_the_first_and_that_is_said_once():
    notes = []
    connect = connections(FakeCamera(1), FakeCamera(2, size=(24, 32)))
    with Capture(connect, CaptureOptions(realtime=False), notes.append) as capture:
        shapes = [capture.next(5).rgb.shape for _ in range(3)]
    assert set(shapes) == {(48, 64, 3)}
    assert sum("changes its picture size" in n for n in notes) == 1


def test_undecodable_pictures_keep_their_place():
    with Capture(connections(FakeCamera(3, bad=(1,), live=False)), CaptureOptions(realtime=False)) as capture:
        assert [item.rgb is None for item in capture] == [False, True, False]


def test_a_file_can_be_played_at_its_pace():
    camera = FakeCamera(4, live=False, fps=20.0)
    with Capture(connections(camera), CaptureOptions(pace=True)) as capture:
        items = list(capture)
    assert [round(item.seconds, 3) for item in items] == [0, 0.05, 0.1, 0.15]
    assert 0.14 < items[-1].at - items[0].at < 2


def test_times_of_a_camera_are_arrivals_and_never_step_back():
    camera = FakeCamera(3, pause=0.01, fps=-25.0)  # a clock that runs backwards
    with Capture(connections(camera), CaptureOptions(realtime=False)) as capture:
        seconds = [capture.next(5).seconds for _ in range(3)]
    assert seconds == sorted(seconds)
    assert seconds[0] == 0


def test_a_long_silence_is_said(monkeypatch):
    monkeypatch.setattr(capture_module, "SILENCE_SECONDS", 0.02)
    notes = []
    camera = FakeCamera(2, gate=lambda i: time.sleep(0.05))
    with Capture(connections(camera), CaptureOptions(realtime=False), notes.append) as capture:
        capture.next(5), capture.next(5)
    assert notes[0].startswith("tcp://host:1 gave no picture for 0.")


def test_closing_ends_a_thread_that_waits():
    capture = Capture(connections(FakeCamera(100)), CaptureOptions(realtime=False))
    with capture:
        capture.next(5)
    assert not any(t.name == "ptrack-capture" for t in threading.enumerate())


def test_options_and_addresses():
    with pytest.raises(ConfigError, match="waiting"):
        CaptureOptions(waiting=0)
    assert without_password("rtsp://me:pass@cam/1") == "rtsp://cam/1"
    assert without_password("rtsp://cam/a@b") == "rtsp://cam/a@b"

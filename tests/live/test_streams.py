"""Real network streams on loopback that misbehave: they stop, restart their clock, change size, send garbage.

A thread of the test is the sender; it speaks MPEG-TS over TCP as a camera's encoder would.
"""

import io
import socket
import threading
import time
from contextlib import suppress

import av
import numpy as np
import pytest

from ptrack.live import capture as capture_module
from ptrack.live.capture import Capture, CaptureOptions
from ptrack.live.request import LiveRequest, connector


def coded(frames, size=(96, 128), shade=0):
    """Return ``frames`` pictures as the bytes of an MPEG-TS stream whose clock begins at 0."""
    data = io.BytesIO()
    with av.open(data, "w", format="mpegts") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency"}
        for t in range(frames):
            rgb = np.full((*size, 3), (shade + 8 * t) % 256, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        out.mux(stream.encode(None))
    return data.getvalue()


class Sender:
    """Serves one connection after the other, each with the next of ``streams``, and then refuses."""

    def __init__(self, *streams, pause=0.0):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.server.getsockname()[1]}"
        self.streams, self.pause = streams, pause
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with suppress(OSError):
            for data in self.streams:
                connection, _ = self.server.accept()
                with connection:
                    connection.sendall(data)
                time.sleep(self.pause)
        self.server.close()


def captured(sender, count, notes=None):
    connect = connector(LiveRequest(source=sender.address))
    with Capture(connect, CaptureOptions(realtime=False), (notes if notes is not None else []).append) as capture:
        items = [capture.next(20) for _ in range(count)]
        return [item for item in items if item is not None], capture.reconnects


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(capture_module, "BACKOFF", (0.05,))


def test_a_sender_that_dies_and_comes_back_with_another_clock_and_size():
    notes = []
    sender = Sender(coded(10), coded(10, (64, 96), 100))
    items, again = captured(sender, 20, notes)
    assert again == 1
    assert [item.number for item in items] == list(range(20))
    assert {item.rgb.shape for item in items if item.rgb is not None} == {(96, 128, 3)}
    seconds = [item.seconds for item in items]
    assert seconds == sorted(seconds)
    assert any("is lost" in n for n in notes)
    assert any("is back after" in n for n in notes)
    assert any("changes its picture size" in n for n in notes)


def test_garbage_in_the_middle_costs_pictures_and_nothing_else():
    good = coded(24)
    third = len(good) // 3 // 188 * 188
    garbage = np.random.default_rng(0).bytes(188 * 20)
    items, again = captured(Sender(good[:third] + garbage + good[third:], coded(5)), 20)
    assert len(items) >= 15
    assert again <= 1
    assert [item.number for item in items] == list(range(len(items)))


def test_a_connection_cut_in_the_middle_of_a_picture_goes_on_with_the_next():
    good = coded(12)
    items, again = captured(Sender(good[: len(good) * 2 // 3], coded(6)), 10)
    assert again == 1
    assert len(items) == 10


def test_a_port_that_sends_no_video_is_one_sentence():
    sender = Sender(b"HTTP/1.1 200 OK\r\n\r\nhello")
    with pytest.raises(Exception, match="Cannot open|gives no picture") as caught:
        connector(LiveRequest(source=sender.address))()
    assert "\n" not in str(caught.value)

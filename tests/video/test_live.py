"""Sources that arrive once: cameras, streams, pipes and standard input."""

from __future__ import annotations

import os
import socket
import threading
import time
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from ptrack.errors import InputError
from ptrack.video import open_source, read_frames
from ptrack.video.live import camera_address, is_live

from . import clips
from .test_sources import sentence


@pytest.mark.parametrize(
    ("spec", "live"),
    [
        ("rtsp://camera/1", True),
        ("HTTP://host/a.mjpg", True),
        ("/dev/video0", True),
        ("-", True),
        ("video.mp4", False),
        ("/dev/videos/a.mp4", False),
        ("C:/a.mp4", False),
    ],
)
def test_what_is_live(spec, live):
    assert is_live(spec) is live


def test_camera_addresses():
    assert camera_address(2, "linux") == ("/dev/video2", "v4l2")
    assert camera_address(0, "darwin") == ("0", "avfoundation")
    with pytest.raises(InputError, match="Camera 1"):
        camera_address(1, "win32")


@pytest.mark.parametrize("spec", [97, "/dev/video97"])
def test_missing_camera(spec):
    assert "Cannot open" in sentence(spec)
    with pytest.raises(InputError, match="camera 98"):
        open_source("98", camera=True)


def test_unreachable_stream():
    assert "Cannot open http://127.0.0.1:9/x.mp4" in sentence("http://127.0.0.1:9/x.mp4")


@pytest.fixture
def served(tmp_path):
    """The address of a server that gives a 30-frame clip once to each connection, as a stream without a length."""
    data = clips.write_clip(tmp_path / "live.ts", 30).read_bytes()
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/live.ts"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


def test_stream_over_http_is_live_and_read_once(served):
    with open_source(served) as source:
        assert (source.info.kind, source.info.live, source.info.rereadable) == ("camera", True, False)
        assert (source.info.width, source.info.height) == (128, 96)
        assert source.sha256() is None
        assert [clips.number_of(f.rgb) for f in source] == list(range(30))
        with pytest.raises(InputError, match="read already"):
            iter(source)
        with pytest.raises(InputError, match="backward tracking needs a file"):
            source.reversed(3)


def test_live_selection_and_size(served):
    with read_frames(served, start=4, end=20, stride=5, max_size=64) as source:
        frames = list(source)
    assert [clips.number_of(f.rgb) for f in frames] == [4, 9, 14, 19]
    assert frames[0].rgb.shape == (48, 64, 3)


def test_live_selection_after_the_end(served):
    with read_frames(served, start=100) as source, pytest.raises(InputError, match="ends before"):
        list(source)


def test_named_pipe_is_read_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = clips.write_clip(tmp_path / "a.ts", 12).read_bytes()
    thread = threading.Thread(target=lambda: pipe.write_bytes(data))
    thread.start()
    with open_source(pipe) as source:
        assert [clips.number_of(f.rgb) for f in source] == list(range(12))
        assert not source.info.rereadable
    thread.join(10)


def test_standard_input(tmp_path, monkeypatch):
    path = clips.write_clip(tmp_path / "a.mkv", 8)
    with open(path, "rb") as stdin:
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": stdin}))
        source = open_source("-")
        assert (source.info.kind, source.info.live, source.info.rereadable) == ("video", False, False)
        assert [clips.number_of(f.rgb) for f in source] == list(range(8))


@pytest.fixture
def mjpeg_camera():
    """The address of a camera that sends 4 JPEG pictures over HTTP at once, 2 more after 0.6 s, and closes."""
    server = socket.create_server(("127.0.0.1", 0))
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 128, 96, "yuvj420p", Fraction(1, 25)
    frames = [av.VideoFrame.from_ndarray(clips.numbered(i), format="rgb24") for i in range(6)]
    pictures = [bytes(p) for f in frames for p in encoder.encode(f)]

    def serve():
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n")
            for number, data in enumerate(pictures):
                time.sleep(0.6 if number == 4 else 0.01)
                part = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
                connection.sendall(part + data + b"\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/video.mjpg"
    server.close()
    thread.join(5)


def test_a_stream_without_times_has_those_of_arrival(mjpeg_camera):
    with open_source(mjpeg_camera) as source:
        time.sleep(0.5)  # pictures that wait to be read keep the time at which they came
        frames = list(source)
    assert [clips.number_of(f.rgb) for f in frames] == list(range(6))
    seconds = [f.pts for f in frames]
    assert (seconds[0], source.info.fps) == (0, None)
    assert all(before < after for before, after in pairwise(seconds))
    assert seconds[3] < 0.4
    assert seconds[4] - seconds[3] > 0.3  # a busy machine may notice a picture late
    assert "those at which pictures arrive" in source.warnings[0]


def test_a_camera_that_starts_its_clock_again(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = clips.write_clip(tmp_path / "a.ts", 20, codec_options={"bf": "0"}).read_bytes()
    thread = threading.Thread(target=lambda: pipe.write_bytes(data + data))
    thread.start()
    with open_source(pipe) as source:
        frames = list(source)
    thread.join(10)
    assert [clips.number_of(f.rgb) for f in frames if f.index != 19] == [*range(19), *range(20)]
    assert np.allclose(np.diff([f.pts for f in frames]), 1 / 30, atol=1e-3)
    assert any("its clock jumps 1 time" in w for w in source.warnings)

"""Bad input: each is one clear sentence that names the file and says what to do, raised when opening."""

from __future__ import annotations

import os
import socket
import threading
import time
from fractions import Fraction

import av
import numpy as np
import pytest

import ptrack
from ptrack.errors import InputError
from ptrack.video import FrameSource, open_source, read_frames
from ptrack.video.live import camera_address, is_live

from . import clips


def sentence(spec, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_frames(spec, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_missing_file(tmp_path):
    assert sentence(tmp_path / "nope.mp4") == f"There is no file or folder {tmp_path / 'nope.mp4'}. Check the name."
    assert "its folder" in sentence(tmp_path / "no" / "nope.mp4")


def test_missing_file_with_a_near_name(tmp_path):
    clips.write_clip(tmp_path / "holiday.mp4", 2)
    assert "did you mean" in sentence(tmp_path / "holyday.mp4")
    assert "holiday.mp4" in sentence(tmp_path / "holyday.mp4")


def test_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    (tmp_path / ".hidden.png").write_bytes(b"")
    assert f"{tmp_path} holds no images" in sentence(tmp_path)


def test_empty_file(tmp_path):
    (tmp_path / "e.mp4").touch()
    assert "e.mp4 is empty (0 bytes)" in sentence(tmp_path / "e.mp4")


@pytest.mark.parametrize("name", ["t.mp4", "t.mkv", "t.txt", "t"])
def test_text_file(tmp_path, name):
    (tmp_path / name).write_text("This is not a video, whatever the name says. Ünïcödé.\n" * 200, encoding="utf-8")
    assert f"{name} holds text, not video" in sentence(tmp_path / name)


def test_bytes_that_are_no_video(tmp_path):
    (tmp_path / "r.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    assert "r.mp4 is not a video that can be read" in sentence(tmp_path / "r.mp4")


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac" if path.suffix == ".m4a" else "libmp3lame", rate=44100)
        stream.layout = "mono"
        for i in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts, frame.time_base = 44100, i * 1024, Fraction(1, 44100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["s.m4a", "s.mp3"])
def test_audio_only(tmp_path, name):
    assert f"{name} holds only sound" in sentence(write_sound(tmp_path / name))


def test_cover_art_is_no_video(tmp_path):
    from PIL import Image

    path = write_sound(tmp_path / "s.mp3")
    Image.fromarray(clips.quadrants()).save(tmp_path / "c.jpg")
    cover = (tmp_path / "c.jpg").read_bytes()
    body = b"\0image/jpeg\0\x03\0" + cover
    frame = b"APIC" + len(body).to_bytes(4, "big") + b"\0\0" + body
    size = bytes((len(frame) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\0\0" + size + frame + path.read_bytes())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1  # ffmpeg sees the cover as a video stream
    assert "holds only sound" in sentence(path)


def test_mp4_without_its_index(tmp_path):
    path = clips.cut(clips.write_clip(tmp_path / "m.mp4", 30), 0.6)
    text = sentence(path)
    assert "m.mp4 is an MP4 without its index" in text
    assert "untrunc" in text


def test_video_of_which_nothing_decodes(tmp_path):
    path = clips.write_clip(tmp_path / "n.mp4", 12, codec_options={"bf": "0"})
    for packet in range(12):
        clips.damage(path, packet, seed=packet)
    assert "n.mp4 has a video stream, but not one frame of it can be decoded" in sentence(path)


def test_permission_error_is_a_sentence(tmp_path, monkeypatch):
    path = clips.write_clip(tmp_path / "u.mp4", 2)

    def refuse(*_args, **_more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ptrack.video.probe.missing_bytes", refuse)
    assert "permission denied" in sentence(path)


def test_pattern_that_matches_nothing(tmp_path):
    assert "No image matches" in sentence(f"{tmp_path}/*.png")


def test_other_objects_are_refused():
    assert "float is no source" in sentence(3.5)


def test_an_open_source_is_taken_as_it_is(tmp_path):
    source = open_source(clips.write_clip(tmp_path / "a.mp4", 3))
    assert open_source(source) is source


def test_unknown_option_is_a_type_error(tmp_path):
    with pytest.raises(TypeError):
        read_frames(tmp_path, strid=2)


def test_the_public_names():
    assert ptrack.open_source is open_source
    assert ptrack.read_frames is read_frames
    assert issubclass(FrameSource, object)


# ------------------------------------------------------------------------------------------------- live sources


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


# ------------------------------------------------------------------------------------------------ without times


@pytest.fixture
def mjpeg_camera():
    """The address of a camera that sends 12 JPEG pictures over HTTP, 50 ms apart, and closes."""
    server = socket.create_server(("127.0.0.1", 0))
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 128, 96, "yuvj420p", Fraction(1, 25)
    frames = [av.VideoFrame.from_ndarray(clips.numbered(i), format="rgb24") for i in range(12)]
    pictures = [bytes(p) for f in frames for p in encoder.encode(f)]

    def serve():
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n")
            for data in pictures:
                part = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data)
                connection.sendall(part + data + b"\r\n")
                time.sleep(0.05)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/video.mjpg"
    server.close()
    thread.join(5)


def test_a_stream_without_times_has_those_of_arrival(mjpeg_camera):
    with open_source(mjpeg_camera) as source:
        time.sleep(0.3)  # pictures that wait to be read keep the time at which they came
        frames = list(source)
    assert [clips.number_of(f.rgb) for f in frames] == list(range(12))
    steps = np.diff([f.pts for f in frames])
    assert (frames[0].pts, source.info.fps) == (0, None)
    assert (steps > 0.02).all()
    assert np.median(steps) == pytest.approx(0.05, abs=0.02)
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

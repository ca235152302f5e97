"""Bad input: each is one clear sentence that names the file and what to do, raised when opening."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

import ptrack
from ptrack.errors import InputError
from ptrack.video import FrameSource, open_source, read_frames

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


def test_demo_is_the_packaged_clip_unless_something_here_has_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_source("demo") as source:
        assert (source.info.name, source.info.width, source.info.height) == ("demo", 512, 288)
    (tmp_path / "demo").mkdir()
    with pytest.raises(InputError, match="demo"):
        open_source("demo")

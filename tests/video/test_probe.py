"""What a file's bytes show about its own completeness."""

from __future__ import annotations

import pytest

from ptrack.video.probe import looks_like_text, missing_bytes, why_unreadable

from . import clips


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.avi"])
@pytest.mark.parametrize("lost", [0, 1, 100, 2000])
def test_missing_bytes(tmp_path, name, lost):
    codec = {"webm": "libvpx", "avi": "mpeg4"}.get(name.split(".")[1], "libx264")
    options = {"movflags": "faststart"} if name[-2:] in ("p4", "ov") else {}
    path = clips.write_clip(tmp_path / name, 20, codec=codec, container_options=options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - lost])
    assert missing_bytes(path) == lost


def test_formats_without_a_total_say_nothing(tmp_path):
    path = clips.write_clip(tmp_path / "a.ts", 5)
    assert missing_bytes(clips.cut(path, 0.5)) == 0


def test_live_matroska_with_open_size_says_nothing(tmp_path):
    path = clips.write_clip(tmp_path / "a.mkv", 5, container_options={"live": "1"})
    assert missing_bytes(clips.cut(path, 0.7)) == 0


@pytest.mark.parametrize(
    "data",
    [b"\x1aE\xdf\xa3", b"\x1aE\xdf\xa3\x84abcdEFGHijkl", b"\x1aE\xdf\xa3\0\0", b"\0\0\0\x04ftypabcd", b"", b"RIFF"],
)
def test_stubs_do_not_confuse(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    assert missing_bytes(tmp_path / "x") == 0


def test_large_box_sizes(tmp_path):
    ftyp = (16).to_bytes(4, "big") + b"ftypisom\0\0\0\0"
    mdat = (1).to_bytes(4, "big") + b"mdat" + (5_000_000_000).to_bytes(8, "big") + bytes(84)
    (tmp_path / "x.mp4").write_bytes(ftyp + mdat)
    assert missing_bytes(tmp_path / "x.mp4") == 5_000_000_000 - 100
    to_the_end = (0).to_bytes(4, "big") + b"mdat" + bytes(50)
    (tmp_path / "y.mp4").write_bytes(ftyp + to_the_end)
    assert missing_bytes(tmp_path / "y.mp4") == 0
    assert "without its index" in why_unreadable(tmp_path / "y.mp4")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"hello\n", True),
        ("naïve café".encode(), True),
        ("naïve caf é".encode()[:-1], True),  # cut inside a character
        (b"\x89PNG\r\n\x1a\n", False),
        (b"a\0b", False),
        (b"\x01\x02\x03", False),
    ],
)
def test_looks_like_text(data, text):
    assert looks_like_text(data) is text

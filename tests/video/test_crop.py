"""A crop that the container asks for is applied, as players do, with a warning."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from ptrack.video import open_source, read_frames
from ptrack.video.crop import Crop, crop_of

from . import clips


def with_clap(path, width, height, dx=0, dy=0):
    """Put a clean aperture of this size, its centre moved by (dx, dy), into an MP4 whose index is at its end."""
    data = path.read_bytes()
    clap = struct.pack(">I4s", 40, b"clap") + struct.pack(">IIIIiIiI", width, 1, height, 1, dx, 1, dy, 1)
    entry = data.index(b"avc1", data.index(b"stsd")) - 4
    at = entry + 8 + 78
    data = data[:at] + clap + data[at:]
    boxes = [entry]
    for name in (b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        boxes.append(data.rindex(name, 0, boxes[-1]) - 4)
    for begin in boxes:
        length = int.from_bytes(data[begin : begin + 4], "big") + len(clap)
        data = data[:begin] + struct.pack(">I", length) + data[begin + 4 :]
    path.write_bytes(data)
    return path


def test_clean_aperture(tmp_path):
    path = with_clap(clips.write_clip(tmp_path / "a.mp4", 5), 96, 80, dx=-8, dy=4)
    whole = list(open_source(clips.write_clip(tmp_path / "b.mp4", 5)))
    source = open_source(path)
    frames = list(source)
    assert (source.info.width, source.info.height) == (96, 80)
    assert all(np.array_equal(a.rgb, b.rgb[12:92, 8:104]) for a, b in zip(frames, whole, strict=True))
    assert source.warnings == [
        f"{path}: the container crops its 128x96 pictures to 96x80; coordinates refer to what is left."
    ]
    small = read_frames(path, max_size=48)
    assert next(iter(small)).rgb.shape == (40, 48, 3)
    assert len(list(source.reversed(5))) == 5


def test_clean_aperture_of_a_turned_video(tmp_path):
    path = with_clap(clips.write_clip(tmp_path / "a.mp4", [clips.quadrants()] * 3, rotation=(90, False)), 64, 48)
    plain = open_source(clips.write_clip(tmp_path / "b.mp4", [clips.quadrants()] * 3, rotation=(90, False)))
    source = open_source(path)
    assert (source.info.width, source.info.height) == (48, 64)
    assert clips.corner_colours(next(iter(source)).rgb) == clips.corner_colours(next(iter(plain)).rgb)


def with_pixel_crop(path, left, top):
    """Put a crop into a Matroska file's video track, at the expense of the empty space before the tracks."""
    crop = bytes([0x54, 0xCC, 0x81, left, 0x54, 0xBB, 0x81, top])
    data = path.read_bytes()
    void = data.index(b"\xec\x01")
    length = int.from_bytes(data[void + 2 : void + 9], "big") - len(crop)
    data = data[: void + 2] + length.to_bytes(7, "big") + data[void + 9 + len(crop) :]
    tracks = data.index(b"\x16\x54\xae\x6b", void)
    entry = data.index(b"\xae\x01", tracks)
    video = data.index(b"\xe0", entry + 0x20)
    for at, size in ((tracks + 4, 2), (entry + 1, 8), (video + 1, 1 if data[video + 1] & 0x80 else 8)):
        grown = int.from_bytes(data[at : at + size], "big") + len(crop)
        data = data[:at] + grown.to_bytes(size, "big") + data[at + size :]
    inside = video + 1 + size
    path.write_bytes(data[:inside] + crop + data[inside:])
    return path


def test_matroska_crop(tmp_path):
    path = with_pixel_crop(clips.write_clip(tmp_path / "a.mkv", 4), left=16, top=12)
    source = open_source(path)
    assert crop_of(path, 0, 128, 96) == Crop(left=16, top=12)
    assert next(iter(source)).rgb.shape == (84, 112, 3)
    assert "crops its 128x96 pictures to 112x84" in source.warnings[0]


@pytest.mark.parametrize(("size", "shift"), [((128, 96), (0, 0)), ((0, 80), (0, 0)), ((96, 80), (100, 0))])
def test_a_crop_that_is_none_or_impossible(tmp_path, size, shift):
    path = with_clap(clips.write_clip(tmp_path / "a.mp4", 2), *size, *shift)
    source = open_source(path)
    assert (source.info.width, source.info.height, source.warnings) == (128, 96, [])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mov"])
def test_files_without_a_crop(tmp_path, name):
    path = clips.write_clip(tmp_path / name, 2, codec="mpeg4")
    assert crop_of(path, 0, 128, 96) is None
    data = path.read_bytes()
    for end in range(0, min(len(data), 4000), 37):  # cut anywhere
        path.write_bytes(data[:end])
        assert crop_of(path, 0, 128, 96) is None

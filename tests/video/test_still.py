"""Pictures larger than the limit are refused by their header, before memory is taken."""

from __future__ import annotations

import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ptrack.errors import InputError
from ptrack.video import open_source, read_frames, still

from . import clips
from .test_animation import stack

SIDE = 30_000  # 900 million pixels: 2.7 GB as RGB


def png_bomb(path):
    """A PNG of 30000 x 30000 pixels in 100 kB."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    body = packer.compress(bytes(SIDE * 3)) + packer.flush()  # one row: the rest is never asked for
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def gif_bomb(path, bare):
    Image.fromarray(clips.numbered(0)[..., 0]).save(
        path, save_all=True, append_images=[Image.fromarray(clips.numbered(1)[..., 0])], duration=0 if bare else 50
    )
    data = bytearray(path.read_bytes())
    data[6:10] = struct.pack("<HH", SIDE, SIDE)
    path.write_bytes(data)


def taller(path, height):
    """Let a TIFF claim another height."""
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HHI", 257, 4, 1))
    data[at + 8 : at + 12] = struct.pack("<I", height)
    path.write_bytes(data)


@pytest.mark.parametrize("height", [97, 1_000_000])
def test_a_tiff_that_claims_more_rows_than_it_stores_is_damaged(tmp_path, height):
    """Read as it was, the rest was black, and 2 GB were taken for 14 kB."""
    path = tmp_path / "a.tif"
    Image.fromarray(clips.numbered(0)).save(path)
    if struct.pack("<HHI", 257, 4, 1) not in path.read_bytes():
        data = path.read_bytes()
        at = data.index(struct.pack("<HHI", 257, 3, 1))
        path.write_bytes(data[: at + 2] + struct.pack("<HII", 4, 1, 96) + data[at + 12 :])
    taller(path, height)
    with pytest.raises(InputError, match="is not an image that can be read"):
        open_source(path)


@pytest.mark.parametrize(("name", "mode"), [("a.bmp", "RGB"), ("a.ppm", "RGB"), ("a.bmp", "1"), ("a.pgm", "L")])
def test_a_picture_that_is_not_packed_and_larger_than_its_file_is_damaged(tmp_path, monkeypatch, name, mode):
    from PIL import ImageFile

    image = Image.fromarray(clips.numbered(0)).convert(mode)
    image.save(tmp_path / name)
    assert next(iter(read_frames(tmp_path / name))).rgb.shape == (96, 128, 3)
    data = (tmp_path / name).read_bytes()
    if name.endswith("bmp"):
        data = data[:18] + struct.pack("<ii", 9000, 9000) + data[26:]
    else:
        data = data.replace(b"128 96", b"9000 9000")
    (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("memory is taken"))
    with pytest.raises(InputError, match="is not an image that can be read"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_large_pictures_are_converted_by_rows_to_the_same(tmp_path, monkeypatch, mode):
    rgba = np.dstack([clips.numbered(7), np.tile(np.arange(128, dtype=np.uint8), (96, 1))])
    image = Image.fromarray(rgba).convert("RGB" if mode in ("P", "1", "CMYK") else mode).convert(mode)
    image.save(tmp_path / "a.tif", tiffinfo={274: 6})
    whole = next(iter(read_frames(tmp_path / "a.tif"))).rgb
    monkeypatch.setattr(still, "_BLOCK", 128 * 7)
    assert whole.shape == (128, 96, 3)
    assert np.array_equal(next(iter(read_frames(tmp_path / "a.tif"))).rgb, whole)


@pytest.mark.parametrize("kind", ["a.png", "folder", "a.gif", "bare.gif", "b.tif"])
def test_a_picture_above_the_limit_is_refused(tmp_path, kind):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
        png_bomb(path / "big.png")
    elif kind.endswith(".gif"):
        gif_bomb(path, bare=kind == "bare.gif")
    elif kind == "b.tif":
        Image.fromarray(clips.numbered(0)).save(path)
        data = path.read_bytes()
        for tag in (256, 257):
            at = data.index(struct.pack("<HHI", tag, 4, 1)) if struct.pack("<HHI", tag, 4, 1) in data else None
            at = data.index(struct.pack("<HHI", tag, 3, 1)) if at is None else at
            data = data[: at + 2] + struct.pack("<HII", 4, 1, SIDE) + data[at + 12 :]
        path.write_bytes(data)
    else:
        png_bomb(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="30000x30000 has 900,000,000 pixels, more than the limit of 134,217,728"):
        open_source(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_the_limit_can_be_set(tmp_path):
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(tmp_path / "a.png")
    assert len(list(read_frames(tmp_path / "a.png", max_pixels=120_000))) == 1
    with pytest.raises(InputError, match="400x300 has 120,000 pixels, more than the limit of 119,999"):
        read_frames(tmp_path / "a.png", max_pixels=119_999)
    with pytest.raises(InputError, match="must be 1 or more"):
        read_frames(tmp_path / "a.png", max_pixels=0)


def test_a_picture_larger_than_pillows_own_limit(tmp_path, monkeypatch, recwarn):
    """Pillow refuses 179 million pixels and warns at half of it; only this package's limit counts."""
    stack(tmp_path / "s.tif", 3)
    stack(tmp_path / "s.gif", 3, duration=40)
    (tmp_path / "f").mkdir()
    for i, name in enumerate(["0.png", "1.tif", "2.webp"]):
        Image.fromarray(clips.numbered(i)).save(tmp_path / "f" / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert [clips.number_of(f.rgb) for f in read_frames(tmp_path / "f", fps=1.0)] == [0, 1, 2]
    for name in ("s.tif", "s.gif"):
        assert [clips.number_of(f.rgb) for f in read_frames(tmp_path / name, fps=1.0)] == [0, 1, 2]
    assert not [w for w in recwarn.list if "pixels" in str(w.message)]
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_pictures_that_grow_above_the_limit_midway(tmp_path):
    for i, size in enumerate([(64, 48), (64, 48), (128, 96)]):
        Image.fromarray(clips.numbered(i, *size)).save(tmp_path / f"{i}.png")
    with pytest.raises(InputError, match=r"2\.png: a picture of 128x96"):
        list(read_frames(tmp_path, max_pixels=64 * 48))

"""Folders of images, glob patterns and single images."""

from __future__ import annotations

import hashlib
import struct
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from ptrack.errors import InputError
from ptrack.video import open_source, read_frames
from ptrack.video.listing import natural_key

from . import clips
from .test_animation import same_backwards, stack


def save(folder, names, size=(128, 96)):
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        Image.fromarray(clips.numbered(i, *size)).save(folder / name)
    return folder


def test_natural_order_and_what_is_left_out(tmp_path):
    folder = save(tmp_path / "f", ["img1.png", "img2.PNG", "img10.png", "img11.jpg", "img100.png"])
    (folder / ".hidden.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("text")
    (folder / "img3.png").mkdir()
    source = open_source(folder)
    frames = list(source)
    assert [clips.number_of(f.rgb) for f in frames] == list(range(5))
    assert (source.info.kind, source.info.expected_frames, source.info.fps) == ("images", 5, None)
    assert [f.pts for f in frames] == [i / 25 for i in range(5)]
    assert [f.index for f in frames] == list(range(5))


@pytest.mark.parametrize(
    "names",
    [
        ["a1", "a2", "a10"],
        ["1", "2", "10", "a"],
        ["f9_2", "f9_10", "f10_1"],
        ["x", "x1", "y"],
        ["007", "8", "0009"],
        ["Ä1", "ä2", "Ä10"],
    ],
)
def test_natural_key(names):
    wrong = names[::-1]
    wrong.sort(key=natural_key)
    assert wrong == names


def test_glob_pattern(tmp_path):
    folder = save(tmp_path / "f", ["a1.png", "a2.png", "a10.png"])
    save(tmp_path / "f", ["b1.png"])
    source = open_source(f"{folder}/a*.png")
    assert [clips.number_of(f.rgb) for f in source] == [0, 1, 2]
    assert len(list(open_source(f"{tmp_path}/**/*.png"))) == 4


def test_folder_whose_name_looks_like_a_pattern(tmp_path):
    folder = save(tmp_path / "run [1]*", ["a1.png", "a2.png"])
    assert len(list(open_source(folder))) == 2


def test_single_image(tmp_path):
    save(tmp_path, ["still.png"])
    source = open_source(tmp_path / "still.png")
    assert np.array_equal(next(iter(source)).rgb, clips.numbered(0))
    assert source.info.expected_frames == 1


def test_mixed_sizes_take_the_first_one(tmp_path):
    folder = save(tmp_path / "f", ["a1.png", "a2.png"])
    Image.fromarray(clips.numbered(2, 256, 192)).save(folder / "a3.png")
    source = read_frames(folder, fps=25.0)
    frames = list(source)
    assert [f.rgb.shape for f in frames] == [(96, 128, 3)] * 3
    assert clips.number_of(frames[2].rgb) == 2
    assert len(source.warnings) == 1
    assert "differ in size" in source.warnings[0]


def test_damaged_image_is_a_placeholder(tmp_path):
    folder = save(tmp_path / "f", [f"a{i}.png" for i in range(6)])
    data = (folder / "a3.png").read_bytes()
    (folder / "a3.png").write_bytes(data[: len(data) // 2])
    (folder / "a0.png").write_bytes(b"")
    source = read_frames(folder, fps=25.0)
    frames = list(source)
    assert [(f.index, f.ok) for f in frames] == [(i, i not in (0, 3)) for i in range(6)]
    assert [clips.number_of(f.rgb) for f in frames] == [1, 1, 2, 2, 4, 5]
    assert len(source.warnings) == 2
    backward = list(source.reversed(6))[::-1]
    assert all(np.array_equal(a.rgb, b.rgb) and a.ok == b.ok for a, b in zip(frames, backward, strict=True))
    with pytest.raises(InputError, match=r"a0\.png cannot be read"):
        read_frames(folder, strict=True)


def test_only_damaged_images(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"a\.png is empty"):
        open_source(tmp_path)
    with pytest.raises(InputError, match=r"b\.png is not an image"):
        open_source(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"start": 2, "end": 9, "stride": 3}, [2, 5, 8]),
        ({"start": 0.2}, [5, 6, 7, 8, 9, 10, 11]),
        ({"start": 0.5, "fps": 10.0}, [5, 6, 7, 8, 9, 10, 11]),
        ({"end": 0.3, "fps": 10.0, "stride": 2}, [0, 2]),
    ],
)
def test_selection_and_rate(tmp_path, options, expected):
    folder = save(tmp_path / "f", [f"{i}.png" for i in range(12)], (64, 48))
    source = read_frames(folder, **options)
    frames = list(source)
    fps = options.get("fps", 25.0)
    assert [f.index for f in frames] == [clips.number_of(f.rgb) for f in frames] == expected
    assert [f.pts for f in frames] == pytest.approx([i / fps for i in expected])
    assert source.info.expected_frames == len(expected)
    assert source.info.fps == (options["fps"] / options.get("stride", 1) if "fps" in options else None)
    assert [f.index for f in source.reversed(len(expected))] == expected[::-1]


def test_selection_after_the_end(tmp_path):
    with pytest.raises(InputError, match="ends before"):
        read_frames(save(tmp_path / "f", ["a.png"]), start=3)


def test_max_size(tmp_path):
    source = read_frames(save(tmp_path / "f", ["a.png"]), max_size=32)
    assert (source.info.width, source.info.height) == (128, 96)
    small = next(iter(source)).rgb
    by_area = clips.numbered(0).reshape(24, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - by_area).max() <= 1.01


@pytest.mark.parametrize("kind", ["grey", "grey16", "alpha", "palette", "rgb16", "cmyk"])
def test_picture_kinds(tmp_path, kind):
    rgb = clips.quadrants()
    path = tmp_path / ("a.jpg" if kind == "cmyk" else "a.png")
    expected = rgb
    if kind == "grey":
        expected = np.repeat(rgb[..., :1], 3, axis=2)
        Image.fromarray(rgb[..., 0]).save(path)
    elif kind == "grey16":
        ramp = (np.arange(128, dtype=np.uint16) * 500)[None].repeat(96, 0)
        expected = np.repeat((ramp >> 8).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(ramp).save(path)
    elif kind == "alpha":
        alpha = np.where(np.arange(128) < 64, 255, 0).astype(np.uint8)[None].repeat(96, 0)
        expected = np.where(alpha[..., None] > 0, rgb, 0)
        Image.fromarray(np.dstack([rgb, alpha])).save(path)
    elif kind == "palette":
        Image.fromarray(rgb).quantize(4).save(path)
    elif kind == "rgb16":
        import av

        deep = av.VideoFrame.from_ndarray(rgb.astype(np.uint16) * 257, format="rgb48le")
        encoder = av.CodecContext.create("png", "w")
        encoder.width, encoder.height, encoder.pix_fmt = 128, 96, "rgb48be"
        encoder.time_base = Fraction(1, 25)
        path.write_bytes(
            b"".join(bytes(p) for p in [*encoder.encode(deep.reformat(format="rgb48be")), *encoder.encode()])
        )
    else:
        Image.fromarray(rgb).convert("CMYK").save(path, quality=98)
    got = next(iter(open_source(path))).rgb
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    assert np.abs(got[8:40:8, 8:56:8].astype(int) - expected[8:40:8, 8:56:8]).max() <= (12 if kind == "cmyk" else 1)
    assert np.abs(got[56::8, 72::8].astype(int) - expected[56::8, 72::8]).max() <= (12 if kind == "cmyk" else 1)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.fromarray(clips.quadrants())
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: show it 90 degrees clockwise
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    source = open_source(tmp_path / "a.jpg")
    assert (source.info.width, source.info.height) == (96, 128)
    assert clips.corner_colours(next(iter(source)).rgb) == "BRWG"


def test_sha256_covers_names_and_bytes(tmp_path):
    folder = save(tmp_path / "f", ["a.png", "b.png"], (32, 24))
    first = open_source(folder).sha256()
    digest = hashlib.sha256()
    for name in ("a.png", "b.png"):
        digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    assert first == digest.hexdigest()
    (folder / "b.png").rename(folder / "c.png")
    assert open_source(folder).sha256() != first


def test_images_removed_while_reading(tmp_path):
    folder = save(tmp_path / "f", ["a.png", "b.png"], (32, 24))
    source = open_source(folder)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="can be read any more"):
        list(source)


# ------------------------------------------------------------------------------------------------- stacks


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_tiff_stack(tmp_path, compression):
    source = read_frames(stack(tmp_path / "s.tif", compression=compression), start=2, stride=3, fps=10.0)
    frames = same_backwards(source)
    assert [clips.number_of(f.rgb) for f in frames] == [2, 5, 8, 11, 14, 17]
    assert [f.pts for f in frames] == pytest.approx([0.2, 0.5, 0.8, 1.1, 1.4, 1.7])
    assert (source.info.expected_frames, source.warnings) == (6, [])
    assert source.sha256()


def test_tiff_stack_of_twelve_bits(tmp_path):
    deep = [clips.numbered(i)[..., 0].astype(np.uint16) * 16 for i in range(10)]
    frames = list(open_source(stack(tmp_path / "s.tif", pictures=deep)))
    assert [clips.number_of(f.rgb) for f in frames] == list(range(10))
    assert np.abs(frames[3].rgb[..., 0].astype(int) - clips.numbered(3)[..., 0]).max() <= 1


def test_reduced_copies_in_a_tiff_are_no_frames(tmp_path):
    path = stack(tmp_path / "p.tif", 6)
    data = bytearray(path.read_bytes())
    directory, page = struct.unpack_from("<I", data, 4)[0], 0
    while directory:
        count = struct.unpack_from("<H", data, directory)[0]
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            if page % 2 and struct.unpack_from("<H", data, entry)[0] == 284:  # of no use here: make it NewSubfileType
                struct.pack_into("<HHII", data, entry, 254, 4, 1, 1)
        directory, page = struct.unpack_from("<I", data, directory + 2 + 12 * count)[0], page + 1
    path.write_bytes(data)
    assert [clips.number_of(f.rgb) for f in open_source(path)] == [0, 2, 4]


def test_a_damaged_page_keeps_its_place(tmp_path):
    path = stack(tmp_path / "s.tif", 6, compression="tiff_deflate")
    with Image.open(path) as image:
        image.seek(3)
        offset = image.tag_v2[273][0]
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    source = open_source(path)
    frames = same_backwards(source)
    assert [f.index for f in frames if not f.ok] == [3]
    assert [clips.number_of(f.rgb) for f in frames] == [0, 1, 2, 2, 4, 5]
    assert any("picture 3" in w and "cannot be read" in w for w in source.warnings)


def test_a_stack_among_single_pictures_is_a_warning(tmp_path):
    stack(tmp_path / "a0.tif", 3)
    stack(tmp_path / "a1.tif", 3)
    source = read_frames(tmp_path, fps=25.0)
    assert len(list(source)) == 2
    assert source.warnings == [f"{tmp_path / 'a0.tif'} holds several pictures; the first of each file is used."]

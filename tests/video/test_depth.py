"""Pictures and video of more than eight bits: one range for the whole source, chosen once and given with a warning."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from ptrack.errors import InputError
from ptrack.video import open_source, read_frames
from ptrack.video.depth import Depth, chosen_range, spread, type_range

from . import clips

RNG = np.random.default_rng(0)


def grey(number, top, dtype):
    """A numbered picture as grey numbers from 0 to ``top``."""
    return (clips.numbered(number)[..., 0].astype(np.float64) / 255 * top).astype(dtype)


def encoded(codec, pix_fmt, values):
    """One picture of (H, W, 3) uint16 values in a file's bytes."""
    frame = av.VideoFrame.from_ndarray(values, format="rgb48le").reformat(format=pix_fmt)
    encoder = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width = values.shape[:2]
    encoder.pix_fmt, encoder.time_base = pix_fmt, Fraction(1, 25)
    return b"".join(bytes(p) for p in [*encoder.encode(frame), *encoder.encode()])


def folder(tmp_path, kind, count=4):
    for i in range(count):
        path = tmp_path / f"f{i}"
        if kind in ("tif12", "png12"):
            Image.fromarray(grey(i, 4095, np.uint16)).save(path.with_suffix(f".{kind[:3]}"))
        elif kind == "float":
            Image.fromarray(grey(i, 1, np.float32)).save(path.with_suffix(".tif"))
        elif kind == "int32":
            Image.fromarray(grey(i, 1000, np.int32) - 500).save(path.with_suffix(".tif"))
        else:  # 12 bits of colour in 16
            codec = {"rgbpng": "png", "rgbtif": "tiff", "rgbapng": "png"}[kind]
            pixels = {"rgbpng": "rgb48be", "rgbtif": "rgb48le", "rgbapng": "rgba64be"}[kind]
            deep = clips.numbered(i).astype(np.uint16) * 16
            path.with_suffix(f".{codec}").write_bytes(encoded(codec, pixels, deep))
    return tmp_path


@pytest.mark.parametrize("kind", ["tif12", "png12", "float", "int32", "rgbpng", "rgbtif", "rgbapng"])
def test_deep_pictures_span_the_whole_range(tmp_path, kind):
    source = open_source(folder(tmp_path, kind))
    frames = list(source)
    assert [clips.number_of(f.rgb) for f in frames] == [0, 1, 2, 3]
    wanted = clips.numbered(2) if kind.startswith("rgb") else clips.numbered(2)[..., :1]
    assert np.abs(frames[2].rgb.astype(int) - wanted).max() <= (28 if kind == "int32" else 1)
    texts = [w for w in source.warnings if "become black to white" in w]
    assert len(texts) == 1
    assert ("0 to 4095 become" in texts[0]) == (kind not in ("float", "int32"))
    again = list(open_source(tmp_path).reversed(4))[::-1]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(frames, again, strict=True))


def test_the_range_is_one_for_all_frames_and_for_every_part(tmp_path):
    """A dim frame stays dim, whichever frames are selected."""
    for i in range(10):
        Image.fromarray(grey(i, 400 + 400 * i, np.uint16)).save(tmp_path / f"{i}.png")
    whole = list(open_source(tmp_path))
    part = list(read_frames(tmp_path, start=0, end=2))
    assert np.array_equal(part[1].rgb, whole[1].rgb)
    assert [round(f.rgb.max() / 255 * 4095 / 400) for f in whole] == list(range(1, 11))


def test_given_range(tmp_path):
    source = read_frames(folder(tmp_path, "tif12"), range=(1000, 3000))
    rgb = next(iter(source)).rgb[..., 0].astype(float)
    values = grey(0, 4095, np.uint16).astype(float)
    assert np.abs(rgb - np.clip((values - 1000) / 2000 * 255, 0, 255)).max() <= 0.51
    assert not any("black to white" in w for w in source.warnings)


@pytest.mark.parametrize("values", [(5, 5), (9, 1), (0, float("nan")), (0, float("inf"))])
def test_impossible_ranges(tmp_path, values):
    with pytest.raises(InputError, match="The range must be two numbers"):
        read_frames(folder(tmp_path, "tif12"), range=values)


def test_a_given_range_for_eight_bits(tmp_path):
    Image.fromarray(clips.numbered(3) // 8).save(tmp_path / "a.png")
    still = next(iter(read_frames(tmp_path / "a.png", range=(0, 31)))).rgb
    assert np.abs(still.astype(int) - clips.numbered(3) // 8 * (255 / 31)).max() <= 1
    clips.write_clip(tmp_path / "a.avi", [clips.numbered(3) // 8] * 2, codec="rawvideo", pix_fmt="bgr24")
    assert np.array_equal(next(iter(read_frames(tmp_path / "a.avi", range=(0, 31)))).rgb, still)


def test_arrays_with_a_range():
    video = np.stack([grey(i, 4095, np.uint16) for i in range(4)])
    for frames in (video, iter(video), video.astype(np.float32)):
        assert [clips.number_of(f.rgb) for f in read_frames(frames, range=(0, 4095))] == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"uint16 numbers.*range=\(black, white\)"):
        open_source(video)


def grey16_clip(path, tops, codec="ffv1"):
    """A video of 16-bit grey frames, frame i of numbers from 0 to tops[i]."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "gray16le"
        for i, top in enumerate(tops):
            frame = av.VideoFrame.from_ndarray(grey(i, top, np.uint16), format="gray16le")
            frame.pts, frame.time_base = i, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
def test_deep_video(tmp_path, name):
    """The range comes from frames of the whole file: the first ones are nearly black."""
    path = grey16_clip(tmp_path / name, [40] * 4 + [4095] * 36)
    source = open_source(path)
    frames = list(source)
    assert [clips.number_of(f.rgb) for f in frames[4:]] == list(range(4, 40))
    assert frames[0].rgb.max() == 2
    assert frames[39].rgb.max() == 255
    assert "16-bit numbers, 0 to 4095 in the frames looked at; 0 to 4095 become black to white" in source.warnings[0]
    part = read_frames(path, start=0, end=3)
    assert np.array_equal(next(iter(part)).rgb, frames[0].rgb)
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(source.reversed(40), frames[::-1], strict=True))
    small = next(iter(read_frames(path, start=9, max_size=64)))
    assert small.rgb.shape == (48, 64, 3)
    assert clips.number_of(small.rgb) == 9
    assert next(iter(read_frames(path, range=(0, 65535), start=9))).rgb.max() == 16


def test_ordinary_ten_bit_video_is_left_alone(tmp_path):
    plain = clips.write_clip(tmp_path / "a.mkv", 3, codec="ffv1", pix_fmt="yuv444p")
    deep = clips.write_clip(tmp_path / "b.mkv", 3, codec="ffv1", pix_fmt="yuv444p10le")
    source = open_source(deep)
    for a, b in zip(open_source(plain), source, strict=True):
        assert np.abs(a.rgb.astype(int) - b.rgb).max() <= 3
    assert source.warnings == []
    given = next(iter(read_frames(deep, range=(0, 1023)))).rgb.astype(int)
    assert np.abs(given - next(iter(source)).rgb).max() <= 3


@pytest.mark.parametrize(
    ("values", "whole", "expected"),
    [
        (np.arange(0, 4000, dtype=np.uint16), True, (0, 4095)),
        (np.arange(0, 60000, dtype=np.uint16), True, (0, 65535)),
        (np.arange(0, 250, dtype=np.uint16), True, (0, 255)),
        (np.linspace(0, 0.9, 1000, dtype=np.float32), True, (0, 1)),
        (np.linspace(0, 254, 1000, dtype=np.float32), True, (0, 255)),
        (np.full(100, np.nan, np.float32), True, (0, 1)),
        (np.arange(29000, 31000, dtype=np.uint16), False, (0, 32767 * 2 + 1)),
        (np.arange(0, 30, dtype=np.uint16), False, (0, 255)),
    ],
)
def test_chosen_range(values, whole, expected):
    assert chosen_range([values], whole=whole) == pytest.approx(expected)


def test_a_narrow_band_is_stretched_with_a_margin():
    """A thermal camera: 29000 to 31000 of 65535."""
    values = RNG.integers(29000, 31000, 100_000).astype(np.uint16)
    values[:5] = 65535  # hot pixels
    low, high = chosen_range([values])
    assert low == pytest.approx(28750, abs=20)
    assert high == pytest.approx(31250, abs=20)


def test_the_files_own_number_of_bits_counts():
    assert chosen_range([np.arange(900, dtype=np.uint16)], bits=12) == (0, 4095)


def test_depth_maps_and_clips():
    depth = Depth(100, 200)
    assert depth(np.array([0, 100, 150, 200, 900], np.uint16)).tolist() == [0, 0, 128, 255, 255]
    assert depth(np.array([np.nan, np.inf, -np.inf, 150.0], np.float32)).tolist() == [0, 255, 0, 128]
    assert depth(np.array([-5, 150], np.int32)).tolist() == [0, 128]
    assert type_range(np.dtype(np.uint16)) == (0, 65535)


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [0]), (3, [0, 1, 2]), (8, list(range(8)))])
def test_spread(count, expected):
    assert spread(count) == expected
    assert len(spread(1000)) == 8
    assert (spread(1000)[0], spread(1000)[-1]) == (0, 999)

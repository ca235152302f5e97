"""Video files as they really are: rotation, pixel shape, times, pixel formats, sizes."""

from __future__ import annotations

import hashlib
import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ptrack.errors import InputError
from ptrack.video import Frame, ReadOptions, open_source, read_frames
from ptrack.video.files import VideoFile

from . import clips


def read(path: Path, **options) -> list[Frame]:
    with read_frames(path, **options) as source:
        return list(source)


def test_every_frame_comes_once_in_order_with_its_time(tmp_path):
    frames = read(clips.write_clip(tmp_path / "a.mp4", 40))
    assert [clips.number_of(f.rgb) for f in frames] == list(range(40))
    assert [f.index for f in frames] == list(range(40))
    assert np.allclose([f.pts for f in frames], np.arange(40) / 30, atol=1e-9)
    assert all(f.ok for f in frames)
    assert all(f.rgb.dtype == np.uint8 and f.rgb.shape == (96, 128, 3) for f in frames)
    assert all(f.rgb.flags.c_contiguous and f.rgb.flags.writeable for f in frames)


def test_info_describes_the_source(tmp_path):
    path = clips.write_clip(tmp_path / "a.mp4", 40)
    source = open_source(path)
    info = source.info
    assert (info.name, info.kind, info.width, info.height, info.rotation) == (str(path), "video", 128, 96, 0)
    assert (info.fps, info.expected_frames, info.live, info.rereadable) == (30.0, 40, False, True)
    assert source.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(list(source)) == len(list(source)) == 40
    assert source.warnings == []
    assert not source.truncated


@pytest.mark.parametrize(
    ("degrees", "mirror", "size", "corners", "rotation"),
    [
        (0, False, (128, 96), "RGBW", 0),
        (90, False, (96, 128), "GWRB", 90),
        (180, False, (128, 96), "WBGR", 180),
        (270, False, (96, 128), "BRWG", 270),
        (0, True, (128, 96), "GRWB", 0),
        (90, True, (96, 128), "WGBR", 90),
    ],
)
def test_display_rotation_is_applied(tmp_path, degrees, mirror, size, corners, rotation):
    path = clips.write_clip(tmp_path / "r.mp4", [clips.quadrants()] * 3, rotation=(degrees, mirror))
    source = open_source(path)
    frame = next(iter(source))
    assert (source.info.width, source.info.height) == size
    assert frame.rgb.shape == (size[1], size[0], 3)
    assert clips.corner_colours(frame.rgb) == corners
    assert frame.rgb.flags.c_contiguous
    if not mirror:
        assert source.info.rotation == rotation


def test_rotated_picture_is_the_turned_unrotated_one(tmp_path):
    plain = read(clips.write_clip(tmp_path / "p.mp4", 3))
    turned = read(clips.write_clip(tmp_path / "r.mp4", 3, rotation=(90, False)))
    assert all(np.array_equal(np.rot90(a.rgb), b.rgb) for a, b in zip(plain, turned, strict=True))


@pytest.mark.parametrize(("sar", "width"), [(Fraction(4, 3), 171), (Fraction(1, 2), 64), (Fraction(1, 1), 128)])
def test_pixels_become_square(tmp_path, sar, width):
    source = open_source(clips.write_clip(tmp_path / "s.mp4", [clips.quadrants()] * 3, sar=sar))
    frame = next(iter(source))
    assert (source.info.width, source.info.height) == (width, 96)
    assert frame.rgb.shape == (96, width, 3)
    assert clips.corner_colours(frame.rgb) == "RGBW"


def test_wide_pixels_of_a_rotated_video_become_tall(tmp_path):
    path = clips.write_clip(tmp_path / "s.mp4", [clips.quadrants()] * 3, sar=Fraction(2, 1), rotation=(90, False))
    source = open_source(path)
    assert (source.info.width, source.info.height) == (96, 256)
    assert next(iter(source)).rgb.shape == (256, 96, 3)


def test_variable_rate_keeps_each_frames_time(tmp_path):
    ticks = [0, 3, 4, 10, 11, 30, 31, 32, 59]
    pictures = [clips.numbered(i) for i in range(9)]
    frames = read(clips.write_clip(tmp_path / "v.mp4", pictures, ticks=ticks))
    assert [clips.number_of(f.rgb) for f in frames] == list(range(9))
    assert np.allclose([f.pts for f in frames], np.array(ticks) / 30, atol=1e-9)


def test_start_offset_is_kept(tmp_path):
    pictures = [clips.numbered(i) for i in range(12)]
    frames = read(clips.write_clip(tmp_path / "o.mkv", pictures, ticks=range(45, 57)))
    assert np.allclose([f.pts for f in frames], 1.5 + np.arange(12) / 30, atol=1e-3)  # Matroska counts milliseconds
    assert [f.index for f in read(tmp_path / "o.mkv", start=1.6, end=1.7)] == [3, 4, 5]  # seconds on the same clock


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "tolerance"),
    [
        ("a.mp4", "libx264", "yuv420p", 8),
        ("a10.mp4", "libx264", "yuv420p10le", 8),
        ("a422.mov", "prores_ks", "yuv422p10le", 8),
        ("lossless.mkv", "ffv1", "yuv444p", 4),
        ("rgb.mkv", "libx264rgb", "rgb24", 8),
        ("full.avi", "mjpeg", "yuvj420p", 10),
        ("b.avi", "mpeg4", "yuv420p", 14),
        ("a.ts", "libx264", "yuv420p", 8),
        ("a.webm", "libvpx-vp9", "yuv420p", 14),
        ("a8.webm", "libvpx", "yuv420p", 14),
        ("h265.mp4", "libx265", "yuv420p", 10),
    ],
)
def test_formats_give_the_same_picture(tmp_path, name, codec, pix_fmt, tolerance):
    quality = {"qmin": "1", "qmax": "2"} if codec in ("mjpeg", "mpeg4") else {"crf": "10"} if "x26" in codec else {}
    path = clips.write_clip(tmp_path / name, 15, codec=codec, pix_fmt=pix_fmt, codec_options=quality)
    frames = read(path)
    assert [clips.number_of(f.rgb) for f in frames] == list(range(15))
    assert np.allclose(np.diff([f.pts for f in frames]), 1 / 30, atol=1.1e-3)
    errors = [np.abs(f.rgb.astype(int) - clips.numbered(i)).mean() for i, f in enumerate(frames)]
    assert max(errors) < tolerance


@pytest.mark.parametrize("deep", ["gray", "gray10le"])
def test_grey_becomes_three_equal_channels(tmp_path, deep):
    frames = read(clips.write_clip(tmp_path / "g.mkv", 5, codec="ffv1", pix_fmt=deep))
    assert [clips.number_of(f.rgb) for f in frames] == list(range(5))
    grey = frames[2].rgb
    assert np.ptp(grey.astype(int), axis=2).max() <= 1
    assert grey.std() > 20


def test_alpha_is_laid_over_black(tmp_path):
    picture = np.dstack([clips.quadrants(), np.full((96, 128), 255, np.uint8)])
    picture[:, 64:, 3] = 0
    path = clips.write_clip(tmp_path / "a.mkv", [picture] * 3, codec="ffv1", pix_fmt="bgra", source_format="rgba")
    rgb = read(path)[0].rgb
    assert rgb.shape == (96, 128, 3)
    assert rgb[20, 20].tolist() == [255, 0, 0]
    assert not rgb[:, 64:].any()


def test_odd_sizes_stay_odd(tmp_path):
    pictures = [clips.numbered(i, 127, 95) for i in range(5)]
    source = open_source(clips.write_clip(tmp_path / "o.mkv", pictures, codec="ffv1", pix_fmt="yuv420p"))
    assert (source.info.width, source.info.height) == (127, 95)
    assert [f.rgb.shape for f in source] == [(95, 127, 3)] * 5


def test_interlaced_frames_come_whole(tmp_path):
    options = {"flags": "+ildct+ilme", "top": "1"}
    path = clips.write_clip(tmp_path / "i.ts", 10, codec="mpeg2video", codec_options=options)
    frames = read(path)
    assert [clips.number_of(f.rgb) for f in frames] == list(range(10))
    assert {f.rgb.shape for f in frames} == {(96, 128, 3)}


def test_colours_follow_the_tags(tmp_path):
    errors = []
    for tag, number in (("bt709", "1"), ("smpte170m", "6")):
        options = {"crf": "4", "colorspace": number, "color_primaries": number, "color_trc": number}
        path = tmp_path / f"{tag}.mp4"
        pictures = [clips.quadrants()] * 3
        clips.write_clip(path, pictures, codec_options=options)
        errors.append(read(path)[0].rgb[20, 100].astype(int))  # the green corner
    # The encoder above always converts with the BT.601 matrix, so green is only right under the matching tag.
    assert errors[1].tolist() == pytest.approx([0, 255, 0], abs=4)
    assert np.abs(errors[0] - [0, 255, 0]).max() > 8


def test_max_size_shrinks_by_area_and_never_enlarges(tmp_path):
    grey = [clips.numbered(i).mean(axis=2, keepdims=True).repeat(3, axis=2).astype(np.uint8) for i in range(5)]
    path = clips.write_clip(tmp_path / "a.mp4", grey, codec_options={"crf": "10"})
    source = open_source(path, ReadOptions(max_size=64))
    frames = list(source)
    assert {f.rgb.shape for f in frames} == {(48, 64, 3)}
    assert (source.info.width, source.info.height) == (128, 96)
    assert [clips.number_of(f.rgb) for f in frames] == list(range(5))
    full = read(path)[3].rgb.astype(float)
    by_area = full.reshape(48, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(frames[3].rgb - by_area).mean() < 2.5
    assert read(path, max_size=1000)[0].rgb.shape == (96, 128, 3)


def test_size_change_midway_is_resized_with_a_warning(tmp_path):
    both = tmp_path / "b.h264"
    clips.write_clip(tmp_path / "s.h264", [clips.numbered(i) for i in range(6)])
    clips.write_clip(tmp_path / "l.h264", [clips.numbered(i + 6, 256, 192) for i in range(6)])
    both.write_bytes((tmp_path / "s.h264").read_bytes() + (tmp_path / "l.h264").read_bytes())
    source = open_source(both)
    frames = list(source)
    assert [clips.number_of(f.rgb) for f in frames] == list(range(12))
    assert {f.rgb.shape for f in frames} == {(96, 128, 3)}
    assert len(source.warnings) == 1
    assert "size changes midway" in source.warnings[0]


def test_raw_stream_without_times_gets_even_ones(tmp_path):
    frames = read(clips.write_clip(tmp_path / "raw.h264", 20))
    assert [clips.number_of(f.rgb) for f in frames] == list(range(20))
    steps = np.diff([f.pts for f in frames])
    assert (steps > 0).all()
    assert np.allclose(steps, steps[0])


def test_gif_times_and_colours(tmp_path):
    ticks = [0, 5, 10, 40, 45]
    pictures = [clips.numbered(i) for i in range(5)]
    path = tmp_path / "a.gif"
    clips.write_clip(path, pictures, codec="gif", pix_fmt="rgb8", ticks=ticks, time_base=Fraction(1, 100))
    source = open_source(path)
    frames = list(source)
    assert source.info.kind == "gif"
    assert [clips.number_of(f.rgb) for f in frames] == list(range(5))
    assert np.allclose([f.pts for f in frames], np.array(ticks) / 100)


def test_transparent_gif_is_laid_over_black(tmp_path):
    from PIL import Image

    image = Image.new("P", (32, 32), 1)
    image.putpalette([255, 255, 255, 255, 0, 0] + [0] * 750)
    image.paste(0, (0, 0, 16, 32))
    image.save(tmp_path / "t.gif", transparency=0)
    rgb = read(tmp_path / "t.gif")[0].rgb
    assert rgb[5, 25].tolist() == [255, 0, 0]
    assert rgb[5, 5].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "name", ["-dash.mp4", "mit leer zeichen.mp4", "видео ü 猫.mp4", "a:b.mp4", "100%d.mp4", "c'#?.mp4"]
)
def test_awkward_names(tmp_path, monkeypatch, name):
    clips.write_clip(tmp_path / "a.mp4", 3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    source = open_source(name)
    assert source.info.name == name
    assert len(list(source)) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes file names that are not UTF-8")
def test_name_that_is_not_utf8(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    os.rename(clips.write_clip(tmp_path / "a.mp4", 4), path)
    assert len(read(Path(os.fsdecode(path)))) == 4


def test_two_readers_do_not_disturb_each_other(tmp_path):
    source = open_source(clips.write_clip(tmp_path / "a.mp4", 20))
    first, second = iter(source), iter(source)
    got = [(clips.number_of(next(first).rgb), clips.number_of(next(second).rgb)) for _ in range(20)]
    assert got == [(i, i) for i in range(20)]


def test_leaving_early_closes_the_file(tmp_path):
    source = open_source(clips.write_clip(tmp_path / "a.mp4", 20))
    frames = iter(source)
    next(frames)
    open_files = Path("/proc/self/fd")
    if open_files.exists():
        before = sum("a.mp4" in os.readlink(f) for f in open_files.iterdir() if f.is_symlink())
        assert before == 1
    frames.close()
    if open_files.exists():
        links = [os.readlink(f) for f in open_files.iterdir() if f.is_symlink()]
        assert not any("a.mp4" in link for link in links)


# ------------------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"start": 5}, range(5, 30)),
        ({"end": 5}, range(5)),
        ({"start": 3, "end": 20, "stride": 4}, range(3, 20, 4)),
        ({"stride": 7}, range(0, 30, 7)),
        ({"start": 0.5}, range(15, 30)),
        ({"start": 0.49}, range(15, 30)),
        ({"end": 0.5}, range(15)),
        ({"start": 0.1, "end": 0.5, "stride": 3}, range(3, 15, 3)),
        ({"start": 10, "end": 0.8}, range(10, 24)),
        ({"start": 29}, range(29, 30)),
        ({"end": 500}, range(30)),
    ],
)
def test_start_end_stride(tmp_path, options, expected):
    path = clips.write_clip(tmp_path / "a.mp4", 30)
    source = read_frames(path, **options)
    frames = list(source)
    assert [f.index for f in frames] == list(expected)
    assert [clips.number_of(f.rgb) for f in frames] == list(expected)
    assert np.allclose([f.pts for f in frames], np.array(expected) / 30)
    assert source.info.expected_frames == pytest.approx(len(expected), abs=1)
    assert source.info.fps == pytest.approx(30 / options.get("stride", 1))


def test_seconds_follow_the_real_times_of_a_variable_rate_video(tmp_path):
    ticks = [0, 3, 4, 10, 11, 30, 31, 32, 59]
    path = clips.write_clip(tmp_path / "v.mp4", [clips.numbered(i) for i in range(9)], ticks=ticks)
    assert [f.index for f in read(path, start=0.3, end=1.05)] == [3, 4, 5, 6]


def test_selection_after_the_end_is_an_error(tmp_path):
    source = read_frames(clips.write_clip(tmp_path / "a.mp4", 10), start=10)
    with pytest.raises(InputError, match=r"a\.mp4.*ends before"):
        list(source)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 0}, "stride"),
        ({"start": -1}, "start"),
        ({"end": -0.5}, "end"),
        ({"start": 5, "end": 5}, "after the start"),
        ({"start": float("nan")}, "start"),
        ({"max_size": 0}, "largest side"),
        ({"fps": 0.0}, "frame rate"),
    ],
)
def test_impossible_selections_are_refused(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        read_frames(clips.write_clip(tmp_path / "a.mp4", 3), **options)


# ------------------------------------------------------------------------------------------------- backwards


def same(a: Frame, b: Frame) -> bool:
    return (a.index, a.pts, a.ok) == (b.index, b.pts, b.ok) and np.array_equal(a.rgb, b.rgb)


@pytest.fixture
def small_blocks(monkeypatch):
    """Seven 128x96 frames per block, so that short clips need many seeks."""
    monkeypatch.setattr("ptrack.video.frames.BLOCK_BYTES", 7 * 128 * 96 * 3)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("b.mp4", "libx264", {"bf": "3"}),
        ("open.mp4", "libx264", {"bf": "3", "x264-params": "open-gop=1:bframes=3"}),
        ("refresh.mp4", "libx264", {"x264-params": "intra-refresh=1"}),
        ("b.mkv", "libx264", {"bf": "3"}),
        ("b.ts", "libx264", {"bf": "3"}),
        ("b.avi", "mpeg4", {}),
        ("v.webm", "libvpx-vp9", {}),
        ("raw.h264", "libx264", {}),
    ],
)
@pytest.mark.parametrize("select", [{}, {"start": 5, "end": 43, "stride": 3}])
@pytest.mark.usefixtures("small_blocks")
def test_reversed_is_the_forward_order_turned_round(tmp_path, name, codec, options, select):
    path = clips.write_clip(tmp_path / name, 50, codec=codec, codec_options=options)
    source = read_frames(path, **select)
    forward = list(source)
    backward = list(source.reversed(len(forward)))
    assert len(backward) == len(forward)
    assert all(same(a, b) for a, b in zip(forward, reversed(backward), strict=True))


@pytest.mark.usefixtures("small_blocks")
def test_reversed_seeks_instead_of_decoding_from_the_start(tmp_path, monkeypatch):
    source = open_source(clips.write_clip(tmp_path / "a.mp4", 50))
    assert len(list(source)) == 50
    monkeypatch.setattr(VideoFile, "_read", lambda *_: pytest.fail("decoded from the start"))
    assert [f.index for f in source.reversed(50)] == list(range(49, -1, -1))


@pytest.mark.usefixtures("small_blocks")
def test_reversed_of_a_part_without_a_forward_pass(tmp_path):
    source = open_source(clips.write_clip(tmp_path / "a.mp4", 50))
    assert [clips.number_of(f.rgb) for f in source.reversed(20)] == list(range(19, -1, -1))
    assert list(source.reversed(0)) == []


@pytest.mark.usefixtures("small_blocks")
def test_reversed_falls_back_when_seeking_gives_other_pictures(tmp_path, monkeypatch):
    source = open_source(clips.write_clip(tmp_path / "a.mp4", 20))
    forward = list(source)
    monkeypatch.setattr("ptrack.video.files.Fingerprints.matches", lambda *_: False)
    assert all(same(a, b) for a, b in zip(forward, reversed(list(source.reversed(20))), strict=True))


def test_reversed_beyond_the_end_is_an_error(tmp_path):
    source = open_source(clips.write_clip(tmp_path / "a.mp4", 10))
    with pytest.raises(InputError, match="has 10 frames"):
        list(source.reversed(11))

"""Files of several pictures are videos: TIFF stacks, animated PNG, WebP, AVIF and GIF; several video tracks."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image, features

from ptrack.errors import InputError
from ptrack.video import open_source, read_frames

from . import clips


def stack(path, count=20, pictures=None, **more):
    images = [Image.fromarray(p) for p in (pictures or [clips.numbered(i) for i in range(count)])]
    images[0].save(path, save_all=True, append_images=images[1:], **more)
    return path


def same_backwards(source):
    frames = list(source)
    backward = list(source.reversed(len(frames)))[::-1]
    assert [(f.index, f.pts, f.ok) for f in backward] == [(f.index, f.pts, f.ok) for f in frames]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(frames, backward, strict=True))
    return frames


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
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    pages = []
    for i in range(6):
        tags = ImageFileDirectory_v2()
        tags[254] = i % 2  # every other page is a small copy
        image = Image.fromarray(clips.numbered(i // 2, *((128, 96) if i % 2 == 0 else (32, 24))))
        image.encoderinfo = {"tiffinfo": tags}
        pages.append((image, tags))
    pages[0][0].save(tmp_path / "p.tif", save_all=True, append_images=[p for p, _ in pages[1:]], tiffinfo=pages[0][1])
    source = open_source(tmp_path / "p.tif")
    frames = list(source)
    assert [clips.number_of(f.rgb) for f in frames][:1] == [0]
    assert {f.rgb.shape for f in frames} == {(96, 128, 3)}


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


DELAYS = [40, 80, 40, 100, 40, 60, 40, 40, 40, 40]


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.avif", "a.gif"])
def test_animations(tmp_path, monkeypatch, name):
    if name == "a.avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    monkeypatch.setattr("ptrack.video.animation.BLOCK_BYTES", 3 * 128 * 96 * 3)
    options = {"a.webp": {"lossless": True}, "a.avif": {"quality": 90, "speed": 10}}.get(name, {})
    source = open_source(stack(tmp_path / name, 10, duration=DELAYS, **options))
    frames = same_backwards(source)
    assert [clips.number_of(f.rgb) for f in frames] == list(range(10))
    assert np.allclose([f.pts for f in frames], np.cumsum([0, *DELAYS[:-1]]) / 1000)
    assert source.info.kind == ("gif" if name == "a.gif" else "video")
    part = list(read_frames(tmp_path / name, start=0.15, end=0.3, stride=2))
    assert [f.index for f in part] == [3]  # their times: 0.16 s, 0.26 s


def test_a_still_substitute_is_no_frame(tmp_path):
    path = stack(tmp_path / "a.png", 5, duration=50, default_image=True)
    assert [clips.number_of(f.rgb) for f in open_source(path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("disposal", [0, 2])  # with 2 every picture has a control block, whose delay is 0
def test_a_gif_without_delays(tmp_path, disposal):
    source = open_source(stack(tmp_path / "zero.gif", 10, duration=0, disposal=disposal))
    frames = same_backwards(source)
    assert [clips.number_of(f.rgb) for f in frames] == list(range(10))
    assert np.allclose([f.pts for f in frames], np.arange(10) / 10)
    if disposal == 0:
        assert source.warnings == [f"{tmp_path / 'zero.gif'}: its pictures carry no delays; each is shown for 0.1 s."]


def test_a_still_of_an_animated_format(tmp_path):
    for name in ("a.png", "a.webp", "a.tif"):
        Image.fromarray(clips.numbered(3)).save(tmp_path / name)
        source = open_source(tmp_path / name)
        assert (len(list(source)), source.warnings) == (1, [])


def test_a_stack_among_single_pictures_is_spoken_of(tmp_path):
    stack(tmp_path / "a0.tif", 3)
    stack(tmp_path / "a1.tif", 3)
    source = read_frames(tmp_path, fps=25.0)
    assert len(list(source)) == 2
    assert source.warnings == [f"{tmp_path / 'a0.tif'} holds several pictures; the first of each file is used."]


def test_an_animation_cut_in_the_middle(tmp_path):
    path = clips.cut(stack(tmp_path / "a.png", 10, duration=40), 0.6)
    source = open_source(path)
    frames = list(source)
    good = [clips.number_of(f.rgb) for f in frames if f.ok]
    assert good == list(range(len(good)))
    assert 3 <= len(good) < 10
    assert "cannot be decoded" in source.warnings[0]
    with pytest.raises(InputError, match="cannot be decoded"):
        list(read_frames(path, strict=True))


# ------------------------------------------------------------------------------------------------- tracks


@pytest.mark.parametrize("default", [0, 1])
def test_of_several_video_tracks_the_default_one_is_read(tmp_path, default):
    for k in (0, 1):
        clips.write_clip(tmp_path / f"{k}.mp4", [clips.numbered(i) for i in range(50 * k, 50 * k + 8)])
    from av.stream import Disposition

    with av.open(str(tmp_path / "two.mkv"), "w") as out:
        inputs = [av.open(str(tmp_path / f"{k}.mp4")) for k in (0, 1)]
        streams = [out.add_stream_from_template(i.streams.video[0]) for i in inputs]
        for k, stream in enumerate(streams):
            stream.disposition = Disposition.default if k == default else Disposition.dub
        for container, stream in zip(inputs, streams, strict=True):
            for packet in container.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
            container.close()
    source = open_source(tmp_path / "two.mkv")
    assert [clips.number_of(f.rgb) for f in source] == list(range(50 * default, 50 * default + 8))
    assert f"holds 2 video tracks; number {default + 1}, its default, is used" in source.warnings[0]

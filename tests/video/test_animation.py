"""Files of several pictures are videos: TIFF stacks, animated PNG, WebP, AVIF and GIF; several video tracks."""

from __future__ import annotations

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


DELAYS = [40, 80, 40, 100, 40, 60, 40, 40, 40, 40]


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.avif", "a.gif"])
def test_animations(tmp_path, monkeypatch, name):
    if name == "a.avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    monkeypatch.setattr("ptrack.video.frames.BLOCK_BYTES", 3 * 128 * 96 * 3)
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

"""Frames out: what is written comes back, with its size, colours and times; errors leave nothing behind."""

from __future__ import annotations

import resource
import signal
from fractions import Fraction

import av
import numpy as np
import pytest

from ptrack.errors import InputError, OutputError
from ptrack.video import VideoWriter, open_source, open_writer
from tests.video import clips

UNEVEN = [0.0, 0.1, 0.15, 0.5, 0.52, 1.0]


def contents(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.m4v", "a.gif"])
def test_pictures_and_uneven_times_come_back(tmp_path, name):
    with open_writer(tmp_path / name) as writer:
        assert isinstance(writer, VideoWriter)
        for i, time in enumerate(UNEVEN):
            writer.write(clips.numbered(i), 7.0 + time)  # the first frame's time becomes 0
    assert writer.frames_written == 6
    assert contents(tmp_path) == [name]
    frames = list(open_source(tmp_path / name))
    assert [clips.number_of(f.rgb) for f in frames] == list(range(6))
    assert np.allclose([f.pts for f in frames], UNEVEN, atol=1e-4)
    with av.open(str(tmp_path / name)) as container:
        assert container.duration is not None
        assert container.duration / 1e6 == pytest.approx(
            1.48, abs=0.002
        )  # the last frame is shown as long as the one before


@pytest.mark.parametrize(("width", "height"), [(127, 95), (127, 96), (128, 95), (1, 1), (2, 3)])
@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a_%03d.png"])
def test_odd_sizes_are_padded_never_rescaled(tmp_path, name, width, height):
    picture = np.random.default_rng(0).integers(90, 160, (height, width, 3), dtype=np.uint8)
    picture[:, :, :] = picture.mean(axis=2, keepdims=True)  # grey: colour is stored at half the size
    with open_writer(tmp_path / name, crf=1) as writer:
        for _ in range(3):
            writer.write(picture)
    frame = next(iter(open_source(str(tmp_path / name).replace("%03d", "*")))).rgb
    padded = (height + height % 2, width + width % 2) if name == "a.mp4" else (height, width)
    assert frame.shape[:2] == padded
    assert np.abs(frame[:height, :width].astype(int) - picture).max() <= 6
    if name == "a.mp4":
        assert np.abs(frame[-1, :width].astype(int) - picture[-1]).max() <= 6  # the edge is repeated
        assert np.abs(frame[:height, -1].astype(int) - picture[:, -1]).max() <= 6


def test_colours_do_not_shift(tmp_path):
    colours = np.array([[r, g, b] for r in (0, 128, 255) for g in (0, 128, 255) for b in (0, 128, 255)], np.uint8)
    picture = colours.repeat(16, 0)[None].repeat(32, 0)
    with open_writer(tmp_path / "a.mp4") as writer:
        writer.write(picture)
    frame = next(iter(open_source(tmp_path / "a.mp4"))).rgb
    assert np.abs(frame[16, 8::16].astype(int) - colours).max() <= 4
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.pix_fmt, context.color_range, context.colorspace) == ("yuv420p", 1, 1)
        assert (context.color_primaries, context.color_trc) == (1, 1)


def test_rate_without_times(tmp_path):
    with open_writer(tmp_path / "a.mp4", fps=50) as writer:
        for i in range(5):
            writer.write(clips.numbered(i))
    with open_writer(tmp_path / "b.mp4") as writer:
        for i in range(5):
            writer.write(clips.numbered(i), float("nan"))
    assert [f.pts for f in open_source(tmp_path / "a.mp4")] == pytest.approx([i / 50 for i in range(5)])
    assert [f.pts for f in open_source(tmp_path / "b.mp4")] == pytest.approx([i / 25 for i in range(5)])


def test_ntsc_times_are_exact(tmp_path):
    with open_writer(tmp_path / "a.mp4", fps=30000 / 1001) as writer:
        for i in range(40):
            writer.write(clips.numbered(i, 64, 48), i * 1001 / 30000)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert [p.pts * p.time_base for p in container.demux(stream) if p.pts is not None] == [
            Fraction(1001 * i, 30000) for i in range(40)
        ]
        assert stream.average_rate == Fraction(30000, 1001)


def test_equal_times_still_give_all_frames(tmp_path):
    with open_writer(tmp_path / "a.mp4") as writer:
        for i, time in enumerate([0.0, 0.0, 0.1, 0.05, 0.2]):
            writer.write(clips.numbered(i), time)
    frames = list(open_source(tmp_path / "a.mp4"))
    assert [clips.number_of(f.rgb) for f in frames] == list(range(5))
    assert (np.diff([f.pts for f in frames]) > 0).all()


def test_gif_keeps_many_colours(tmp_path):
    ramp = np.stack(np.broadcast_arrays(np.arange(128)[None] * 2, np.arange(96)[:, None] * 2, 100), -1).astype(np.uint8)
    with open_writer(tmp_path / "a.gif") as writer:
        for i in range(4):
            writer.write(np.roll(ramp, i * 10, axis=1), i * 0.1)
    for i, frame in enumerate(open_source(tmp_path / "a.gif")):
        assert np.abs(frame.rgb.astype(int) - np.roll(ramp, i * 10, axis=1)).mean() < 8


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "f"])
def test_an_exception_leaves_nothing(tmp_path, name):
    def run():
        with open_writer(tmp_path / name) as writer:
            for i in range(3):
                writer.write(clips.numbered(i))
            raise KeyError("stop")

    with pytest.raises(KeyError):
        run()
    assert contents(tmp_path) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "f"])
def test_no_frames_no_file(tmp_path, name):
    with open_writer(tmp_path / name) as writer:
        pass
    writer.close()
    assert contents(tmp_path) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="already exists"):
        open_writer(path)
    writer = open_writer(path, overwrite=True)
    writer.write(clips.numbered(0))
    assert path.read_bytes() == b"old"
    writer.abort()
    assert path.read_bytes() == b"old"
    assert contents(tmp_path) == [name]
    with open_writer(path, overwrite=True) as writer:
        writer.write(clips.numbered(0))
    assert len(list(open_source(path))) == 1
    assert contents(tmp_path) == [name]


@pytest.fixture
def small_disk():
    """Files may not grow beyond 20 000 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif", "f", "a_%d.png"])
def test_full_disk_is_a_sentence_and_leaves_nothing(tmp_path, name):
    noise = np.random.default_rng(0)

    def run():
        with open_writer(tmp_path / name) as writer:
            for i in range(30):
                writer.write(noise.integers(0, 255, (101, 103, 3), dtype=np.uint8), i / 10)

    with pytest.raises(OutputError, match=rf"Cannot write .*{name}.*File too large"):
        run()
    assert contents(tmp_path) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "f", "a_%d.png"])
def test_place_that_takes_no_files(name):
    with pytest.raises(OutputError, match="Cannot write"):
        open_writer(f"/proc/{name}")
    with pytest.raises(OutputError, match="Cannot write"):
        open_writer(f"/dev/null/{name}")


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "f"])
def test_wrong_frames(tmp_path, name):
    writer = open_writer(tmp_path / name)
    for wrong in (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(OutputError, match="must be"):
            writer.write(wrong)
    writer.write(clips.numbered(0))
    with pytest.raises(OutputError, match="size changed from 128x96 to 64x48"):
        writer.write(clips.numbered(0, 64, 48))
    writer.abort()
    assert contents(tmp_path) == []


def test_the_frame_is_not_changed(tmp_path):
    picture = clips.numbered(3, 127, 95)
    before = picture.copy()
    with open_writer(tmp_path / "a.mp4") as writer:
        writer.write(picture[:, ::-1])
    assert np.array_equal(picture, before)


def test_demo_clip_is_packaged():
    from importlib import resources

    path = resources.files("ptrack") / "assets" / "demo.mp4"
    source = open_source(str(path))
    frames = list(source)
    assert len(path.read_bytes()) <= 500_000
    assert (source.info.width, source.info.height, source.info.fps, len(frames)) == (512, 288, 24.0, 72)
    assert min(f.rgb.std() for f in frames) > 30
    moved = np.abs(frames[0].rgb.astype(int) - frames[-1].rgb).mean()
    assert moved > 15
    with pytest.raises(InputError):
        list(source.reversed(73))

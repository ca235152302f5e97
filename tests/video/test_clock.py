"""Clocks that jump, repeat or count in the order of decoding: every picture is kept, and times never step back."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from ptrack.errors import InputError
from ptrack.video import open_source, read_frames
from ptrack.video.clock import StreamClock

from . import clips

HOUR = 3600


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Seven 128x96 frames per block, so that reading backwards needs many seeks."""
    monkeypatch.setattr("ptrack.video.frames.BLOCK_BYTES", 7 * 128 * 96 * 3)


def check(path, shown, times=None, *, lost=()):
    """Read a file forwards and backwards; compare the pictures' numbers, and the times from the first frame on."""
    source = open_source(path)
    frames = list(source)
    assert [clips.number_of(f.rgb) for f in frames if f.index not in lost] == [
        n for i, n in enumerate(shown) if i not in lost
    ]
    assert len(frames) == len(shown)
    assert [f.index for f in frames if not f.ok] == list(lost)
    seconds = np.array([f.pts for f in frames])
    assert (np.diff(seconds) >= 0).all()
    if times is not None:
        assert np.allclose(seconds - seconds[0], times, atol=2e-3)
    backward = list(source.reversed(len(frames)))[::-1]
    assert [(f.index, f.pts, f.ok) for f in backward] == [(f.index, f.pts, f.ok) for f in frames]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(frames, backward, strict=True))
    return source


def joined(tmp_path, suffix, codec="libx264"):
    """Two recordings of 20 frames joined byte for byte; their numbers are 0..19 and 20..39."""
    parts = [
        clips.write_clip(
            tmp_path / f"{k}{suffix}",
            [clips.numbered(i) for i in range(20 * k, 20 * k + 20)],
            codec=codec,
            codec_options={"bf": "2"},
        ).read_bytes()
        for k in (0, 1)
    ]
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(parts[0] + parts[1])
    return path


def remux(source, target, change):
    """Copy a file's packets with ``change(number, packet)`` applied to each."""
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        stream = before.streams.video[0]
        copy = after.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in before.demux(stream) if p.size):
            change(number, packet)
            packet.stream = copy
            after.mux_one(packet)
    return target


@pytest.mark.parametrize(("suffix", "codec"), [(".ts", "libx264"), (".mpg", "mpeg2video")])
def test_a_clock_that_starts_again_is_joined_on(tmp_path, suffix, codec):
    path = joined(tmp_path, suffix, codec)
    with av.open(str(path)) as container:
        packets = list(container.demux(video=0))[:20]
    # In a transport stream it cannot be known whether the packet at the seam is whole.
    times = sorted(p.pts for p in packets)
    lost = tuple(times.index(p.pts) for p in packets if p.is_corrupt)
    assert len(lost) == (suffix == ".ts")
    source = check(path, range(40), np.arange(40) / 30, lost=lost)
    assert any("its clock jumps 1 time, first at" in w and "joined" in w for w in source.warnings)
    with pytest.raises(InputError, match=r"cannot be decoded|time stamps are not in order"):
        list(read_frames(path, strict=True))


def test_frames_that_share_a_stamp_are_all_kept(tmp_path):
    """Matroska counts milliseconds: at 2400 frames/s two or three frames share one."""
    path = clips.write_clip(tmp_path / "fast.mkv", 60, time_base=Fraction(1, 2400), codec_options={"bf": "0"})
    source = check(path, range(60), np.arange(60) / 2400)
    assert source.warnings == []
    assert len(list(read_frames(path, strict=True))) == 60


def test_frames_stamped_twice(tmp_path):
    ticks = [2 * (i // 2) for i in range(30)]
    clips.write_clip(tmp_path / "once.mkv", 30, codec="mjpeg", pix_fmt="yuvj420p")

    def repeat(number, packet):
        packet.pts = packet.dts = round(ticks[number] * 1000 / 30)

    path = remux(tmp_path / "once.mkv", tmp_path / "twice.mkv", repeat)
    assert check(path, range(30), np.array(ticks) / 30).warnings == []


def test_damage_among_frames_that_share_a_stamp(tmp_path):
    path = clips.write_clip(tmp_path / "f.mkv", 60, time_base=Fraction(1, 2400), codec_options={"bf": "0"})
    clips.damage(path, 23)
    frames = list(open_source(path))
    assert len(frames) == 60
    assert sum(not f.ok for f in frames) == 1
    assert [clips.number_of(f.rgb) for f in frames if f.ok] == [i for i in range(60) if i != 23]


@pytest.mark.parametrize("name", ["b.avi", "b.asf"])
def test_stamps_in_the_order_of_decoding(tmp_path, name):
    path = clips.write_clip(tmp_path / name, 40, codec_options={"bf": "3"})
    source = check(path, range(40), np.arange(40) / 30)
    assert source.warnings == []
    assert len(list(read_frames(path, strict=True))) == 40


def test_a_late_variable_rate_avi_like_file(tmp_path):
    """The first picture shown gets the earliest stamp, though another picture carries it."""
    ticks = np.cumsum(np.random.default_rng(0).integers(1, 5, 40)).tolist()
    clips.write_clip(tmp_path / "v.mkv", 40, ticks=ticks, codec_options={"bf": "3"})

    def flatten(number, packet):
        packet.pts = packet.dts = round(ticks[number] * 1000 / 30)

    path = remux(tmp_path / "v.mkv", tmp_path / "flat.mkv", flatten)
    check(path, range(40), (np.array(ticks) - ticks[0]) / 30)


def packed_xvid(path, count):
    """Two pictures in a packet and an empty one after it, as XviD's "packed bitstream" in AVI has them."""
    plain = clips.write_clip(path.with_name("plain.avi"), count, codec="mpeg4", codec_options={"bf": "1"})
    mark, start = b"\0\0\1\xb2DivX503b1393p", b"\0\0\1\xb6"
    with av.open(str(plain)) as before:
        header = before.streams.video[0].codec_context.extradata
        pictures = [d[d.index(start) :] for d in (bytes(p) for p in before.demux(video=0)) if d]
    packets = []
    while pictures:
        packet = pictures.pop(0)
        if pictures and pictures[0][4] >> 6 == 2:  # a B picture follows
            packets += [packet + pictures.pop(0), start + bytes([0b01010000, 0b00010000, 0x7F])]
        else:
            packets.append(packet)
    packets[0] = header + mark + packets[0]
    with av.open(str(path), "w") as after:
        stream = after.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.time_base, stream.codec_context.extradata = Fraction(1, 30), header + mark
        for number, data in enumerate(packets):
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 30), stream, number == 0
            after.mux_one(packet)
    return path


def test_xvid_packed_bitstream(tmp_path):
    check(packed_xvid(tmp_path / "packed.avi", 21), range(21), np.arange(21) / 30)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
@pytest.mark.parametrize("bframes", ["0", "3"])
def test_one_stamp_an_hour_ahead(tmp_path, name, bframes):
    clips.write_clip(tmp_path / "plain.mp4", 40, codec_options={"bf": bframes})

    def late(number, packet):
        if number == 20:
            packet.pts += round(HOUR / packet.time_base)

    path = remux(tmp_path / "plain.mp4", tmp_path / name, late)
    source = check(path, range(40), np.arange(40) / 30)
    assert ["1 frame carries an impossible time" in w for w in source.warnings] == [True]
    with pytest.raises(InputError, match="time stamps are not in order"):
        list(read_frames(path, strict=True))


def test_a_clock_that_leaps_ahead_is_joined_on(tmp_path):
    ticks = [*range(15), *range(30 * HOUR, 30 * HOUR + 15)]
    path = clips.write_clip(tmp_path / "a.mkv", 30, ticks=ticks, codec_options={"bf": "0"})
    source = check(path, range(30), np.arange(30) / 30)
    assert "its clock jumps 1 time, first at 0.5" in source.warnings[0]


def test_a_pause_of_minutes_is_kept(tmp_path):
    """A recording of a still screen may not store a frame for long."""
    ticks = [*range(20), *range(30 * 600, 30 * 600 + 20)]
    path = clips.write_clip(tmp_path / "a.mp4", 40, ticks=ticks, codec_options={"bf": "2"})
    assert check(path, range(40), np.array(ticks) / 30).warnings == []


def test_slow_time_lapse_is_kept(tmp_path):
    base = Fraction(3600, 1)
    path = clips.write_clip(tmp_path / "a.mp4", 8, time_base=Fraction(1, 1000), ticks=[i * 3_600_000 for i in range(8)])
    assert check(path, range(8), np.arange(8) * float(base)).warnings == []


def test_the_containers_own_count_is_compared(tmp_path):
    path = clips.write_clip(tmp_path / "a.avi", 15, codec="libvpx", codec_options={"deadline": "realtime"})
    data = bytearray(path.read_bytes())
    offset = clips.packets(path)[11][1]
    data[offset] &= ~0b10000  # VP8: this picture is not to be shown
    path.write_bytes(data)
    source = open_source(path)
    assert len(list(source)) == 14
    assert [w.partition(": ")[2] for w in source.warnings] == ["the file counts 15 frames, but 14 could be read."]


@pytest.mark.parametrize("name", ["o.mkv", "o.ts", "o.avi"])
def test_a_start_offset_is_not_damage(tmp_path, name):
    codec = "mpeg4" if name == "o.avi" else "libx264"
    path = clips.write_clip(tmp_path / name, 30, codec=codec, ticks=range(600, 630))
    source = open_source(path)
    assert len(list(source)) == 30
    assert source.warnings == []


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (1.0, None, range(13, 40)),  # 0.48 + 13 / 25 is the first time from 1.0 on
        (1.04, 1.5, range(14, 26)),
        (0.2, 1.0, range(13)),
        (None, 0.9, range(11)),
        (5, 1.5, range(5, 26)),
    ],
)
@pytest.mark.parametrize("name", ["late.mkv", "late.mp4"])
def test_start_and_end_are_on_the_clock_of_the_times(tmp_path, name, start, end, expected):
    path = clips.write_clip(tmp_path / name, 40, time_base=Fraction(1, 25), ticks=[i + 12 for i in range(40)])
    source = read_frames(path, start=start, end=end)
    frames = list(source)
    assert [f.index for f in frames] == list(expected)
    assert np.allclose([f.pts for f in frames], 0.48 + np.array(expected) / 25)
    assert source.info.expected_frames == pytest.approx(len(frames), abs=1)


def test_a_start_after_the_end_names_the_times(tmp_path):
    path = clips.write_clip(tmp_path / "a.ts", 30, ticks=range(60, 90))
    with pytest.raises(InputError, match=r"no frame from 9 s on; .* from 2\.00 to 2\.97 s"):
        list(read_frames(path, start=9.0))
    with pytest.raises(InputError, match=r"no frame before 1\.5 s; the first is at 2\.0"):
        list(read_frames(path, end=1.5))


# ------------------------------------------------------------------------------------------------ without stamps


@pytest.mark.parametrize(("bframes", "options"), [("0", {}), ("3", {}), ("0", {"stride": 2})])
def test_raw_h264_has_the_rate_of_its_header(tmp_path, bframes, options):
    path = clips.write_clip(tmp_path / "raw.h264", 40, codec_options={"bf": bframes})
    source = read_frames(path, **options)
    frames = list(source)
    assert np.allclose([f.pts for f in frames], np.arange(40)[:: options.get("stride", 1)] / 30)
    assert source.info.fps == pytest.approx(30 / options.get("stride", 1))
    assert source.warnings == []


def test_raw_mpeg_has_the_rate_of_its_header(tmp_path):
    path = clips.write_clip(tmp_path / "raw.m2v", 40, codec="mpeg2video", codec_options={"bf": "2"})
    source = check(path, range(40), np.arange(40) / 30)
    assert (source.info.fps, source.warnings) == (30, [])


def test_raw_video_without_a_rate(tmp_path):
    path = clips.write_clip(tmp_path / "raw.mjpeg", 10, codec="mjpeg", pix_fmt="yuvj420p")
    source = open_source(path)
    assert np.allclose([f.pts for f in source], np.arange(10) / 25)
    assert (source.info.fps, len(source.warnings)) == (25, 1)
    assert "carries no times; 25 frames per second are assumed" in source.warnings[0]
    given = read_frames(path, fps=10.0)
    assert np.allclose([f.pts for f in given], np.arange(10) / 10)
    assert (given.info.fps, given.warnings) == (10, [])
    assert [f.pts for f in given.reversed(10)] == [f.pts for f in given][::-1]


def test_a_rate_given_for_a_file_with_times_is_not_used(tmp_path):
    source = read_frames(clips.write_clip(tmp_path / "a.mp4", 5), fps=10.0)
    assert source.info.fps == 30
    assert "has times of its own" in source.warnings[0]


# ------------------------------------------------------------------------------------------------- the clock alone


class Stamped:
    """A packet as far as the clock looks at it."""

    def __init__(self, pts, dts):
        self.pts, self.dts, self.size = pts, dts, 1


def mended(pts, dts=None):
    clock = StreamClock(period=40, second=1000)
    packets = [Stamped(p, d) for p, d in zip(pts, pts if dts is None else dts, strict=True)]
    return [p.pts for p in clock.packets(packets)], clock


@pytest.mark.parametrize(
    ("stamps", "expected", "jumps", "wrong"),
    [
        ([0, 40, 80, 120], [0, 40, 80, 120], 0, 0),
        ([0, 40, 40, 80], [0, 40, 40, 80], 0, 0),
        ([0, 40, 39, 80], [0, 40, 39, 80], 0, 0),  # jitter is the timeline's to hold
        ([1000, 1040, 0, 40, 80], [1000, 1040, 1080, 1120, 1160], 1, 0),
        ([0, 40, 4_000_000, 120], [0, 40, 80, 120], 0, 1),
        ([0, 40, 1500, 120], [0, 40, 80, 120], 0, 1),
        ([1000, 1040, 0, 1120, 1160], [1000, 1040, 1080, 1120, 1160], 0, 1),
        ([0, 40, 5000, 5040], [0, 40, 5000, 5040], 0, 0),  # a pause
        ([0, 40, 4_000_000, 4_000_040], [0, 40, 80, 120], 1, 0),
        ([0, 40, 4_000_000], [0, 40, 80], 0, 1),
        ([None, None, None], [0, 40, 80], 0, 0),
        ([0, None, 80], [0, None, 80], 0, 0),
        ([5000, 5040, 0, 40, 5000, 5040], [5000, 5040, 5080, 5120, 10080, 10120], 1, 0),
    ],
)
def test_clock(stamps, expected, jumps, wrong):
    got, clock = mended(stamps)
    assert got == expected
    assert (clock.jumps, clock.wrong) == (jumps, wrong)


def test_a_presentation_time_far_from_the_decoding_time_is_dropped():
    got, clock = mended([0, 4_000_000, 80], [0, 40, 80])
    assert got == [0, None, 80]
    assert clock.wrong == 1

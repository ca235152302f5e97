"""Damaged and cut files: placeholders keep the time aligned, good frames are never lost, strict refuses."""

from __future__ import annotations

import numpy as np
import pytest

from ptrack.errors import InputError
from ptrack.video import open_source, read_frames

from . import clips


def plain(path, count=40, **more):
    """A clip whose key frames are every 12 frames."""
    return clips.write_clip(path, count, **more)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("bframes", ["0", "3"])
def test_one_bad_packet_is_one_placeholder(tmp_path, name, bframes):
    path = plain(tmp_path / name, codec_options={"bf": bframes})
    last_of_group = 23 if bframes == "0" else 22  # in decoding order; nothing is built on these
    lost = clips.damage(path, last_of_group)
    source = open_source(path)
    frames = list(source)
    assert [f.index for f in frames] == list(range(40))
    assert [f.index for f in frames if not f.ok] == [lost]
    assert np.allclose([f.pts for f in frames], np.arange(40) / 30, atol=1e-3)
    shown = [clips.number_of(f.rgb) for f in frames]
    assert shown == [lost - 1 if i == lost else i for i in range(40)]
    assert np.array_equal(frames[lost].rgb, frames[lost - 1].rgb)
    assert len(source.warnings) == 1
    assert "1 of 40 frames" in source.warnings[0]
    assert f"{lost / 30:.2f} s" in source.warnings[0]
    assert not source.truncated


def test_a_bad_key_packet_loses_its_group_but_no_time(tmp_path):
    path = plain(tmp_path / "a.mp4")
    assert clips.damage(path, 12) == 12
    source = open_source(path)
    frames = list(source)
    assert [f.index for f in frames] == list(range(40))
    assert np.allclose([f.pts for f in frames], np.arange(40) / 30)
    lost = {f.index for f in frames if not f.ok}
    assert 12 in lost
    assert lost <= set(range(12, 24))
    good = [f for f in frames if f.ok and not 12 <= f.index < 24]
    assert [clips.number_of(f.rgb) for f in good] == [f.index for f in good]
    assert len(good) == 28


def test_a_bad_first_key_packet_is_filled_with_the_next_good_picture(tmp_path):
    path = plain(tmp_path / "a.mp4", codec_options={"bf": "0"})
    assert clips.damage(path, 0) == 0
    frames = list(open_source(path))
    assert [f.index for f in frames] == list(range(40))
    assert not frames[0].ok
    first_good = next(f for f in frames if f.ok)
    assert np.array_equal(frames[0].rgb, first_good.rgb)
    assert [clips.number_of(f.rgb) for f in frames[12:]] == list(range(12, 40))


def test_bad_last_packet_keeps_the_count(tmp_path):
    path = plain(tmp_path / "a.mp4", codec_options={"bf": "0"})
    clips.damage(path, 39)
    frames = list(open_source(path))
    assert len(frames) == 40
    assert [f.index for f in frames if not f.ok] == [39]


def test_several_damages(tmp_path):
    path = plain(tmp_path / "a.mp4", 60, codec_options={"bf": "0"})
    for packet in (11, 35, 47):
        clips.damage(path, packet, seed=packet)
    source = open_source(path)
    frames = list(source)
    assert [f.index for f in frames if not f.ok] == [11, 35, 47]
    assert [clips.number_of(f.rgb) for f in frames if f.ok] == [i for i in range(60) if i not in (11, 35, 47)]
    assert "3 of 60 frames" in source.warnings[0]
    list(source)
    assert len(source.warnings) == 1  # reading again does not repeat it


def test_intra_only_damage(tmp_path):
    path = plain(tmp_path / "a.mkv", codec="mjpeg", pix_fmt="yuvj420p")
    clips.damage(path, 20)
    frames = list(open_source(path))
    assert len(frames) == 40
    assert [clips.number_of(f.rgb) for f in frames if f.index != 20] == [i for i in range(40) if i != 20]


def test_stream_without_times_keeps_the_count(tmp_path):
    path = plain(tmp_path / "a.h264", codec_options={"bf": "0"})
    data = bytearray(path.read_bytes())
    sizes = [size for _, _, size, _ in clips.packets(path)]
    start = sum(sizes[:23])
    data[start + 5 : start + sizes[23]] = (
        np.random.default_rng(3).integers(1, 256, sizes[23] - 5).astype(np.uint8).tobytes()
    )
    path.write_bytes(data)
    frames = list(open_source(path))
    assert len(frames) == 40
    assert [clips.number_of(f.rgb) for f in frames[24:]] == list(range(24, 40))


def test_selection_counts_placeholders(tmp_path):
    path = plain(tmp_path / "a.mp4", codec_options={"bf": "0"})
    clips.damage(path, 23)
    frames = list(read_frames(path, start=5, stride=6))
    assert [(f.index, f.ok) for f in frames] == [(i, i != 23) for i in range(5, 40, 6)]
    assert [clips.number_of(f.rgb) for f in frames] == [5, 11, 17, 22, 29, 35]  # 22: the last good one before 23


def test_reversed_gives_the_same_placeholders(tmp_path, monkeypatch):
    monkeypatch.setattr("ptrack.video.frames.BLOCK_BYTES", 7 * 128 * 96 * 3)
    path = plain(tmp_path / "a.mp4")
    clips.damage(path, 12)
    source = open_source(path)
    forward = list(source)
    backward = list(source.reversed(len(forward)))[::-1]
    assert len(source.warnings) == 1
    assert " of 40 frames" in source.warnings[0]
    assert [(f.index, f.pts, f.ok) for f in backward] == [(f.index, f.pts, f.ok) for f in forward]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(forward, backward, strict=True))


def test_strict_refuses_damage(tmp_path):
    path = plain(tmp_path / "a.mp4", codec_options={"bf": "0"})
    clips.damage(path, 23)
    source = read_frames(path, strict=True)
    got = []
    with pytest.raises(InputError, match=r"a\.mp4: frame 23 \(0\.77 s\) cannot be decoded"):
        for frame in source:
            got.append(frame.index)
    assert got == list(range(23))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fast.mp4", {"movflags": "faststart"}),
        ("fragments.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mkv", {}),
        ("a.webm", {}),
        ("a.avi", {}),
    ],
)
def test_cut_file_gives_all_whole_frames_and_a_warning(tmp_path, name, options):
    codec = {"webm": "libvpx", "avi": "mpeg4"}.get(name.split(".")[1], "libx264")
    path = plain(tmp_path / name, 60, codec=codec, container_options=options)
    before = clips.packets(path)
    size = clips.cut(path, 0.6).stat().st_size
    if name == "fragments.mp4":  # a fragment's index comes first; its packets that are still whole count
        whole = sorted(pts for pts, offset, length, _ in before if offset + length <= size)
    else:
        whole = sorted(pts for pts, offset, length, _ in before if offset >= 0 and offset + length <= size)
    source = open_source(path)
    frames = list(source)
    assert source.truncated
    assert len(source.warnings) == 1
    assert f"{name} ends early" in source.warnings[0]
    assert f"{len(frames)} frames" in source.warnings[0]
    assert all(f.ok for f in frames)
    # A picture may be whole whose earlier neighbour, stored after it, is cut off; its time shows which one it is.
    assert [clips.number_of(f.rgb) for f in frames] == [round((f.pts - frames[0].pts) * 30) for f in frames]
    assert [clips.number_of(f.rgb) for f in frames[:-2]] == list(range(len(frames) - 2))
    assert abs(len(frames) - len(whole)) <= 1
    assert 15 <= len(frames) < 60
    with pytest.raises(InputError, match="cut off"):
        read_frames(path, strict=True)


def lose_packets(path):
    """Remove twelve of a transport stream's 188-byte packets: several frames vanish without a trace."""
    data = path.read_bytes()
    at = len(data) // 188 // 3 * 188
    path.write_bytes(data[:at] + data[at + 12 * 188 :])


def test_frames_lost_in_transmission_keep_their_place(tmp_path):
    path = plain(tmp_path / "a.ts", 90)
    lose_packets(path)
    source = open_source(path)
    frames = list(source)
    assert [f.index for f in frames] == list(range(90))
    assert np.allclose(np.diff([f.pts for f in frames]), 1 / 30, atol=1e-4)
    lost = [f.index for f in frames if not f.ok]
    assert 4 <= len(lost) <= 11
    whole = [f for f in frames if f.ok and (f.index < lost[0] or f.index >= 36)]  # 36: the next key frame
    assert [clips.number_of(f.rgb) for f in whole] == [f.index for f in whole]
    assert f"{len(lost)} of 90 frames" in source.warnings[0]


def test_no_frames_are_invented_for_a_variable_rate(tmp_path):
    ticks = np.cumsum(np.random.default_rng(0).integers(1, 5, 90)).tolist()
    path = plain(tmp_path / "a.ts", 90, ticks=ticks)
    before = [f.pts for f in open_source(path)]
    assert len(before) == 90
    lose_packets(path)
    after = list(open_source(path))
    assert 75 < len(after) < 90
    assert not all(f.ok for f in after)
    assert {round(f.pts, 6) for f in after} < {round(t, 6) for t in before}


def test_a_jump_of_the_clock_is_not_filled(tmp_path):
    ticks = [*range(45), *range(20_000, 20_045)]  # a pause of eleven minutes
    path = plain(tmp_path / "a.mkv", 90, ticks=ticks, codec_options={"bf": "0"})
    clips.damage(path, 44)
    frames = list(open_source(path))
    assert len(frames) == 90
    assert frames[-1].pts == pytest.approx(20_044 / 30, abs=2e-3)


def test_early_end_is_noticed_by_the_promised_length(tmp_path):
    path = plain(tmp_path / "a.mkv", 90)
    data = bytearray(path.read_bytes())
    begin = clips.packets(path)[30][1] - 20
    data[begin:] = bytes(len(data) - begin)  # as long as before, but empty
    path.write_bytes(data)
    source = open_source(path)
    frames = list(source)
    assert 25 <= len(frames) <= 32
    assert [clips.number_of(f.rgb) for f in frames[:25]] == list(range(25))
    assert len(source.warnings) == 1
    assert "header promises 3.0 s" in source.warnings[0] or "ends early" in source.warnings[0]


def test_whole_files_are_not_called_cut(tmp_path):
    for name in ("a.mp4", "a.mkv", "a.avi", "a.ts", "a.webm"):
        codec = {"webm": "libvpx", "avi": "mpeg4"}.get(name.split(".")[1], "libx264")
        source = open_source(clips.write_clip(tmp_path / name, 6, codec=codec))
        list(source)
        assert not source.truncated, name
        assert source.warnings == [], name


def test_backwards_from_a_cut_file(tmp_path):
    path = clips.cut(plain(tmp_path / "a.mkv", 60), 0.6)
    source = open_source(path)
    forward = [(clips.number_of(f.rgb), f.index, f.pts) for f in source]
    backward = [(clips.number_of(f.rgb), f.index, f.pts) for f in source.reversed(len(forward))]
    assert backward == forward[::-1]

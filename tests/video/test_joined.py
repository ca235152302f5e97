"""Recordings joined byte for byte: every picture of every part, in every container. MPEG-TS: test_clock.py."""

from fractions import Fraction

import numpy as np
import pytest

from ptrack.errors import InputError
from ptrack.video import ReadOptions, open_source
from ptrack.video.seeking import SeekableVideo
from tests.video.clips import number_of, numbered, write_clip

SUFFIXES = ["flv", "mp4", "mov", "wmv", "avi", "mkv", "mpg"]
CODECS = {"flv": "flv", "wmv": "wmv2", "avi": "mpeg4", "mpg": "mpeg2video"}


@pytest.fixture
def joined(request, tmp_path):
    """Two recordings, of the frames 0..11 and 12..26."""
    suffix = request.param
    parts = []
    for numbers in (range(12), range(12, 27)):
        path = tmp_path / f"part.{suffix}"
        write_clip(path, [numbered(i) for i in numbers], codec=CODECS.get(suffix, "mpeg4"), time_base=Fraction(1, 25))
        parts.append(path.read_bytes())
    whole = tmp_path / f"whole.{suffix}"
    whole.write_bytes(b"".join(parts))
    return whole


@pytest.mark.parametrize("joined", SUFFIXES, indirect=True)
def test_all_parts_are_read_and_time_goes_on(joined):
    with open_source(joined) as source:
        frames = [(number_of(frame.rgb), frame.pts) for frame in source]
        assert [number for number, _ in frames] == list(range(27))
        assert np.diff([pts for _, pts in frames]) == pytest.approx(0.04, abs=0.0011)
        assert not source.truncated
        assert [number_of(frame.rgb) for frame in source.reversed(27)] == list(range(26, -1, -1))


@pytest.mark.parametrize("joined", ["flv", "mp4"], indirect=True)
def test_it_is_stated_and_refused_strictly(joined):
    with open_source(joined) as source:
        list(source)
        (warning,) = (text for text in source.warnings if "joined" in text)
        assert warning.startswith(f"{joined}: 2 recordings are joined in it")
    with open_source(joined, ReadOptions(strict=True)) as source, pytest.raises(InputError, match="another recording"):
        list(source)


@pytest.mark.parametrize("joined", ["mp4"], indirect=True)
def test_frames_are_not_counted_by_the_packets_of_the_first_part(joined):
    with open_source(joined) as source:
        assert SeekableVideo.open(source) is None


@pytest.mark.parametrize("joined", ["flv"], indirect=True)
def test_a_part_that_cannot_be_read_is_stated(joined):
    data = bytearray(joined.read_bytes())
    begin = data.rindex(b"FLV\x01")
    joined.write_bytes(data[: begin + 13])
    with open_source(joined) as source:
        assert sum(1 for _ in source) == 12
        assert f"another recording begins at byte {begin}, but cannot be read" in " ".join(source.warnings)

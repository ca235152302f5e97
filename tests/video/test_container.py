"""Which stream of a container is read, and which are too large."""

from __future__ import annotations

import av
import pytest
from av.stream import Disposition

from ptrack.errors import InputError
from ptrack.video import open_source, read_frames

from . import clips


@pytest.mark.parametrize("default", [0, 1])
def test_of_several_video_tracks_the_default_one_is_read(tmp_path, default):
    for k in (0, 1):
        clips.write_clip(tmp_path / f"{k}.mp4", [clips.numbered(i) for i in range(50 * k, 50 * k + 8)])
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


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "ffv1"), ("a.avi", "mpeg4")])
def test_a_video_above_the_limit_is_refused(tmp_path, name, codec):
    path = clips.write_clip(tmp_path / name, 2, codec=codec)
    assert len(list(read_frames(path, max_pixels=128 * 96))) == 2
    with pytest.raises(InputError, match="128x96 has 12,288 pixels"):
        read_frames(path, max_pixels=128 * 96 - 1)

"""Frames by number equal those read in order, from the key frame before them."""

from __future__ import annotations

import av
import numpy as np
import pytest

from ptrack.video import open_source
from ptrack.video.seeking import SeekableVideo

H, W = 48, 64


def _picture(i):
    rgb = np.full((H, W, 3), 40, np.uint8)
    rgb[:, (3 * i) % W] = 250
    rgb[i % H] = 180
    return rgb


def _write(path, frames=60, stamps=None, **options):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "10", "preset": "ultrafast", **options})
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(_picture(i), format="rgb24")
            if stamps is not None:
                frame.pts = stamps[i]
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


OPEN = {"bf": "3", "g": "20", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("options", [{"g": "12", "bf": "2"}, OPEN], ids=["closed", "open"])
def test_any_frame_equals_the_one_read_in_order(suffix, options, tmp_path):
    _write(tmp_path / f"a{suffix}", **options)
    source = open_source(str(tmp_path / f"a{suffix}"))
    inorder = [frame.rgb for frame in source]
    video = SeekableVideo.open(source)
    assert len(video) == len(inorder) == 60
    for begin in (0, 48, 16, 19, 20, 21, 40, 32, 59):
        found = video.frames(begin, begin + 5)
        assert [f.index for f in found] == list(range(begin, min(begin + 5, 60)))
        for frame in found:
            np.testing.assert_array_equal(frame.rgb, inorder[frame.index])
    video.close()
    alone = list(video.single(video.key_frames))
    assert [f.index for f in alone] == video.key_frames.tolist() == list(range(0, 60, int(options["g"])))
    for frame in alone:
        np.testing.assert_array_equal(frame.rgb, inorder[frame.index])
    assert [f.index for f in video.single(video.key_frames[1:2])] == [int(options["g"])]
    assert video.seconds(30) == pytest.approx(30 / 25)


def test_a_late_frame_is_decoded_from_its_key_frame(tmp_path, monkeypatch):
    _write(tmp_path / "a.mp4", 600, g="30", bf="0")
    video = SeekableVideo.open(open_source(str(tmp_path / "a.mp4")))
    read = []
    opened = video._source.open_stream

    def counted():
        container, stream = opened()

        class Counting:
            def __getattr__(self, name):
                return getattr(container, name)

            def decode(self, stream):
                for picture in container.decode(stream):
                    read.append(picture.pts)
                    yield picture

        return Counting(), stream

    monkeypatch.setattr(video._source, "open_stream", counted)
    assert [f.index for f in video.frames(580, 582)] == [580, 581]
    assert len(read) < 60
    before = len(read)
    assert [f.index for f in video.frames(582, 584)] == [582, 583]  # goes on where it was
    assert len(read) - before == 2
    video.close()


def test_what_packets_cannot_tell_is_left_to_decoding(tmp_path):
    _write(tmp_path / "a.ts")
    assert SeekableVideo.open(open_source(str(tmp_path / "a.ts"))) is None
    assert SeekableVideo.open(open_source(np.zeros((3, H, W, 3), np.uint8))) is None
    _write(tmp_path / "b.mkv", 10, stamps=[0, 1, 2, 2, 4, 5, 6, 7, 8, 9], bf="0")
    assert SeekableVideo.open(open_source(str(tmp_path / "b.mkv"))) is None

"""One's own videos with CSV, NPZ and ptrack's own tracks; frames of videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptrack.data.convert import ConvertOptions, convert
from ptrack.data.hdf5 import ClipStore
from ptrack.data.sources import open_dataset
from ptrack.data.video_frames import VideoFrames, resampled
from ptrack.errors import DataError
from ptrack.tracks import Tracks, TracksInfo
from ptrack.tracks_io import save_tracks
from tests.data.helpers import jpeg, picture

T = 6


def write_video(path: Path, frames: int = T, rate: int = 25, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Write an H.264 file without loss of brightness steps that matter here; return its frames."""
    import av

    video = np.stack([picture(t, size) for t in range(frames)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv444p"
        stream.options = {"crf": "1"}
        for rgb in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        container.mux(stream.encode(None))
    return video


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "my videos"
    folder.mkdir()
    write_video(folder / "walk.mp4")
    return folder


def result(root: Path, **options):
    report = convert(open_dataset("folder", root), root.parent / "o.h5", ConvertOptions(overwrite=True, **options))
    return ClipStore(root.parent / "o.h5"), report


def test_csv(root):
    (root / "walk.csv").write_text(
        "Frame, ID ,x,y,visibility\n0,nose,10.5,20,1\n1,nose,11,21,0.2\n0,tail,5,6,1\n5,tail,7,8,1\n"
    )
    store, _ = result(root)
    clip = store["folder/all/walk"]
    assert clip.tracks.shape == (T, 2, 2)
    assert clip.tracks[0, 0].tolist() == [10.5, 20]
    assert clip.visibility[:, 0].tolist() == [True, False, False, False, False, False]
    assert clip.valid[:, 0].tolist() == [True, True, False, False, False, False]
    assert clip.tracks[5, 1].tolist() == [7, 8]
    assert clip.fps == 25
    assert clip.coord_convention == "raster"
    assert clip.frames.encoded(0)[0] == "jpeg"
    assert np.abs(clip.video().astype(int) - np.stack([picture(t, (48, 64)) for t in range(T)])).mean() < 4


def test_csv_with_occluded_column(root):
    (root / "walk.csv").write_text("t,track,x,y,occluded\n0,1,1,2,0\n1,1,1,2,1\n")
    store, _ = result(root, codec="png")
    assert store[0].visibility[:, 0].tolist()[:3] == [True, False, False]
    assert store[0].frames.encoded(0)[0] == "png"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "no column 'frame'"),
        ("", "no column 'frame'"),
        ("frame,id,x,y\n9,a,1,2\n", "line 2: there is no frame 9; the video has 6 frames"),
        ("frame,id,x,y\nzero,a,1,2\n", "line 2"),
        ("frame,id,x,y\n0,a,left,2\n", "line 2"),
    ],
)
def test_wrong_csv(root, text, words):
    (root / "walk.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        result(root)


def test_npz(root):
    tracks = np.random.default_rng(0).uniform(0, 40, (T, 3, 2))
    queries = np.asarray([[0, 1, 2], [1, 3, 4], [0, 5, 6]])
    np.savez(root / "walk.npz", tracks=tracks, visibility=np.ones((T, 3)), queries=queries, fps=12.5)
    store, _ = result(root)
    np.testing.assert_array_equal(store[0].tracks, tracks.astype(np.float32))
    np.testing.assert_array_equal(store[0].queries, queries)
    assert store[0].query_track.tolist() == [0, 1, 2]
    assert store[0].fps == 12.5


def test_npz_without_tracks_or_of_another_length(root):
    np.savez(root / "walk.npz", points=np.ones((T, 3, 2)))
    with pytest.raises(DataError, match="need an array 'tracks'"):
        result(root)
    np.savez(root / "walk.npz", trajs_2d=np.ones((T + 1, 3, 2)), visibs=np.ones((T + 1, 3)))
    with pytest.raises(DataError, match="6 frames but the annotation has 7"):
        result(root)


@pytest.mark.parametrize("suffix", [".tracks.h5", ".tracks.npz", ".tracks.csv", ".tracks.json"])
def test_tracks_that_ptrack_wrote(root, suffix):
    xy = np.random.default_rng(0).uniform(0, 40, (4, 2, 2)).astype(np.float32)
    tracks = Tracks(
        tracks=xy, visibility=np.asarray([[0.9, 0.3]] * 4, np.float32), confidence=np.ones((4, 2), np.float32),
        queries=np.zeros((2, 3), np.float32), ids=np.asarray(["a", "b"]), frame_index=np.asarray([1, 2, 3, 5]),
        pts_seconds=np.arange(4) / 25, info=TracksInfo(threshold=0.5),
    )  # fmt: skip
    save_tracks(tracks, root / f"walk{suffix}")
    clip = result(root)[0][0]
    np.testing.assert_allclose(clip.tracks[[1, 2, 3, 5]], xy)
    assert not clip.valid[[0, 4]].any()
    assert clip.visibility[[1, 2, 3, 5], 0].all()
    assert not clip.visibility[:, 1].any()


def test_tracks_beyond_the_video(root):
    tracks = Tracks(
        tracks=np.ones((1, 1, 2), np.float32), visibility=np.ones((1, 1), np.float32),
        confidence=np.ones((1, 1), np.float32), queries=np.zeros((1, 3), np.float32), ids=np.asarray(["a"]),
        frame_index=np.asarray([99]), pts_seconds=np.zeros(1),
    )  # fmt: skip
    save_tracks(tracks, root / "walk.tracks.h5")
    with pytest.raises(DataError, match="speak of frame 99, but the video has 6 frames"):
        result(root)
    (root / "walk.tracks.h5").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"walk.tracks.h5"):
        result(root)


def test_picture_folders_splits_and_missing_tracks(root):
    (root / "walk.csv").write_text("frame,id,x,y\n0,a,1,2\n")
    pictures = root / "train" / "frames of x"
    pictures.mkdir(parents=True)
    for t in range(11):
        (pictures / f"img{t}.jpg").write_bytes(jpeg(t))
    np.savez(root / "train" / "frames of x.npz", tracks=np.ones((11, 1, 2)), visibility=np.ones((11, 1)))
    write_video(root / "alone.mp4")
    store, report = result(root)
    assert store.ids == ["folder/train/frames of x", "folder/all/walk"]
    assert store[0].frames.encoded(10)[1] == jpeg(10)  # img10 comes last, not after img1
    assert report.skipped[0][0] == "folder/all/alone"
    assert "add alone.csv or alone.npz" in report.skipped[0][1]


def test_frames_of_one_time_stamp_are_all_there(root):
    """Matroska's clock has 1 ms: at 3000 frames/s several frames get one stamp, and each still has its labels."""
    (root / "walk.mp4").unlink()
    write_video(root / "walk.mkv", rate=3000)
    (root / "walk.csv").write_text("frame,id,x,y\n" + "".join(f"{t},a,{t + 1},2\n" for t in range(T)))
    store, report = result(root)
    assert report.skipped == []
    assert store[0].tracks[:, 0, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert np.abs(store[0].video().astype(int) - np.stack([picture(t, (48, 64)) for t in range(T)])).mean() < 4


def test_damaged_video(root):
    (root / "walk.mp4").write_bytes(b"no video")
    (root / "walk.csv").write_text("frame,id,x,y\n0,a,1,2\n")
    with pytest.raises(DataError, match="cannot be read"):
        result(root)


def test_frames_of_a_video_in_any_order(root):
    frames = VideoFrames(root / "walk.mp4")
    assert len(frames) == T
    ordered = [frames.rgb(t).copy() for t in range(T)]
    np.testing.assert_array_equal(frames.rgb(1), ordered[1])
    np.testing.assert_array_equal(frames.rgb(4), ordered[4])
    assert frames.encoded(2) == ("raw", ordered[2].tobytes())
    assert frames.fps == 25
    assert len(VideoFrames(root / "walk.mp4", limit=3)) == 3
    with pytest.raises(DataError, match="cannot be read"):
        VideoFrames(root / "absent.mp4")


@pytest.mark.parametrize(
    ("rate_in", "rate_out", "count", "expected"),
    [
        (25, 25, 6, [0, 1, 2, 3, 4, 5]),
        (50, 25, 8, [0, 2, 4, 6]),
        (12.5, 25, 3, [0, 0, 1, 1, 2, 2]),
        (25, None, 3, [0, 1, 2]),
    ],
)
def test_resampling_shows_the_last_frame_by_then(rate_in, rate_out, count, expected):
    picked = resampled(3.0 + np.arange(count) / rate_in, rate_out)
    if rate_in == 50:
        assert picked.tolist() in (expected, [1, 3, 5, 7])  # half-way times round up, as ffmpeg's filter does
    else:
        assert picked.tolist() == expected

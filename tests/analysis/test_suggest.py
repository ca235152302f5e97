"""Frames to label: one of each scene, the same ones every time, and few frames decoded of a long video."""

import csv
import json

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ptrack.analysis import SuggestConfig, suggest_frames, suggesting
from ptrack.cli.app import app
from ptrack.errors import ConfigError, InputError

H, W = 48, 64


def scene(number, shift):
    """(H, W, 3): stripes of a colour, direction and width of their own, moved a little."""
    y, x = np.mgrid[:H, :W]
    wave = np.sin((x * np.cos(number) + y * np.sin(number) + shift) / (1.5 + number))
    return (
        (127 + 110 * wave[..., None] * np.cos([number, 2 * number + 1, 3 * number + 2])).clip(0, 255).astype(np.uint8)
    )


@pytest.fixture(scope="module")
def scenes():
    """(40, H, W, 3): four scenes of 4, 6, 10 and 20 frames."""
    return np.stack([scene(n, t / 20) for n, length in enumerate((4, 6, 10, 20)) for t in range(length)])


def write(path, frames, **options):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=20, options={"preset": "ultrafast", **options})
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        for rgb in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        file.mux(stream.encode(None))


def test_one_frame_of_each_scene_with_its_share(scenes):
    report = suggest_frames(scenes, SuggestConfig(frames=4))
    frames = [s.frame for s in report.frames]
    assert [int(np.digitize(f, (4, 10, 20))) for f in frames] == [0, 1, 2, 3]
    assert [s.share for s in report.frames] == [0.1, 0.15, 0.25, 0.5]
    assert report.sentences == ("Of 40 frames 40 were looked at (all).",)
    np.testing.assert_array_equal(report.frames[1].picture, scenes[frames[1]])
    assert [s.frame for s in suggest_frames(scenes, SuggestConfig(frames=4)).frames] == frames


def test_a_sample_is_evenly_spread_whether_or_not_the_number_of_frames_is_known(scenes):
    report = suggest_frames(scenes, SuggestConfig(frames=2, sample=10))
    assert report.sampled.tolist() == list(range(0, 40, 4))
    assert "Of 40 frames 10 were looked at (every 4th)" in report.sentences[0]
    with suggesting.open_source(scenes) as source:
        sample, _ = suggesting._in_order(source, 12, None, lambda _: False)
    assert [s.index for s in sample] == list(range(0, 40, 4))  # every one, every second, every 4th


def test_what_looks_the_same_is_suggested_once():
    frames = np.repeat(np.stack([scene(0, 0), scene(3, 0)]), 8, axis=0)
    report = suggest_frames(frames, SuggestConfig(frames=5))
    assert [s.share for s in report.frames] == [0.5, 0.5]
    assert "Only 2 frames of 5" in report.sentences[1]
    one = suggest_frames(frames[:1], SuggestConfig(frames=5))
    assert [(s.frame, s.share) for s in one.frames] == [(0, 1.0)]


def test_of_a_long_video_only_key_frames_are_decoded(tmp_path, scenes, monkeypatch):
    write(tmp_path / "long.mp4", scenes, g="2", bf="0", sc_threshold="0")
    monkeypatch.setattr(suggesting, "IN_ORDER", 39)
    monkeypatch.setattr(suggesting, "_in_order", None)
    seen = []
    report = suggest_frames(tmp_path / "long.mp4", SuggestConfig(frames=4, sample=10), lambda n: bool(seen.append(n)))
    assert report.sentences[0] == "Of 40 frames 10 were looked at, evenly spread over its 20 key frames."
    assert seen == list(range(1, 11))
    assert (report.sampled % 2 == 0).all()
    assert [s.time_s for s in report.frames] == pytest.approx([s.frame / 20 for s in report.frames])
    assert [int(np.digitize(s.frame, (4, 10, 20))) for s in report.frames] == [0, 1, 2, 3]
    assert np.abs(report.frames[0].picture.astype(int) - scenes[report.frames[0].frame]).mean() < 12
    early = suggest_frames(tmp_path / "long.mp4", SuggestConfig(frames=2, sample=10), lambda n: n == 3)
    assert len(early.sampled) == 3


@pytest.mark.parametrize("k", [1, 3, 7])
def test_clusters_have_the_least_spread(k):
    """Not worse than scipy's k-means from the same start, and every row belongs to the nearest centre."""
    from scipy.cluster.vq import kmeans2

    features = np.random.default_rng(0).normal(size=(60, 5)) + 4 * np.eye(5)[np.arange(60) % 5]
    rows, shares = suggesting.diverse(features, k)
    _, theirs = kmeans2(features, features[suggesting._spread(features, k)], iter=100, minit="matrix")
    assert sorted(shares) == pytest.approx(sorted(np.bincount(theirs, minlength=k) / 60))
    assert len(rows) == len(set(rows.tolist())) == k


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"frames": 0}, "--frames 0: from 1"),
        ({"frames": 30, "sample": 20}, "--sample 20: it must be at least --frames"),
    ],
)
def test_settings_out_of_range_are_one_sentence(values, words):
    with pytest.raises(ConfigError, match=words):
        SuggestConfig(**values)


def test_the_command_prints_and_writes_the_frames(tmp_path, scenes, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("a.mp4", scenes)
    done = CliRunner().invoke(app, ["analyze", "suggest", "a.mp4", "out.csv", "--frames", "4"], catch_exceptions=False)
    assert done.stdout.splitlines()[0].split("\t") == ["frame", "time (s)", "like this one"]
    assert "40 were looked at" in done.stderr
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["share"] for row in rows] == ["0.1", "0.15", "0.25", "0.5"]
    done = CliRunner().invoke(app, ["analyze", "suggest", "a.mp4", "--frames", "4", "--json"], catch_exceptions=False)
    assert [str(f["frame"]) for f in json.loads(done.stdout)["frames"]] == [row["frame"] for row in rows]
    run = ["analyze", "suggest", "a.mp4", "--frames", "4", "--images", "to_label", "--quiet"]
    assert CliRunner().invoke(app, run, catch_exceptions=False).output == ""
    files = sorted(path.name for path in (tmp_path / "to_label").iterdir())
    assert files == [f"img{int(row['frame']):05}.png" for row in rows]
    assert "already exists" in str(CliRunner().invoke(app, run).exception)
    assert "already exists" in str(CliRunner().invoke(app, ["analyze", "suggest", "a.mp4", "out.csv"]).exception)


@pytest.mark.parametrize("kind", ["mp4", "array"])
def test_pictures_are_the_frames_in_full_size(kind, tmp_path, scenes):
    write(tmp_path / "a.mp4", scenes, crf="0")
    video = tmp_path / "a.mp4" if kind == "mp4" else scenes
    report = suggest_frames(video, SuggestConfig(frames=4))
    files = suggesting.write_pictures(video, report, tmp_path / "out")
    for suggestion, file in zip(report.frames, files, strict=True):
        assert file.name == f"img{suggestion.frame:05}.png"
        got = np.asarray(Image.open(file)).astype(int)
        assert np.abs(got - scenes[suggestion.frame]).mean() < (12 if kind == "mp4" else 0.01)


def test_a_stream_is_no_video_to_label(monkeypatch):
    with pytest.raises(InputError, match="is no file"):
        suggest_frames(iter([scene(0, 0)]))


def test_ordinals():
    assert [suggesting.ordinal(n) for n in (2, 3, 4, 11, 21, 32, 112)] == [
        *("2nd", "3rd", "4th", "11th", "21st", "32nd", "112th"),
    ]

"""``ptrack visualize`` from tracks file to output files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import ptrack
from ptrack.cli.app import app
from ptrack.errors import ConfigError, InputError, OutputError, PTrackError, TracksError
from ptrack.video import open_source
from ptrack.viz.plots import plot_tracks, point_table
from ptrack.viz.render import VisualizeOptions, visualize
from tests.viz.scenes import H, W, make_tracks


def _run(*words):
    return CliRunner().invoke(app, ["visualize", *map(str, words)])


@pytest.fixture
def tracks_file(moving_clip, tmp_path):
    with open_source(str(moving_clip)) as source:
        digest = source.sha256()
    ptrack.save_tracks(make_tracks(24, source=str(moving_clip), source_sha256=digest), tmp_path / "a.tracks.h5")
    return tmp_path / "a.tracks.h5"


def _options(tracks_file, **more):
    return VisualizeOptions(tracks=(tracks_file,), **more)


@pytest.mark.parametrize("style", ["overlay", "stabilised"])
def test_videos_have_the_clips_frames_and_times(style, tracks_file, tmp_path, moving_clip):
    assert visualize(_options(tracks_file, style=style, out=tmp_path / "o.mp4")) == [tmp_path / "o.mp4"]
    drawn, bare = list(open_source(str(tmp_path / "o.mp4"))), list(open_source(str(moving_clip)))
    assert len(drawn) == 24
    np.testing.assert_allclose([f.pts for f in drawn], [f.pts for f in bare], atol=1e-3)
    assert all(np.abs(d.rgb.astype(int) - b.rgb).max() > 60 for d, b in zip(drawn, bare, strict=True))


def test_gif_folder_and_single_pictures(tracks_file, tmp_path):
    visualize(_options(tracks_file, out=tmp_path / "o.gif"))
    assert len(list(open_source(str(tmp_path / "o.gif")))) == 24
    visualize(_options(tracks_file, out=tmp_path / "frames"))
    assert len(list((tmp_path / "frames").iterdir())) == 24
    visualize(_options(tracks_file, out=tmp_path / "p_%03d.png", max_size=48))
    assert Image.open(tmp_path / "p_023.png").size == (48, 32)
    visualize(_options(tracks_file, out=tmp_path / "one.png", frame=7))
    visualize(_options(tracks_file, out=tmp_path / "middle.png"))
    assert Image.open(tmp_path / "one.png").size == (W, H)
    with pytest.raises(TracksError, match="frames 0 to 23"):
        visualize(_options(tracks_file, out=tmp_path / "none.png", frame=24))


def test_stills_table_plots_and_viewer(tracks_file, tmp_path):
    for style in ("exposure", "sheet", "plots"):
        visualize(_options(tracks_file, style=style, out=tmp_path / f"{style}.png", count=6))
        assert Image.open(tmp_path / f"{style}.png").size[0] >= W
    written = visualize(_options(tracks_file, html=tmp_path / "v.html", table=tmp_path / "t.csv"))
    assert written == [tmp_path / "t.csv", tmp_path / "v.html"]
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["id"] == "p1"
    assert float(rows[1]["visible_share"]) == 0.25
    assert float(rows[0]["mean_speed_px_per_frame"]) == pytest.approx(np.hypot(1.5, 0.5), abs=1e-3)
    assert rows[2]["first_frame"] == "3"


def test_side_by_side_with_truth_and_follow(tracks_file, tmp_path):
    other = ptrack.load_tracks(tracks_file)
    ptrack.save_tracks(replace(other, tracks=other.tracks + np.float32(2)), tmp_path / "b.npz")
    both = VisualizeOptions(tracks=(tracks_file, tmp_path / "b.npz"), truth=tracks_file, out=tmp_path / "s.png")
    visualize(both)
    assert Image.open(tmp_path / "s.png").size[1] * Image.open(tmp_path / "s.png").size[0] > 2 * W * H
    visualize(_options(tracks_file, follow="p3", crop=32, zoom=2, out=tmp_path / "f.mp4", points=("p3", "p4")))
    assert next(iter(open_source(str(tmp_path / "f.mp4")))).rgb.shape == (64, 64, 3)


def test_the_command_prints_what_it_wrote(tracks_file, tmp_path):
    done = _run(tracks_file, "--out", tmp_path / "o.mp4", "--colour", "motion", "--trail", 5, "--labels", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"written": [str(tmp_path / "o.mp4")]}
    assert _run(tracks_file, "--points", "p0, p2", "--frame", 3, "--out", tmp_path / "q.png").exit_code == 0


def test_the_default_name_says_the_style(tracks_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [p.name for p in visualize(_options(tracks_file))] == ["a.overlay.mp4"]
    assert [p.name for p in visualize(_options(tracks_file, style="sheet"))] == ["a.sheet.png"]
    with pytest.raises(OutputError, match="already exists"):
        visualize(_options(tracks_file))


def test_another_video_is_refused_unless_forced(tracks_file, tmp_path):
    from tests.viz.scenes import textured_frame, write_clip

    write_clip(tmp_path / "other.mp4", [textured_frame(t + 5) for t in range(24)])
    out = tmp_path / "o.mp4"
    with pytest.raises(InputError, match=r"belong to another video.*--force"):
        visualize(_options(tracks_file, video=str(tmp_path / "other.mp4"), out=out))
    assert not out.exists()
    visualize(_options(tracks_file, video=str(tmp_path / "other.mp4"), out=out, force=True))
    assert out.exists()


def test_a_missing_video_says_what_to_give(tracks_file, tmp_path):
    moved = ptrack.load_tracks(tracks_file)
    moved = replace(moved, info=replace(moved.info, source="gone.mp4"))
    ptrack.save_tracks(moved, tmp_path / "m.h5")
    with pytest.raises(InputError, match=r"'gone\.mp4'.*--video"):
        visualize(_options(tmp_path / "m.h5", out=tmp_path / "o.mp4"))
    visualize(_options(tmp_path / "m.h5", style="plots", out=tmp_path / "p.svg"))  # needs no video
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        ({"style": "overly"}, ConfigError, "Did you mean 'overlay'"),
        ({"colour": "sped"}, ConfigError, "Unknown colour mode"),
        ({"zoom": 0}, ConfigError, "--zoom"),
        ({"crop": 2}, ConfigError, "--crop"),
        ({"count": 0}, ConfigError, "--count"),
        ({"style": "sheet", "follow": "p0"}, ConfigError, "--follow"),
        ({"style": "plots", "truth": "x.h5"}, ConfigError, "without ground truth"),
        ({"trail": -1}, PTrackError, "trail"),
        ({"fade": 2.0}, PTrackError, "fade"),
        ({"style": "plots", "out": "a.mp4"}, OutputError, "a plot is"),
        ({"style": "sheet", "out": "a.gif"}, OutputError, "is a still"),
        ({"out": "a.xyz"}, OutputError, "not a format"),
        ({"points": ("p0", "zz"), "out": "a.mp4"}, TracksError, "no point with the id"),
    ],
)
def test_wrong_options(more, kind, words, tracks_file, tmp_path):
    from pathlib import Path

    more = {k: tmp_path / v if k in ("out", "truth") else v for k, v in more.items()}
    with pytest.raises(kind, match=words):
        visualize(_options(tracks_file, **more))
    assert sorted(p.name for p in Path(tmp_path).iterdir()) == ["a.tracks.h5"]


def test_no_tracks_at_all():
    with pytest.raises(TracksError, match="at least one"):
        VisualizeOptions(tracks=())


def test_rerun_without_the_sdk_fails_before_anything_is_drawn(tracks_file, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(OutputError, match="pip install"):
        visualize(_options(tracks_file, rerun=tmp_path / "a.rrd", out=tmp_path / "o.mp4"))
    assert not (tmp_path / "o.mp4").exists()


def test_progress_counts_the_frames(tracks_file, tmp_path):
    seen = []
    visualize(_options(tracks_file, out=tmp_path / "o.mp4", progress=lambda *a: seen.append(a)))
    assert seen == [(i, 24) for i in range(1, 25)]


@pytest.mark.parametrize("frames", [0, 1, 2, 5000])
def test_plots_and_tables_of_any_length(frames, tmp_path):
    tracks = make_tracks(frames, 3 if frames else 0)
    plot_tracks(tracks, tmp_path / "p.png")
    assert Image.open(tmp_path / "p.png").size == (1320, 1080)
    assert len(point_table(tracks)) == tracks.num_points


def test_a_point_without_any_position_is_in_the_table():
    tracks = make_tracks(4, 2)
    gone = replace(tracks, tracks=np.full_like(tracks.tracks, np.nan), pts_seconds=np.full(4, np.nan))
    row = point_table(gone)[0]
    assert row["first_frame"] is None
    assert row["path_px"] == 0
    assert row["mean_confidence"] is None


def test_attention_from_the_command(tracks_file, tmp_path, monkeypatch):
    import types

    import torch

    from ptrack.models.offline import PointTransformer, StreamingTransformer, TransformerConfig

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = TransformerConfig(norm="group", input_size=(64, 64), levels=2, window=4, dim=32, heads=4, layers=1,
                                   iterations=1, radius=1)  # fmt: skip
        model = StreamingTransformer(PointTransformer(config))
    monkeypatch.setattr("ptrack.models.zoo.build", lambda name, **_: types.SimpleNamespace(model=model))
    done = _run(tracks_file, "--attention", "p2", "--model", "transformer", "--out", tmp_path / "a.mp4")
    assert done.exit_code == 0, done.exception
    assert len(list(open_source(str(tmp_path / "a.mp4")))) == 21  # from the point's own frame on
    visualize(_options(tracks_file, attention="p0", model="transformer", out=tmp_path / "a.png", frame=5))
    assert Image.open(tmp_path / "a.png").size == (W, H)
    with pytest.raises(TracksError, match="has not started"):
        visualize(_options(tracks_file, attention="p2", model="transformer", out=tmp_path / "b.png", frame=1))
    with pytest.raises(ConfigError, match="--model"):
        visualize(_options(tracks_file, attention="p2", out=tmp_path / "b.png"))
    with pytest.raises(PTrackError, match="no point with the id"):
        visualize(_options(tracks_file, attention="zz", model="transformer", out=tmp_path / "b.png"))
    with pytest.raises(ConfigError, match="without ground truth"):
        _options(tracks_file, attention="p2", truth=tracks_file)

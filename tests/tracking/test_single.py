"""One video asked for: what --resume compares, how much is asked for, how often its source is opened."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from ptrack.errors import OutputError, QueryError
from ptrack.queries_io import QueryOptions
from ptrack.tracking import partial, single
from ptrack.tracking.request import TrackRequest
from ptrack.tracking.single import TrackListener, track_request
from ptrack.tracks_io import load_tracks, save_tracks
from ptrack.video import ReadOptions, open_writer
from ptrack.viz.overlay import asked_overlay


def write(path: Path, value: int = 0) -> Path:
    with open_writer(path, fps=25) as writer:
        for t in range(6):
            writer.write(np.full((48, 64, 3), value + t, np.uint8), t / 25)
    return path


@pytest.fixture
def clip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write(Path("clip.mp4"))


def request(**changes) -> TrackRequest:
    base = TrackRequest(
        sources=["clip.mp4"], model="static", queries=QueryOptions(grid=2), overlay=False, drawing=asked_overlay
    )
    return dataclasses.replace(base, **changes)


def read(**changes) -> dict[str, object]:
    return {"read": ReadOptions(**changes)}


CHANGED = {
    "grid": ({"queries": QueryOptions(grid=3)}, "number of points 4, now 9"),
    "points": ({"queries": QueryOptions(points=("1,1", "2,2", "3,3", "4,4"))}, "the points differ"),
    "grid frame": ({"queries": QueryOptions(grid=2, grid_frame=1)}, "the points differ"),
    "start": (read(start=1), "start not given, now 1"),
    "end": (read(end=3), "end not given, now 3"),
    "stride": (read(stride=2), "stride 1, now 2"),
    "max size": (read(max_size=32), "max-size not given, now 32"),
    "fps": (read(fps=10.0), "fps not given, now 10.0"),
    "backward": ({"backward": True}, "backward off, now on"),
    "model": ({"model": "lk"}, "model static, now lk"),
    "support grid": ({"support_grid": 2}, "support-grid 0, now 2"),
}


@pytest.fixture
def finished(clip):
    assert track_request(request()).report is not None
    return Path("clip.tracks.h5")


@pytest.mark.parametrize("name", CHANGED)
def test_resume_of_finished_tracks_names_what_differs(finished, name):
    before = finished.read_bytes()
    changes, words = CHANGED[name]
    with pytest.raises(OutputError, match="is finished, but was made with other settings") as caught:
        track_request(request(resume=True, **changes))
    assert words in str(caught.value)
    assert finished.read_bytes() == before


def test_resume_of_finished_tracks_of_another_video_or_other_weights(finished, clip, monkeypatch):
    with monkeypatch.context() as patch:
        load = single.load

        def other(*arguments, **options):
            tracker = load(*arguments, **options)
            tracker.weights_sha256 = "f" * 64
            tracker.options["quality"] = "fast"
            return tracker

        patch.setattr(single, "load", other)
        with pytest.raises(OutputError, match=r"\(weights; quality not given, now fast\)"):
            track_request(request(resume=True))
    clip.unlink()
    write(clip, 100)
    with pytest.raises(OutputError, match=r"other settings \(video\)"):
        track_request(request(resume=True))


def test_resume_of_the_same_settings_is_complete(finished):
    for neutral in ({}, read(strict=True)):
        assert track_request(request(resume=True, **neutral)).note == "clip.tracks.h5 is complete already"


@pytest.mark.parametrize("suffix", ["h5", "npz", "csv"])
def test_resume_of_finished_tracks_draws_an_overlay_that_is_missing(clip, suffix):
    whole = request(format=suffix, overlay=True, queries=QueryOptions(grid=2, points=("9,9",)))
    track_request(whole)
    overlay = Path("clip.overlay.mp4")
    drawn = overlay.read_bytes()
    assert "overlay" not in track_request(dataclasses.replace(whole, resume=True)).note
    assert overlay.read_bytes() == drawn
    overlay.unlink()
    phases = []
    outcome = track_request(
        dataclasses.replace(whole, resume=True), TrackListener(progress=lambda now: phases.append(now.phase))
    )
    assert "complete already" in outcome.note
    assert outcome.note.endswith("; its overlay clip.overlay.mp4 was missing and is drawn")
    assert overlay.read_bytes() == drawn
    assert phases == ["overlay"] * 6


@pytest.mark.parametrize("suffix", ["npz", "json"])
def test_other_formats_hold_the_settings_too(clip, suffix):
    track_request(request(format=suffix))
    assert track_request(request(format=suffix, resume=True)).note.endswith("complete already")
    with pytest.raises(OutputError, match="stride 1, now 2"):
        track_request(request(format=suffix, resume=True, **read(stride=2)))


def test_files_that_hold_no_settings_are_compared_as_far_as_they_tell(clip):
    track_request(request(format="csv"))
    assert "does not hold the options" in track_request(request(format="csv", resume=True)).note
    with pytest.raises(OutputError, match="number of points 4, now 9"):
        track_request(request(format="csv", resume=True, queries=QueryOptions(grid=3)))
    track_request(request())
    tracks = load_tracks("clip.tracks.h5")  # as an older version wrote it
    save_tracks(dataclasses.replace(tracks, info=dataclasses.replace(tracks.info, settings="")), "clip.tracks.h5")
    assert "does not hold the options" in track_request(request(resume=True)).note
    with pytest.raises(OutputError, match="model static, now lk"):
        track_request(request(resume=True, model="lk"))


def test_the_settings_are_plain_json(finished):
    settings = json.loads(load_tracks(finished).info.settings)
    assert settings["stride"] == 1
    assert settings["dtype"] == "float32"
    assert "strict" not in settings


def test_differences_in_words():
    assert partial.differences({"a": 1, "b": None, "c": True}, {"a": 1, "b": 2.5, "d": False}) == (
        "b not given, now 2.5; c on, now not given; d not given, now off"
    )
    assert partial.differences({"weights": "a" * 64}, {"weights": "b" * 64}) == "weights"


def test_points_and_size_are_stated_before_the_work(clip):
    notes = []
    track_request(request(out=Path("a.h5")), TrackListener(note=notes.append))
    assert notes == ["4 points, 64x48, 6 frames, about 0.4 kB of tracks"]
    assert track_request(request(dry_run=True)).note.startswith("dry run: 4 points, 64x48, 6 frames, about 0.4 kB")


def test_too_many_points_are_refused_before_they_are_made(clip):
    for options, words in (
        (QueryOptions(grid=2000, max_points=10_000), "4,000,000 points are more than the 10,000 of --max-points"),
        (QueryOptions(grid=10**7, max_points=10_000), "100,000,000,000,000 points"),
        (QueryOptions(grid=2, points=("1,1",), max_points=4), "5 points are more than the 4"),
    ):
        with pytest.raises(QueryError, match=words):
            track_request(request(queries=options))
    assert track_request(request(queries=QueryOptions(grid=2, max_points=4))).report is not None


def test_a_source_is_opened_once_and_its_queries_are_built_once(clip, monkeypatch):
    calls = []
    for owner, name in ((single, "open_source"), (single.plan_queries(QueryOptions(grid=2)).__class__, "build")):
        honest = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, _n=name, _h=honest, **k: (calls.append(_n), _h(*a, **k))[1])
    track_request(request(overlay=True))
    assert calls == ["open_source", "build"]

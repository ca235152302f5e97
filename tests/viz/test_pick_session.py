from __future__ import annotations

import csv
import functools
import io
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import ptrack
from ptrack.errors import InputError, OutputError, QueryError, TracksError
from ptrack.viz.pick import PickSession
from ptrack.viz.pick.frames import BLOCK, FrameStore
from ptrack.viz.pick.session import parse_points

POINTS = [
    {"id": "a", "t": 0, "x": 30.25, "y": 20.5, "colour": "#ff0000"},
    {"id": "b c", "t": 3, "x": 50, "y": 40.123456},
    {"id": "ü", "t": 0, "x": 60.5, "y": 30},
]

pytestmark = pytest.mark.usefixtures("one_thread")


@functools.cache  # one tracker for all: every run resets it
def _tracker():
    return ptrack.load("matching", device="cpu")


@pytest.fixture
def session(moving_clip, tmp_path):
    made = PickSession(moving_clip, _tracker, tmp_path / "t.h5", tmp_path / "q.csv")
    yield made
    made.close()


def _finish(session, job):
    """Read a job to its end the way the page does; return all rows."""
    rows = []
    while True:
        news = session.poll(job, len(rows))
        rows += news["rows"]
        if not news["running"]:
            return rows, news


def test_tracks_equal_the_commands_on_the_saved_queries(session, moving_clip, tmp_path):
    from ptrack.cli.app import app

    rows, news = _finish(session, session.start(POINTS))
    assert news["error"] == ""
    assert [r[0] for r in rows] == list(range(24))
    assert session.save(POINTS) == {"saved": [str(tmp_path / "q.csv"), str(tmp_path / "t.h5")], "note": ""}
    done = CliRunner().invoke(
        app,
        ["track", str(moving_clip), "--queries", str(tmp_path / "q.csv"), "--model", "matching", "--device", "cpu",
         "--out", str(tmp_path / "cli.h5"), "--no-overlay"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    ours, theirs = ptrack.load_tracks(tmp_path / "t.h5"), ptrack.load_tracks(tmp_path / "cli.h5")
    for name in ("tracks", "visibility", "confidence", "queries", "ids", "frame_index", "pts_seconds"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    assert ours.info == theirs.info
    shown = np.asarray([[cell[:2] for cell in row[1]] for row in rows], dtype=float)
    np.testing.assert_allclose(shown, ours.tracks, atol=6e-4)


def test_colours_and_names_are_in_the_csv(session, tmp_path):
    answer = session.save(POINTS)
    assert answer["note"] == "There are no tracks yet."
    assert not (tmp_path / "t.h5").exists()
    with open(tmp_path / "q.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["id"] for r in rows] == ["a", "b c", "ü"]
    assert rows[0]["colour"] == "#ff0000"
    assert np.float32(rows[1]["y"]) == np.float32(40.123456)


def test_a_correction_changes_that_point_from_there_on_and_undo_takes_it_back(session, tmp_path):
    _finish(session, session.start(POINTS))
    before = session.tracks
    _finish(session, session.correct("a", 10, 40.0, 25.0))
    after = session.tracks
    np.testing.assert_array_equal(after.tracks[10, 0], [40, 25])
    np.testing.assert_array_equal(after.tracks[:10], before.tracks[:10])
    np.testing.assert_array_equal(after.tracks[:, 1:], before.tracks[:, 1:])
    assert (after.tracks[11:, 0] != before.tracks[11:, 0]).all()
    # The new part is what tracking that point from frame 10 gives.
    tracker = _tracker()
    alone = tracker.track(ptrack.read_frames(session.video, start=10), np.asarray([[0, 40.0, 25.0]]))
    np.testing.assert_array_equal(alone.tracks[:, 0], after.tracks[10:, 0])

    _finish(session, session.correct("a", 5, 33.0, 22.0))  # an earlier one stops before the later one
    np.testing.assert_array_equal(session.tracks.tracks[10:], after.tracks[10:])
    np.testing.assert_array_equal(session.tracks.tracks[5, 0], [33, 22])
    assert len(session.save(POINTS)["saved"]) == 3
    assert (tmp_path / "q.corrections.csv").read_text().splitlines() == ["t,x,y,id", "10,40.0,25.0,a", "5,33.0,22.0,a"]
    assert ptrack.load_tracks(tmp_path / "t.h5").info.warnings == (
        "Point a was corrected by hand on frame 10.",
        "Point a was corrected by hand on frame 5.",
    )
    column = session.undo()
    assert column["id"] == "a"
    np.testing.assert_allclose(column["rows"][5][1:3], after.tracks[5, 0], atol=6e-4)
    session.undo()
    np.testing.assert_array_equal(session.tracks.tracks, before.tracks)
    with pytest.raises(QueryError, match="no correction"):
        session.undo()


def test_correcting_the_same_frame_twice_and_undoing_once_leaves_the_first(session):
    _finish(session, session.start(POINTS))
    for x in (40.0, 42.0):
        _finish(session, session.correct("a", 10, x, 25.0))
    assert [c.x for c in session.corrections] == [42.0]
    session.undo()
    assert [c.x for c in session.corrections] == [40.0]
    assert session.tracks.tracks[10, 0, 0] == 40


def test_a_correction_that_fails_changes_nothing(session, monkeypatch):
    _finish(session, session.start(POINTS))
    before = session.tracks
    monkeypatch.setattr(session, "_rows", lambda *_: 1 / 0)
    _, news = _finish(session, session.correct("a", 10, 40.0, 25.0))
    assert news["error"].startswith("Tracking failed: ZeroDivisionError")
    assert session.tracks is before
    assert session.corrections == []


def test_changed_points_are_not_saved_with_the_old_tracks(session, tmp_path):
    _finish(session, session.start(POINTS))
    answer = session.save(POINTS[:2])
    assert "track again" in answer["note"]
    assert not (tmp_path / "t.h5").exists()


def test_rename(session, tmp_path):
    _finish(session, session.start(POINTS))
    _finish(session, session.correct("a", 4, 35, 22))
    session.rename("a", "nose")
    session.rename("nobody", "x")
    with pytest.raises(QueryError, match="in use"):
        session.rename("nose", "ü")
    renamed = [{**p, "id": "nose" if p["id"] == "a" else p["id"]} for p in POINTS]
    assert session.save(renamed)["note"] == ""
    saved = ptrack.load_tracks(tmp_path / "t.h5")
    assert saved.ids.tolist() == ["nose", "b c", "ü"]
    assert saved.info.warnings == ("Point nose was corrected by hand on frame 4.",)
    assert session.undo()["id"] == "nose"


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([], "no point yet"),
        ("abc", "must be a list"),
        ([1], "must be a list"),
        ([{"id": "a", "t": 0, "x": 1}], "lacks id, t, x or y"),
        ([{"id": "a", "t": 0, "x": "left", "y": 2}], "lacks id, t, x or y"),
        ([{"id": "", "t": 0, "x": 1, "y": 2}], "1 to 200 characters"),
        ([{"id": "a\nb", "t": 0, "x": 1, "y": 2}], "1 to 200 characters"),
        ([{"id": "a", "t": -1, "x": 1, "y": 2}], "from 0 upwards"),
        ([{"id": "a", "t": 0.5, "x": 1, "y": 2}], "whole number"),
        ([{"id": "a", "t": 0, "x": float("nan"), "y": 2}], "NaN"),
        ([{"id": "a", "t": 0, "x": 1, "y": 2}] * 2, "more than once"),
    ],
)
def test_malformed_points(points, words):
    with pytest.raises(QueryError, match=words):
        parse_points(points)


def test_wrong_requests(session):
    with pytest.raises(QueryError, match="outside the 96x64 frame"):
        session.start([{"id": "a", "t": 0, "x": 97, "y": 2}])
    with pytest.raises(QueryError, match="when tracking has finished"):
        session.correct("a", 3, 1, 1)
    _finish(session, session.start(POINTS))
    with pytest.raises(QueryError, match="no point 'z'"):
        session.correct("z", 3, 1, 1)
    with pytest.raises(QueryError, match="on frame 99"):
        session.correct("a", 99, 1, 1)
    with pytest.raises(QueryError, match="outside"):
        session.correct("a", 3, 1, 100)
    assert session.corrections == []
    assert not session._before


def test_an_error_while_tracking_reaches_the_page(moving_clip, tmp_path):
    def broken():
        raise RuntimeError("no weights")

    session = PickSession(moving_clip, broken, tmp_path / "t.h5", tmp_path / "q.csv")
    _, news = _finish(session, session.start(POINTS))
    assert news["error"] == "Tracking failed: RuntimeError: no weights."
    assert session.tracks is None
    session.close()


def test_stopping_in_the_middle_and_starting_again(session):
    first = session.start(POINTS)
    session.stop()
    assert not session.poll(first, 10_000, wait=0)["running"]
    rows, _ = _finish(session, session.start(POINTS[:1]))
    assert len(rows) == 24
    assert session.tracks.num_points == 1


def test_outputs_are_checked_before_anything_else(moving_clip, tmp_path):
    (tmp_path / "q.csv").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        PickSession(moving_clip, _tracker, tmp_path / "t.h5", tmp_path / "q.csv")
    with pytest.raises(TracksError, match=r"\.h5, \.npz"):
        PickSession(moving_clip, _tracker, tmp_path / "t.txt", tmp_path / "q2.csv")
    with pytest.raises(InputError, match="no file"):
        PickSession(tmp_path / "gone.mp4", _tracker, tmp_path / "t.h5", tmp_path / "q2.csv")
    PickSession(moving_clip, _tracker, tmp_path / "t.h5", tmp_path / "q.csv", overwrite=True).close()


def test_frames_are_the_videos_own(moving_clip, monkeypatch):
    monkeypatch.setattr("ptrack.viz.pick.frames.CACHE_BYTES", 1)  # every frame has to be decoded when asked for
    store = FrameStore(str(moving_clip))
    try:
        frames = [f.rgb for f in ptrack.open_source(str(moving_clip))]
        for i in (23, 0, 15, 16, 7):
            shown = np.asarray(Image.open(io.BytesIO(store.get(i)))).astype(int)
            assert np.argmin([np.abs(shown - frame).mean() for frame in frames]) == i
        store._walker.join()
        assert (store.count, store.complete) == (24, True)
        assert store.get(24) is None
        assert store.get(-1) is None
        assert len(store._cache) <= BLOCK
    finally:
        store.close()


def test_about_is_json(session):
    json.dumps(session.about(), allow_nan=False)
    assert session.about()["width"] == 96

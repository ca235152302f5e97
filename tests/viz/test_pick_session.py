from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import ptrack
from ptrack.errors import ConfigError, InputError, OutputError, QueryError, TracksError
from ptrack.tracking.tracker import Tracker
from ptrack.viz.pick import PickSession
from ptrack.viz.pick.frames import BLOCK, FrameStore, PictureCache
from ptrack.viz.pick.points import Correction, check_name, parse_points
from ptrack.viz.pick.seat import TakenError
from tests.fakes import DriftModel
from tests.viz.scenes import numbered_frame

POINTS = [
    {"id": "a", "t": 0, "x": 30.25, "y": 20.5, "colour": "#ff0000"},
    {"id": "b c", "t": 3, "x": 50, "y": 40.123456},
    {"id": "ü", "t": 0, "x": 60.5, "y": 30},
]

pytestmark = pytest.mark.usefixtures("one_thread")


def _tracker():
    return Tracker(DriftModel())


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


def _track(session, points=POINTS):
    session.edit(points)
    return _finish(session, session.start())


def test_tracks_equal_the_commands_on_the_saved_queries(moving_clip, tmp_path):
    from ptrack.cli.app import app

    session = PickSession(
        moving_clip, lambda: ptrack.load("matching", device="cpu"), tmp_path / "t.h5", tmp_path / "q.csv"
    )
    rows, news = _track(session)
    assert news["error"] == ""
    assert [r[0] for r in rows] == list(range(24))
    assert session.save() == f"Saved {tmp_path / 'q.csv'}, {tmp_path / 't.h5'}."
    done = CliRunner().invoke(
        app,
        ["track", str(moving_clip), "--queries", str(tmp_path / "q.csv"), "--model", "matching", "--device", "cpu",
         "--out", str(tmp_path / "cli.h5"), "--no-overlay"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    ours, theirs = ptrack.load_tracks(tmp_path / "t.h5"), ptrack.load_tracks(tmp_path / "cli.h5")
    for name in ("tracks", "visibility", "confidence", "queries", "ids", "frame_index", "pts_seconds"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    assert ours.info == replace(theirs.info, settings="")  # --resume is for the command alone
    shown = np.asarray([[cell[:2] for cell in row[1]] for row in rows], dtype=float)
    np.testing.assert_allclose(shown, ours.tracks, atol=6e-4)
    session.close()


def test_colours_and_names_are_in_the_csv(session, tmp_path):
    session.edit(POINTS)
    assert session.save().endswith("There are no tracks yet.")
    assert not (tmp_path / "t.h5").exists()
    with open(tmp_path / "q.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["id"] for r in rows] == ["a", "b c", "ü"]
    assert rows[0]["colour"] == "#ff0000"
    assert np.float32(rows[1]["y"]) == np.float32(40.123456)


def test_a_correction_changes_that_point_from_there_on_and_undo_takes_it_back(session, tmp_path):
    _track(session)
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
    session.save()
    assert len(session.saved) == 3
    assert (tmp_path / "q.corrections.csv").read_text().splitlines() == ["t,x,y,id", "10,40.0,25.0,a", "5,33.0,22.0,a"]
    assert ptrack.load_tracks(tmp_path / "t.h5").info.warnings == (
        "Point a was corrected by hand on frame 10.",
        "Point a was corrected by hand on frame 5.",
    )
    assert session.undo() == "The correction of a is undone."
    shown = session.rows(5, 5)
    np.testing.assert_allclose(shown["rows"][0][1][0][:2], after.tracks[5, 0], atol=6e-4)
    session.undo()
    np.testing.assert_array_equal(session.tracks.tracks, before.tracks)
    assert session.undo() == "The last step is undone."  # the points themselves
    assert session.points == ()
    with pytest.raises(QueryError, match="nothing to undo"):
        session.undo()


def test_correcting_the_same_frame_twice_and_undoing_once_leaves_the_first(session):
    _track(session)
    for x in (40.0, 42.0):
        _finish(session, session.correct("a", 10, x, 25.0))
    assert [c.x for c in session.corrections] == [42.0]
    session.undo()
    assert [c.x for c in session.corrections] == [40.0]
    assert session.tracks.tracks[10, 0, 0] == 40
    _finish(session, session.correct("a", 10, 40.0, 25.0))
    assert session.undo() == "The correction of a is undone."


def test_collected_corrections_are_tracked_in_one_run(session, tmp_path):
    _track(session)
    before = session.tracks
    marks = [("a", 12, 50.0, 30.0), ("ü", 6, 70.0, 35.0), ("a", 4, 36.0, 24.0)]
    numbers = {session.correct(*mark, wait=True) for mark in marks}
    assert numbers == {session._tracking.job.number}
    assert session.tracks is before
    assert session.state()["waiting"] == [list(mark) for mark in marks]
    assert session.state()["steps"] == 1 + 3
    assert "3 corrections not in it: press Track again" in session.save()
    assert session.state()["unsaved"]
    _, news = _finish(session, session.again())
    assert news["error"] == ""
    after = session.tracks
    for name, t, x, y in marks:
        assert after.tracks[t, after.ids.tolist().index(name)].tolist() == [x, y]
    np.testing.assert_array_equal(after.tracks[:4], before.tracks[:4])
    np.testing.assert_array_equal(after.tracks[:, 1], before.tracks[:, 1])
    tracker = _tracker()  # each part is what tracking from its correction gives, up to the next one
    alone = tracker.track(ptrack.read_frames(session.video, start=4), np.asarray([[0, 36.0, 24.0], [8, 50.0, 30.0]]))
    np.testing.assert_array_equal(after.tracks[4:12, 0], alone.tracks[:8, 0])
    np.testing.assert_array_equal(after.tracks[12:, 0], alone.tracks[8:, 1])
    assert session.state()["waiting"] == []
    assert [(c.id, c.t) for c in session.corrections] == [("a", 4), ("ü", 6), ("a", 12)]
    session.save()
    assert len((tmp_path / "q.corrections.csv").read_text().splitlines()) == 4
    assert session.undo() == "The correction of 3 points and frames is undone."
    np.testing.assert_array_equal(session.tracks.tracks, before.tracks)


def test_corrections_that_wait_can_be_taken_back_renamed_and_outdated(session):
    _track(session)
    with pytest.raises(QueryError, match="No correction waits"):
        session.again()
    session.correct("a", 4, 36, 24, wait=True)
    session.correct("b c", 9, 56, 44, wait=True)
    session.rename("a", "nose")
    assert [w[0] for w in session.state()["waiting"]] == ["nose", "b c"]
    assert session.undo() == "The correction of b c on frame 9, which waited, is dropped."
    with pytest.raises(QueryError, match="outside"):
        session.correct("nose", 5, 1, 100, wait=True)
    session.edit([{**POINTS[0], "id": "nose", "x": 31}, *POINTS[1:]])
    with pytest.raises(QueryError, match="No correction waits"):
        session.again()  # the point it belongs to is another one now
    session.undo()
    session.correct("nose", 4, 36, 24, wait=True)
    session.correct("b c", 9, 56, 44, wait=True)
    session.edit([{**POINTS[0], "id": "nose", "x": 31}, *POINTS[1:]])
    with pytest.raises(QueryError, match="'nose' has changed .*: 1 correction dropped"):
        session.again()
    assert [w[0] for w in session.state()["waiting"]] == ["b c"]
    _, news = _finish(session, session.start())  # tracking everything anew
    assert news["error"] == ""
    assert session.state()["waiting"] == []


def test_jumps_and_unsure_places_are_listed_and_corrections_are_no_jumps(session):
    assert session.places() == {"version": 0, "places": [], "all": 0}
    _track(session)
    jumped = session.tracks.tracks.copy()
    jumped[8:, 0] += 12
    jumped[15:, 1] += 30
    confidence = np.full_like(session.tracks.confidence, 0.9)
    confidence[18:21, 2] = 0.1
    confidence[5:7, 0] = 0.2
    visibility = np.ones_like(confidence)
    visibility[5:7, 0] = 0  # hidden and unsure: nothing to see there
    session.tracks = replace(session.tracks, tracks=jumped, confidence=confidence, visibility=visibility)
    found = session.places()
    assert [(p["frame"], p["id"], p["what"]) for p in found["places"]] == [
        (15, "b c", "jumps by 42 px"),
        (8, "a", "jumps by 17 px"),
        (18, "ü", "unsure in 3 frames (10%)"),
    ]
    session.corrections = [Correction(id="b c", t=15, x=1, y=1)]
    assert [p["frame"] for p in session.places()["places"]] == [8, 18]


def test_frames_are_suggested_in_a_thread(session):
    for wrong in (None, True, 2.5, "20"):
        with pytest.raises(QueryError, match="whole number"):
            session.suggest(wrong)
    with pytest.raises(ConfigError, match="--frames 0"):
        session.suggest(0)
    revision = session.state()["revision"]
    session.suggest(3)
    while session.state()["suggested"]["running"]:
        session.watch("", revision, wait=0.2)
    found = session.state()["suggested"]
    assert found["error"] == ""
    assert found["note"] == "Of 24 frames 24 were looked at (all)."
    assert len(found["frames"]) == 3
    frame = found["frames"][1][0]
    picture = np.asarray(Image.open(io.BytesIO(session.suggester.picture(frame))))
    assert picture.shape == (64, 96, 3)
    assert session.suggester.picture(-1) is None
    assert not session.state()["unsaved"]


def test_a_correction_that_fails_changes_nothing(session, monkeypatch):
    _track(session)
    before = session.tracks
    monkeypatch.setattr(session._tracking, "_rows", lambda *_: 1 / 0)
    _, news = _finish(session, session.correct("a", 10, 40.0, 25.0))
    assert news["error"].startswith("Tracking failed: ZeroDivisionError")
    assert session.tracks is before
    assert session.corrections == []


def test_changed_points_are_not_saved_with_the_old_tracks(session, tmp_path):
    _track(session)
    session.edit(POINTS[:2])
    assert "track and save again" in session.save()
    assert not (tmp_path / "t.h5").exists()


def test_what_was_deleted_and_brought_back_can_be_corrected(session):
    _track(session)
    session.edit(POINTS[1:])
    with pytest.raises(QueryError, match="has changed since it was tracked"):
        session.correct("a", 4, 35, 22)
    session.undo()
    _, news = _finish(session, session.correct("a", 4, 35, 22))
    assert news["error"] == ""
    assert session.tracks.tracks[4, 0].tolist() == [35, 22]
    moved = [{**POINTS[0], "x": 31}, *POINTS[1:]]
    session.edit(moved)
    with pytest.raises(QueryError, match="has changed"):
        session.correct("a", 6, 35, 22)
    _finish(session, session.correct("ü", 6, 50, 22))  # another point is as it was tracked


def test_rename(session, tmp_path):
    _track(session)
    _finish(session, session.correct("a", 4, 35, 22))
    session.rename("a", "nose")
    with pytest.raises(QueryError, match="no point 'nobody'"):
        session.rename("nobody", "x")
    with pytest.raises(QueryError, match="in use"):
        session.rename("nose", "ü")
    assert session.save().count(",") == 2
    saved = ptrack.load_tracks(tmp_path / "t.h5")
    assert saved.ids.tolist() == ["nose", "b c", "ü"]
    assert saved.info.warnings == ("Point nose was corrected by hand on frame 4.",)
    assert session.undo() == "The correction of nose is undone."
    session.undo()
    assert session.points == ()


def test_a_name_that_a_deleted_point_had_can_be_given_again(session):
    _track(session)
    session.edit(POINTS[1:])
    session.rename("ü", "a")
    assert [p.id for p in session.points] == ["b c", "a"]
    assert session.tracks.ids.tolist() == ["a (2)", "b c", "a"]
    session.undo()
    assert sorted(p.id for p in session.points) == ["a", "a (2)", "b c"]


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "a\x7f", "\ud800", "ok\udfff", None, 3, ["a"]])
def test_rename_and_edit_refuse_the_same_names(name, session):
    session.edit(POINTS)
    sentences = []
    for attempt in (
        lambda: check_name(name),
        lambda: session.rename("a", name),
        lambda: session.edit([{**POINTS[0], "id": name}]),
    ):
        with pytest.raises(QueryError, match="name") as caught:
            attempt()
        sentences.append(str(caught.value))
    assert len(set(sentences)) == 1
    assert [p.id for p in session.points] == ["a", "b c", "ü"]


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ("abc", "must be a list"),
        (None, "must be a list"),
        ([1], "must be a list"),
        ([{"id": "a", "t": 0, "x": 1}], "lacks 'y'"),
        ([{"id": "a", "t": 0, "x": "left", "y": 2}], "'x' of point a must be a number"),
        ([{"id": "a", "t": 0, "x": True, "y": 2}], "'x' of point a must be a number"),
        ([{"id": "a", "t": 10**400, "x": 1, "y": 2}], "'t' of point a must be a number"),
        ([{"id": "a", "t": -1, "x": 1, "y": 2}], "from 0 upwards"),
        ([{"id": "a", "t": 0.5, "x": 1, "y": 2}], "whole number"),
        ([{"id": "a", "t": 0, "x": float("nan"), "y": 2}], "'x' of point a must be a number"),
        ([{"id": "a", "t": 0, "x": float("inf"), "y": 2}], "'x' of point a must be a number"),
        ([{"id": "a", "t": 0, "x": 1, "y": 2, "colour": "red"}], "#rrggbb"),
        ([{"id": "a", "t": 0, "x": 1, "y": 2, "colour": 7}], "#rrggbb"),
        ([{"id": "a", "t": 0, "x": 1, "y": 2}] * 2, "'a' is in use"),
    ],
)
def test_malformed_points(points, words):
    with pytest.raises(QueryError, match=words) as caught:
        parse_points(points)
    assert "np." not in str(caught.value)


def test_wrong_requests(session):
    with pytest.raises(QueryError, match="outside the 96x64 frame"):
        session.edit([{"id": "a", "t": 0, "x": 97, "y": 2}])
    with pytest.raises(QueryError, match="no point yet"):
        session.start()
    with pytest.raises(QueryError, match="when tracking has finished"):
        session.correct("a", 3, 1, 1)
    _track(session)
    with pytest.raises(QueryError, match="no point 'z'"):
        session.correct("z", 3, 1, 1)
    with pytest.raises(QueryError, match="on frame 99"):
        session.correct("a", 99, 1, 1)
    with pytest.raises(QueryError, match="outside"):
        session.correct("a", 3, 1, 100)
    with pytest.raises(QueryError, match="'x' must be a number"):
        session.correct("a", 3, float("nan"), 100)
    assert session.corrections == []
    assert not session._before


def test_an_error_while_tracking_reaches_the_page(moving_clip, tmp_path):
    def broken():
        raise RuntimeError("no weights")

    session = PickSession(moving_clip, broken, tmp_path / "t.h5", tmp_path / "q.csv")
    _, news = _track(session)
    assert news["error"] == "Tracking failed: RuntimeError: no weights."
    assert session.tracks is None
    session.close()


def test_stopping_in_the_middle_and_starting_again(session):
    session.edit(POINTS)
    first = session.start()
    session.stop()
    assert not session.poll(first, 10_000, wait=0)["running"]
    rows, _ = _track(session, POINTS[:1])
    assert len(rows) == 24
    assert session.tracks.num_points == 1


# ------------------------------------------------------------------------------------------- the kept session


def test_a_page_that_is_loaded_again_gets_everything(session):
    rows, _ = _track(session)
    _finish(session, session.correct("a", 10, 40.0, 25.0))
    state = session.state("another tab")
    json.dumps(state, allow_nan=False)
    assert [p["id"] for p in state["points"]] == ["a", "b c", "ü"]
    assert state["steps"] == 2
    assert state["unsaved"]
    assert state["tracked"][0] == ["a", 0, 30.25, 20.5]
    again = session.rows(8, 12)
    assert [frame for frame, _ in again["rows"]] == [8, 9, 10, 11, 12]
    assert again["rows"][2][1][0][:2] == [40.0, 25.0]
    assert again["rows"][0] == rows[8]
    assert session.rows(0, 10**6)["rows"][-1][0] == 23
    assert again["version"] == state["version"]


def test_rows_of_a_run_can_be_read_while_it_goes_on(session):
    session.edit(POINTS)
    job = session.start()
    session.poll(job, 0)
    found = session.rows(0, 100)
    assert found["ids"] == ["a", "b c", "ü"]
    assert found["rows"][0][0] == 0
    _finish(session, job)


def test_saving_and_changing_set_what_is_unsaved(session):
    assert not session.state()["unsaved"]
    session.edit(POINTS)
    assert session.state()["unsaved"]
    session.save()
    assert not session.state()["unsaved"]
    assert session.state()["saved"] == [str(session.queries_out)]
    session.claim("a tab")
    assert not session.state()["unsaved"]
    session.rename("a", "nose")
    assert session.state()["unsaved"]


def test_one_tab_writes_and_another_may_take_over(session):
    assert session.claim("one")["writer"]
    assert not session.claim("two")["writer"]
    with pytest.raises(TakenError, match="Another tab"):
        session.seat.require("two")
    seen = session.state("one")["revision"]
    assert session.claim("two", force=True)["writer"]
    answer = session.watch("one", seen, wait=5)  # answers at once: the seat was taken
    assert not answer["writer"]
    session.seat.leave("two")
    session.seat.require("three")
    assert not session.claim("")["writer"]


def test_a_tab_that_is_gone_for_long_loses_its_seat(session, monkeypatch):
    session.claim("one")
    monkeypatch.setattr("ptrack.viz.pick.seat.GONE_SECONDS", -1.0)
    assert session.claim("two")["writer"]


def test_undo_history_is_bounded(session, monkeypatch):
    monkeypatch.setattr("ptrack.viz.pick.points.MAX_STEPS", 3)
    for x in range(1, 9):
        session.edit([{"id": "a", "t": 0, "x": x, "y": 2}])
    for _ in range(3):
        session.undo()
    assert session.points[0].x == 5
    with pytest.raises(QueryError, match="nothing to undo"):
        session.undo()


def test_outputs_are_checked_before_anything_else(moving_clip, tmp_path):
    (tmp_path / "q.csv").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        PickSession(moving_clip, _tracker, tmp_path / "t.h5", tmp_path / "q.csv")
    with pytest.raises(TracksError, match=r"\.h5, \.npz"):
        PickSession(moving_clip, _tracker, tmp_path / "t.txt", tmp_path / "q2.csv")
    with pytest.raises(InputError, match="no file"):
        PickSession(tmp_path / "gone.mp4", _tracker, tmp_path / "t.h5", tmp_path / "q2.csv")
    PickSession(moving_clip, _tracker, tmp_path / "t.h5", tmp_path / "q.csv", overwrite=True).close()


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])  # found by their packets, and counted by decoding
def test_frames_are_the_videos_own(suffix, tmp_path, monkeypatch):
    clip = tmp_path / f"clip{suffix}"
    _coded_clip(clip, 40)
    monkeypatch.setattr("ptrack.viz.pick.frames.CACHE_BYTES", 1)  # every frame has to be decoded when asked for
    store = FrameStore(str(clip))
    try:
        for i in (39, 0, 15, 16, 7, 17):
            assert _code(store.get(i)) == i
        if store._walker.ident is not None:
            store._walker.join()
        assert (store.count, store.complete) == (40, True)
        assert store.get(40) is None
        assert store.get(-1) is None
        assert store.get(10**30) is None
        assert len(store._cache) <= BLOCK
    finally:
        store.close()


def _coded_clip(path, count):
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=20, options={"preset": "ultrafast", "bf": "2", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i in range(count):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frame(i), format="rgb24")))
        file.mux(stream.encode(None))


def _code(data):
    picture = np.asarray(Image.open(io.BytesIO(data)))
    return int((1 << np.flatnonzero(picture[32, 8::16, 0] > 127)).sum())


def test_far_frames_are_found_by_their_key_frame(tmp_path, monkeypatch):
    _coded_clip(tmp_path / "long.mp4", 60)
    store = FrameStore(str(tmp_path / "long.mp4"))
    monkeypatch.setattr("ptrack.viz.pick.frames.open_source", None)  # nothing is read from the start
    assert store.complete
    assert store.count == 60
    assert [_code(store.get(i)) for i in (59, 30, 31)] == [59, 30, 31]
    store.close()


def test_the_cache_is_bounded_by_bytes_and_keeps_what_was_looked_at():
    cache = PictureCache(100)
    for i in range(BLOCK):
        cache.put(i, b"x" * 20)
    assert len(cache) == BLOCK  # the newest block stays whatever its size
    cache.get(0)
    cache.put(99, b"x" * 20)
    assert cache.get(0) is not None
    assert cache.get(1) is None
    small = PictureCache(1000)
    for i in range(200):
        small.put(i, b"x" * 10)
    assert len(small) == 100


def test_the_digest_is_read_when_it_is_needed(moving_clip):
    store = FrameStore(str(moving_clip))
    assert store._sha256 is None
    assert len(store.sha256()) == 64
    store.close()


def test_about_is_json(session):
    json.dumps(session.about(), allow_nan=False)
    assert session.about()["width"] == 96

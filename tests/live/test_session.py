import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from ptrack.errors import ConfigError, InputError, OutputError, QueryError, TracksError
from ptrack.live import recorder as recorder_module
from ptrack.live.capture import Capture, CaptureOptions
from ptrack.live.points import PointKeeper, PointOptions
from ptrack.live.recorder import Recorder
from ptrack.live.session import Ages, LiveOptions, live_info, run_live
from ptrack.tracking.tracker import Tracker
from ptrack.tracks import Queries, TracksInfo
from ptrack.tracks_io import load_tracks
from tests.fakes import DriftModel
from tests.live.fakes import FakeCamera
from tests.live.test_capture import connections

ALL = CaptureOptions(realtime=False)
ONE = Queries(np.asarray([[0, 10, 10]]), ["a"])


def follow(count=5, queries=ONE, points=None, options=None, source=None, **more):
    capture = Capture(connections(source or FakeCamera(count, live=False)), options or ALL)
    frames = []
    live = LiveOptions(points=points or PointOptions(), duration=more.pop("duration", None))
    on_frame = more.pop("on_frame", frames.append)
    report = run_live(Tracker(DriftModel()), capture, queries, live, on_frame=on_frame, **more)
    return report, frames


def test_every_frame_is_told_and_counted():
    report, frames = follow()
    assert (report.frames, report.dropped, report.points, report.stopped) == (5, 0, 1, False)
    assert [f.frame for f in frames] == [0, 1, 2, 3, 4]
    assert [f.positions[0].tolist() for f in frames[:2]] == [[10, 10], [11, 10.5]]
    assert frames[0].ids == ("a",)
    assert all(f.age_ms >= 0 for f in frames)
    assert 0 < report.age_ms["p50"] <= report.age_ms["p99"]
    assert report.source == "tcp://host:1"


def test_points_that_are_lost_so_long_are_removed():
    model_hides_after = 8  # frames: visibility is 1 / (1 + age / 8)
    report, frames = follow(16, points=PointOptions(max_lost=3))
    counts = [len(f.ids) for f in frames]
    assert counts == [1] * (model_hides_after + 3) + [0] * (16 - model_hides_after - 3)
    assert (report.removed, report.points) == (1, 0)


def test_where_coverage_falls_new_points_are_added_and_the_old_ones_stay():
    report, frames = follow(21, points=PointOptions(min_coverage=0.5, grid=2))
    assert [len(f.ids) for f in frames] == [1] * 10 + [5] * 10 + [9]
    assert report.added == 4 + 4
    assert frames[10].positions[1:].tolist() == [[16, 12], [48, 12], [16, 36], [48, 36]]
    assert len(set(frames[-1].ids)) == 9


def test_hidden_points_do_not_pile_up():
    keeper = PointKeeper(PointOptions(min_coverage=1.0, grid=2), (48, 64))
    hidden = np.zeros((14, 2), np.float32), np.zeros(14, bool)
    assert [len(keeper.missing(*hidden)) for _ in range(10)][-1] == 2
    assert keeper.cells(np.asarray([[64.0, 48.0], [-1, 5]])).tolist() == [[False, False], [False, True]]


def test_undecodable_frames_are_gaps_and_nobodys_loss():
    report, frames = follow(5, source=FakeCamera(5, live=False, bad=(1, 2)), points=PointOptions(max_lost=1))
    assert np.isnan(frames[1].positions).all()
    assert np.isfinite(frames[3].positions).all()
    assert (report.undecodable, report.removed) == (2, 0)


@pytest.mark.parametrize("ending", ["callback", "signal", "duration"])
def test_ends(ending):
    def stop(frame):
        if ending == "signal" and frame.frame == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return ending != "callback" or frame.frame < 2

    source = FakeCamera(10_000, pause=0.01)
    report, _ = follow(source=source, on_frame=stop, duration=0.1 if ending == "duration" else None)
    assert report.frames < 100
    assert report.stopped is (ending != "duration")


def test_bad_requests():
    with pytest.raises(InputError, match="gave no picture"):
        follow(0)
    with pytest.raises(QueryError, match="outside"):
        follow(queries=Queries(np.asarray([[0, 100, 10]])))
    with pytest.raises(ConfigError, match="--duration"):
        LiveOptions(duration=0)
    with pytest.raises(ConfigError, match="--max-lost"):
        PointOptions(max_lost=0)
    with pytest.raises(ConfigError, match="--min-coverage"):
        PointOptions(min_coverage=1.5)


def test_ages():
    ages = Ages()
    assert ages.percentile(0.5) == 0
    for age in (*range(1, 100), 1e9):
        ages.add(age)
    assert ages.percentile(0.5) == pytest.approx(50, abs=0.2)
    assert ages.percentile(1.0) == pytest.approx(10_000, abs=1)


# -- tracks files


def record(place, **more):
    capture = Capture(connections(more.pop("source")), more.pop("options", ALL))
    tracker = Tracker(DriftModel())
    recorder = Recorder(place / "live.tracks.h5", live_info(tracker, capture), split=more.pop("split", None))
    options = LiveOptions(points=more.pop("points", PointOptions()))
    return run_live(tracker, capture, more.pop("queries", ONE), options, recorder=recorder, **more)


def test_dropped_frames_are_gaps_in_the_tracks_file(tmp_path):
    frames = []

    def slow(frame):
        frames.append(frame.frame)
        assert frame.dropped == frame.frame + 1 - len(frames)
        time.sleep(0.02)

    report = record(tmp_path, source=FakeCamera(30, pause=0.004, live=False), options=CaptureOptions(), on_frame=slow)
    tracks = load_tracks(tmp_path / "live.tracks.h5")
    assert tracks.frame_index.tolist() == frames
    assert report.dropped == 30 - len(frames) > 0
    assert tracks.info.warnings == (f"{report.dropped} frames came too fast and were not tracked.",)
    assert tracks.info.source == "tcp://host:1"
    assert list(tmp_path.iterdir()) == [tmp_path / "live.tracks.h5"]


def test_points_that_come_and_go_have_columns_of_their_own(tmp_path):
    record(tmp_path, source=FakeCamera(25, live=False), points=PointOptions(max_lost=3, min_coverage=0.5, grid=2))
    tracks = load_tracks(tmp_path / "live.tracks.h5")
    assert tracks.num_points > 4
    assert np.isnan(tracks.tracks[15:, 0]).all()  # removed
    assert tracks.queries[1].tolist() == [10, 16, 12]
    assert np.isnan(tracks.tracks[:10, 1]).all()
    assert tracks.tracks[10, 1].tolist() == [16, 12]


def test_a_long_run_is_cut_into_files_that_continue_each_other(tmp_path):
    report = record(tmp_path, source=FakeCamera(25, live=False), split=0.4)
    names = ["live.0000.tracks.h5", "live.0001.tracks.h5", "live.0002.tracks.h5"]
    assert [p.name for p in report.tracks] == names
    parts = [load_tracks(p) for p in report.tracks]
    assert np.concatenate([p.frame_index for p in parts]).tolist() == list(range(25))
    assert parts[1].queries[0].tolist() == [0, *parts[1].tracks[0, 0]]
    assert [p.num_frames for p in parts] == [10, 10, 5]


def test_a_part_has_a_bounded_number_of_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "MOST_COLUMNS", 3)
    recorder = Recorder(tmp_path / "a.h5", TracksInfo(width=64, height=48))
    for row in range(16):
        ids = [str(row), str(row + 1)]
        recorder.write(ids, np.full((2, 2), row, np.float32), np.ones(2), np.ones(2), row, row / 25)
    recorder.close()
    assert [p.name for p in recorder.parts] == ["a.h5", "a.0001.h5", "a.0002.h5"]
    assert load_tracks(recorder.parts[1]).ids.tolist() == [str(i) for i in range(7, 15)]


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".json"])
def test_other_formats(tmp_path, suffix):
    recorder = Recorder(tmp_path / f"a{suffix}", TracksInfo(width=64, height=48))
    recorder.write(["p"], np.ones((1, 2), np.float32), np.ones(1), np.ones(1), 0, 0.0)
    recorder.close()
    assert load_tracks(tmp_path / f"a{suffix}").num_frames == 1


def test_rows_of_a_killed_run_can_be_read_and_are_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "FLUSH_SECONDS", 0.0)
    recorder = Recorder(tmp_path / "a.h5", TracksInfo(width=64, height=48))
    recorder.write(["p"], np.ones((1, 2), np.float32), np.ones(1), np.ones(1), 0, 0.0)
    partial = Path(tmp_path / "a.partial.h5")
    assert load_tracks(partial).num_frames == 1
    with pytest.raises(OutputError, match="left of a killed run"):
        Recorder(tmp_path / "a.h5", TracksInfo())
    recorder.close()
    with pytest.raises(OutputError, match="already exists"):
        Recorder(tmp_path / "a.h5", TracksInfo())
    with pytest.raises(TracksError):
        Recorder(tmp_path / "a.txt", TracksInfo())

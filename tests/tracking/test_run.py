import os
import re
import signal

import numpy as np
import pytest

from ptrack.errors import InputError, Interrupted, OutputError, QueryError, TracksError
from ptrack.tracking import snapshot
from ptrack.tracking.partial import partial_path
from ptrack.tracking.run import TrackOptions, check_outputs, track_to_files
from ptrack.tracking.tracker import Tracker
from ptrack.tracks import Queries
from ptrack.tracks_io import load_tracks
from ptrack.video import ReadOptions, open_source, open_writer
from ptrack.viz.overlay import asked_overlay
from tests.fakes import DriftModel
from tests.test_tracks_io import assert_equal

QUERIES = Queries([[0, 5, 5], [7, 20, 20], [99, 1, 1]], ["a", "b", "late"])


@pytest.fixture(autouse=True)
def _states_of_tests(monkeypatch):
    monkeypatch.setattr(snapshot, "HOME", "")  # the stand-in's state is not a class of ptrack


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip one.mp4"
    rng = np.random.default_rng(0)
    with open_writer(path, fps=25) as writer:
        for t in range(30):
            writer.write(np.roll(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), t, 1), t / 25)
    return path


def run(video, out, report=lambda p: None, model=None, queries=QUERIES, note=lambda text: None, **options):
    with open_source(video) as source:
        made = TrackOptions(out=out, drawing=asked_overlay, **options)
        check_outputs(made)
        return track_to_files(Tracker(model or DriftModel()), source, queries, made, report, note)


class Stop(Exception):
    pass


def test_files_and_report(video, tmp_path):
    seen = []
    report = run(video, tmp_path / "a.tracks.h5", seen.append, overlay=tmp_path / "a.overlay.mp4")
    tracks = load_tracks(tmp_path / "a.tracks.h5")
    assert (report.frames, report.points, report.width, report.height) == (30, 3, 64, 48)
    assert tracks.num_frames == 30
    assert tracks.info.source == str(video)
    assert len(tracks.info.source_sha256) == 64
    assert any("late" in w for w in tracks.info.warnings)
    assert tracks.tracks[7, 1].tolist() == [20, 20]
    assert [p.done for p in seen] == list(range(1, 31))
    with open_source(tmp_path / "a.overlay.mp4") as overlay:
        assert sum(1 for _ in overlay) == 30
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.overlay.mp4", "a.tracks.h5"]


@pytest.mark.parametrize("suffix", ["npz", "csv", "json"])
def test_other_formats(video, tmp_path, suffix):
    run(video, tmp_path / f"a.{suffix}")
    run(video, tmp_path / "a.h5")
    left, right = load_tracks(tmp_path / f"a.{suffix}"), load_tracks(tmp_path / "a.h5")
    if suffix == "csv":  # has no place for the queries of points that never start
        left, right = left.select(["a", "b"]), right.select(["a", "b"])
    assert_equal(left, right, info=suffix != "csv")


def interrupted_by(signum, at, phase="tracking"):
    def report(progress):
        if progress.done == at and progress.phase == phase:
            os.kill(os.getpid(), signum)

    return report


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("batch", [1, 4])
def test_interrupt_then_resume_equals_a_whole_run(video, tmp_path, signum, code, batch):
    whole, out = tmp_path / "whole.h5", tmp_path / "cut.h5"
    run(video, whole, model=DriftModel(batch))
    with pytest.raises(Interrupted, match="--resume") as caught:
        run(video, out, interrupted_by(signum, 11), DriftModel(batch))
    assert caught.value.exit_code == code
    assert not out.exists()
    kept = load_tracks(partial_path(out)).num_frames
    assert kept == (11 if batch == 1 else 12)
    report = run(video, out, resume=True, model=DriftModel(batch))
    assert report.resumed_from == kept
    assert_equal(load_tracks(out), load_tracks(whole))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.h5", "whole.h5"]


@pytest.mark.parametrize("phase", ["backward", "overlay"])
def test_interrupt_in_a_later_pass(video, tmp_path, phase):
    whole, out = tmp_path / "whole.h5", tmp_path / "cut.h5"
    run(video, whole, backward=True, overlay=tmp_path / "whole.mp4")
    with pytest.raises(Interrupted):
        run(video, out, interrupted_by(signal.SIGINT, 3, phase), backward=True, overlay=tmp_path / "cut.mp4")
    assert not (tmp_path / "cut.mp4").exists()
    run(video, out, resume=True, backward=True, overlay=tmp_path / "cut.mp4")
    assert_equal(load_tracks(out), load_tracks(whole))
    with open_source(tmp_path / "cut.mp4") as a, open_source(tmp_path / "whole.mp4") as b:
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left.rgb, right.rgb)


def test_resumed_overlay_covers_all_frames(video, tmp_path):
    out, overlay = tmp_path / "cut.h5", tmp_path / "cut.mp4"
    with pytest.raises(Interrupted):
        run(video, out, interrupted_by(signal.SIGINT, 9), overlay=overlay)
    run(video, out, resume=True, overlay=overlay)
    with open_source(overlay) as source:
        assert sum(1 for _ in source) == 30


def test_backward_rows_are_written(video, tmp_path):
    run(video, tmp_path / "a.h5", backward=True)
    tracks = load_tracks(tmp_path / "a.h5")
    assert tracks.tracks[7, 1].tolist() == [20, 20]
    assert tracks.tracks[0, 1].tolist() == [27, 23.5]


def test_an_unfinished_run_of_other_settings_starts_anew_with_a_word(video, tmp_path):
    with pytest.raises(Interrupted):
        run(video, tmp_path / "a.h5", interrupted_by(signal.SIGINT, 5))
    notes = []
    report = run(video, tmp_path / "a.h5", queries=Queries([[0, 1, 1]]), resume=True, note=notes.append)
    assert report.resumed_from == 0
    assert load_tracks(tmp_path / "a.h5").num_points == 1
    assert notes == [
        f"{partial_path(tmp_path / 'a.h5')} was begun with other settings (number of points 3, now 1); "
        "tracking starts anew."
    ]
    (tmp_path / "a.h5").unlink()
    with pytest.raises(Interrupted):
        run(video, tmp_path / "a.h5", interrupted_by(signal.SIGINT, 5))
    with pytest.raises(OutputError, match="unfinished run"):
        run(video, tmp_path / "a.h5")
    run(video, tmp_path / "a.h5", overwrite=True)


def test_resume_without_anything_to_resume(video, tmp_path):
    run(video, tmp_path / "a.h5", resume=True)
    assert check_outputs(TrackOptions(out=tmp_path / "a.h5", resume=True))


def failing_at(frame):
    def report(progress):
        if progress.done == frame:
            raise Stop

    return report


def test_a_run_that_fails_at_once_leaves_nothing(video, tmp_path):
    with pytest.raises(Stop):
        run(video, tmp_path / "a.h5", failing_at(4), overlay=tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_later_can_be_resumed(video, tmp_path):
    with pytest.raises(Stop):
        run(video, tmp_path / "a.h5", failing_at(20), flush_seconds=0)
    assert run(video, tmp_path / "a.h5", resume=True).resumed_from == 19
    run(video, tmp_path / "b.h5")
    assert_equal(load_tracks(tmp_path / "a.h5"), load_tracks(tmp_path / "b.h5"))


def test_existing_outputs_are_refused_before_anything_runs(video, tmp_path):
    (tmp_path / "a.h5").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        run(video, tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_text() == "mine"
    (tmp_path / "b.mp4").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        run(video, tmp_path / "b.h5", overlay=tmp_path / "b.mp4")
    with pytest.raises(TracksError, match=r"\.h5, \.npz"):
        run(video, tmp_path / "c.txt")


def test_sources_that_cannot_be_read_twice(tmp_path):
    frames = np.zeros((5, 48, 64, 3), np.uint8)
    with open_source(iter(frames)) as source, pytest.raises(QueryError, match="--backward"):
        track_to_files(Tracker(DriftModel()), source, QUERIES, TrackOptions(out=tmp_path / "a.h5", backward=True))
    with open_source(iter(frames)) as source:
        made = TrackOptions(out=tmp_path / "a.h5", overlay=tmp_path / "a.mp4", drawing=asked_overlay)
        assert track_to_files(Tracker(DriftModel()), source, QUERIES, made).frames == 5


def test_a_full_disk_keeps_what_was_written(video, tmp_path, monkeypatch):
    from ptrack.tracks_h5 import TracksWriter

    honest = TracksWriter.flush

    def full(self):
        if self.rows >= 10:
            raise OutputError("Cannot write: no space left")
        honest(self)

    with monkeypatch.context() as patch:
        patch.setattr(TracksWriter, "flush", full)
        with pytest.raises(OutputError, match="no space left"):
            run(video, tmp_path / "a.h5", flush_seconds=0)
    run(video, tmp_path / "a.h5", resume=True)
    run(video, tmp_path / "b.h5")
    assert_equal(load_tracks(tmp_path / "a.h5"), load_tracks(tmp_path / "b.h5"))


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("[enforce fail at inline_container.cc:664]")]
)
def test_a_full_disk_under_the_state_is_one_sentence_with_the_space_left(video, tmp_path, monkeypatch, error):
    def full(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("torch.save", full)
        with pytest.raises(OutputError) as caught:
            run(video, tmp_path / "a.h5", flush_seconds=0)
    words = str(caught.value)
    assert re.fullmatch(r"Cannot write \S+: No space left on device; [\d.]+ [MG]iB left .*--resume.", words), words
    run(video, tmp_path / "a.h5", resume=True)


def test_range_without_frames(video, tmp_path):
    with pytest.raises(InputError), open_source(video, ReadOptions(start=500)) as source:
        track_to_files(Tracker(DriftModel()), source, QUERIES, TrackOptions(out=tmp_path / "a.h5"))

"""The loop with quick jobs in this process; what needs other processes is in test_local."""

import json
import os
import signal
import time

import pytest

from ptrack.batch import driver as driver_module
from ptrack.batch.driver import BatchListener, BatchOptions
from ptrack.batch.executors import JobEvent
from ptrack.batch.places import LocalPlace
from ptrack.batch.status import Status, write_status
from ptrack.errors import ConfigError, OutputError, PTrackError
from tests.batch.helpers import NAMES, run, states, status
from tests.batch.works import Task


def test_every_job_is_done_and_has_a_status(tmp_path):
    summary, worked = run(tmp_path)
    assert worked == list(NAMES)
    assert summary.complete
    assert summary.counts == {"done": 3}
    made = status(tmp_path, "b")
    assert (made.state, made.outputs, made.frames, made.tries) == (
        "done",
        {"b.txt": len(str(tmp_path / "b.mp4"))},
        2,
        1,
    )
    assert made.frames_per_second > 0
    assert made.started.endswith("+00:00")
    assert made.pid == os.getpid()


def test_a_second_run_does_nothing_and_builds_nothing(tmp_path):
    run(tmp_path)
    summary, worked = run(tmp_path)
    assert worked == []
    assert summary.counts == {"unchanged": 3}
    assert "made" not in (tmp_path / "log").read_text()


def test_only_what_is_missing_or_failed_is_done_again(tmp_path):
    run(tmp_path, ("a", "bad-b", "c", "d"))
    (tmp_path / "out" / "c.txt").unlink()
    (tmp_path / "out" / "d.txt").write_text("shorter")
    notes = []
    summary, worked = run(tmp_path, ("a", "bad-b", "c", "d"), listener=BatchListener(note=notes.append))
    assert worked == ["bad-b", "c", "d"]
    assert states(summary) == {"a": "unchanged", "bad-b": "failed", "c": "done", "d": "done"}
    assert notes == ["c.mp4: done again, c.txt is missing", "d.mp4: done again, d.txt is not as it was written"]


def test_changed_settings_and_changed_sources_are_done_again_with_a_word(tmp_path):
    run(tmp_path)
    notes = []
    _, worked = run(tmp_path, task=Task(grid=8), listener=BatchListener(note=notes.append))
    assert worked == list(NAMES)
    assert notes[0] == "a.mp4: done again, other settings (grid: 16 before, 8 now)"
    (tmp_path / "b.mp4").write_text("another video")
    notes.clear()
    summary, worked = run(tmp_path, task=Task(grid=8), listener=BatchListener(note=notes.append))
    assert worked == ["b"]
    assert notes == ["b.mp4: done again, the source has changed"]
    assert states(summary) == {"a": "unchanged", "b": "done", "c": "unchanged"}


def test_overwrite_does_everything_again(tmp_path):
    run(tmp_path)
    assert run(tmp_path, overwrite=True)[1] == list(NAMES)


def test_a_failed_job_stops_no_other_and_is_not_tried_again(tmp_path):
    summary, worked = run(tmp_path, ("bad-a", "b", "bug-c"), retries=3)
    assert worked == ["bad-a", "b", "bug-c"]
    assert states(summary) == {"bad-a": "failed", "b": "done", "bug-c": "failed"}
    assert not summary.complete
    assert status(tmp_path, "bad-a").error == "bad-a.mp4 is no video."
    assert status(tmp_path, "bug-c").error == "an unexpected ZeroDivisionError: of nothing"


def test_what_may_be_the_networks_fault_is_tried_again_later(tmp_path, monkeypatch):
    monkeypatch.setattr(driver_module, "BACKOFF", (0.02,))
    summary, worked = run(tmp_path, ("flaky-a", "b"))
    assert worked == ["flaky-a", "b", "flaky-a"]
    assert status(tmp_path, "flaky-a").tries == 2
    assert summary.complete
    assert not run(tmp_path, ("flaky-z",), retries=0)[0].complete


def test_a_full_disk_stops_the_run_and_counts_what_is_left(tmp_path):
    summary, worked = run(tmp_path, ("a", "full-b", "c", "d"))
    assert worked == ["a", "full-b"]
    assert summary.halted == "Cannot write it."
    assert states(summary) == {"a": "done", "full-b": "failed", "c": "left", "d": "left"}
    again, worked = run(tmp_path, ("a", "b", "c", "d"))
    assert worked == ["b", "c", "d"]
    assert again.complete


def test_a_full_disk_at_the_first_status_file_is_no_traceback(tmp_path, monkeypatch):
    def refuse(self, name, data):
        raise OutputError(f"Cannot write {name}: No space left on device.")

    monkeypatch.setattr(LocalPlace, "write", refuse)
    summary, _ = run(tmp_path)
    assert "No space left" in summary.halted
    assert summary.counts == {"left": 3}


def test_files_of_others_are_not_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.txt").write_text("mine")
    summary, _ = run(tmp_path)
    assert "b.txt exists" in status(tmp_path, "b").error
    assert summary.counts == {"done": 2, "failed": 1}
    assert (tmp_path / "out" / "b.txt").read_text() == "mine"
    assert not run(tmp_path)[0].complete  # not at the second run either
    assert run(tmp_path, overwrite=True)[0].complete


def test_a_job_killed_after_writing_owns_what_it_wrote(tmp_path):
    place = LocalPlace(tmp_path / "out")
    write_status(place, Status(job="a", source="a.mp4", state="running", outputs={"a.txt": 0}))
    place.write("a.txt", b"whole, but nobody knows")
    assert run(tmp_path)[0].complete


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 99}', b'{"version": 1, "state": "done"}', b"\xff"])
def test_a_damaged_status_file_counts_as_none(tmp_path, content):
    run(tmp_path)
    (tmp_path / "out" / "a.txt").unlink()
    (tmp_path / "out" / "a.status.json").write_bytes(content)
    assert run(tmp_path)[1] == ["a"]


def test_a_changed_clock_changes_nothing(tmp_path, monkeypatch):
    now = time.time()
    run(tmp_path)
    monkeypatch.setattr(time, "time", lambda: now - 1e8)
    summary, worked = run(tmp_path)
    assert worked == []
    assert summary.complete
    (tmp_path / "out" / "a.txt").unlink()
    run(tmp_path, timeout=5.0)
    assert 0 <= status(tmp_path, "a").seconds < 5


class Scripted:
    """An executor whose events are given; ``written`` are statuses that appear before them."""

    def __init__(self, place, events):
        self.place, self.events, self.given, self.cancelled = place, list(events), [], []

    def room(self):
        return 1 if not self.given or self.given[-1] is None else 0

    def submit(self, order):
        self.given.append(order)

    def poll(self, seconds):
        event, written = self.events.pop(0)
        order = self.given[-1]
        if written:
            made = Status(job=order["job"], source="", run=order["run"], tries=order["tries"], state=written)
            write_status(self.place, made)
        self.given.append(None)
        return [JobEvent(event[0], order["job"], event[1])]

    def cancel(self, job):
        self.cancelled.append(job)

    def stop(self):
        pass

    def close(self):
        pass


LOST = ("lost", {"reason": "its worker is gone", "begun": True})


def test_a_job_whose_worker_is_lost_is_tried_again_and_then_failed(tmp_path):
    executor = Scripted(LocalPlace(tmp_path / "out"), [(LOST, "running"), (LOST, "running")])
    summary, _ = run(tmp_path, ("a",), executor=executor)
    assert [o["tries"] for o in executor.given if o] == [1, 2]
    assert status(tmp_path, "a").error == "its worker is gone (tried 2 times)"
    assert summary.counts == {"failed": 1}


def test_a_job_that_was_done_although_its_worker_is_lost_is_done(tmp_path):
    summary, _ = run(tmp_path, ("a",), executor=Scripted(LocalPlace(tmp_path / "out"), [(LOST, "done")]))
    assert summary.complete


def test_a_job_that_had_not_begun_loses_no_try(tmp_path):
    never = ("lost", {"reason": "gone", "begun": False})
    executor = Scripted(LocalPlace(tmp_path / "out"), [(never, ""), (LOST, "done")])
    summary, _ = run(tmp_path, ("a",), executor=executor, retries=0)
    assert [o["tries"] for o in executor.given if o] == [1, 1]
    assert summary.complete


def test_a_worker_that_cannot_be_made_ends_the_run_with_its_sentence(tmp_path):
    broken = ("broken", {"reason": "There is no such model.", "exit_code": 1})
    with pytest.raises(PTrackError, match="There is no such model"):
        run(tmp_path, executor=Scripted(LocalPlace(tmp_path / "out"), [(broken, "")]))


def test_a_signal_between_jobs_leaves_the_rest(tmp_path):
    listener = BatchListener(finished=lambda result: os.kill(os.getpid(), signal.SIGINT))
    summary, worked = run(tmp_path, listener=listener)
    assert worked == ["a"]
    assert summary.signum == signal.SIGINT
    assert states(summary)["c"] == "left"


@pytest.mark.parametrize("options", [{"retries": -1}, {"timeout": 0}, {"timeout": float("nan")}])
def test_bad_options(options):
    with pytest.raises(ConfigError, match="--retries|--timeout"):
        BatchOptions(**options)


def test_status_files_are_plain_json(tmp_path):
    run(tmp_path, ("bad-a",))
    data = json.loads((tmp_path / "out" / "bad-a.status.json").read_text())
    assert data["state"] == "failed"
    assert data["settings"] == {"grid": 16}
    assert data["version"] == 1

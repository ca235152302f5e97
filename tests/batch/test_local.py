"""Real worker processes with work that needs no torch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptrack.batch.driver import BatchListener
from ptrack.errors import PTrackError
from tests.batch.helpers import processes, run, states, status

ROOT = Path(__file__).parents[2]


def test_a_worker_that_dies_costs_its_job_one_try_and_no_other(tmp_path):
    names = ("a", "die-b", "late-c", "bad-d", "e", "dies-f")
    notes = []
    listener = BatchListener(note=notes.append)
    summary, _ = run(tmp_path, names, executor=processes(tmp_path), listener=listener)
    assert states(summary) == dict.fromkeys(names, "done") | {"bad-d": "failed", "dies-f": "failed"}
    assert status(tmp_path, "die-b").tries == 2
    assert status(tmp_path, "a").tries == 1
    assert "SIGKILL" in status(tmp_path, "dies-f").error
    assert "a library's message" in status(tmp_path, "dies-f").error
    assert len(notes) == 3
    assert all("tried again" in n for n in notes)


def test_a_worker_that_hangs_is_ended_after_the_timeout(tmp_path):
    start = time.monotonic()
    summary, _ = run(tmp_path, ("hang-a", "b"), executor=processes(tmp_path), timeout=0.3)
    assert summary.complete
    assert status(tmp_path, "hang-a").tries == 2
    assert time.monotonic() - start < 20
    summary, _ = run(tmp_path, ("hang-c",), executor=processes(tmp_path), timeout=0.3, retries=0)
    assert status(tmp_path, "hang-c").error == "it took longer than 0.3 s"


def test_workers_that_cannot_be_made_end_the_run(tmp_path):
    with pytest.raises(PTrackError, match="There is no such model"):
        run(tmp_path, executor=processes(tmp_path, "no_model"))
    with pytest.raises(PTrackError, match="ended before they were ready: .*exit code 3; its last words: something"):
        run(tmp_path, executor=processes(tmp_path, "crash"))


def test_ctrl_c_stops_the_workers_and_keeps_what_is_done(tmp_path):
    listener = BatchListener(started=lambda job, tries: job.name == "hang-c" and os.kill(os.getpid(), signal.SIGINT))
    summary, _ = run(tmp_path, ("a", "hang-c", "d"), executor=processes(tmp_path, workers=1), listener=listener)
    assert states(summary) == {"a": "done", "hang-c": "interrupted", "d": "left"}
    assert summary.signum == signal.SIGINT
    assert status(tmp_path, "hang-c").state == "interrupted"


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.batch.helpers import processes, run
folder = Path({folder!r})
run(folder, ["slow-%d" % i for i in range(4)] + ["hang-x"], executor=processes(folder))
"""


def test_a_killed_driver_leaves_no_worker_and_the_next_run_goes_on(tmp_path):
    script = SCRIPT.format(root=str(ROOT), folder=str(tmp_path))
    killed = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    path = tmp_path / "out" / "hang-x.status.json"
    end = time.monotonic() + 30
    while not (path.exists() and json.loads(path.read_text())["state"] == "running"):
        assert time.monotonic() < end
        time.sleep(0.02)
    worker = json.loads(path.read_text())["pid"]
    killed.kill()
    killed.wait()
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < end:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{worker}")
    summary, worked = run(tmp_path, [*(f"slow-{i}" for i in range(4)), "x"])
    assert set(worked) <= {"slow-3", "x"}  # which ran beside the one that hung
    assert summary.complete

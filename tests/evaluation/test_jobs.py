"""Evaluation as jobs of the batch engine: the same numbers, and what becomes of a run that is disturbed."""

from __future__ import annotations

import errno
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest

from ptrack.batch.executors import InProcess
from ptrack.batch.status import parse_status
from ptrack.batch.work import WorkSpec
from ptrack.errors import ConfigError, Interrupted, OutputError
from ptrack.evaluation import jobs, results, runner
from ptrack.evaluation.runner import EvalProgress, evaluate
from ptrack.models.baselines import StaticModel
from tests.evaluation.test_runner import ask, means

FILES = ["bike-tiny", "goat-tiny"]


def steps_of(**more: Any) -> list[EvalProgress]:
    steps: list[EvalProgress] = []
    evaluate(ask(**more), steps.append)
    return steps


def test_workers_give_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker gets travels as bytes and it opens everything itself; processes are tested in tests/batch."""
    made = []

    def local(make: Any, place: str, workers: int) -> InProcess:
        made.append(pickle.loads(pickle.dumps(WorkSpec(make=make, place=place, workers=workers))))
        return InProcess(made[-1])

    monkeypatch.setattr(runner, "local_processes", local)
    assert means(ask(workers=2, run_dir=tmp_path)) == means(ask())
    assert [(s.workers, len(s.make.args)) for s in made] == [(2, 2)]
    assert all(s.result.reused for s in steps_of(workers=2, run_dir=tmp_path))
    with pytest.raises(ConfigError, match="--workers 0"):
        ask(workers=0)


def test_every_video_has_a_status_and_only_what_is_missing_is_done(tmp_path: Path) -> None:
    steps_of(run_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    names = {f"{name}{end}" for name in FILES for end in (".json", ".npz", ".status.json")} | {"settings.json"}
    assert {p.name for p in folder.iterdir()} == names
    status = parse_status((folder / "bike-tiny.status.json").read_bytes())
    assert status is not None
    assert (status.state, status.source) == ("done", "bike-tiny")
    assert status.content["predictions"] == "bike-tiny.npz"
    for gone in ("bike-tiny.npz", "goat-tiny.json", "bike-tiny.status.json"):
        (folder / gone).unlink()
        name = gone.partition(".")[0]
        assert {s.result.name: s.result.reused for s in steps_of(run_dir=tmp_path)} == {n: n != name for n in FILES}


def test_what_the_protocol_leaves_out_is_known_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = jobs.evaluate_clip

    def partly(subject: Any, protocol: Any, mode: str, clip: Any, row: Any, file: str) -> Any:
        if row.name == "goat-tiny":
            raise jobs.Skip("no point is visible")
        return real(subject, protocol, mode, clip, row, file)

    monkeypatch.setattr(jobs, "evaluate_clip", partly)
    for reused in (False, True):
        last = {s.result.name: s.result for s in steps_of(run_dir=tmp_path)}["goat-tiny"]
        assert (last.status, last.reason, last.reused) == (results.SKIPPED, "no point is visible", reused)


def test_a_fault_in_one_video_is_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    real = jobs.evaluate_clip

    def broken(subject: Any, protocol: Any, mode: str, clip: Any, row: Any, file: str) -> Any:
        if row.name == "bike-tiny":
            raise ZeroDivisionError("of nothing")
        return real(subject, protocol, mode, clip, row, file)

    monkeypatch.setattr(jobs, "evaluate_clip", broken)
    found = {s.result.name: (s.result.status, s.result.reason) for s in steps_of()}
    assert found["bike-tiny"] == (results.FAILED, "an unexpected ZeroDivisionError: of nothing")
    assert found["goat-tiny"] == (results.OK, "")


def test_a_signal_ends_it_between_two_frames_and_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = StaticModel.step, []

    def step(self: Any, state: Any, features: Any) -> Any:
        count.append(1)
        if len(count) == 15:  # in the second video of 12 frames
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, state, features)

    monkeypatch.setattr(StaticModel, "step", step)
    with pytest.raises(Interrupted, match="Stopped after 1 of 2 videos.*run the same command again") as caught:
        steps_of(run_dir=tmp_path)
    assert caught.value.exit_code == 143
    assert len(count) < 20
    assert sorted(s.result.reused for s in steps_of(run_dir=tmp_path)) == [False, True]


def test_a_full_disk_ends_it_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = jobs.save_prediction

    def full(path: Path, *values: Any) -> None:
        if "goat" in path.name:
            raise OutputError("Cannot write it.") from OSError(errno.ENOSPC, "No space left on device")
        real(path, *values)

    monkeypatch.setattr(jobs, "save_prediction", full)
    with pytest.raises(OutputError, match=r"Cannot write it\. Run the same command again to go on"):
        steps_of(run_dir=tmp_path)
    monkeypatch.setattr(jobs, "save_prediction", real)
    assert sorted(s.result.reused for s in steps_of(run_dir=tmp_path)) == [False, True]


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    def second(step: EvalProgress) -> None:
        with pytest.raises(OutputError, match="Another run .* writes to"):
            evaluate(ask(run_dir=tmp_path))

    evaluate(ask(run_dir=tmp_path), second)
    assert all(s.result.reused for s in steps_of(run_dir=tmp_path))

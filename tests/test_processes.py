"""Processes that torchrun started: they share work, and leave nothing behind that could end them badly."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ptrack.processes import Group, joined


def gloo_threads() -> list[str]:
    """Return the names of this process's native threads that belong to gloo (Linux; empty elsewhere)."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def run_two(code: str, *arguments: str) -> list[tuple[int, str]]:
    """Run code in two processes that find each other; return exit status and output of each, in order of rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, cwd=Path(__file__).parents[1],
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=240)[0] for process in started]
    return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]


STEP = """
import os, torch
from ptrack.processes import joined
from tests.test_processes import gloo_threads
def step(group, error=None):
    wrapped = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1, bias=False))
    wrapped(torch.full((1, 1), 1.0 + group.rank)).sum().backward()
    assert gloo_threads() or not os.path.exists("/proc/self/task")
    if error is not None:
        raise error
    return wrapped.module.weight.grad.item()
"""

WORKS = """
with joined("cpu") as group:
    print(step(group), group.sum(torch.tensor(3 - group.rank)).item(), group.gather("ab"[group.rank]))
    print(group.part("vwxyz"), group.device("auto") if not torch.cuda.is_available() else "auto")
    with joined("cpu") as same:
        assert same == group
assert not torch.distributed.is_initialized()
print("threads", gloo_threads())
"""

FAILS = """
caught = None
try:
    with joined("cpu") as group:
        try:
            step(group, OSError("first"))
        except OSError:
            raise ValueError("second")
except ValueError as error:
    caught = error  # its traceback leads to the frame of step, and so to the group
assert str(caught) == "second" and str(caught.__context__) == "first"
assert not torch.distributed.is_initialized()
print("threads", gloo_threads())
"""


def test_two_processes_work_together_and_their_threads_end() -> None:
    for rank, (status, output) in enumerate(run_two(STEP + WORKS)):
        assert status == 0, output
        lines = output.splitlines()[-3:]
        assert lines == [
            "1.5 5 ['a', 'b']",  # the mean of the gradients 1 and 2, the sum of 3 and 2
            f"{['v', 'x', 'z'] if rank == 0 else ['w', 'y']} auto",
            "threads []",
        ]


def test_threads_end_after_an_error_that_is_still_held() -> None:
    for status, output in run_two(STEP + FAILS):
        assert status == 0, output
        assert output.splitlines()[-1] == "threads []"


def test_a_process_alone_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as group:
        assert group == Group()
        assert group.first
        assert group.gather(4) == [4]
        assert group.part("abc") == ["a", "b", "c"]
        assert group.device("cuda") == "cuda"
        group.wait()


def test_every_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    group = Group(rank=3, world=4, local_rank=3)
    assert [group.device(d) for d in ("auto", "cuda", "cpu", "cuda:0")] == ["cuda:1", "cuda:1", "cpu", "cuda:0"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert group.device("auto") == "auto"

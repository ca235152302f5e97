"""A worker process: it does the jobs that it is given.

It reads orders as JSON lines from its standard input and answers with JSON lines on its standard output, to which
nothing else is written. It ends at once when its input closes: a killed driver leaves no worker behind.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from ptrack.batch.places import open_place
from ptrack.batch.work import Order, WorkSpec, do_job
from ptrack.errors import PTrackError

PROGRESS_SECONDS = 0.2  # between two reports of a job's progress


def encode_spec(spec: WorkSpec) -> str:
    """Return a spec as one line of text."""
    return base64.b64encode(pickle.dumps(spec)).decode()


def main() -> None:
    """Be a worker process; the first line names what to build, every further one is an order."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print must not be taken for an answer
    spec, index = sys.stdin.readline(), int(sys.stdin.readline())
    _serve(spec, index, _Orders(sys.stdin), answers)
    answers.flush()
    os._exit(0)


class _Orders:
    """Reads lines in a thread, so that a driver that has gone away is noticed in the middle of a job."""

    def __init__(self, lines: TextIO) -> None:
        self._lines = lines
        self._ready: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="ptrack-orders", daemon=True).start()

    def _read(self) -> None:
        for line in self._lines:
            self._ready.put(line)
        os._exit(1)

    def next(self) -> Order:
        return json.loads(self._ready.get())


def _serve(encoded: str, index: int, orders: _Orders, answers: TextIO) -> None:
    def answer(kind: str, job: str, data: Any) -> None:
        answers.write(json.dumps([kind, job, data]) + "\n")
        answers.flush()

    try:
        spec: WorkSpec = pickle.loads(base64.b64decode(encoded))
        place, work = open_place(spec.place), spec.work(index)
        while True:
            order = orders.next()
            answer("started", order["job"], {})
            answer("result", order["job"], do_job(work, place, order, _throttled(answer, order["job"])))
    except Exception as error:
        code = error.exit_code if isinstance(error, PTrackError) else 1
        reason = str(error) if isinstance(error, PTrackError) else f"{type(error).__name__}: {error}"
        answer("broken", "", {"reason": reason, "exit_code": code})


def _throttled(answer: Callable[[str, str, Any], None], job: str) -> Callable[[dict[str, Any]], None]:
    last = -PROGRESS_SECONDS

    def report(data: dict[str, Any]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PROGRESS_SECONDS or "loaded" in data:
            last = now
            answer("progress", job, data)

    return report

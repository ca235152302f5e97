"""Worker processes on this machine, one model in each."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from typing import IO, Any

from ptrack.batch.executors import JobEvent
from ptrack.batch.work import Order, WorkSpec
from ptrack.batch.worker import encode_spec

_START = (
    "import sys, json; sys.path[:] = json.loads(sys.stdin.readline()); from ptrack.batch.worker import main; main()"
)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
MOST_STILLBORN = 3  # workers that end before their first job, one after the other, until the run is given up
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has the second only, and it ends a process at once
LAST_WORDS = 4000  # bytes of a dead worker's messages that are looked at


class _Process:
    """A worker process and the thread that listens to it."""

    def __init__(self, spec: WorkSpec, index: int, news: queue.SimpleQueue[tuple[_Process, list[Any] | None]]) -> None:
        self.index = index
        self.job = ""  # that it was given and has not answered yet
        self.begun = self.ready = False  # with the present job; with any job
        self._log: IO[bytes] = tempfile.TemporaryFile(prefix="ptrack-worker-")  # noqa: SIM115 - closed in ``reason``
        environment = dict(os.environ)
        if spec.threads:
            environment |= dict.fromkeys(_THREADS, str(spec.threads))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C in the terminal is for the driver, which asks the workers to stop
        )
        self._send(json.dumps(sys.path))
        self._send(encode_spec(spec))
        self._send(str(index))
        threading.Thread(target=self._listen, args=(news,), name=f"ptrack-worker-{index}", daemon=True).start()

    def _listen(self, news: queue.SimpleQueue[tuple[_Process, list[Any] | None]]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                news.put((self, json.loads(line)))
            except ValueError:
                break  # half a line of a killed process
        news.put((self, None))

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it has died; the listener finds out
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def give(self, order: Order) -> None:
        self.job, self.begun = order["job"], False
        self._send(json.dumps(order))

    def end(self, number: int = KILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def reason(self) -> str:
        """Return how it ended, with the last line of what it wrote."""
        code = self.process.wait()
        cause = _cause(code)
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - LAST_WORDS))
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        self._log.close()
        return f"{cause}; its last words: {lines[-1]}" if lines else cause


def _cause(code: int) -> str:
    if code >= 0:
        return f"its worker process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    hint = " (out of memory, or killed by hand)" if name == "SIGKILL" else ""
    return f"its worker process ended by {name}{hint}"


class LocalProcesses:
    """``spec.workers`` processes; one that dies is replaced when the next job needs it."""

    def __init__(self, spec: WorkSpec) -> None:
        self._spec = spec
        self._news: queue.SimpleQueue[tuple[_Process, list[Any] | None]] = queue.SimpleQueue()
        self._processes: list[_Process] = []
        self._stillborn = 0
        self._stopping = False

    def room(self) -> int:
        """Return how many more jobs can be given now."""
        return self._spec.workers - sum(bool(p.job) for p in self._processes)

    def submit(self, order: Order) -> None:
        """Give a job to an idle process, or start one."""
        idle = next((p for p in self._processes if not p.job), None)
        if idle is None:
            taken = {p.index for p in self._processes}
            index = next(i for i in range(self._spec.workers) if i not in taken)
            idle = _Process(self._spec, index, self._news)
            self._processes.append(idle)
        idle.give(order)

    def poll(self, seconds: float) -> list[JobEvent]:
        """Wait up to ``seconds`` for news."""
        events: list[JobEvent] = []
        try:
            events += self._event(*self._news.get(timeout=seconds))
            while True:
                events += self._event(*self._news.get_nowait())
        except queue.Empty:
            return events

    def _event(self, process: _Process, message: list[Any] | None) -> list[JobEvent]:
        if message is None:
            return self._died(process)
        kind, job, data = message
        if kind == "started":
            process.begun = process.ready = True
            self._stillborn = 0
        elif kind == "result":
            process.job = ""
        return [JobEvent(kind, job, data)]

    def _died(self, process: _Process) -> list[JobEvent]:
        self._processes.remove(process)
        reason = process.reason()
        events = [JobEvent("lost", process.job, {"reason": reason, "begun": process.begun})] if process.job else []
        if not process.ready and not self._stopping:
            self._stillborn += 1
            if self._stillborn >= MOST_STILLBORN:
                what = f"{self._stillborn} worker processes ended before they were ready: {reason}."
                events.append(JobEvent("broken", "", {"reason": what, "exit_code": 1}))
        return events

    def cancel(self, job: str) -> None:
        """Kill the process that runs a job."""
        for process in self._processes:
            if process.job == job:
                process.end()

    def stop(self) -> None:
        """Ask all running jobs to stop; processes that are still being made are killed."""
        self._stopping = True
        for process in self._processes:
            process.end(signal.SIGTERM if process.begun else KILL)

    def close(self) -> None:
        """End all processes at once."""
        self._stopping = True
        for process in self._processes:
            process.end()
        for process in self._processes:
            process.process.wait()

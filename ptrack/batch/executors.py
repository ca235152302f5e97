"""What the driver asks of whatever runs jobs, and the simplest of them: one job after the other, in this process."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ptrack.batch.work import Order, WorkSpec, do_job


@dataclass(frozen=True)
class JobEvent:
    """News of a job.

    ``kind`` is "started"; "progress"; "result", with the answer of ``worker.do_job`` in ``data``; "lost": what ran it
    is gone, ``data`` has ``reason`` and ``begun``, whether the job had begun; or "broken": a worker cannot be made,
    ``data`` has the sentence as ``reason`` and ``exit_code``.
    """

    kind: str
    job: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


class Executor(Protocol):
    """Runs jobs. Every method is called from the driver's thread."""

    def room(self) -> int:
        """Return how many more jobs can be given now."""
        ...

    def submit(self, order: Order) -> None:
        """Give a job."""
        ...

    def poll(self, seconds: float) -> list[JobEvent]:
        """Wait up to ``seconds`` for news and return it."""
        ...

    def cancel(self, job: str) -> None:
        """Kill what runs a job; a "lost" event follows."""
        ...

    def stop(self) -> None:
        """Ask all running jobs to stop at their next frame and keep what they have."""
        ...

    def close(self) -> None:
        """End all workers at once."""
        ...


class InProcess:
    """One job at a time in this process; its model is built for the first job and kept.

    Args:
        spec: what to run.
        notify: called with events while a job runs.
    """

    def __init__(self, spec: WorkSpec, notify: Callable[[JobEvent], None] = lambda event: None) -> None:
        self._spec, self._notify = spec, notify
        self._work: Any = None
        self._waiting: queue.SimpleQueue[Order] = queue.SimpleQueue()

    def room(self) -> int:
        """Return 1 if no job waits."""
        return int(self._waiting.empty())

    def submit(self, order: Order) -> None:
        """Take a job; ``poll`` does it."""
        self._waiting.put(order)

    def poll(self, seconds: float) -> list[JobEvent]:
        """Do the job that was given and return its result."""
        if self._waiting.empty():
            return []
        order = self._waiting.get()
        if self._work is None:
            self._work = self._spec.work()
        self._notify(JobEvent("started", order["job"]))
        answer = do_job(
            self._work, self._spec.place, order, lambda data: self._notify(JobEvent("progress", order["job"], data))
        )
        return [JobEvent("result", order["job"], answer)]

    def cancel(self, job: str) -> None:
        """Do nothing: no job runs while the driver looks."""

    def stop(self) -> None:
        """Do nothing: the signal reaches the job itself."""

    def close(self) -> None:
        """Let the model go."""
        self._work = None

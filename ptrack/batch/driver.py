"""The one loop that gives jobs to an executor, counts tries, watches the time and knows what became of each job.

All that a killed run leaves behind is in the status files; the next run reads them and does what is missing, failed or
changed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ptrack.batch.executors import Executor, JobEvent
from ptrack.batch.jobs import Job
from ptrack.batch.places import Place
from ptrack.batch.status import Status, difference, file_name, parse_status, read_status, write_status
from ptrack.batch.work import Order, is_full
from ptrack.errors import OutputError, PTrackError
from ptrack.signals import StopRequest

POLL_SECONDS = 0.2  # how long the loop waits for news before it looks at clocks and signals
READERS = 8  # threads that read status files; on network drives and stores each read waits
BACKOFF = (1.0, 4.0, 15.0, 60.0)  # seconds before a try after a failed one that may have been the network's fault
STOP_SECONDS = 20.0  # for running jobs to close their files after a signal


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How to go through the jobs."""

    retries: int = 1  # further tries after a worker died, a timeout or a network error; a bad video is not tried again
    timeout: float | None = None  # seconds for one try of one job
    overwrite: bool = False  # do everything again

    def __post_init__(self) -> None:
        from ptrack.errors import ConfigError

        if self.retries < 0:
            raise ConfigError(f"--retries {self.retries}: give 0 or more.")
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigError(f"--timeout {self.timeout:g}: give a number of seconds above 0.")


@dataclass(frozen=True)
class JobResult:
    """What became of a job in this run."""

    job: Job
    state: str  # "done", "unchanged", "failed", "interrupted", or "left": not begun
    status: Status

    @property
    def good(self) -> bool:
        """Return whether its outputs are there."""
        return self.state in ("done", "unchanged")


@dataclass(frozen=True)
class Summary:
    """What became of all jobs."""

    results: tuple[JobResult, ...]  # in the order of the jobs
    halted: str = ""  # why the run stopped early: the disk is full, the folder was taken
    signum: int = 0  # of the signal that stopped it

    @property
    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state, the states that occur."""
        states = [r.state for r in self.results]
        return {s: states.count(s) for s in ("done", "unchanged", "failed", "interrupted", "left") if s in states}

    @property
    def complete(self) -> bool:
        """Return whether the outputs of every job are there."""
        return all(r.good for r in self.results)


@dataclass
class _Running:
    job: Job
    tries: int
    began: float | None = None  # monotonic seconds, when the worker reported that it began
    overdue: bool = False


@dataclass
class BatchListener:
    """Who wants to know what happens; each is called from the driver's thread."""

    planned: Callable[[int, int], None] = lambda to_do, unchanged: None
    started: Callable[[Job, int], None] = lambda job, tries: None
    progress: Callable[[Job, Mapping[str, Any]], None] = lambda job, data: None
    finished: Callable[[JobResult], None] = lambda result: None
    note: Callable[[str], None] = lambda text: None


class Task(Protocol):
    """What is done with every job, as far as the driver must know."""

    settings: Mapping[str, Any]  # all that decides the results besides the sources' contents; JSON values
    private: bool  # the folder is ptrack's own: outputs without a status file are replaced

    def outputs(self, job: str) -> list[str]:
        """Return the names of a job's output files."""
        ...

    def changed(self, job: Job, content: Mapping[str, Any]) -> bool:
        """Return whether a job's source is no longer what it was; raises a PTrackError if it cannot be read."""
        ...


@dataclass(frozen=True)
class BatchPlan:
    """What the status files state about the jobs, before any content is compared."""

    to_do: list[tuple[Job, str]]  # and why it is done again, "" if there is no reason
    to_compare: list[tuple[Job, Status]]  # done with the same settings; the source may have changed


def plan_jobs(jobs: Sequence[Job], place: Place, task: Task, overwrite: bool) -> BatchPlan:
    """Read the status file of every job."""
    sizes = place.sizes()
    with ThreadPoolExecutor(READERS) as pool:
        known = pool.map(lambda job: read_status(place, job.name) if file_name(job.name) in sizes else None, jobs)
        plan = BatchPlan([], [])
        for job, status in zip(jobs, known, strict=True):
            if status is None or overwrite or status.state != "done":
                plan.to_do.append((job, ""))
            elif changed := _changed(status, task, sizes):
                plan.to_do.append((job, changed))
            else:
                plan.to_compare.append((job, status))
    return plan


def _changed(status: Status, task: Task, sizes: Mapping[str, int]) -> str:
    """Return why a finished job must be done again, "" if it need not."""
    what = difference(status.settings, task.settings)
    if what:
        return f"other settings ({what})"
    for name in task.outputs(status.job):
        if name not in sizes or name not in status.outputs:
            return f"{name} is missing"
        if sizes[name] != status.outputs[name]:
            return f"{name} is not as it was written"
    return ""


class Driver:
    """Runs jobs to their end.

    Args:
        jobs: with unique names.
        place: of outputs and status files.
        task: what is done with every job.
        executor: not used before the first job is given.
        options: retries and timeout.
        run: a name for this run.
        listener: who wants to know.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        place: Place,
        task: Task,
        executor: Executor,
        options: BatchOptions,
        run: str,
        listener: BatchListener | None = None,
    ) -> None:
        self._jobs, self._place, self._task = list(jobs), place, task
        self._executor, self._options, self._run = executor, options, run
        self._listener = listener or BatchListener()
        self._pending: deque[tuple[Job, int]] = deque()  # with the tries they have had
        self._later: list[tuple[float, Job, int]] = []  # monotonic seconds before which they are not tried again
        self._running: dict[str, _Running] = {}
        self._results: dict[str, JobResult] = {}
        self._compared: queue.SimpleQueue[tuple[Job, Status, bool] | None] = queue.SimpleQueue()
        self._comparing = False
        self._abandon = threading.Event()
        self._halted = ""
        self._signum = 0
        self._ended: deque[JobResult] = deque()  # that ``results`` has not yielded yet

    @property
    def halted(self) -> str:
        """Why no more jobs are given, "" while they are."""
        return self._halted

    def halt(self, reason: str) -> None:
        """Give no more jobs; the running ones end. May be called from any thread."""
        self._halted = self._halted or reason

    def run(self) -> Summary:
        """Go through all jobs.

        Raises:
            PTrackError: no worker can be made.
        """
        for _ in self.results():
            pass
        return self.summary()

    def results(self) -> Iterator[JobResult]:
        """Go through all jobs and yield what became of each as soon as it is known; can be iterated once.

        Raises:
            PTrackError: no worker can be made.
        """
        plan = plan_jobs(self._jobs, self._place, self._task, self._options.overwrite)
        self._listener.planned(len(plan.to_do), len(plan.to_compare))
        with StopRequest() as stop:
            try:
                self._queue(plan.to_do)
                self._compare(plan.to_compare)
                while self._step(stop):
                    yield from self._take_ended()
            except OutputError as error:
                if not is_full(error):
                    raise
                self.halt(str(error))
            finally:
                self._abandon.set()
                self._executor.close()
                self._signum = stop.signum
        yield from self._take_ended()

    def summary(self) -> Summary:
        """Return what became of all jobs so far."""
        for job in self._jobs:
            if job.name not in self._results:
                self._results[job.name] = JobResult(job, "left", self._status(job))
        return Summary(tuple(self._results[job.name] for job in self._jobs), self._halted, self._signum)

    def _take_ended(self) -> Iterator[JobResult]:
        while self._ended:
            yield self._ended.popleft()

    # -- before the first job

    def _queue(self, to_do: Iterable[tuple[Job, str]]) -> None:
        """Write that the jobs wait; a job that was begun before keeps its file until it is begun again."""
        for job, reason in to_do:
            if reason:
                self._listener.note(f"{job.source}: done again, {reason}")
            if self._place.size(file_name(job.name)) is None:
                write_status(self._place, self._status(job))
            self._pending.append((job, 0))

    def _compare(self, finished: Sequence[tuple[Job, Status]]) -> None:
        """Compare the sources of finished jobs with what they were, in threads beside the first jobs."""
        self._comparing = bool(finished)
        if not finished:
            return

        def compare(item: tuple[Job, Status]) -> None:
            job, status = item
            if self._abandon.is_set():
                return
            try:
                changed = self._task.changed(job, status.content)
            except PTrackError:
                changed = True  # the job itself fails with the sentence
            self._compared.put((job, status, changed))

        def compare_all() -> None:
            with ThreadPoolExecutor(READERS) as pool:
                list(pool.map(compare, finished))
            self._compared.put(None)

        threading.Thread(target=compare_all, name="ptrack-compare", daemon=True).start()

    def _take_compared(self) -> None:
        while not self._compared.empty():
            item = self._compared.get()
            if item is None:
                self._comparing = False
                return
            job, status, changed = item
            if changed:
                self._listener.note(f"{job.source}: done again, the source has changed")
                self._pending.append((job, 0))
            else:
                self._finish(JobResult(job, "unchanged", status))

    # -- the loop

    def _step(self, stop: StopRequest) -> bool:
        """Give jobs, take news and look at the clock once; return False when all is over."""
        if not (self._pending or self._later or self._running or self._comparing):
            return False
        if stop.signum:
            self._stop_running()
            return False
        if self._halted and not self._running:
            return False
        self._take_compared()
        self._give()
        if self._running or self._pending:  # jobs may also wait for a worker to come up
            for event in self._executor.poll(POLL_SECONDS):
                self._handle(event, stop)
            self._watch_time()
        elif self._comparing or self._later:
            time.sleep(0.01)
        return True

    def _give(self) -> None:
        now = time.monotonic()
        due = [item for item in self._later if item[0] <= now]
        self._later = [item for item in self._later if item[0] > now]
        self._pending.extend((job, tries) for _, job, tries in due)
        while self._pending and not self._halted and self._executor.room() > 0:
            job, tries = self._pending.popleft()
            self._running[job.name] = _Running(job, tries + 1)
            self._executor.submit(self._order(job, tries + 1))

    def _order(self, job: Job, tries: int) -> Order:
        return {
            "job": job.name,
            "source": job.source,
            "path": job.path,
            "settings": dict(self._task.settings),
            "outputs": self._task.outputs(job.name),
            "overwrite": self._options.overwrite or self._task.private,
            "run": self._run,
            "tries": tries,
        }

    def _handle(self, event: JobEvent, stop: StopRequest | None = None) -> None:
        if event.kind == "broken":
            error = PTrackError(event.data["reason"])
            error.exit_code = event.data.get("exit_code", 1)
            raise error
        running = self._running.get(event.job)
        if running is None:
            return
        if event.kind == "started":
            running.began = time.monotonic()
            self._listener.started(running.job, running.tries)
        elif event.kind == "progress":
            if "loaded" in event.data:
                running.began = time.monotonic()  # the model's time is not the video's
                return
            self._listener.progress(running.job, event.data)
        elif event.kind == "result":
            self._answered(running, event.data)
            if stop is not None and event.data.get("signum"):
                stop.signum = event.data["signum"]
        elif event.kind == "lost":
            self._lost(running, event.data)

    def _answered(self, running: _Running, answer: Mapping[str, Any]) -> None:
        del self._running[running.job.name]
        status = Status(**{**answer["status"], "warnings": tuple(answer["status"]["warnings"])})
        if answer.get("full"):
            self.halt(status.error)
        if status.state == "failed" and answer.get("again") and running.tries <= self._options.retries:
            self._retry(running, status.error, BACKOFF[min(running.tries, len(BACKOFF)) - 1])
        else:
            self._finish(JobResult(running.job, status.state, status))

    def _lost(self, running: _Running, data: Mapping[str, Any]) -> None:
        """Judge a job whose worker is gone: it may have finished all the same, which its status file knows."""
        job = running.job
        del self._running[job.name]
        status = self._written(running)
        if status is not None and status.state in ("done", "failed"):
            self._finish(JobResult(job, status.state, status))
            return
        if not data.get("begun", True) and not running.overdue:
            self._pending.appendleft((job, running.tries - 1))  # it never ran: no try of its own
            return
        reason = f"it took longer than {self._options.timeout:g} s" if running.overdue else data["reason"]
        if running.tries <= self._options.retries:
            self._retry(running, reason, 0.0)
            return
        tries = f" (tried {running.tries} times)" if running.tries > 1 else ""
        failed = replace(status or self._status(job), state="failed", tries=running.tries, error=f"{reason}{tries}")
        write_status(self._place, failed)
        self._finish(JobResult(job, "failed", failed))

    def _written(self, running: _Running) -> Status | None:
        """Return what this try's worker wrote into the status file."""
        status = parse_status(self._place.read(file_name(running.job.name)) or b"")
        ours = status is not None and status.run == self._run and status.tries == running.tries
        return status if ours else None

    def _retry(self, running: _Running, reason: str, wait: float) -> None:
        self._listener.note(f"{running.job.source}: {reason}; tried again")
        self._later.append((time.monotonic() + wait, running.job, running.tries))

    def _watch_time(self) -> None:
        if self._options.timeout is None:
            return
        now = time.monotonic()
        for running in self._running.values():
            late = running.began is not None and now - running.began > self._options.timeout
            if late and not running.overdue:
                running.overdue = True
                self._executor.cancel(running.job.name)

    # -- the end

    def _stop_running(self) -> None:
        """Give running jobs time to close their files, then end them."""
        self._executor.stop()
        end = time.monotonic() + STOP_SECONDS
        while self._running and time.monotonic() < end:
            for event in self._executor.poll(POLL_SECONDS):
                if event.kind == "lost":
                    self._interrupted(self._running.pop(event.job, None))
                elif event.kind != "broken":
                    self._handle(event)
        for name in list(self._running):
            self._interrupted(self._running.pop(name))

    def _interrupted(self, running: _Running | None) -> None:
        if running is None:
            return
        status = replace(self._written(running) or self._status(running.job), state="interrupted")
        write_status(self._place, status)
        self._finish(JobResult(running.job, "interrupted", status))

    def _status(self, job: Job) -> Status:
        return Status(job=job.name, source=job.source, settings=dict(self._task.settings), run=self._run)

    def _finish(self, result: JobResult) -> None:
        self._results[result.job.name] = result
        self._ended.append(result)
        self._listener.finished(result)

"""A whole batch: sources to jobs, a place, an owner, an executor, and the driver's loop over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ptrack.batch.driver import BatchListener, BatchOptions, BatchPlan, Driver, Summary, Task, plan_jobs
from ptrack.batch.executors import Executor, InProcess, JobEvent
from ptrack.batch.jobs import Entry, Job, Shard, expand, make_jobs, parse_shard, read_list, slurm_shard
from ptrack.batch.owner import RunOwner
from ptrack.batch.places import Place, from_anywhere, open_place
from ptrack.batch.stores import is_remote
from ptrack.batch.tracking import TrackTask, TrackWork
from ptrack.batch.work import WorkSpec
from ptrack.errors import ConfigError, InputError, OutputError
from ptrack.tracking.request import TrackRequest
from ptrack.tracks_io import FORMATS


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """Many videos to track."""

    track: TrackRequest  # what to do with each; its ``sources`` are expanded
    list_file: str = ""  # further sources, one a line; "-" is standard input
    out: str = ""  # folder or URL of the outputs; this folder by default
    workers: int | None = None  # processes; None tracks in this one, where a crash of a decoder would end the run
    ray: str = ""  # address of a Ray cluster, "auto" or "local"
    shard: str = ""  # "i/n"; by default that of a Slurm job array; "none" for none
    trust_mtime: bool = False  # do not read sources to see whether they have changed
    options: BatchOptions = field(default_factory=BatchOptions)

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers {self.workers}: give 1 or more.")
        if self.track.camera:
            raise ConfigError("A camera is tracked alone; leave out --workers, --list, --shard, --ray and --report.")


def is_batch(request: TrackRequest) -> bool:
    """Return whether the sources are more than one video at hand: several, a folder of videos, a pattern, a URL."""
    if request.camera:
        return False
    if len(request.sources) != 1:
        return True
    source = request.sources[0]
    return is_remote(source) or expand([source])[0] != [Entry(source)]


@dataclass(frozen=True)
class Batch:
    """A checked request."""

    request: BatchRequest
    jobs: list[Job]  # of this shard
    total: int  # of all shards
    shard: Shard
    task: TrackTask
    notes: list[str]  # for the user

    @property
    def out(self) -> str:
        """The folder or URL of the outputs."""
        return self.request.out or "."


def prepare(request: BatchRequest, environment: Mapping[str, str] = os.environ) -> Batch:
    """Check everything that can be wrong for all videos, and list the jobs. Nothing is written, no model is built.

    Raises:
        PTrackError: an option, the list, the queries, the model's name; two sources with one output.
    """
    check_folder(request.out)
    task = TrackTask(request.track, trust_time=request.trust_mtime)
    entries, notes = expand(request.track.sources)
    if request.list_file:
        entries += read_list(request.list_file)
    if not entries:
        raise InputError("Name at least one video, folder or list.")
    jobs, more = make_jobs(entries)
    shard = Shard() if request.shard == "none" else parse_shard(request.shard) if request.shard else None
    if shard is None:
        shard = slurm_shard(environment) or Shard()
    mine = [job for job in jobs if shard.takes(job.name)]
    if shard.count > 1:
        more.append(f"shard {shard}: {len(mine)} of {len(jobs)} videos")
    return Batch(request, mine, len(jobs), shard, task, [*notes, *more])


def check_folder(out: str) -> None:
    """Raise OutputError if the place of many outputs is a file or has a file's ending."""
    if "://" in out or not out:
        return
    path = Path(out)
    if path.suffix.lower() in FORMATS.values() and not path.is_dir():
        raise OutputError(f"--out {out} is one file, but there may be several results; name a folder.")
    if path.exists() and not path.is_dir():
        raise OutputError(f"--out {out} is a file; name a folder.")
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"Cannot write {out}: {existing} is not writable. Choose a writable place.")


def plan(batch: Batch) -> BatchPlan:
    """Return what a run would do."""
    return plan_jobs(batch.jobs, open_place(batch.out), batch.task, batch.request.options.overwrite)


def run_batch(batch: Batch, listener: BatchListener | None = None) -> Summary:
    """Track all videos of a batch; what became of each is in the status files and in the summary.

    Raises:
        OutputError: another run is at work in the folder, or it cannot be written.
        PTrackError: no model can be built.
    """
    listener = listener or BatchListener()
    with driving(
        batch.jobs,
        open_place(batch.out),
        batch.task,
        lambda: _executor(batch, listener),
        batch.request.options,
        listener=listener,
        shard=batch.shard,
    ) as driver:
        return driver.run()


@contextmanager
def driving(
    jobs: Sequence[Job],
    place: Place,
    task: Task,
    executor: Callable[[], Executor],
    options: BatchOptions,
    *,
    listener: BatchListener | None = None,
    shard: Shard | None = None,
) -> Iterator[Driver]:
    """Hold a place for this run and yield the driver of its jobs, not yet begun.

    Args:
        jobs: with unique names.
        place: of outputs and status files.
        task: what is done with every job.
        executor: makes what runs the jobs, once the place is held.
        options: retries and timeout.
        listener: who wants to know what happens.
        shard: the part of the jobs that these are; other parts may run beside it.

    Raises:
        OutputError: another run is at work there.
    """
    driver: Driver | None = None

    def taken() -> None:
        if driver is not None:
            driver.halt(f"Another run has taken {place.name}; this one has stopped.")

    with RunOwner(place, shard or Shard(), lost=taken) as owner:
        driver = Driver(jobs, place, task, executor(), options, owner.run, listener)
        yield driver


def _executor(batch: Batch, listener: BatchListener) -> Executor:
    request, work = batch.request, partial(TrackWork, batch.task.request, batch.task.plan)
    if request.ray:
        from ptrack.batch.ray_actors import RayActors

        spec = WorkSpec(make=work, place=from_anywhere(batch.out), workers=request.workers or 0)
        return RayActors(spec, request.ray)
    if request.workers is None and request.options.timeout is None:
        return InProcess(WorkSpec(make=work, place=batch.out), _notifier(batch, listener))
    return local_processes(work, batch.out, request.workers)


def local_processes(work: Callable[..., Any], place: str, workers: int | None) -> Executor:
    """Return worker processes, one if ``workers`` is None or 0, that work on a folder or URL; see ``WorkSpec.make``."""
    from ptrack.batch.local import LocalProcesses

    number = workers or 1
    spec = WorkSpec(make=work, place=from_anywhere(place), workers=number, threads=threads_each(number))
    return LocalProcesses(spec)


def threads_each(workers: int) -> int:
    """Return the CPU threads of each of ``workers`` processes; 0 where the environment has set it already."""
    if "OMP_NUM_THREADS" in os.environ:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


def _notifier(batch: Batch, listener: BatchListener) -> Any:
    """Return what hands news of a job in this process on while it runs: the driver only looks in between."""
    by_name = {job.name: job for job in batch.jobs}

    def notify(event: JobEvent) -> None:
        if event.kind == "started":
            listener.started(by_name[event.job], 1)
        elif event.kind == "progress":
            listener.progress(by_name[event.job], event.data)

    return notify

"""Clips of a dataset, loaded and checked by worker processes: a clip that kills its worker costs only itself.

Each clip is a job. Its worker leaves it, packed, in a hidden folder beside the clip store; this process takes the clips
from there in the order of the dataset and writes the store. What a killed run left in the folder is not loaded again.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ptrack.batch.driver import BatchListener, BatchOptions, JobResult
from ptrack.batch.executors import Executor
from ptrack.batch.jobs import Job
from ptrack.batch.places import LocalPlace, Place
from ptrack.batch.run import driving, local_processes
from ptrack.batch.work import Order
from ptrack.data.convert import (
    ConvertOptions,
    Loaded,
    Loader,
    deciding_settings,
    jobs_folder,
    load_packed,
    one_by_one,
)
from ptrack.data.packed_file import read_packed, write_packed
from ptrack.data.source import ClipRef, Source
from ptrack.errors import DataError, Interrupted, OutputError, PTrackError
from ptrack.fileio import fitting, plain_name

SUFFIX = ".clip.h5"


def worker_loader(
    workers: int, options: BatchOptions | None = None, note: Callable[[str], None] = lambda text: None
) -> Loader:
    """Return a loader for ``convert`` that uses processes.

    Args:
        workers: their number; 0 loads in this process, unless there is a time limit. Datasets whose clips lie in a few
            large files are loaded by one process, because each would read them all.
        options: retries and timeout of a clip.
        note: called with sentences for the user.
    """
    batch = options or BatchOptions()

    def load(source: Source, refs: Sequence[ClipRef], convert: ConvertOptions, target: Path) -> Iterator[Loaded]:
        useful = workers > 0 and source.parallel and len(refs) > 1
        if not useful and batch.timeout is None:
            return one_by_one(source, refs, convert, target)
        number = min(workers, len(refs)) if useful else 1
        return _by_workers(source, refs, convert, target, number, batch, BatchListener(note=note))

    return load


def _by_workers(
    source: Source,
    refs: Sequence[ClipRef],
    options: ConvertOptions,
    target: Path,
    workers: int,
    batch: BatchOptions,
    listener: BatchListener,
) -> Iterator[Loaded]:
    place = LocalPlace(jobs_folder(target))
    by_name = {job_name(ref): ref for ref in refs}
    jobs = [Job(name=name, source=ref.id, path=ref.id) for name, ref in by_name.items()]
    task = ConvertTask(source, options)

    def executor() -> Executor:
        return local_processes(
            partial(ConvertWork, source, {ref.id: ref for ref in refs}, options), place.name, workers
        )

    waiting, ready = deque(by_name), dict[str, JobResult]()
    with driving(jobs, place, task, executor, batch, listener=listener) as driver:
        for result in driver.results():
            if driver.halted or result.state == "interrupted":
                break
            ready[result.job.name] = result
            while waiting and waiting[0] in ready:
                name = waiting.popleft()
                yield by_name[name], _taken(place, ready.pop(name))
                place.remove(file_name(name))  # it is in the store now
    summary = driver.summary()
    if summary.halted:
        raise OutputError(f"{summary.halted} Run the same command again to go on.")
    if summary.signum:
        raise Interrupted("Stopped.", summary.signum)


def job_name(ref: ClipRef) -> str:
    """Return a plain, unique file name for a clip: its id, and a hash where the id is no file name."""
    safe = plain_name(ref.id, "#").lstrip(".")
    return f"{safe}-{hashlib.sha256(ref.id.encode()).hexdigest()[:8]}"


def file_name(job: str) -> str:
    """Return the name of the file in which a job's clip is handed over."""
    return f"{fitting(job, SUFFIX)}{SUFFIX}"


def _taken(place: LocalPlace, result: JobResult) -> Any:
    """Return the packed clip of a job, or what is wrong with it."""
    if not result.good:
        return DataError(result.status.error)
    try:
        return read_packed(place.folder / file_name(result.job.name))
    except DataError as error:
        return error


class ConvertTask:
    """What the driver must know about loading clips."""

    private = True

    def __init__(self, source: Source, options: ConvertOptions) -> None:
        self._source, self._options = source, options
        text = json.dumps(deciding_settings(source, options), default=str)
        self.settings: Mapping[str, Any] = json.loads(text)  # as a status file gives it back

    def outputs(self, job: str) -> list[str]:
        """Return the name of the file with the packed clip."""
        return [file_name(job)]

    def changed(self, job: Job, content: Mapping[str, Any]) -> bool:
        """Return False: as with clips that are in the store already, the dataset is taken to be the same."""
        return False


class ConvertWork:
    """Loads and checks one clip after the other."""

    def __init__(
        self, source: Source, refs: Mapping[str, ClipRef], options: ConvertOptions, *, index: int, workers: int
    ) -> None:
        self._source, self._refs, self._options = source, refs, options

    def run(self, order: Order, place: Place, progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Leave one clip in ``place``; returns the fields of its status.

        Raises:
            PTrackError: it cannot be loaded or written.
        """
        packed = load_packed(self._source, self._refs[order["path"]], self._options)
        if isinstance(packed, PTrackError):
            raise packed
        (name,) = order["outputs"]
        with place.staged() as folder:
            write_packed(folder / name, packed)
            place.commit(folder, name)
        return {
            "outputs": {name: place.size(name) or 0},
            "frames": packed.clip.num_frames,
            "points": packed.clip.num_tracks,
            "warnings": tuple(f"frame {frame}: {reason}" for frame, reason in packed.damaged),
        }

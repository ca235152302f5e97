"""Many tracks files into another program's format: each is a job, and what is done is not done again."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from ptrack.batch.driver import BatchListener, BatchOptions, Summary
from ptrack.batch.executors import Executor, InProcess
from ptrack.batch.jobs import Entry, Job, make_jobs
from ptrack.batch.places import LocalPlace, Place
from ptrack.batch.run import check_folder, driving, local_processes
from ptrack.batch.status import SUFFIX
from ptrack.batch.work import Order, WorkSpec
from ptrack.errors import InputError, TracksError
from ptrack.exports.convert import convert_file
from ptrack.exports.formats import find_format
from ptrack.fileio import fitting, sha256_of
from ptrack.tracks_io import tracks_stem
from ptrack.video.listing import is_pattern, natural_order


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """Tracks files to convert."""

    source: str  # a folder, whose *.tracks.* files are meant, or a pattern
    out: str  # folder
    to: str  # name of the format to write
    from_: str | None = None  # name of the format to read; by ending and content if None
    size: str | None = None  # "WIDTHxHEIGHT" of tracks that do not hold it
    fps: float | None = None  # of tracks that hold no times
    start_frame: int | None = None  # number of the source's frame 0
    workers: int | None = None  # processes; None: this one
    options: BatchOptions = field(default_factory=BatchOptions)


def is_many(source: str | Path) -> bool:
    """Return whether a source stands for several files: a folder or a pattern."""
    return os.path.isdir(source) or is_pattern(source)


def find_files(request: ExportRequest) -> list[str]:
    """Return the tracks files of a folder, or those that a pattern finds.

    Raises:
        InputError: there are none.
    """
    pattern = f"*{find_format(request.from_).suffix}" if request.from_ else "*.tracks.*"
    if os.path.isdir(request.source):
        names = [n for n in os.listdir(request.source) if fnmatch(n, pattern) and not n.startswith(".")]
        found = [os.path.join(request.source, n) for n in names if ".partial." not in n and not n.endswith(SUFFIX)]
    else:
        found = [path for path in glob.glob(request.source, recursive=True) if os.path.isfile(path)]
    if not found:
        what = f"holds no {pattern} files" if os.path.isdir(request.source) else "finds no file"
        raise InputError(f"{request.source} {what}; name a folder of tracks files, a pattern, or one file.")
    return natural_order(found)


def export_many(
    request: ExportRequest, listener: Callable[[int], BatchListener] = lambda total: BatchListener()
) -> Summary:
    """Convert many files; what became of each is in the status files beside the outputs and in the summary.

    Args:
        request: what to do.
        listener: is given the number of files and returns who wants to know what happens.

    Raises:
        InputError, TracksError: no files, or an unknown format.
        OutputError: the folder cannot be written, another run is at work there, or two outputs would share a name.
    """
    check_folder(request.out)
    task = ExportTask(request)
    jobs, notes = make_jobs([Entry(path, _stem(path)) for path in find_files(request)])
    place, news = LocalPlace(Path(request.out)), listener(len(jobs))
    for note in notes:
        news.note(note)
    work = partial(ExportWork, request)

    def executor() -> Executor:
        if request.workers is None and request.options.timeout is None:
            return InProcess(WorkSpec(make=work, place=request.out))
        return local_processes(work, request.out, request.workers)

    with driving(jobs, place, task, executor, request.options, listener=news) as driver:
        return driver.run()


def _stem(path: str) -> str:
    """Return the name that outputs begin with: ``walk`` for ``walk.tracks.h5``."""
    return tracks_stem(path).lstrip(".") or "tracks"


class ExportTask:
    """What the driver must know about converting tracks.

    Raises:
        TracksError: an unknown format.
    """

    private = False

    def __init__(self, request: ExportRequest) -> None:
        self._request = request
        self._suffix = find_format(request.to).suffix
        if request.workers is not None and request.workers < 1:
            raise TracksError(f"--workers {request.workers}: give 1 or more.")
        decides = ("to", "from_", "size", "fps", "start_frame")
        self.settings: Mapping[str, Any] = {k: v for k, v in asdict(request).items() if k in decides}

    def outputs(self, job: str) -> list[str]:
        """Return the name of a job's output."""
        return [f"{fitting(job, self._suffix)}{self._suffix}"]

    def changed(self, job: Job, content: Mapping[str, Any]) -> bool:
        """Return whether a job's file is no longer what it was."""
        with suppress(OSError):
            return content.get("sha256") != sha256_of(job.path)
        return True  # the job itself fails with the sentence


class ExportWork:
    """Converts one file after the other."""

    def __init__(self, request: ExportRequest, *, index: int, workers: int) -> None:
        self._request = request

    def run(self, order: Order, place: Place, progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Convert one file into ``place``; returns the fields of its status.

        Raises:
            PTrackError: it cannot be read or written.
        """
        request, (name,) = self._request, order["outputs"]
        with place.staged() as folder:
            _, tracks = convert_file(
                order["path"],
                folder / name,
                to=request.to,
                from_=request.from_,
                size=request.size,
                fps=request.fps,
                start_frame=request.start_frame,
                overwrite=True,
            )
            place.commit(folder, name)
        return {
            "content": {"sha256": sha256_of(order["path"])},
            "outputs": {name: place.size(name) or 0},
            "frames": tracks.num_frames,
            "points": tracks.num_points,
        }

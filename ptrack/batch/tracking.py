"""Tracking as the work of a batch: what decides the result, and one video after the other with one model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptrack.batch.jobs import Job
from ptrack.batch.places import Place
from ptrack.batch.stores import fetched, is_remote, remote_content
from ptrack.batch.work import Order, UnusableWorkerError
from ptrack.errors import InputError, Interrupted, PTrackError, TracksError
from ptrack.fileio import sha256_of
from ptrack.queries_io import QueryPlan, plan_queries
from ptrack.tracking.request import TrackRequest, deciding_settings, output_paths
from ptrack.tracks_h5 import FREE_AND_RESUME
from ptrack.video import open_source

FREE_AND_REPEAT = "Free space and run the same command again."  # a batch resumes without being asked to

if TYPE_CHECKING:
    from ptrack.tracking.run import Progress, TrackOptions, TrackReport
    from ptrack.tracking.tracker import Tracker


class TrackTask:
    """What the driver must know about tracking.

    Args:
        request: what to do; its ``sources`` and ``out`` are not looked at.
        trust_time: a source of the same path, size and time is taken to be the same, without reading it.

    Raises:
        PTrackError: what is wrong for all sources: an option, the queries, the model's name, the format.
    """

    private = False

    def __init__(self, request: TrackRequest, *, trust_time: bool = False) -> None:
        checkpoint = request.checkpoint.absolute() if request.checkpoint is not None else None
        self.request = replace(request, sources=(), out=None, checkpoint=checkpoint)
        self.trust_time = trust_time
        self.plan = plan_queries(request.queries)
        style = {"trail": request.trail, "occluded": request.occluded}  # of the overlay
        self.settings: Mapping[str, Any] = deciding_settings(request) | style
        self.outputs("x")  # the format is known

    def outputs(self, job: str) -> list[str]:
        """Return the names of a job's output files."""
        return [str(path) for path in output_paths(self.request, job, job) if path is not None]

    def changed(self, job: Job, content: Mapping[str, Any]) -> bool:
        """Return whether a job's source is no longer what it was."""
        now = content_of(job.path, self.trust_time)
        return any(content.get(key) != value for key, value in now.items())


def content_of(path: str, trust_time: bool = False) -> dict[str, Any]:
    """Return what a source is: the sha256 of its bytes, or with ``trust_time`` its path, size and time.

    Files behind URLs are known by what their store states about them.

    Raises:
        InputError: it cannot be read.
    """
    if is_remote(path):
        return remote_content(path)
    try:
        if trust_time:
            return {"path": path, **_stamp(path)}
        if os.path.isfile(path):
            return {"sha256": sha256_of(path)}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    with open_source(path) as opened:
        return {"sha256": opened.sha256()}


def _stamp(path: str) -> dict[str, int]:
    """Return the size and time of a file, or of all images of a folder or pattern."""
    from ptrack.video.listing import by_pattern, in_folder

    if os.path.isfile(path):
        stats = [os.stat(path)]
    else:
        found = (in_folder(Path(path)) if os.path.isdir(path) else by_pattern(path)).paths
        stats = [os.stat(p) for p in found]
    return {
        "files": len(stats),
        "size": sum(s.st_size for s in stats),
        "mtime_ns": max(s.st_mtime_ns for s in stats),
    }


class TrackWork:
    """One model and what is tracked with it.

    Args:
        request: options of tracking.
        plan: the queries, read.
        index: number of this worker; where there are several GPUs each worker takes its own.
        workers: number of workers on this machine.
    """

    def __init__(self, request: TrackRequest, plan: QueryPlan, *, index: int = 0, workers: int = 1) -> None:
        self.request, self.plan = request, plan
        self._index, self._workers = index, workers
        self._tracker: Tracker | None = None

    def _loaded(self, progress: Callable[[dict[str, Any]], None]) -> Tracker:
        """Return the tracker; the first call builds it, when there is a video that can be read."""
        if self._tracker is None:
            from ptrack.processes import Group
            from ptrack.tracking.load import load

            request = self.request
            try:
                self._tracker = load(
                    request.model,
                    checkpoint=request.checkpoint,
                    device=Group(self._index, self._workers, self._index).device(request.device),
                    dtype=request.dtype,
                    support_grid=request.support_grid,
                    **request.model_options,
                )
            except PTrackError as error:
                raise UnusableWorkerError from error
            progress({"loaded": True})
        return self._tracker

    def run(self, order: Order, place: Place, progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Track one video into ``place``; returns the fields of its status.

        Raises:
            PTrackError: it cannot be read, tracked or written.
        """
        with fetched(order["path"]) as path, place.staged() as folder:
            try:
                content = content_of(order["path"])
                if not is_remote(order["path"]):
                    content |= {"path": order["path"], **_stamp(order["path"])}
                report = self._track(order, path, folder, progress)
            except Interrupted:
                raise
            except PTrackError as error:
                sentence = str(error).replace(path, order["source"]).replace(FREE_AND_RESUME, FREE_AND_REPEAT)
                raise type(error)(sentence) from error
            for name in order["outputs"]:
                place.commit(folder, name)
            return {
                "content": content,
                "outputs": {name: place.size(name) or 0 for name in order["outputs"]},
                "frames": report.frames,
                "points": report.points,
                "warnings": tuple(w.replace(path, order["source"]) for w in report.warnings),
            }

    def _track(self, order: Order, path: str, folder: Path, progress: Callable[[dict[str, Any]], None]) -> TrackReport:
        with open_source(path, self.request.read) as opened:
            opened.info = replace(opened.info, name=order["source"])
            queries = self.plan.build((opened.info.height, opened.info.width))
            tracker = self._loaded(progress)
            from ptrack.tracking.partial import partial_path
            from ptrack.tracking.run import check_outputs, track_to_files

            options = self._options(order, folder)
            check_outputs(options)

            def report(now: Progress) -> None:
                progress({"done": now.done, "expected": now.expected, "phase": now.phase, "visible": now.visible})

            if partial_path(options.out).exists():  # of a killed run: with other settings or damaged, it is made anew
                try:
                    return track_to_files(
                        tracker, opened, queries, replace(options, resume=True, overwrite=False), report
                    )
                except TracksError:
                    pass
            return track_to_files(tracker, opened, queries, options, report)

    def _options(self, order: Order, folder: Path) -> TrackOptions:
        from ptrack.tracking.run import TrackOptions

        tracks, overlay = output_paths(self.request, order["job"], order["job"])
        return TrackOptions(
            out=folder / tracks,
            overlay=folder / overlay if overlay is not None else None,
            drawing=self.request.drawing,
            trail=self.request.trail,
            occluded=self.request.occluded,
            overwrite=True,
            backward=self.request.backward,
        )

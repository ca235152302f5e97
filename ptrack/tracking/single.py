"""One video asked for: everything is checked and opened once, then the model is loaded, then it is tracked into files.

Many videos are ``ptrack.batch``'s, one job each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ptrack.errors import count
from ptrack.models.zoo import find
from ptrack.queries_io import ROW_BYTES, plan_queries
from ptrack.tracking.load import load
from ptrack.tracking.partial import check_finished
from ptrack.tracking.request import TrackRequest, output_paths, resolve
from ptrack.tracking.run import Progress, TrackOptions, TrackReport, check_outputs, draw_missing_overlay, track_to_files
from ptrack.tracking.stream import run_info
from ptrack.tracking.tracker import Tracker
from ptrack.tracks import Queries
from ptrack.video import FrameSource, open_source


@dataclass(frozen=True)
class Outcome:
    """What became of one source: a report, or why there is none."""

    source: str
    report: TrackReport | None = None
    note: str = ""  # dry run, or finished before


@dataclass(frozen=True, kw_only=True)
class TrackListener:
    """What is called while a request is tracked."""

    progress: Callable[[Progress], None] = lambda progress: None  # after every frame
    loaded: Callable[[Tracker], None] = lambda tracker: None  # when the model is ready
    note: Callable[[str], None] = lambda text: None  # a remark for the user


def track_request(request: TrackRequest, listener: TrackListener | None = None) -> Outcome:
    """Track the one source of a request.

    Raises:
        PTrackError: something is wrong with the request or the source; nothing was written.
        Interrupted: a signal came; what was finished can be resumed.
    """
    (source,) = request.sources
    listener = listener or TrackListener()
    plan = plan_queries(request.queries)
    find(request.model)
    options = options_of(request, source)
    finished = check_outputs(options)
    # A camera is opened when its frames are wanted: they would wait, and be lost, while the model is loaded.
    live = request.camera or "://" in source or source.startswith("/dev/")
    tracker = _load(request, listener) if live and not request.dry_run else None
    with open_source(resolve(source), request.read, camera=request.camera) as opened:
        queries = plan.build((opened.info.height, opened.info.width))
        if request.dry_run:
            return Outcome(source, note=f"dry run: {describe(queries, opened)}, would write {options.out}")
        tracker = tracker or _load(request, listener)
        if finished:
            wanted = run_info(tracker, opened, queries, request.backward)
            note = check_finished(options.out, queries, wanted)
            if draw_missing_overlay(tracker, opened, options, listener.progress):
                note += f"; its overlay {options.overlay} was missing and is drawn"
            return Outcome(source, note=note)
        listener.note(describe(queries, opened))
        return Outcome(source, track_to_files(tracker, opened, queries, options, listener.progress, listener.note))


def options_of(request: TrackRequest, source: str) -> TrackOptions:
    """Return where and how the result of a source is written."""
    tracks, overlay = output_paths(request, source)
    return TrackOptions(
        out=tracks,
        overlay=overlay,
        drawing=request.drawing,
        trail=request.trail,
        occluded=request.occluded,
        overwrite=request.overwrite,
        resume=request.resume,
        backward=request.backward,
    )


def _load(request: TrackRequest, listener: TrackListener) -> Tracker:
    tracker = load(
        request.model,
        checkpoint=request.checkpoint,
        device=request.device,
        dtype=request.dtype,
        support_grid=request.support_grid,
        **request.model_options,
    )
    listener.loaded(tracker)
    return tracker


def describe(queries: Queries, source: FrameSource) -> str:
    """Return what is about to be tracked and how large the tracks will be, before compression to other formats."""
    info = source.info
    text = f"{count(len(queries), 'point')}, {info.width}x{info.height}"
    if not info.expected_frames:
        return f"{text}, {megabytes(len(queries))} of tracks per frame"
    size = megabytes(len(queries) * info.expected_frames)
    return f"{text}, {count(info.expected_frames, 'frame')}, about {size} of tracks"


def megabytes(rows: int) -> str:
    """Return the size of so many points and frames as text."""
    size = rows * ROW_BYTES
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"

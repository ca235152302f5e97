"""Tracking a source into files: resumable, interruptible, in memory that does not grow with the video.

While a run goes on, its rows are in ``NAME.partial.h5`` beside the output, readable at any time, and the tracker's own
state is in ``NAME.partial.state``. When the run is whole the partial file is written anew in the wanted format, so that
equal tracks make equal files however often the run was stopped, and both are deleted.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ptrack.errors import InputError, Interrupted, OutputError, QueryError, count
from ptrack.signals import StopRequest
from ptrack.tracking import partial
from ptrack.tracking.drawing import DrawingMaker
from ptrack.tracking.frame_tracker import StepResult
from ptrack.tracking.overlay import OverlaySink, OverlayThread, draw_rows
from ptrack.tracking.snapshot import load_snapshot, save_snapshot
from ptrack.tracking.stream import backward_rows, run_info, stream_rows, warnings_of
from ptrack.tracking.tracker import Tracker
from ptrack.tracks import Queries, TracksInfo
from ptrack.tracks_h5 import FREE_AND_RESUME, TracksWriter, copy_finished, space_left
from ptrack.tracks_io import format_of, load_tracks, save_tracks
from ptrack.video.frames import Frame, FrameSource
from ptrack.video.prefetch import PrefetchedFrames

SAVE_SECONDS = 0.1  # a state that takes longer to save (TAPNext: 150 to 600 MB) is saved that much more rarely
FLUSH_SECONDS = 2.0  # work lost at most by a kill; a flush and a state of 256 points take about 10 ms


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is, after every frame."""

    done: int  # frames finished in this pass
    expected: int | None  # frames in this pass, None if unknown; a hint
    visible: int  # points visible in the last frame
    points: int  # points in all
    phase: str = "tracking"  # "tracking", "backward" or "overlay"


@dataclass(frozen=True, kw_only=True)
class TrackOptions:
    """How to write the result of one source."""

    out: Path  # tracks file; its suffix is the format
    overlay: Path | None = None  # video or GIF with the tracks drawn, None for none
    drawing: DrawingMaker | None = None  # makes what draws the overlay; needed for one
    trail: int | None = None  # of the overlay, frames; None: the standard look
    occluded: bool | None = None  # of the overlay: occluded points always, never, or (None) for some frames
    overwrite: bool = False  # replace existing outputs
    resume: bool = False  # go on from a partial file, if there is one
    backward: bool = False  # also track from each query back to the first frame
    flush_seconds: float = FLUSH_SECONDS  # how often rows and state reach the disk


@dataclass(frozen=True, kw_only=True)
class TrackReport:
    """What a run did."""

    source: str
    tracks: Path
    overlay: Path | None
    frames: int
    points: int
    width: int
    height: int
    seconds: float  # wall time of this run
    resumed_from: int = 0  # frames that an earlier run had finished
    stopped: bool = False  # a live source was ended by a signal
    truncated: bool = False
    warnings: tuple[str, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}
        return {**plain, "warnings": list(self.warnings)}


@dataclass
class _Run:
    """The parts of one run, so that the passes below need few arguments."""

    tracker: Tracker
    source: FrameSource
    queries: Queries
    options: TrackOptions
    info: TracksInfo
    report: Callable[[Progress], None]
    note: Callable[[str], None]
    stop: StopRequest
    settings: dict[str, Any]  # all that decides the tracks
    start: int = 0  # frames done by an earlier run
    phase: str = "tracking"  # then "backward", then "overlay", where these are needed
    writer: TracksWriter = field(init=False)
    overlay_in_stream: bool = False  # draw while tracking; otherwise in a pass of its own

    @property
    def partial(self) -> Path:
        return partial.partial_path(self.options.out)

    @property
    def state_path(self) -> Path:
        return partial.state_path(self.options.out)


def check_outputs(options: TrackOptions) -> bool:
    """Check the outputs before any expensive step, see ``partial.check_outputs``."""
    return partial.check_outputs(options.out, options.overlay, overwrite=options.overwrite, resume=options.resume)


def track_to_files(
    tracker: Tracker,
    source: FrameSource,
    queries: Queries,
    options: TrackOptions,
    report: Callable[[Progress], None] = lambda progress: None,
    note: Callable[[str], None] = lambda text: None,
) -> TrackReport:
    """Track ``queries`` through an open source and write the tracks and, if asked for, the overlay.

    Args:
        tracker: is reset.
        source: open; stays open.
        queries: checked against the source's size.
        options: outputs; call ``check_outputs`` on them first.
        report: called after every frame.
        note: called with a sentence where an unfinished run is of no use.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the partial file is closed and can be resumed. A live source is finished
            instead: stopping is its normal end.
        InputError, QueryError, OutputError, TracksError: see their classes.
    """
    if options.backward and not source.info.rereadable:
        raise QueryError(
            f"--backward reads the source twice, which {source.info.name} does not allow; record it first."
        )
    with tracker.lock, StopRequest() as stop:
        began = time.perf_counter()
        info = run_info(tracker, source, queries, options.backward)
        run = _Run(tracker, source, queries, options, info, report, note, stop, json.loads(info.settings))
        _open_partial(run)
        try:
            frames = _passes(run)
        except BaseException:
            with contextlib.suppress(OutputError):  # the error that ended the run names the cause
                run.writer.close()
            if not run.state_path.exists():  # finished work is kept for --resume; a run that never saved leaves nothing
                partial.remove_partial(options.out)
            raise
        _publish(run)
        stopped = source.info.live and bool(stop.signum)
    return TrackReport(
        source=source.info.name,
        tracks=options.out,
        overlay=options.overlay,
        frames=frames,
        points=len(queries),
        width=source.info.width,
        height=source.info.height,
        seconds=time.perf_counter() - began,
        resumed_from=run.start,
        stopped=stopped,
        truncated=source.truncated,
        warnings=run.info.warnings,
    )


def draw_missing_overlay(
    tracker: Tracker, source: FrameSource, options: TrackOptions, report: Callable[[Progress], None]
) -> bool:
    """Draw the overlay of finished tracks if it is wanted and not there; return whether it was drawn.

    Raises:
        Interrupted: SIGINT or SIGTERM came; there is no overlay.
    """
    if options.overlay is None or options.overlay.exists():
        return False
    threshold = tracker.model.threshold

    def drawn(done: int, result: StepResult) -> None:
        seen, points = int((result.visibility >= threshold).sum()), len(result.visibility)
        report(Progress(done=done, expected=source.info.expected_frames, visible=seen, points=points, phase="overlay"))
        if stop.signum:
            text = (
                f"stopped; the overlay {options.overlay} is not drawn. Run the same command with --resume to draw it."
            )
            raise Interrupted(text, stop.signum)

    sink = _sink(options, source, threshold)
    with StopRequest() as stop, sink:
        draw_rows(sink, options.out, source, drawn)
    return True


def _passes(run: _Run) -> int:
    """Track, finish the rows and draw; return the number of frames."""
    frames = _forward(run)
    if run.options.backward and run.phase != "overlay":
        _backward(run, frames)
    warnings = warnings_of(run.source, run.queries, frames)
    run.info = replace(run.info, truncated=run.source.truncated, warnings=warnings)
    if run.options.overlay is not None and not run.overlay_in_stream:
        run.phase = "overlay"
        _save(run)
    run.writer.finish(run.info)
    if run.phase == "overlay":
        _draw_finished(run)
    return frames


# -- partial file and state ---------------------------------------------------------------------------------------


def _open_partial(run: _Run) -> None:
    """Start a new partial file, or continue the one of an earlier run."""
    run.tracker.reset((run.source.info.height, run.source.info.width))
    run.tracker.add(run.queries)
    if run.options.resume and run.partial.exists() and run.state_path.exists():
        saved = load_snapshot(run.state_path, run.tracker.model.device)
        found = partial.differences(saved.get("settings", {}), run.settings)
        if found:
            run.note(f"{run.partial} was begun with other settings ({found}); tracking starts anew.")
        else:
            _continue(run, saved)
            return
    # A resumed or backward run needs all rows before it can draw; a live source is gone after one pass.
    run.overlay_in_stream = run.options.overlay is not None and not run.options.backward
    run.state_path.unlink(missing_ok=True)  # of a run that is being replaced
    run.writer = TracksWriter(run.partial, run.queries.points, run.queries.ids, run.info)


def _continue(run: _Run, saved: dict[str, Any]) -> None:
    """Take up the rows and the state of an earlier run."""
    run.writer = TracksWriter.reopen(run.partial, saved["rows"])
    run.tracker.state, run.start, run.phase = saved["tracker"], saved["rows"], saved["phase"]
    if run.phase != "tracking":  # the forward pass, which would find these, is not repeated
        run.source.warnings, run.source.truncated = saved["warnings"], saved["truncated"]


def _save(run: _Run) -> None:
    """Bring the rows, then the state that belongs to them, to the disk."""
    run.writer.flush()
    content = {
        "settings": run.settings,
        "rows": run.writer.rows,
        "phase": run.phase,
        "tracker": run.tracker.state,
        "warnings": list(run.source.warnings),
        "truncated": run.source.truncated,
    }
    try:
        save_snapshot(run.state_path, content)
    except (OutputError, RuntimeError) as error:  # torch raises RuntimeError when the disk is full
        full = f"Cannot write {run.state_path}: No space left on device"
        what = full if isinstance(error, RuntimeError) else str(error).rstrip(".")
        raise OutputError(f"{what}; {space_left(run.state_path)}. {FREE_AND_RESUME}") from error


def _publish(run: _Run) -> None:
    """Give the finished tracks their name and format."""
    if format_of(run.options.out) == "h5":
        copy_finished(run.partial, run.options.out)
    else:
        save_tracks(load_tracks(run.partial), run.options.out)
    partial.remove_partial(run.options.out)


# -- passes -------------------------------------------------------------------------------------------------------


def _forward(run: _Run) -> int:
    """Track frame after frame; return the number of frames."""
    if run.phase != "tracking":
        return run.start
    saved, pause = time.monotonic(), run.options.flush_seconds
    batch = 1 if run.source.info.live else max(1, run.tracker.model.encode_batch)
    drawing = (
        OverlayThread(_sink(run.options, run.source, run.tracker.model.threshold)) if run.overlay_in_stream else None
    )
    with PrefetchedFrames(run.source) as frames, drawing or contextlib.nullcontext():
        for row in stream_rows(run.tracker, _skip(frames, run), 1 if run.source.info.live else None):
            run.writer.append(*row.result, row.frame.index, row.frame.pts)
            if drawing is not None:
                drawing.put(row)
            run.report(_progress(run, run.writer.rows, run.source.info.expected_frames, row.result))
            aligned = run.writer.rows % batch == 0  # a resumed run then forms the same encoder batches
            if aligned and (run.stop.signum or time.monotonic() - saved >= pause):
                began = time.monotonic()
                _save(run)
                saved = time.monotonic()
                pause = run.options.flush_seconds * max(1.0, (saved - began) / SAVE_SECONDS)
            if run.stop.signum and aligned:
                if run.source.info.live:
                    break
                raise _interrupted(run)
    if run.writer.rows == 0:
        raise InputError(f"{run.source.info.name} has no frame in the chosen range; check --start and --end.")
    return run.writer.rows


def _interrupted(run: _Run) -> Interrupted:
    done = count(run.writer.rows, "frame") if run.phase == "tracking" else "the forward pass"
    return Interrupted(
        f"stopped; {done} of {run.source.info.name} are kept in {run.partial}. "
        "Run the same command with --resume to go on.",
        run.stop.signum,
    )


def _skip(frames: PrefetchedFrames, run: _Run) -> Iterator[Frame]:
    """Leave out the frames that an earlier run has tracked."""
    iterator = iter(frames)
    skipped = sum(1 for _ in islice(iterator, run.start))
    if skipped < run.start:
        raise InputError(f"{run.source.info.name} has become shorter than the {run.start} frames tracked before.")
    yield from iterator


def _backward(run: _Run, frames: int) -> None:
    """Fill in the rows before each query; a run killed here starts this pass again."""
    run.phase = "backward"
    _save(run)
    for done, (at, points, result) in enumerate(backward_rows(run.tracker, run.source, run.queries, frames), start=1):
        if points.any():
            run.writer.rewrite(at, points, StepResult(*(v[points] for v in result)))
        run.report(_progress(run, done, frames, result, "backward"))
        if run.stop.signum:
            raise _interrupted(run)


def _sink(options: TrackOptions, source: FrameSource, threshold: float) -> OverlaySink:
    if options.overlay is None or options.drawing is None:
        raise ValueError("An overlay needs TrackOptions.overlay, its path, and TrackOptions.drawing, what draws it.")
    return OverlaySink(options.overlay, source, threshold, options.drawing(options.trail, options.occluded))


def _draw_finished(run: _Run) -> None:
    """Draw the overlay from the finished rows, reading the source again."""

    def drawn(done: int, result: StepResult) -> None:
        run.report(_progress(run, done, run.writer.rows, result, "overlay"))
        if run.stop.signum:
            raise _interrupted(run)

    with _sink(run.options, run.source, run.tracker.model.threshold) as sink:
        draw_rows(sink, run.partial, run.source, drawn)


def _progress(run: _Run, done: int, expected: int | None, result: StepResult, phase: str = "tracking") -> Progress:
    visible = int((result.visibility >= run.tracker.model.threshold).sum())
    return Progress(done=done, expected=expected, visible=visible, points=len(run.queries), phase=phase)

"""Tracking a source into files: resumable, interruptible, in memory that does not grow with the video.

While a run goes on, its rows are in ``NAME.partial.h5`` beside the output, readable at any time, and the tracker's own
state is in ``NAME.partial.state``. When the run is whole the partial file is written anew in the wanted format, so that
equal tracks make equal files however often the run was stopped, and both are deleted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.errors import InputError, Interrupted, OutputError, QueryError, TracksError
from ptrack.fileio import check_writable
from ptrack.signals import StopRequest
from ptrack.tracking.snapshot import load_snapshot, save_snapshot
from ptrack.tracking.stream import Row, backward_rows, duplicate_queries, late_queries, stream_rows, tracks_info
from ptrack.tracking.tracker import StepResult, Tracker
from ptrack.tracks import Queries, TracksInfo
from ptrack.tracks_io import TracksWriter, copy_finished, format_of, load_tracks, save_tracks
from ptrack.video.frames import Frame, FrameSource
from ptrack.video.prefetch import PrefetchedFrames

SAVE_SECONDS = 0.1  # a state that takes longer to save (TAPNext: 150 to 600 MB) is saved that much more rarely
FLUSH_SECONDS = 2.0  # work lost at most by a kill; a flush and a state of 256 points take about 10 ms


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Told after every frame."""

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
    stop: StopRequest
    job: str = ""
    start: int = 0  # frames done by an earlier run
    phase: str = "tracking"  # then "backward", then "overlay", where these are needed
    writer: TracksWriter = field(init=False)
    overlay_in_stream: bool = False  # draw while tracking; otherwise in a pass of its own

    @property
    def partial(self) -> Path:
        return partial_path(self.options.out)

    @property
    def state_path(self) -> Path:
        return self.partial.with_suffix(".state")


def partial_path(out: Path) -> Path:
    """Return where the rows of an unfinished run are kept."""
    return out.with_name(f"{out.stem}.partial.h5")


def check_outputs(options: TrackOptions) -> bool:
    """Check, before any expensive step, that the outputs can be written. Return True if there is nothing left to do.

    Raises:
        OutputError: an output exists or its place is not writable; an unfinished run is in the way.
        TracksError: unknown suffix.
    """
    format_of(options.out)
    partial = partial_path(options.out)
    if options.resume and options.out.exists() and not partial.exists():
        return True
    if partial.exists() and not (options.resume or options.overwrite):
        raise OutputError(
            f"{partial} is left of an unfinished run; add --resume to go on with it or --overwrite to start anew."
        )
    overwrite = options.overwrite or options.resume
    check_writable(options.out, overwrite=overwrite)
    if options.overlay is not None:
        if options.overlay.resolve() == options.out.resolve():
            raise OutputError(f"{options.out} cannot be both the tracks file and the overlay; give them two names.")
        check_writable(options.overlay, overwrite=overwrite)
    return False


def track_to_files(
    tracker: Tracker,
    source: FrameSource,
    queries: Queries,
    options: TrackOptions,
    report: Callable[[Progress], None] = lambda progress: None,
) -> TrackReport:
    """Track ``queries`` through an open source and write the tracks and, if asked for, the overlay.

    Args:
        tracker: is reset.
        source: open; stays open.
        queries: checked against the source's size.
        options: outputs; call ``check_outputs`` on them first.
        report: called after every frame.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the partial file is closed and can be resumed. A live source is finished
            instead: stopping is its normal end.
        InputError, QueryError, OutputError, TracksError: see their classes.
    """
    began = time.perf_counter()
    live = source.info.live
    if options.backward and not source.info.rereadable:
        raise QueryError(
            f"--backward reads the source twice, which {source.info.name} does not allow; record it first."
        )
    info = tracks_info(tracker, source.info, source.sha256())
    with StopRequest() as stop:
        run = _Run(tracker, source, queries, options, info, report, stop)
        run.job = _fingerprint(run)
        _open_partial(run)
        try:
            frames = _forward(run)
            if options.backward and run.phase != "overlay":
                _backward(run, frames)
            warnings = (*source.warnings, *duplicate_queries(queries), *late_queries(queries, frames))
            run.info = replace(info, truncated=source.truncated, warnings=warnings)
            if options.overlay is not None and not run.overlay_in_stream:
                run.phase = "overlay"
                _save(run)
            run.writer.finish(run.info)
            if run.phase == "overlay":
                _second_pass_overlay(run)
        except BaseException as error:
            run.writer.close()
            # Finished work is kept for --resume; a run that failed before its first save leaves nothing behind.
            if not run.state_path.exists() and not isinstance(error, OutputError):
                _remove_partial(run)
            raise
        _publish(run)
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
        stopped=live and bool(stop.signum),
        truncated=source.truncated,
        warnings=run.info.warnings,
    )


# -- partial file and state ---------------------------------------------------------------------------------------


def _fingerprint(run: _Run) -> str:
    """Return all that must be equal for a run to be continued, as text."""
    same = asdict(run.info) | {"backward": run.options.backward, "support_grid": run.tracker.support_grid}
    same |= {"queries": run.queries.points.tolist(), "ids": run.queries.ids.tolist()}
    same |= {
        "read": repr(getattr(run.source, "options", None)),
        "settings": repr(getattr(run.tracker.model, "config", None)),
    }
    return json.dumps(same, sort_keys=True, default=str)


def _open_partial(run: _Run) -> None:
    """Start a new partial file, or continue the one of an earlier run."""
    run.tracker.reset((run.source.info.height, run.source.info.width))
    run.tracker.add(run.queries)
    if run.options.resume and run.partial.exists() and run.state_path.exists():
        saved = load_snapshot(run.state_path, run.tracker.model.device)
        if saved["job"] != run.job:
            raise TracksError(
                f"{run.partial} was begun with another video, model, points or options; "
                "repeat the first command with --resume, or start anew with --overwrite."
            )
        run.writer = TracksWriter.reopen(run.partial, saved["rows"])
        run.tracker.state, run.start, run.phase = saved["tracker"], saved["rows"], saved["phase"]
        if run.phase != "tracking":  # the forward pass, which would find these, is not repeated
            run.source.warnings, run.source.truncated = saved["warnings"], saved["truncated"]
        return
    # A resumed or backward run needs all rows before it can draw; a live source is gone after one pass.
    run.overlay_in_stream = run.options.overlay is not None and not run.options.backward
    run.state_path.unlink(missing_ok=True)  # of a run that is being replaced
    run.writer = TracksWriter(run.partial, run.queries.points, run.queries.ids, run.info)


def _save(run: _Run) -> None:
    """Bring the rows, then the state that belongs to them, to the disk."""
    run.writer.flush()
    content = {
        "job": run.job,
        "rows": run.writer.rows,
        "phase": run.phase,
        "tracker": run.tracker.state,
        "warnings": list(run.source.warnings),
        "truncated": run.source.truncated,
    }
    try:
        save_snapshot(run.state_path, content)
    except (OutputError, RuntimeError) as error:  # torch says RuntimeError when the disk is full
        raise OutputError(
            f"Cannot write {run.state_path}: {error} Free some space and run again with --resume."
        ) from error


def _remove_partial(run: _Run) -> None:
    run.partial.unlink(missing_ok=True)
    run.state_path.unlink(missing_ok=True)


def _publish(run: _Run) -> None:
    """Give the finished tracks their name and format."""
    if format_of(run.options.out) == "h5":
        copy_finished(run.partial, run.options.out)
    else:
        save_tracks(load_tracks(run.partial), run.options.out)
    _remove_partial(run)


# -- passes -------------------------------------------------------------------------------------------------------


def _forward(run: _Run) -> int:
    """Track frame after frame; return the number of frames."""
    if run.phase != "tracking":
        return run.start
    overlay = _OverlayThread(run) if run.overlay_in_stream else None
    saved, pause = time.monotonic(), run.options.flush_seconds
    batch = 1 if run.source.info.live else max(1, run.tracker.model.encode_batch)
    with PrefetchedFrames(run.source) as frames:
        try:
            for row in stream_rows(run.tracker, _skip(frames, run), batch):
                run.writer.append(*row.result, row.frame.index, row.frame.pts)
                if overlay is not None:
                    overlay.put(row)
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
            if overlay is not None:
                overlay.finish()
        except BaseException:
            if overlay is not None:
                overlay.abort()
            raise
    if run.writer.rows == 0:
        raise InputError(f"{run.source.info.name} has no frame in the chosen range; check --start and --end.")
    return run.writer.rows


def _interrupted(run: _Run) -> Interrupted:
    done = f"{run.writer.rows} frames" if run.phase == "tracking" else "the forward pass"
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


def _progress(run: _Run, done: int, expected: int | None, result: StepResult, phase: str = "tracking") -> Progress:
    visible = int((result.visibility >= run.tracker.model.threshold).sum())
    return Progress(done=done, expected=expected, visible=visible, points=len(run.queries), phase=phase)


# -- overlay ------------------------------------------------------------------------------------------------------


class _OverlayThread:
    """Draws and encodes in a thread, so that both overlap with tracking; errors come out of ``put`` and ``finish``."""

    def __init__(self, run: _Run) -> None:
        from ptrack.tracking.consumer import Consumer

        self._sink = OverlaySink(run.options, run.source, run.tracker.model.threshold)
        self._consumer = Consumer(lambda row: self._sink.write(row.frame, row.result))

    def put(self, row: Row) -> None:
        self._consumer.put(row)

    def finish(self) -> None:
        self._consumer.finish()
        self._sink.close()

    def abort(self) -> None:
        self._consumer.abort()
        self._sink.abort()


class OverlaySink:
    """Draws tracks over frames and writes them to a video."""

    def __init__(self, options: TrackOptions, source: FrameSource, threshold: float) -> None:
        from ptrack.video import open_writer
        from ptrack.viz.overlay import Overlay
        from ptrack.viz.style import overlay_style

        assert options.overlay is not None
        self._writer = open_writer(options.overlay, fps=source.info.fps, overwrite=True)
        self._overlay = Overlay(overlay_style(options.trail, options.occluded))
        self._threshold = threshold
        self._size = (source.info.height, source.info.width)

    def write(self, frame: Frame, result: StepResult) -> None:
        """Draw one frame."""
        from ptrack import geometry

        size = (frame.rgb.shape[0], frame.rgb.shape[1])
        xy = geometry.rescale(np.asarray(result.positions, np.float32), self._size, size)
        visible = result.visibility >= self._threshold
        self._writer.write(self._overlay.draw(frame.rgb, xy, visible, result.confidence), frame.pts)

    def close(self) -> None:
        """Finish the video and give it its name."""
        self._writer.close()

    def abort(self) -> None:
        """Discard the video."""
        self._writer.abort()


def _second_pass_overlay(run: _Run) -> None:
    """Draw the overlay from the finished rows, reading the source again."""
    import h5py

    sink = OverlaySink(run.options, run.source, run.tracker.model.threshold)
    try:
        with h5py.File(run.partial, "r") as opened, PrefetchedFrames(run.source) as frames:
            file: Any = opened
            for frame, at in zip(frames, range(file["tracks"].shape[0]), strict=False):
                result = StepResult(*(file[name][at] for name in ("tracks", "visibility", "confidence")))
                sink.write(frame, result)
                run.report(_progress(run, at + 1, run.writer.rows, result, "overlay"))
                if run.stop.signum:
                    raise _interrupted(run)
        sink.close()
    except BaseException:
        sink.abort()
        raise

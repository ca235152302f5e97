"""The streaming loop: frames go in, rows of tracks come out; memory does not grow with the number of frames.

source -> decode thread -> encode (small batches, or ahead in a thread) -> step -> row
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ptrack._version import __version__
from ptrack.errors import count
from ptrack.models.base import ReservesSlots
from ptrack.tracking import ahead
from ptrack.tracking.frame_tracker import FrameTracker, QueryRows, StepResult
from ptrack.tracking.partial import deciding
from ptrack.tracks import Queries, TracksInfo
from ptrack.video.frames import Frame, FrameSource, SourceInfo
from ptrack.video.prefetch import PrefetchedFrames

NAMED = 5  # ids spelled out in a warning, which ends with "and so many more"


@dataclass(frozen=True, slots=True)
class Row:
    """One tracked frame."""

    frame: Frame
    result: StepResult


def stream_rows(tracker: FrameTracker, frames: Iterable[Frame], batch: int | None = None) -> Iterator[Row]:
    """Track the tracker's points through ``frames``.

    Args:
        tracker: reset, with its points added.
        frames: in order; placeholders (``ok=False``) give rows of NaN.
        batch: frames per encoder call. By default the model's choice, or frames are encoded ahead in a thread where
            that pays; torch has half of its threads for the caller meanwhile. Results do not depend on it.
    """
    if batch is None and ahead.pays(tracker):
        yield from _rows_ahead(tracker, frames)
        return
    size = batch or max(1, tracker.model.encode_batch)
    group: list[Frame] = []
    for frame in frames:
        group.append(frame)
        if len(group) == size:
            yield from _group_rows(tracker, group)
            group = []
    yield from _group_rows(tracker, group)


def _rows_ahead(tracker: FrameTracker, frames: Iterable[Frame]) -> Iterator[Row]:
    for frame, features in ahead.encoded_ahead(tracker, frames):
        if features is None and frame.ok and tracker.needs_features():  # a point has joined since it was looked at
            features = ahead.encode(tracker, [frame.rgb])[0]
        height, width = frame.rgb.shape[:2]
        yield Row(frame, tracker.step_features(features, (height, width)))


def _group_rows(tracker: FrameTracker, group: list[Frame]) -> Iterator[Row]:
    wanted = [i for i, f in enumerate(group) if f.ok and tracker.needs_features(ahead=i)]
    features: dict[int, Any] = {}
    if wanted:
        features = dict(zip(wanted, ahead.encode(tracker, [group[i].rgb for i in wanted]), strict=True))
    for i, frame in enumerate(group):
        height, width = frame.rgb.shape[:2]
        yield Row(frame, tracker.step_features(features.pop(i, None), (height, width)))


def backward_rows(
    tracker: FrameTracker, source: FrameSource, queries: Queries, frames: int
) -> Iterator[tuple[int, np.ndarray, StepResult]]:
    """Track each query from its frame back to the first one.

    Args:
        tracker: is reset.
        source: can be read again; of ``frames`` frames.
        queries: N points; those that start at frame 0 or after the end have nothing to do.
        frames: number of frames that the forward pass found.

    Yields:
        ``(row, points, result)``: the row's number, downwards; (N,) bool, the points whose query lies after it; the
        row's result for all N points.
    """
    used = (queries.t > 0) & (queries.t < frames)
    if not used.any():
        return
    stop = int(queries.t[used].max()) + 1
    if isinstance(tracker.model, ReservesSlots):  # all points take part in all frames, as on the way forward
        used, stop = queries.t < frames, frames
    mirrored = np.column_stack([stop - 1 - queries.t[used], queries.xy[used]])
    tracker.reset((source.info.height, source.info.width))
    tracker.add(Queries(mirrored, queries.ids[used]), check_inside=False)
    empty = np.full((len(queries), 2), np.nan, np.float32), np.zeros(len(queries)), np.zeros(len(queries))
    for back, row in enumerate(stream_rows(tracker, PrefetchedFrames(source.reversed(stop)))):
        at = stop - 1 - back
        full = StepResult(*(e.astype(np.float32) for e in empty))
        for target, value in zip(full, row.result, strict=True):
            target[used] = value
        yield at, used & (queries.t > at), full


def warnings_of(source: FrameSource, queries: Queries, frames: int) -> tuple[str, ...]:
    """Return what the user should know of a run through ``frames`` frames: of its source and of its queries."""
    return (*source.warnings, *duplicate_queries(queries), *late_queries(queries, frames))


def late_queries(queries: Queries, frames: int) -> tuple[str, ...]:
    """Return a warning naming the queries that start at or after the end of the ``frames`` frames, if there are any."""
    late = queries.ids[queries.t >= frames]
    if not len(late):
        return ()
    names = ", ".join(late[:NAMED]) + (f" and {len(late) - NAMED} more" if len(late) > NAMED else "")
    return (f"The video has {count(frames, 'frame')}, so these points never start: {names}.",)


def duplicate_queries(queries: Queries) -> tuple[str, ...]:
    """Return a warning if several queries are the same point; each is tracked all the same."""
    extra = len(queries) - len(np.unique(queries.points, axis=0))
    return (f"{extra} of the {len(queries)} query points repeat another one.",) if extra else ()


def tracks_info(tracker: FrameTracker, info: SourceInfo, sha256: str | None) -> TracksInfo:
    """Return what is known about the tracks before the first frame is tracked."""
    return TracksInfo(
        ptrack_version=__version__,
        model=tracker.model.name,
        weights_sha256=tracker.weights_sha256,
        source=info.name,
        source_sha256=sha256 or "",
        width=info.width,
        height=info.height,
        rotation=info.rotation,
        fps=info.fps or 0.0,
        threshold=tracker.model.threshold,
    )


def run_info(tracker: FrameTracker, source: FrameSource, queries: Queries, backward: bool) -> TracksInfo:
    """Return ``tracks_info`` with the settings that decide the tracks of a run."""
    info = tracks_info(tracker, source.info, source.sha256())
    return replace(info, settings=json.dumps(deciding(tracker, source, queries, info, backward)))


def as_queries(queries: QueryRows | None, grid: int, size: tuple[int, int]) -> Queries:
    """Return checked queries for a source of size (H, W): given ones, plain (N, 3) rows, or a grid for None."""
    if queries is None:
        return Queries.grid(grid, size)
    made = queries if isinstance(queries, Queries) else Queries(queries)
    made.check_inside(size)
    return made

"""The live loop: a frame comes, all points are tracked into it, the result is published, points come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptrack.errors import ConfigError, InputError, OutputError
from ptrack.live.capture import Capture, Captured
from ptrack.live.points import PointKeeper, PointOptions
from ptrack.live.publish import LiveFrame, Publisher
from ptrack.live.recorder import Recorder
from ptrack.signals import StopRequest
from ptrack.tracking.stream import tracks_info
from ptrack.tracks import Queries, TracksInfo

if TYPE_CHECKING:
    from ptrack.live.reference import Reference
    from ptrack.tracking.frame_tracker import StepResult
    from ptrack.tracking.tracker import Tracker

WAIT_SECONDS = 0.25  # for a frame before signals and the duration are looked at
AGE_BIN = 0.1  # milliseconds per bin of the count of ages
AGE_BINS = 100_000  # up to 10 s; older ones count as 10 s


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """How long to go on, and what happens to the points."""

    duration: float | None = None  # seconds; None goes on until the source ends or a signal comes
    points: PointOptions = field(default_factory=PointOptions)

    def __post_init__(self) -> None:
        if self.duration is not None and not self.duration > 0:
            raise ConfigError(f"--duration {self.duration:g}: give a time above 0.")


class Ages:
    """How old frames were when they were published, in memory that does not grow."""

    def __init__(self) -> None:
        self._counts = np.zeros(AGE_BINS, np.int64)

    def add(self, milliseconds: float) -> None:
        """Count one frame."""
        self._counts[min(max(int(milliseconds / AGE_BIN), 0), AGE_BINS - 1)] += 1

    def percentile(self, share: float) -> float:
        """Return the age in ms that ``share`` (0 to 1) of the frames do not exceed; 0 without frames."""
        total = self._counts.sum()
        if not total:
            return 0.0
        return float((np.searchsorted(self._counts.cumsum(), share * total) + 1) * AGE_BIN)


@dataclass(frozen=True, kw_only=True)
class LiveReport:
    """What a live run did."""

    source: str
    frames: int  # tracked
    dropped: int  # came and were not tracked
    undecodable: int  # of the tracked ones, without a picture
    reconnects: int
    points: int  # at the end
    added: int  # after the start
    removed: int
    seconds: float
    frames_per_second: float
    age_ms: dict[str, float]  # p50, p95, p99 of the age of messages
    tracks: tuple[Path, ...]
    stopped: bool  # by a signal, or because the reader of the output has gone

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "tracks": [str(path) for path in self.tracks]}


def run_live(
    tracker: Tracker,
    capture: Capture,
    queries: Queries | Reference,
    options: LiveOptions | None = None,
    *,
    on_frame: Callable[[LiveFrame], object] | None = None,
    publishers: Sequence[Publisher] = (),
    recorder: Recorder | None = None,
    on_picture: Callable[[np.ndarray, LiveFrame], None] | None = None,
) -> LiveReport:
    """Track points on a live source until it ends, the duration is over, or a signal comes.

    Args:
        tracker: is reset.
        capture: not yet started; is closed at the end.
        queries: points that start on the first frame, whatever their ``t``, or a picture on which they were chosen.
        options: duration, points that come and go.
        on_frame: called with every frame's result; returning False ends the run.
        publishers: given every frame; closed at the end.
        recorder: where tracks are written; closed at the end.
        on_picture: called with every decoded (H, W, 3) picture and its result.

    Raises:
        InputError: the source gives no picture.
        QueryError: a point outside the frame.
        OutputError: the disk is full.
    """
    loop = _Loop(tracker, capture, options or LiveOptions(), on_frame, publishers, recorder, on_picture)
    return loop.run(queries)


@dataclass
class _Loop:
    """The parts of a run."""

    tracker: Tracker
    capture: Capture
    options: LiveOptions
    on_frame: Callable[[LiveFrame], object] | None
    publishers: Sequence[Publisher]
    recorder: Recorder | None
    on_picture: Callable[[np.ndarray, LiveFrame], None] | None

    def __post_init__(self) -> None:
        self.size = self.capture.info.height, self.capture.info.width
        self.keeper = PointKeeper(self.options.points, self.size)
        self.ages = Ages()
        self.frames = self.undecodable = self.added = self.removed = 0
        self.searched = 0  # frames in which the reference was looked for and not found
        self.started = self.stopped = False

    def run(self, queries: Queries | Reference) -> LiveReport:
        """Go through the frames."""
        began = time.monotonic()
        try:
            with StopRequest() as stop, self.capture as capture:
                while not self.stopped:
                    item = capture.next(WAIT_SECONDS)
                    self.stopped = bool(stop.signum)
                    if item is not None and (self.started or self._start(item, queries)):
                        self._frame(item)
                    elif item is not None:
                        self.searched += 1
                    elif capture.over:
                        break
                    if self.options.duration is not None and time.monotonic() - began >= self.options.duration:
                        break
            if self.frames == 0 and not self.stopped:
                what = "shows nothing of the reference" if self.searched else "gave no picture"
                raise InputError(f"{self.capture.name} {what}.")
        finally:
            for publisher in self.publishers:
                publisher.close()
            if self.recorder is not None:
                self.recorder.close(self._warnings())
        return self._report(time.monotonic() - began)

    def _start(self, item: Captured, queries: Queries | Reference) -> bool:
        """Give the tracker its points; return False while the reference is not found."""
        if isinstance(queries, Queries):
            self.tracker.reset(self.size)
            self.tracker.add(queries.xy, queries.ids)
            self.started = True
        elif item.rgb is not None:
            self.started = queries.start(self.tracker, item.rgb)
        return self.started

    def _frame(self, item: Captured) -> None:
        """Track one frame and publish the result."""
        result = self.tracker.step(item.rgb)
        ids = self.tracker.ids
        message = self._message(item, result, ids)
        self.ages.add(message.age_ms)
        self.frames += 1
        self.undecodable += item.rgb is None
        try:
            for publisher in self.publishers:
                publisher.send(message)
        except OutputError as error:
            if not isinstance(error.__cause__, BrokenPipeError):
                raise
            self.stopped = True  # the reader of standard output has gone
        if self.on_frame is not None and self.on_frame(message) is False:
            self.stopped = True
        if self.on_picture is not None and item.rgb is not None:
            self.on_picture(item.rgb, message)
        if self.recorder is not None:
            self.recorder.write(message.ids, *result, item.number, item.seconds)
        self._keep(ids, result.positions, message.visible, item)

    def _message(self, item: Captured, result: StepResult, ids: np.ndarray) -> LiveFrame:
        return LiveFrame(
            frame=item.number,
            time=item.time,
            age_ms=(time.monotonic() - item.at) * 1000,
            width=self.size[1],
            height=self.size[0],
            dropped=item.number - self.frames - self.searched,
            ids=tuple(ids.tolist()),
            positions=result.positions,
            visible=result.visibility >= self.tracker.model.threshold,
            visibility=result.visibility,
            confidence=result.confidence,
        )

    def _keep(self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray, item: Captured) -> None:
        """Remove points that are lost too long and add points where there are too few."""
        if item.rgb is None:
            return  # a missing picture is nobody's loss
        gone = self.keeper.lost(ids, visible)
        new = self.keeper.missing(positions, visible)
        if gone:
            self.tracker.remove(gone)
            self.removed += len(gone)
        if len(new):
            self.added += len(self.tracker.add(new))

    def _warnings(self) -> tuple[str, ...]:
        dropped, again = self.capture.dropped, self.capture.reconnects
        return (
            *([f"{dropped} frames came too fast and were not tracked."] if dropped else []),
            *([f"The source was connected again {again} times."] if again else []),
        )

    def _report(self, seconds: float) -> LiveReport:
        ages = {f"p{p}": round(self.ages.percentile(p / 100), 1) for p in (50, 95, 99)}
        return LiveReport(
            source=self.capture.name,
            frames=self.frames,
            dropped=self.capture.dropped,
            undecodable=self.undecodable,
            reconnects=self.capture.reconnects,
            points=len(self.tracker.ids),
            added=self.added,
            removed=self.removed,
            seconds=round(seconds, 3),
            frames_per_second=round(self.frames / max(seconds, 1e-9), 2),
            age_ms=ages,
            tracks=tuple(self.recorder.parts) if self.recorder is not None else (),
            stopped=self.stopped,
        )


def live_info(tracker: Tracker, capture: Capture) -> TracksInfo:
    """Return what is known about the tracks of a live source; passwords in its address are left out."""
    return replace(tracks_info(tracker, capture.info, None), source=capture.name)

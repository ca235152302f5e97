"""Everything ``ptrack live`` can be asked for, put together: model, source, points, outputs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.errors import ConfigError, QueryError
from ptrack.live.capture import Capture, CaptureOptions
from ptrack.live.points import PointOptions
from ptrack.live.publish import LiveFrame, OscTo, Publisher, host_and_port, lines_publisher
from ptrack.live.recorder import Recorder
from ptrack.live.reference import Reference, open_reference
from ptrack.live.session import LiveOptions, LiveReport, live_info, run_live
from ptrack.models.zoo import DEFAULT_MODEL, find
from ptrack.queries_io import QueryOptions, QueryPlan, plan_queries
from ptrack.tracking.load import load
from ptrack.tracking.tracker import Tracker
from ptrack.tracks import Queries
from ptrack.tracks_io import format_of
from ptrack.video import FrameSource, ReadOptions, open_source

# For the demuxer of network streams: look at one second or megabyte before the first picture, without measuring the
# rate. H.264 at 15/s in MPEG-TS, a key frame a second: first picture after 0.5 s and none lost; 1.6 s with ffmpeg's
# defaults; 2.2 s and 30 lost with ``nobuffer``, which throws away what it looked at and waits for the next key frame.
LOW_DELAY = {"fpsprobesize": "0", "analyzeduration": "1000000", "probesize": "1000000"}


@dataclass(frozen=True, kw_only=True)
class LiveRequest:
    """What to follow, and where it is published."""

    source: str  # camera number, device, address, or file
    queries: QueryOptions = field(default_factory=QueryOptions)
    reference: Path | None = None  # picture or video on which the points were chosen
    model: str = DEFAULT_MODEL
    checkpoint: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    model_options: dict[str, Any] = field(default_factory=dict)
    max_size: int | None = None  # longest side in pixels of the pictures that are tracked
    realtime: bool | None = None  # drop frames instead of falling behind; None: yes, except for files without ``pace``
    pace: bool = False  # give a file's frames at their times
    reconnect: bool = True
    duration: float | None = None  # seconds
    points: PointOptions = field(default_factory=PointOptions)
    jsonl: str = ""  # "-", a file, or tcp://HOST:PORT
    osc: str = ""  # HOST:PORT
    out: Path | None = None  # tracks file
    split: float | None = None  # seconds of each tracks file
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.split is not None and not self.split > 0:
            raise ConfigError(f"--split {self.split:g}: give a time above 0.")
        if self.split is not None and self.out is None:
            raise ConfigError("--split cuts the tracks file; add --out FILE.")


def connector(request: LiveRequest) -> Callable[[], FrameSource]:
    """Return what opens the source, and opens it again."""
    source = request.source
    camera = source.isdecimal() and not Path(source).exists()
    extra = LOW_DELAY if "://" in source else {}
    return lambda: open_source(source, ReadOptions(max_size=request.max_size, extra=extra), camera=camera)


def track_live(
    request: LiveRequest,
    *,
    note: Callable[[str], None] = lambda text: None,
    on_frame: Callable[[LiveFrame], object] | None = None,
    on_picture: Callable[[np.ndarray, LiveFrame], None] | None = None,
    loaded: Callable[[Tracker], None] = lambda tracker: None,
) -> LiveReport:
    """Do what a request asks for until the source ends, the duration is over, or a signal comes.

    Args:
        request: what to do.
        note: called with sentences for the user, from any thread.
        on_frame, on_picture: as in ``run_live``.
        loaded: called with the tracker when the model is ready.

    Raises:
        PTrackError: see its classes; what can be checked is checked before the model is loaded.
    """
    plan = plan_queries(request.queries)
    if request.reference is None:
        _check_start(plan)
    find(request.model)
    if request.out is not None:
        format_of(request.out)
    options = LiveOptions(duration=request.duration, points=request.points)
    with ExitStack() as open_until_the_end:
        publishers = _publishers(request, note, open_until_the_end)
        tracker = load(
            request.model,
            checkpoint=request.checkpoint,
            device=request.device,
            dtype=request.dtype,
            **request.model_options,
        )
        loaded(tracker)
        capture = _capture(request, note)
        open_until_the_end.callback(capture.close)
        recorder = None
        if request.out is not None:
            info = live_info(tracker, capture)
            recorder = Recorder(request.out, info, split=request.split, overwrite=request.overwrite)
        return run_live(
            tracker,
            capture,
            _start(request, plan, capture, note),
            options,
            on_frame=on_frame,
            on_picture=on_picture,
            publishers=publishers,
            recorder=recorder,
        )


def _check_start(plan: QueryPlan) -> None:
    late = [q for queries in plan.fixed for q in queries.points if q[0] != 0]
    if late or plan.options.grid_frame:
        raise QueryError("Points on a live stream start with its first frame; leave their frame numbers at 0.")


def _publishers(request: LiveRequest, note: Callable[[str], None], stack: ExitStack) -> list[Publisher]:
    made: list[Publisher] = []
    if request.jsonl:
        made.append(lines_publisher(request.jsonl, note))
        stack.callback(made[-1].close)
    if request.osc:
        made.append(OscTo(*host_and_port(request.osc, "--osc")))
        stack.callback(made[-1].close)
    return made


def _capture(request: LiveRequest, note: Callable[[str], None]) -> Capture:
    connect = connector(request)
    first = connect()  # its kind decides whether frames may be dropped
    sources = iter([first])
    realtime = request.realtime if request.realtime is not None else first.info.live or request.pace
    options = CaptureOptions(realtime=realtime, pace=request.pace, reconnect=request.reconnect)
    return Capture(lambda: next(sources, None) or connect(), options, note)


def _start(request: LiveRequest, plan: QueryPlan, capture: Capture, note: Callable[[str], None]) -> Queries | Reference:
    size = capture.info.height, capture.info.width
    if request.reference is None:
        return plan.build(size)
    return open_reference(request.reference, plan, size, note)

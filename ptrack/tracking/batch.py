"""Several sources in one call: each with its own outputs, one failing does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ptrack.errors import Interrupted, OutputError, PTrackError
from ptrack.models.zoo import find, load
from ptrack.queries_io import QueryPlan, plan_queries
from ptrack.tracking.request import TrackRequest, output_paths, resolve
from ptrack.tracking.run import Progress, TrackOptions, TrackReport, check_outputs, track_to_files
from ptrack.tracking.tracker import Tracker
from ptrack.video import open_source


@dataclass(frozen=True)
class Outcome:
    """What became of one source."""

    source: str
    report: TrackReport | None = None
    error: PTrackError | None = None
    note: str = ""  # why there is neither: dry run, or finished before


def _options(request: TrackRequest) -> list[TrackOptions]:
    """Return the outputs of every source; two sources must not share one."""
    made, seen = [], {}
    for source in request.sources:
        tracks, overlay = output_paths(request, source)
        if tracks in seen:
            raise OutputError(
                f"{source} and {seen[tracks]} would both be written to {tracks}; track them one by one with --out."
            )
        seen[tracks] = source
        made.append(
            TrackOptions(
                out=tracks,
                overlay=overlay,
                trail=request.trail,
                occluded=request.occluded,
                overwrite=request.overwrite,
                resume=request.resume,
                backward=request.backward,
            )
        )
    return made


def track_sources(
    request: TrackRequest,
    report: Callable[[str, Progress], None] = lambda source, progress: None,
    loaded: Callable[[Tracker], None] = lambda tracker: None,
) -> list[Outcome]:
    """Track every source of a request.

    Args:
        request: what to do.
        report: called with the source and its progress after every frame.
        loaded: called once with the tracker when the model is ready.

    Returns:
        One outcome per source, in order; an error of one source is part of its outcome.

    Raises:
        PTrackError: what is wrong for all sources: options, queries, the model, the device.
        Interrupted: a signal came; later sources are not begun.
    """
    plan = plan_queries(request.queries)
    find(request.model)
    outputs = _options(request)
    failed: dict[str, Outcome] = {}
    for source, options in zip(request.sources, outputs, strict=True):
        try:
            _precheck(request, source, options, plan)
        except PTrackError as error:
            failed[source] = Outcome(source, error=error)
    if len(failed) == len(request.sources):
        return list(failed.values())
    tracker = load(
        request.model,
        checkpoint=request.checkpoint,
        device=request.device,
        dtype=request.dtype,
        support_grid=request.support_grid,
        **request.model_options,
    )
    loaded(tracker)
    return [
        failed.get(source) or _track_one(request, source, options, plan, tracker, report)
        for source, options in zip(request.sources, outputs, strict=True)
    ]


def _precheck(request: TrackRequest, source: str, options: TrackOptions, plan: QueryPlan) -> None:
    """Fail on wrong inputs and outputs before the model is loaded. A camera is opened only once, when it is tracked."""
    check_outputs(options)
    if not request.camera and "://" not in source and not source.startswith("/dev/"):
        with open_source(resolve(source), request.read) as opened:
            plan.build((opened.info.height, opened.info.width))


def _track_one(
    request: TrackRequest,
    source: str,
    options: TrackOptions,
    plan: QueryPlan,
    tracker: Tracker,
    report: Callable[[str, Progress], None],
) -> Outcome:
    try:
        if check_outputs(options):
            return Outcome(source, note=f"{options.out} is complete already")
        with open_source(resolve(source), request.read, camera=request.camera) as opened:
            queries = plan.build((opened.info.height, opened.info.width))
            if request.dry_run:
                what = f"{len(queries)} points, {opened.info.width}x{opened.info.height}"
                return Outcome(source, note=f"dry run: {what}, would write {options.out}")
            done = track_to_files(tracker, opened, queries, options, lambda progress: report(source, progress))
            return Outcome(source, report=done)
    except Interrupted:
        raise
    except PTrackError as error:
        return Outcome(source, error=error)

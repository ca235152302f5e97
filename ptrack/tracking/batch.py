"""Several sources in one call: each with its own outputs, one failing does not stop the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from ptrack.errors import Interrupted, OutputError, PTrackError
from ptrack.models.zoo import DEFAULT_MODEL, find, load
from ptrack.queries_io import QueryOptions, QueryPlan, plan_queries
from ptrack.tracking.run import Progress, TrackOptions, TrackReport, check_outputs, track_to_files
from ptrack.tracking.tracker import Tracker
from ptrack.tracks_io import FORMATS, format_of
from ptrack.video import ReadOptions, open_source

DEMO = "demo"


@dataclass(frozen=True, kw_only=True)
class TrackRequest:
    """Everything ``ptrack track`` can be asked for."""

    sources: Sequence[str]
    camera: bool = False  # sources are camera numbers or addresses
    queries: QueryOptions = field(default_factory=QueryOptions)
    read: ReadOptions = field(default_factory=ReadOptions)
    model: str = DEFAULT_MODEL
    checkpoint: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    support_grid: int | None = None
    model_options: dict[str, object] = field(default_factory=dict)  # e.g. memory
    out: Path | None = None  # a file for one source, else a folder
    format: str | None = None  # "h5", "npz", "csv" or "json"; from ``out`` or h5
    overlay: bool = True
    overwrite: bool = False
    resume: bool = False
    backward: bool = False
    dry_run: bool = False  # check everything, decode the first frames, write nothing


@dataclass(frozen=True)
class Outcome:
    """What became of one source."""

    source: str
    report: TrackReport | None = None
    error: PTrackError | None = None
    note: str = ""  # why there is neither: dry run, or finished before


def source_stem(source: str, camera: bool = False) -> str:
    """Return the name that outputs of a source start with."""
    if camera or "://" in source:
        return "camera-" + re.sub(r"\W+", "-", source.split("://")[-1]).strip("-")
    path = Path(source)
    plain = path.stem
    if re.search(r"[*?\[%]", plain):  # a pattern: what is fixed of it, or its folder's name
        plain = re.sub(r"%\d*d|\[.*?\]|[*?\[\]%]", "", plain).strip("-_. ") or path.resolve().parent.name
    return path.resolve().name if path.is_dir() else plain


def output_paths(request: TrackRequest, source: str) -> tuple[Path, Path | None]:
    """Return where the tracks and the overlay of a source go.

    Raises:
        OutputError: one file named for several sources, or suffix and ``--format`` disagree.
        TracksError: unknown suffix.
    """
    stem, out = source_stem(source, request.camera), request.out
    if request.format is not None and request.format not in FORMATS:
        raise OutputError(f"--format {request.format}: choose one of {', '.join(FORMATS)}.")
    if out is not None and out.suffix and not out.is_dir():
        if len(request.sources) > 1:
            raise OutputError(f"--out {out} is one file, but there are {len(request.sources)} sources; name a folder.")
        if request.format is not None and request.format != format_of(out):
            raise OutputError(f"--out {out} and --format {request.format} disagree; leave one of them out.")
        tracks = out
    else:
        tracks = (out or Path()) / f"{stem}.tracks{FORMATS[request.format or 'h5']}"
    name = tracks.name.removesuffix(tracks.suffix).removesuffix(".tracks")
    return tracks, tracks.with_name(f"{name}.overlay.mp4") if request.overlay else None


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
        One outcome per source, in order. With one source, its error is raised instead.

    Raises:
        PTrackError: what is wrong for all sources: options, queries, the model, the device.
        Interrupted: a signal came; later sources are not begun.
    """
    plan = plan_queries(request.queries)
    find(request.model)
    outputs = _options(request)
    alone = len(request.sources) == 1
    failed: dict[str, Outcome] = {}
    for source, options in zip(request.sources, outputs, strict=True):
        try:
            _precheck(request, source, options, plan)
        except PTrackError as error:
            if alone:
                raise
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
        failed.get(source) or _track_one(request, source, options, plan, tracker, report, alone)
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
    alone: bool,
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
        if alone:
            raise
        return Outcome(source, error=error)


def resolve(source: str) -> str:
    """Return the packaged clip for ``demo`` (unless a file has that name), else the source itself."""
    if source == DEMO and not Path(source).exists():
        return str(resources.files("ptrack") / "assets" / "demo.mp4")
    return source

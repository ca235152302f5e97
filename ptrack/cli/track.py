"""``ptrack track``: points through videos, image folders and cameras."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptrack.cli import options
from ptrack.cli.console import Output
from ptrack.errors import InputError, PTrackError, count

if TYPE_CHECKING:
    from ptrack.tracking.request import TrackRequest
    from ptrack.tracking.single import Outcome

EPILOG = options.examples(
    "ptrack track demo --grid 16",
    "ptrack track video.mp4 --point 320,240 --point 400,200@25 --backward",
    "ptrack track clips/*.mp4 --queries points.csv --format csv --out results/",
    "ptrack track clips/ --out results/ --workers 2",
    "ptrack track --camera 0 --grid 8",
)
MAX_POINTS = 10_000  # a 100 x 100 grid

frames_option = options.panel("Frames")


def _moment(text: str | None, option: str) -> int | float | None:
    """Parse a frame number ("100"), seconds ("2.5", "2s") or minutes ("1:30")."""
    if text is None:
        return None
    try:
        if ":" in text:
            minutes, seconds = text.split(":")
            return int(minutes) * 60 + float(seconds)
        return float(text[:-1]) if text.endswith("s") else float(text) if "." in text else int(text)
    except ValueError:
        raise InputError(
            f"{option} {text}: give a frame number (100), seconds (2.5 or 2s) or minutes (1:30)."
        ) from None


def _value_range(text: str | None) -> tuple[float, float] | None:
    """Parse "LOW,HIGH"."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--range {text}: give two numbers with a comma between, such as 0,4095.") from None
    return low, high


def track(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE...",
            help="Videos, GIFs, image folders, glob patterns, camera addresses, or 'demo' for the packaged clip.",
        ),
    ] = None,
    camera: Annotated[
        str | None, typer.Option(help="Track a camera: its number (0), /dev/videoN, or an address.")
    ] = None,
    grid: Annotated[
        int | None,
        options.points_option(
            help="Track an N x N grid of points (16 when nothing else is asked for). With --mask: inside it.",
            metavar="N",
        ),
    ] = None,
    grid_frame: Annotated[int, options.points_option(help="Frame on which the grid or the mask's points start.")] = 0,
    point: Annotated[
        list[str] | None,
        options.points_option(help="Track the pixel X,Y, from frame T if given. Repeatable.", metavar="X,Y[@T]"),
    ] = None,
    queries: options.QueryFile = None,
    mask: options.Mask = None,
    num: Annotated[
        int | None, options.points_option(help="This many points inside the mask instead of a grid.")
    ] = None,
    max_points: Annotated[int, options.points_option(help="Refuse more points than this.", min=1)] = MAX_POINTS,
    backward: Annotated[
        bool, options.points_option("--backward", help="Also track from each point's frame back to the first.")
    ] = False,
    start: Annotated[str | None, frames_option(help="First frame: a number (100) or a time (2.5, 2s, 1:30).")] = None,
    end: Annotated[str | None, frames_option(help="Stop before this frame or time.")] = None,
    stride: Annotated[int, frames_option(help="Track every N-th frame.")] = 1,
    max_size: Annotated[
        int | None, frames_option(help="Reduce frames to this longest side; coordinates stay those of the original.")
    ] = None,
    fps: Annotated[
        float | None, frames_option(help="Frames per second of image folders and raw streams; 25 if unknown.")
    ] = None,
    value_range: Annotated[
        str | None,
        frames_option(
            "--range", help="Values that become black and white, for pictures of more than 8 bits.", metavar="LOW,HIGH"
        ),
    ] = None,
    max_pixels: Annotated[int, frames_option(help="Refuse pictures of more pixels than this.")] = 1 << 27,
    strict: Annotated[
        bool, frames_option("--strict", help="Damage or a clock that jumps is an error, not a warning.")
    ] = False,
    model: options.Model = "",
    checkpoint: options.Checkpoint = None,
    quality: options.Quality = None,
    memory: options.Memory = None,
    support_grid: options.SupportGrid = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    out: Annotated[
        str | None,
        options.output_option(
            help="Tracks file (one source), folder or URL. Default: SOURCE.tracks.h5 in this folder."
        ),
    ] = None,
    format: Annotated[
        str | None, options.output_option(help="h5, npz, csv or json; default from --out, or h5.")
    ] = None,
    overlay: Annotated[bool, options.output_option(help="Also write SOURCE.overlay.mp4 with the tracks drawn.")] = True,
    trail: options.Trail = None,
    occluded: options.Occluded = None,
    overwrite: options.Overwrite = False,
    resume: Annotated[bool, options.output_option("--resume", help="Go on with an unfinished run.")] = False,
    dry_run: Annotated[bool, options.output_option("--dry-run", help="Check everything, write nothing.")] = False,
    list_file: Annotated[
        str | None,
        options.many_option(
            "--list",
            help="Text file with one source per line (- is standard input); a tab and a name choose the outputs' name.",
            metavar="FILE",
        ),
    ] = None,
    workers: options.Workers = None,
    retries: options.Retries = 1,
    timeout: options.Timeout = None,
    report: options.Report = None,
    shard: Annotated[
        str | None,
        options.many_option(
            help="Only part I (from 0) of N. Default: that of a Slurm job array; none for all.", metavar="I/N"
        ),
    ] = None,
    ray: Annotated[
        str | None, options.many_option(help="Track on a Ray cluster: its address, auto, or local.", metavar="ADDRESS")
    ] = None,
    trust_mtime: Annotated[
        bool,
        options.many_option(
            "--trust-mtime", help="Take a video of the same path, size and time for unchanged, without reading it."
        ),
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Track points through videos, image folders and cameras, on a CPU or a GPU."""
    given = locals()
    from ptrack.batch.driver import BatchOptions
    from ptrack.batch.run import BatchRequest, is_batch
    from ptrack.cli.batch import track_many
    from ptrack.models.zoo import DEFAULT_MODEL
    from ptrack.queries_io import QueryOptions
    from ptrack.tracking.request import TrackRequest
    from ptrack.video import ReadOptions
    from ptrack.viz.overlay import asked_overlay

    named = list(sources or [])
    if bool(named or list_file) == (camera is not None):
        raise InputError("Name at least one video, image folder or 'demo', or give --camera, but not both.")
    if not all(source.strip() for source in named):
        raise InputError("The name of a source is empty; give a video, an image folder or an address.")
    remote = "://" in (out or "")
    moments = {"start": _moment(start, "--start"), "end": _moment(end, "--end"), "range": _value_range(value_range)}
    other = {
        "sources": named if camera is None else [camera],
        "camera": camera is not None,
        "queries": QueryOptions(**options.fields_of(QueryOptions, given, points=tuple(point or ()), file=queries)),
        "read": ReadOptions(**options.fields_of(ReadOptions, given, **moments)),
        "model": model or DEFAULT_MODEL,
        "model_options": {"quality": quality, "memory": memory},
        "out": Path(out) if out and not remote else None,
        "drawing": asked_overlay,
    }
    request = TrackRequest(**options.fields_of(TrackRequest, given, **other))
    output = Output(json_mode=json, quiet=quiet)
    many = remote or list_file or workers or shard or ray or report or timeout is not None or trust_mtime
    if many or is_batch(request):
        again = BatchOptions(**options.fields_of(BatchOptions, given))
        texts = {"list_file": list_file or "", "out": out or "", "ray": ray or "", "shard": shard or ""}
        batch = BatchRequest(**options.fields_of(BatchRequest, given, track=request, options=again, **texts))
        track_many(batch, output, report, dry_run)
    else:
        _run(request, output)


def _run(request: TrackRequest, output: Output) -> None:
    """Do the work with progress on stderr, then print what came of it."""
    from ptrack.cli.progress import TrackProgress
    from ptrack.models.devices import choose_device
    from ptrack.tracking.single import TrackListener, track_request

    (source,) = request.sources
    choice = choose_device(request.device)
    try:
        with TrackProgress(output) as display:
            listener = TrackListener(
                progress=lambda now: display.update(source, now),
                loaded=lambda tracker: output.note(f"model {tracker.model.name} on {choice.reason}"),
                note=output.note,
            )
            outcome = track_request(request, listener)
    except PTrackError as error:
        output.document({"sources": [{"ok": False, "source": source, "error": str(error)}]})
        raise
    _print_outcome(outcome, output)
    done = {"source": source, "note": outcome.note} if outcome.report is None else outcome.report.to_mapping()
    output.document({"sources": [{"ok": True, **done}]})


def _print_outcome(outcome: Outcome, output: Output) -> None:
    report = outcome.report
    if report is None:
        output.result(f"{outcome.source}: {outcome.note}")
        return
    output.warning(*report.warnings)
    speed = (report.frames - report.resumed_from) / max(report.seconds, 1e-9)
    output.result(f"{outcome.source}: {count(report.points, 'point')}, {count(report.frames, 'frame')}")
    output.result(f"  time     {report.seconds:.1f} s, {speed:.1f} frames/s")
    output.result(f"  tracks   {report.tracks}")
    if report.overlay:
        output.result(f"  overlay  {report.overlay}")

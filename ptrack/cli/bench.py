"""``ptrack bench``: how fast, how much memory, on this machine, against what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptrack.cli import options
from ptrack.cli.console import Output
from ptrack.cli.progress import Bar, Display
from ptrack.cli.results import check_files, finish_json, parse_size
from ptrack.errors import count

if TYPE_CHECKING:
    from ptrack.bench.speed import SpeedOptions

group = typer.Typer(no_args_is_help=True)


@group.command("speed")
def speed(
    model: Annotated[list[str] | None, typer.Option(help="Model name; may be repeated. Default: matching.")] = None,
    compare: Annotated[str, typer.Option(help="More models, separated by commas, in the same table.")] = "",
    checkpoint: options.Checkpoints = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Random weights for Track-On2 and TAPNext: same speed, no tracking."),
    ] = False,
    points: Annotated[list[int] | None, typer.Option(help="Points; may be repeated. Default: 256.", min=1)] = None,
    n_sqrt: Annotated[list[int] | None, typer.Option(help="Points per side of a square grid.", min=1)] = None,
    memory: Annotated[
        list[int] | None, typer.Option("--memory", "--memory-size", help="Memory slots; may be repeated.", min=1)
    ] = None,
    quality: options.Quality = None,
    support_grid: Annotated[int, typer.Option(help="Points per side of the extra grid.", min=0)] = 0,
    device: Annotated[list[str] | None, typer.Option(help="auto, cpu, cuda, mps; may be repeated.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="auto, float32, bfloat16; may be repeated.")] = None,
    size: Annotated[list[str] | None, typer.Option(help="Frames resized to WIDTHxHEIGHT; may be repeated.")] = None,
    video: Annotated[Path | None, typer.Option(help="Frames of this video or folder.")] = None,
    davis: Annotated[Path | None, typer.Option(help="Frames of TAP-Vid DAVIS (pickle or clip store).")] = None,
    frames: Annotated[int, typer.Option(help="Frames that are timed.", min=1)] = 30,
    warmup: Annotated[int, typer.Option(help="Frames before that.", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Stop timing one combination after that, after 5 frames.")] = 120.0,
    batch: Annotated[int, typer.Option(help="Frames per encoder call; 1 is streaming.", min=1)] = 1,
    vit_unit: Annotated[
        bool | None,
        typer.Option("--vit-unit/--no-vit-unit", help="Also time a plain ViT-S/14 forward. Default: for Track-On2."),
    ] = None,
    threads: options.Threads = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Run the ptrack of another checkout in turns with this one, and print ratios.", metavar="DIR"
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Of --against: how often both run.", min=1)] = 5,
    plot: Annotated[Path | None, typer.Option(help="PNG of frames/s against points, memory against frames.")] = None,
    out: options.ResultFile = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Time a tracker stage by stage: ptrack bench speed --model nano --points 256 --compare matching,lk."""
    given = locals()
    check_files(out, plot, overwrite=overwrite)
    from ptrack.bench.speed import SpeedOptions, bench_speed, machine
    from ptrack.bench.speed import plot as draw
    from ptrack.models.zoo import DEFAULT_MODEL

    names = [*(model or [DEFAULT_MODEL]), *options.names(compare)]
    counts = [*(points or []), *(n * n for n in n_sqrt or [])] or [256]
    many = {
        "models": tuple(dict.fromkeys(names)),
        "points": tuple(dict.fromkeys(counts)),
        "memories": tuple(memory or [None]),
        "devices": tuple(device or ["auto"]),
        "dtypes": tuple(dtype or ["auto"]),
        "sizes": tuple(parse_size(s) for s in size) if size else (None,),
        "checkpoints": tuple(checkpoint or ()),
    }
    wanted = SpeedOptions(**options.fields_of(SpeedOptions, given, **many))
    output = Output(quiet=quiet)
    if against is not None:
        _compare(against, rounds, wanted, output, out)
        return
    about = machine()
    output.result(f"{count(about['threads'], 'thread')}, {about['instructions']}, {about['processor']}")
    with Display(output) as display:
        report = bench_speed(
            wanted, output.result, lambda name, done, total: display.show(Bar(name=name, done=done, total=total))
        )
    if plot is not None:
        draw(report.rows, plot)
    finish_json(report.to_mapping(), out)


def _compare(other: Path, rounds: int, given: SpeedOptions, output: Output, out: Path | None) -> None:
    """Print this ptrack's speed as a multiple of another checkout's."""
    from dataclasses import asdict

    from ptrack.bench.against import arguments, compare

    ratios = compare(other, arguments(given), rounds, output.note)
    output.result(*map(str, ratios))
    finish_json({"against": str(other), "rounds": rounds, "ratios": [asdict(r) for r in ratios]}, out)


@group.command("io")
def io(
    videos: Annotated[int, typer.Option(help="Videos of the made-up dataset.", min=1)] = 4,
    clips: Annotated[int, typer.Option(help="Training clips timed per reader.", min=1)] = 32,
    workers: Annotated[int, typer.Option(help="Processes of the loader.", min=0)] = 2,
    size: Annotated[int, typer.Option(help="Height and width of the training clips.", min=16)] = 256,
    rounds: Annotated[int, typer.Option(help="The readers take turns; the median round counts.", min=1)] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="A small dataset, to see whether it runs.")] = False,
    out: options.ResultFile = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Time reading training clips: a clip store against folders of JPEG frames."""
    check_files(out, overwrite=overwrite)
    from ptrack.bench.io import IoOptions, bench_io, small

    output = Output(quiet=quiet)
    wanted = IoOptions(videos=videos, clips=clips, workers=workers, size=size, rounds=rounds)
    result = bench_io(small(wanted) if quick else wanted, output.note)
    for reader, speed_of in result.clips_per_second.items():
        output.result(f"{reader}: {speed_of:.2f} clips/s")
    output.result(f"the store is {result.speedup:.2f} times as fast as the folders")
    finish_json(result.as_dict(), out)

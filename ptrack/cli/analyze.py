"""``ptrack analyze``: clean tracks, find jumps, measure with units, planes and corner pins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptrack.cli.console import Output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ptrack.tracks import Tracks

Source = Annotated[Path, typer.Argument(help="Tracks to read, in any readable format.", metavar="TRACKS")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Fps = Annotated[
    float | None,
    typer.Option(help="Frames per second at which the source was taken. Default: the times in the tracks."),
]

group = typer.Typer(no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="analyze", help="Clean tracks, find jumps, measure with units, corner pins of planes.")


def _read(source: Path, outputs: Iterable[Path | None], overwrite: bool) -> Tracks:
    """Read tracks once it is sure that the outputs can be written, none of them over the tracks."""
    from ptrack.analysis.files import check_outputs
    from ptrack.exports import load_any

    check_outputs(source, outputs, overwrite=overwrite)
    return load_any(source)


_CLEAN = """Examples:

ptrack analyze clean walk.tracks.h5 walk.clean.h5

ptrack analyze clean walk.tracks.h5 walk.clean.h5 --smooth butterworth --cutoff 6 --max-gap 10

ptrack analyze clean walk.tracks.h5 walk.clean.h5 --below-confidence 0.3 --smooth none
"""


@group.command(epilog=_CLEAN)
def clean(
    source: Source,
    target: Annotated[Path, typer.Argument(help="Tracks file to write (.h5, .npz, .csv, .json).", metavar="OUT")],
    below_confidence: Annotated[float, typer.Option(help="Remove positions of a confidence below this, 0..1.")] = 0.0,
    hampel: Annotated[int, typer.Option(help="Frames of the outlier window, odd; 0: remove no outliers.")] = 7,
    sigmas: Annotated[float, typer.Option(help="Standard deviations off the path that make an outlier.")] = 3.0,
    least: Annotated[float, typer.Option(help="Pixels off the path that never make an outlier.")] = 1.0,
    max_gap: Annotated[int, typer.Option(help="Frames of the longest gap to interpolate; 0: none.")] = 5,
    smooth: Annotated[
        str, typer.Option(help="auto (as far as a point's noise goes), none, butterworth, savgol or one-euro (delays).")
    ] = "auto",
    cutoff: Annotated[float, typer.Option(help="Hz, of butterworth and one-euro.")] = 6.0,
    order: Annotated[int, typer.Option(help="Order of each pass of butterworth.")] = 2,
    window: Annotated[int, typer.Option(help="Frames, odd, of savgol and auto.")] = 7,
    degree: Annotated[int, typer.Option(help="Degree of the polynomials of savgol and auto.")] = 3,
    beta: Annotated[float, typer.Option(help="Hz per px/s of speed, of one-euro.")] = 0.01,
    fps: Fps = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove outliers, fill short gaps, smooth noise; one sentence on what each step changed."""
    from dataclasses import asdict

    from ptrack.analysis.clean import CleanConfig
    from ptrack.analysis.clean import clean as work
    from ptrack.tracks_io import format_of, save_tracks

    output = Output(json_mode=json, quiet=quiet)
    config = CleanConfig(
        below_confidence=below_confidence, hampel=hampel, sigmas=sigmas, least=least, max_gap=max_gap, smooth=smooth,
        cutoff=cutoff, order=order, window=window, degree=degree, beta=beta, fps=fps,
    )  # fmt: skip
    format_of(target)
    tracks, report = work(_read(source, [target], overwrite), config)
    save_tracks(tracks, target, overwrite=overwrite)
    for line in report.sentences:
        output.result(line)
    output.result(str(target))
    output.document({"file": str(target), **asdict(report)})


_JUMPS = """Examples:

ptrack analyze jumps walk.tracks.h5

ptrack analyze jumps walk.tracks.h5 jumps.csv --below-confidence 0.3
"""


@group.command(epilog=_JUMPS)
def jumps(
    source: Source,
    target: Annotated[
        Path | None, typer.Argument(help="Table of the jumps to write (.csv).", metavar="OUT", show_default=False)
    ] = None,
    min_px: Annotated[float, typer.Option(help="Pixels beyond the movement around below which nothing jumps.")] = 5.0,
    sigmas: Annotated[float, typer.Option(help="Standard deviations of the point's own irregularity.")] = 8.0,
    below_confidence: Annotated[
        float, typer.Option(help="Also list frames in a row with a confidence below this, 0..1.")
    ] = 0.0,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List frames and points worth a look: steps that do not fit the movement around them."""
    from dataclasses import asdict

    from ptrack.analysis.files import write_rows
    from ptrack.analysis.jumps import JumpConfig, find_jumps

    output = Output(json_mode=json, quiet=quiet)
    config = JumpConfig(min_px=min_px, sigmas=sigmas, below_confidence=below_confidence)
    report = find_jumps(_read(source, [target], overwrite), config)
    if target is not None:
        write_rows(target, list(JUMP_COLUMNS), [list(asdict(jump).values()) for jump in report.jumps])
    rows = [[str(j.frame), f"{j.time_s:.3f}", j.id, f"{j.px:.1f}", "yes" if j.visible else "no"] for j in report.jumps]
    if rows:
        output.table("Jumps", ["frame", "time (s)", "id", "px", "visible"], rows)
    if report.low:
        low = [[part.id, str(part.first), str(part.last), f"{part.mean:.2f}"] for part in report.low]
        output.table("Low confidence", ["id", "first frame", "last frame", "mean confidence"], low)
    for line in report.sentences:
        output.note(line)
    output.document(asdict(report))


JUMP_COLUMNS = ("frame", "time_s", "id", "px", "since", "visible")

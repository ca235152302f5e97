"""``ptrack analyze``: clean tracks, find jumps, measure with units, planes and corner pins; frames to label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptrack.cli.console import Output
from ptrack.cli.options import Json, Overwrite, Quiet, examples, fields_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ptrack.tracks import Tracks

Source = Annotated[Path, typer.Argument(help="Tracks to read, in any readable format.", metavar="TRACKS")]
Fps = Annotated[
    float | None,
    typer.Option(help="Frames per second at which the source was taken. Default: the times in the tracks."),
]

group = typer.Typer(no_args_is_help=True)


def _read(source: Path, outputs: Iterable[Path | None], overwrite: bool) -> Tracks:
    """Read tracks once it is sure that the outputs can be written, none of them over the tracks."""
    from ptrack.analysis.files import check_outputs
    from ptrack.exports import load_any

    check_outputs(source, outputs, overwrite=overwrite)
    return load_any(source)


_CLEAN = examples(
    "ptrack analyze clean walk.tracks.h5 walk.clean.h5",
    "ptrack analyze clean walk.tracks.h5 walk.clean.h5 --smooth butterworth --cutoff 6 --max-gap 10",
    "ptrack analyze clean walk.tracks.h5 walk.clean.h5 --below-confidence 0.3 --smooth none",
)


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
    given = locals()
    from dataclasses import asdict

    from ptrack.analysis.cleaning import CleanConfig
    from ptrack.analysis.cleaning import clean as work
    from ptrack.tracks_io import format_of, save_tracks

    output = Output(json_mode=json, quiet=quiet)
    config = CleanConfig(**fields_of(CleanConfig, given))
    format_of(target)
    tracks, report = work(_read(source, [target], overwrite), config)
    save_tracks(tracks, target, overwrite=overwrite)
    output.result(*report.sentences, str(target))
    output.document({"file": str(target), **asdict(report)})


_JUMPS = examples(
    "ptrack analyze jumps walk.tracks.h5",
    "ptrack analyze jumps walk.tracks.h5 jumps.csv --below-confidence 0.3",
)


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
    output.note(*report.sentences)
    output.document(asdict(report))


JUMP_COLUMNS = ("frame", "time_s", "id", "px", "since", "visible")


_MEASURE = examples(
    "ptrack analyze measure walk.tracks.h5 walk.csv --scale 12.5px/mm",
    "ptrack analyze measure walk.tracks.h5 walk.csv --known nose,tail=50mm --distance nose,tail "
    "--angle left,nose,right",
    "ptrack analyze measure walk.tracks.h5 --scale px --fps 240 --plot walk.png",
)


@group.command(epilog=_MEASURE)
def measure(
    source: Source,
    target: Annotated[
        Path | None, typer.Argument(help="Table to write, a row per frame and point (.csv).", metavar="OUT")
    ] = None,
    scale: Annotated[
        str | None, typer.Option(help="Pixels per unit as 12.5px/mm, units per pixel as 0.08mm/px, or px.")
    ] = None,
    known: Annotated[
        str | None, typer.Option(help="The scale from two points of known distance: nose,tail=50mm.")
    ] = None,
    fps: Fps = None,
    origin: Annotated[
        str | None, typer.Option(help="(0, 0) of the coordinates: X,Y in pixels, or the id of a point, moving with it.")
    ] = None,
    y_up: Annotated[bool, typer.Option("--y-up", help="y grows upwards, from the picture's lower edge.")] = False,
    distance: Annotated[list[str] | None, typer.Option(help="Distance of two ids: nose,tail. Repeatable.")] = None,
    angle: Annotated[
        list[str] | None, typer.Option(help="Angle at the second of three ids: left,nose,right. Repeatable.")
    ] = None,
    occluded: Annotated[bool, typer.Option("--occluded", help="Also measure where points are occluded.")] = False,
    summary: Annotated[Path | None, typer.Option(help="Write the summary as a table too (.csv).")] = None,
    plot: Annotated[Path | None, typer.Option(help="Plot everything over time (.png, .svg, .pdf).")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Positions, speed, acceleration, path, distances and angles in units; a summary is printed."""
    given = locals()
    from ptrack.analysis import measuring as work
    from ptrack.analysis.files import write_rows
    from ptrack.analysis.plots import check_plot, plot_measures

    output = Output(json_mode=json, quiet=quiet)
    lists = {"distances": tuple(distance or ()), "angles": tuple(angle or ())}
    asked = work.MeasureRequest(**fields_of(work.MeasureRequest, given, **lists))
    check_plot(plot)
    tracks = _read(source, [target, summary, plot], overwrite)
    found = work.measure(tracks, asked.config(tracks))
    rows = work.summary(found)
    if target is not None:
        write_rows(target, work.frame_columns(found), work.frame_rows(found))
    if summary is not None:
        write_rows(summary, list(work.SUMMARY_COLUMNS), [[row[c] for c in work.SUMMARY_COLUMNS] for row in rows])
    if plot is not None:
        plot_measures(found, plot)
    cells = [
        ["" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows
    ]
    output.table("Summary", list(work.SUMMARY_COLUMNS), cells)
    output.note(*found.sentences)
    output.document({"unit": found.unit, "summary": rows, "sentences": found.sentences})


_PLANAR = examples(
    "ptrack analyze planar wall.tracks.h5 --table plane.csv",
    'ptrack analyze planar wall.tracks.h5 pin.tracks.h5 --corners "100,80 300,80 300,200 100,200"',
    "ptrack analyze planar wall.tracks.h5 --background --table stabilise.csv",
)


@group.command(epilog=_PLANAR)
def planar(
    source: Source,
    target: Annotated[
        Path | None,
        typer.Argument(help="Tracks file of the four --corners to write (.h5, .npz, .csv, .json).", metavar="OUT"),
    ] = None,
    corners: Annotated[
        str | None, typer.Option(help="x,y of four corners in the reference frame, from the upper left one clockwise.")
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="Ids of the points on the plane, with commas. Default: all.")
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="The points that move with the camera: stabilises the shot.")
    ] = False,
    reference: Annotated[
        int | None, typer.Option(help="Source frame to start from. Default: the first with the most points.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Pixels up to which a point agrees with the plane.")] = 3.0,
    table: Annotated[
        Path | None, typer.Option(help="Write the homographies of all frames, both ways, with residuals (.csv).")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Follow a plane: homographies by RANSAC, the corner pin of four corners, the transform that stabilises."""
    from ptrack.analysis import planar as work
    from ptrack.analysis.files import write_rows
    from ptrack.errors import ConfigError
    from ptrack.tracks_io import format_of, save_tracks

    output = Output(json_mode=json, quiet=quiet)
    if (target is None) != (corners is None):
        raise ConfigError("A corner pin needs both: four --corners, and the tracks file OUT to write them to.")
    if background and region:
        raise ConfigError("--background finds the points itself; leave --region out.")
    four = work.parse_corners(corners) if corners else ()
    if target is not None:
        format_of(target)
    ids = tuple(name.strip() for name in region.split(",")) if region else ()
    config = work.PlanarConfig(region=ids, reference=reference, threshold=threshold)
    tracks = _read(source, [target, table], overwrite)
    found = work.plane(tracks, replace(config, region=_background(tracks)) if background else config)
    sentences = found.sentences
    if target is not None:
        pin = work.corner_pin(tracks, found, four)
        sentences = (*sentences, pin.info.warnings[-1])
        save_tracks(pin, target, overwrite=overwrite)
        output.result(str(target))
    if table is not None:
        write_rows(table, list(work.PLANE_COLUMNS), work.plane_rows(found))
        output.result(str(table))
    output.result(*sentences)
    output.document({**work.as_document(found), "sentences": sentences})


def _background(tracks: Tracks) -> tuple[str, ...]:
    from ptrack.errors import TracksError
    from ptrack.viz.homography import background_points

    ids = tuple(str(i) for i in tracks.ids[background_points(tracks)])
    if not ids:
        raise TracksError("No points move together with the camera; name those of a plane with --region.")
    return ids


_SUGGEST = examples(
    "ptrack analyze suggest walk.mp4",
    "ptrack analyze suggest walk.mp4 frames.csv --frames 50 --sample 600",
    "ptrack analyze suggest walk.mp4 --frames 40 --images to_label",
)


@group.command(epilog=_SUGGEST)
def suggest(
    video: Annotated[str, typer.Argument(help="Video file or image folder.", show_default=False)],
    target: Annotated[
        Path | None, typer.Argument(help="Table of the frames to write (.csv).", metavar="OUT", show_default=False)
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames to suggest.")] = 20,
    sample: Annotated[int, typer.Option(help="Frames of the video to look at, at most, evenly spread.")] = 300,
    images: Annotated[
        Path | None, typer.Option(help="Also write the frames into this folder, as img00012.png for frame 12.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Suggest frames to label: those that differ most from each other.

    Of MP4, MOV and Matroska files of more than 2000 frames only key frames are looked at, if there are enough of them.
    The same video gives the same frames.
    """
    from ptrack.analysis.files import check_outputs, write_rows
    from ptrack.analysis.suggesting import SUGGEST_COLUMNS, SuggestConfig, suggest_frames, suggest_rows, write_pictures

    output = Output(json_mode=json, quiet=quiet)
    config = SuggestConfig(frames=frames, sample=sample)
    probe = images / "img.png" if images is not None else None  # is the folder one that can be written to?
    check_outputs(video, [target, probe], overwrite=overwrite)
    report = suggest_frames(video, config)
    rows = suggest_rows(report)
    if target is not None:
        write_rows(target, SUGGEST_COLUMNS, rows)
    files = write_pictures(video, report, images, overwrite=overwrite) if images is not None else []
    shown = [[str(s.frame), f"{s.time_s:.3f}", f"{100 * s.share:.0f} %"] for s in report.frames]
    output.table("Frames to label", ["frame", "time (s)", "like this one"], shown)
    output.note(*report.sentences)
    named = [dict(zip(SUGGEST_COLUMNS, row, strict=True)) for row in rows]
    if files:
        output.note(f"{len(files)} pictures in {images}.")
    document = {"frames": named, "sampled": report.sampled.tolist(), "sentences": report.sentences}
    output.document({**document, "images": [str(file) for file in files]})

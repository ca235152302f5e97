"""``ptrack convert tracks``: tracks into the file formats of other programs, and back from some of them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptrack.cli import options
from ptrack.cli.console import Output
from ptrack.errors import count

if TYPE_CHECKING:
    from ptrack.batch.exporting import ExportRequest

EPILOG = options.examples(
    "ptrack convert tracks walk.tracks.h5 walk.csv",
    "ptrack convert tracks walk.tracks.h5 walk_dlc.h5 --to dlc-h5",
    "ptrack convert tracks walk_dlc.csv walk.tracks.h5 --size 854x480",
    "ptrack convert tracks walk.tracks.h5 walk.nk --start-frame 1001",
    "ptrack convert tracks results/ tables/ --to csv",
    "ptrack convert tracks --list",
)


def convert_tracks(
    source: Annotated[
        Path | None,
        typer.Argument(help="Tracks to read: a file, a folder or a pattern.", metavar="IN", show_default=False),
    ] = None,
    target: Annotated[
        Path | None, typer.Argument(help="File to write; a folder for many.", metavar="OUT", show_default=False)
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Format to write; --list shows them. Default: by the ending of OUT.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Format to read. Default: by the ending and content of IN.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Frame size of tracks that do not hold it.", metavar="WIDTHxHEIGHT")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second of the video, for tracks that hold no times.")
    ] = None,
    start_frame: Annotated[
        int | None, typer.Option(help="Number that the video's first frame gets (Nuke, Natron), for example 1001.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the formats with their coordinate origins.")] = False,
    workers: options.FileWorkers = None,
    retries: options.Retries = 1,
    timeout: options.Timeout = None,
    report: options.Report = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Convert tracks to another program's format, or read them from one. Every format states its coordinate origin."""
    given = locals()
    from ptrack.errors import TracksError

    output = Output(json_mode=json, quiet=quiet)
    if show:
        _list(output)
        return
    if source is None or target is None:
        raise TracksError("Name the tracks to read and the file to write: ptrack convert tracks IN OUT --to FORMAT.")
    from ptrack.batch.exporting import ExportRequest, is_many

    if is_many(source):
        from ptrack.batch.driver import BatchOptions

        again = BatchOptions(**options.fields_of(BatchOptions, given))
        other = {"source": str(source), "out": str(target), "to": to or "", "options": again}
        request = ExportRequest(**options.fields_of(ExportRequest, given, **other))
        _convert_many(request, report, output)
        return
    many = {"--workers": workers, "--timeout": timeout, "--report": report}
    given = [name for name, value in many.items() if value is not None]
    if given:
        raise TracksError(f"{' and '.join(given)}: only for many files; name a folder or a pattern as IN.")
    from ptrack.exports.convert import convert_file

    found, tracks = convert_file(
        source, target, to=to, from_=from_, size=size, fps=fps, start_frame=start_frame, overwrite=overwrite
    )
    output.result(f"{target}: {count(tracks.num_points, 'point')}, {count(tracks.num_frames, 'frame')}, {found.name}")
    output.note(f"coordinates: {found.origin}")
    output.document(
        {
            "file": str(target),
            "format": found.name,
            "origin": found.origin,
            "points": tracks.num_points,
            "frames": tracks.num_frames,
        }
    )


def _convert_many(request: ExportRequest, report: Path | None, output: Output) -> None:
    from ptrack.batch.driver import BatchListener
    from ptrack.batch.exporting import export_many
    from ptrack.batch.report import check_report
    from ptrack.cli.batch import BatchDisplay, finish
    from ptrack.errors import TracksError

    if not request.to:
        raise TracksError("Name the format that many files are converted to with --to; --list shows them.")
    if report is not None:
        check_report(report)
    with ExitStack() as shown:

        def listener(total: int) -> BatchListener:
            return shown.enter_context(BatchDisplay(output, total)).listener()

        summary = export_many(request, listener)
    finish(summary, output, report)


def _list(output: Output) -> None:
    from ptrack.exports import FORMATS

    rows = [[f.name, f.suffix, "in, out" if f.read else "out", f.summary, f.origin] for f in FORMATS.values()]
    output.table("Formats", ["name", "ending", "ways", "what", "coordinates"], rows)
    keys = ("name", "suffix", "ways", "summary", "origin")
    output.document([dict(zip(keys, row, strict=True)) for row in rows])

"""``ptrack convert``: datasets into clip stores, looking into them, and what else has a form to change."""

from __future__ import annotations

from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated

import typer

from ptrack.cli import options
from ptrack.cli.console import Output
from ptrack.cli.results import check_files
from ptrack.errors import count

if TYPE_CHECKING:
    from ptrack.data.convert import ConvertOptions, Loader, Report
    from ptrack.data.source import Source

group = typer.Typer(no_args_is_help=False)

Store = Annotated[Path, typer.Argument(help="A clip store (.h5), a folder of them, or a pattern with *.")]


@group.callback(invoke_without_command=True)
def _group(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--list", help="List the datasets that can be converted.")] = False,
    json_mode: options.Json = False,
) -> None:
    """Convert a dataset to one HDF5 file: ptrack convert tapvid-davis tapvid_davis.pkl davis.h5."""
    if show:
        _list(Output(json_mode))
    elif context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def _list(output: Output) -> None:
    from ptrack.data.sources import names, source_class

    found = [source_class(name) for name in names()]
    output.table("Datasets", ["name", "dataset", "layout"], [[s.name, s.title, s.layout] for s in found])
    output.document([{"name": s.name, "title": s.title, "layout": s.layout} for s in found])


Codec = Annotated[
    str,
    typer.Option(help="keep: the source's own JPEG/PNG bytes, else its default; or jpeg, png, raw."),
]
Quality = Annotated[int, typer.Option(help="JPEG quality where frames have to be encoded, 1..100 (4:4:4).")]
Shards = Annotated[int, typer.Option(help="Divide the clips over so many files.")]
Workers = Annotated[int, typer.Option(help="Processes that load and check clips; one clip each in memory.", min=0)]
Limit = Annotated[int | None, typer.Option(help="Convert only the first so many clips.")]
Clips = Annotated[str, typer.Option(help="Only these clips: names or patterns, separated by commas.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read and check everything, write nothing.")]
Strict = Annotated[bool, typer.Option("--strict", help="Skip a clip with a damaged frame instead of marking it.")]
Depth = Annotated[bool, typer.Option("--depth", help="Also store depth pictures where the dataset has them.")]


def _add_source(name: str) -> None:
    """Register ``ptrack convert NAME ROOT OUT``."""

    @group.command(name, help=f"Convert {name}; see 'ptrack convert --list' for the layout of ROOT.")
    def command(
        root: Annotated[Path, typer.Argument(help="Where the dataset lies.")],
        out: Annotated[Path, typer.Argument(help="The HDF5 file to write.")],
        codec: Codec = "keep",
        quality: Quality = 95,
        shards: Shards = 1,
        workers: Workers = 0,
        retries: options.Retries = 1,
        timeout: options.Timeout = None,
        limit: Limit = None,
        clips: Clips = "",
        dry_run: DryRun = False,
        strict: Strict = False,
        overwrite: options.Overwrite = False,
        depth: Depth = False,
        json_mode: options.Json = False,
        quiet: options.Quiet = False,
    ) -> None:
        given = locals()
        from ptrack.data.convert import ConvertOptions
        from ptrack.data.sources import open_dataset

        wanted = ConvertOptions(**options.fields_of(ConvertOptions, given, clips=options.names(clips)))
        output = Output(json_mode, quiet)
        loader = make_loader(workers, retries, timeout, output)
        run(open_dataset(name, root, depth=depth), out, wanted, loader, dry_run, output)


def make_loader(workers: int, retries: int, timeout: float | None, output: Output) -> Loader:
    """Return what loads the clips of a conversion."""
    from ptrack.batch.converting import worker_loader
    from ptrack.batch.driver import BatchOptions

    return worker_loader(workers, BatchOptions(retries=retries, timeout=timeout), output.note)


def run(source: Source, out: Path, options: ConvertOptions, loader: Loader, dry: bool, output: Output) -> None:
    """Convert (or only check), show progress and the closing summary; exit code 1 if a clip was skipped."""
    from ptrack.data.convert import convert, dry_run

    if dry:
        report = dry_run(source, options, loader)
    else:
        from ptrack.cli.progress import Bar, Display

        with Display(output) as display:
            report = convert(
                source,
                out,
                options,
                lambda event: display.show(
                    Bar(name="Converting", done=event.position, total=event.total, unit="clips", details=(event.id,))
                ),
                loader,
            )
    _summary(report, dry, output)
    if report.skipped:
        raise typer.Exit(1)


def _summary(report: Report, dry: bool, output: Output) -> None:
    for name, frame, reason in report.damaged:
        output.warning(f"{name}: frame {frame} is damaged and marked. {reason}")
    for name, reason in report.skipped:
        output.warning(f"{name}: skipped. {reason}")
    output.note(*report.notes)
    size = report.bytes / 1e6
    kept = f" ({report.kept} from an earlier run)" if report.kept else ""
    what = "Would write" if dry else "Wrote"
    held = f"{count(report.frames, 'frame')}, {count(report.points, 'point')}"
    output.result(
        f"{what} {count(report.clips, 'clip')}{kept}, {held}, {size:.1f} MB; "
        f"{count(len(report.damaged), 'frame')} damaged, {count(len(report.skipped), 'clip')} skipped."
    )
    output.result(*report.files)
    output.document(report.as_dict())


@group.command("inspect")
def inspect_store(
    file: Store,
    sheet: Annotated[Path | None, typer.Option(help="Also draw clips with their tracks into this PNG.")] = None,
    rows: Annotated[int, typer.Option(help="Clips on the sheet.", min=1)] = 6,
    columns: Annotated[int, typer.Option(help="Frames of each clip on the sheet.", min=1)] = 5,
    overwrite: options.Overwrite = False,
    json_mode: options.Json = False,
) -> None:
    """Show what a clip store holds: ptrack convert inspect davis.h5 --sheet davis.png."""
    from ptrack.data.inspect import contact_sheet, describe

    check_files(sheet, overwrite=overwrite)
    output = Output(json_mode)
    data = describe(file)
    for key in ("files", "bytes", "clips", "frames", "tracks", "positions", "visible_positions", "splits", "codecs"):
        output.result(f"{key}: {data[key]}")
    for key, value in data["attributes"].items():
        output.result(f"attribute {key}: {value}")
    for key, value in data["arrays_of_first_clip"].items():
        output.result(f"array {key}: {value}")
    columns_of = ["id", "frames", "tracks", "height", "width"]
    output.table("Clips", columns_of, [[str(row[c]) for c in columns_of] for row in data["rows"]])
    if sheet is not None:
        output.note(f"Drew {contact_sheet(file, sheet, rows, columns)}.")
    output.document(data)


@group.command("verify")
def verify_store(file: Store, json_mode: options.Json = False, quiet: options.Quiet = False) -> None:
    """Decode every frame and check every array of a clip store; exit code 1 if something is wrong."""
    from dataclasses import asdict

    from ptrack.data.inspect import verify

    output = Output(json_mode, quiet)
    found = verify(file)
    output.warning(*found.problems)
    output.result(
        f"{count(found.clips, 'clip')}, {count(found.frames, 'frame')}, {found.damaged} marked as damaged, "
        f"{count(len(found.problems), 'problem')}; content {found.digest}"
    )
    output.document(asdict(found))
    if found.problems:
        raise typer.Exit(1)


for _module in iter_modules([str(Path(__file__).parent.parent / "data" / "sources")]):
    # By file name, as importing the sources would import NumPy. The synthetic world has no ROOT.
    if not _module.name.startswith("_") and _module.name != "synthetic":
        _add_source(_module.name.replace("_", "-"))

"""``ptrack eval``: score models and stored tracks on the field's benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptrack.cli import options
from ptrack.cli.console import Output
from ptrack.cli.results import check_files
from ptrack.errors import count

if TYPE_CHECKING:
    from ptrack.evaluation.results import EvaluationReport
    from ptrack.evaluation.runner import EvalProgress
    from ptrack.evaluation.subjects import EvalRequest

videos_option = options.panel("Videos")


def evaluate(
    dataset: Annotated[
        str,
        typer.Option(
            help="davis, kinetics, robotap, rgb_stacking, point_odyssey, dynamic_replica, ego_points, kubric, badja, "
            "synthetic, or custom for your own."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Original files or a clip store (.h5). synthetic makes 64 held-out clips without it."),
    ] = None,
    model: options.Models = None,
    checkpoint: options.Checkpoints = None,
    from_predictions: Annotated[
        list[Path] | None, options.model_option(help="Folder of VIDEO.npz with tracks, ours or another tool's.")
    ] = None,
    quality: options.Quality = None,
    memory: Annotated[
        int | None, options.model_option(help="Memory slots per point; the protocol's by default.")
    ] = None,
    support_grid: options.SupportGrid = None,
    threshold: Annotated[
        float | None, options.model_option(help="Visibility probability from which a point counts as visible.")
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    batch: Annotated[
        int | None, options.model_option(help="Frames per encoder call; results do not depend on it.", min=1)
    ] = None,
    query_mode: Annotated[str, videos_option(help="first or strided.")] = "first",
    videos: Annotated[str, videos_option(help="Only these: names or patterns, separated by commas.")] = "",
    limit: Annotated[int | None, videos_option(help="Only the first so many videos.", min=1)] = None,
    workers: options.Workers = None,
    retries: options.Retries = 1,
    timeout: options.Timeout = None,
    out: Annotated[
        list[Path] | None, options.output_option(help="Results as .json, .csv (per video) or .md; may be repeated.")
    ] = None,
    html: Annotated[Path | None, options.output_option(help="Report with curves and the worst videos.")] = None,
    save_predictions: Annotated[
        Path | None, options.output_option(help="Folder for VIDEO.npz with the tracks.")
    ] = None,
    run_dir: Annotated[
        Path | None,
        options.output_option(
            "--run-dir",
            help="Folder of per-video results, reused when content and settings are the same. "
            "Default: eval-runs/DATASET in this folder.",
        ),
    ] = None,
    recompute: Annotated[
        bool, options.output_option("--recompute", help="Do not reuse results of earlier runs.")
    ] = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score trackers: ptrack eval --dataset davis --data tapvid_davis.pkl --model matching --model lk."""
    given = locals()
    from ptrack.evaluation.results import check_format
    from ptrack.evaluation.subjects import EvalRequest

    outputs = [check_format(path) for path in out or []]
    check_files(*outputs, html, overwrite=overwrite)
    other = {
        "benchmark": dataset,
        "data": data or "",
        "models": tuple(model or ()),
        "checkpoints": tuple(checkpoint or ()),
        "predictions": tuple(from_predictions or ()),
        "mode": query_mode,
        "videos": options.names(videos),
        "run_dir": run_dir or Path("eval-runs") / dataset,
        "save": save_predictions,
    }
    request = EvalRequest(**options.fields_of(EvalRequest, given, **other))
    _run(request, outputs, html, Output(json_mode=json, quiet=quiet))


def _run(request: EvalRequest, outputs: list[Path], html: Path | None, output: Output) -> None:
    """Evaluate, show the table, write the files; exit code 1 if a video could not be evaluated."""
    import os

    from ptrack.cli.progress import Bar, Display
    from ptrack.evaluation.protocols import find_protocol
    from ptrack.evaluation.results import write
    from ptrack.evaluation.runner import evaluate, running

    protocol = find_protocol(request.benchmark)
    first = int(os.environ.get("RANK", "0")) == 0
    with Display(output if first else Output(quiet=True)) as display:

        def finished(step: EvalProgress) -> None:
            if first:
                output.note(running(step, protocol.headline[0], protocol.percent))
            display.show(Bar(name=step.model, done=step.done, total=step.total, unit="videos"))

        report = evaluate(request, finished)
    if first:
        for path in outputs:
            write(report, path)
        if html is not None:
            from ptrack.evaluation.report import write_html

            write_html(report, request, html)
        _show(report, output)
        output.note(*(f"wrote {path}" for path in [*outputs, *([html] if html else [])]))
    if report.failed:
        raise typer.Exit(1)


def _show(report: EvaluationReport, output: Output) -> None:
    from ptrack.evaluation.results import FAILED, SKIPPED, table

    for model in report.models:
        for video in model.having(SKIPPED):
            output.note(f"{model.model}: {video.name} is left out by the protocol: {video.reason}")
        for video in model.having(FAILED):
            output.warning(f"{model.model}: {video.name} could not be evaluated: {video.reason}")
        for key, number in model.left_out.items():
            if key in report.protocol.headline:
                output.note(
                    f"{model.model}: {key} is undefined for {count(number, 'video')}, which its mean leaves out"
                )
    columns, rows = table(report)
    output.table(f"{report.protocol.title}, queries: {report.mode}", columns, rows)
    output.document(report.to_mapping())
    if report.failed:
        output.note(f"{count(report.failed, 'video')} failed and counted in no mean")

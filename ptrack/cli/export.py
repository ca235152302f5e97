"""``ptrack export``: a model for programs without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptrack.cli import options
from ptrack.cli.console import Output

EPILOG = "Examples:\n\n    ptrack export --model nano --out nano_onnx"


def export(
    out: Annotated[Path, typer.Option("--out", help="A folder that does not exist yet, or is empty.", metavar="DIR")],
    model: options.Model = "nano",
    quality: options.Quality = None,
    checkpoint: options.Checkpoint = None,
    memory: options.Memory = None,
    vit_checkpoint: Annotated[
        Path | None,
        typer.Option(help="The frozen DINO of Track-On2 from a file.", metavar="FILE", rich_help_panel="Model"),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model as ONNX (encoder and step), with a description and an example that runs it without PyTorch."""
    given = locals()
    from ptrack.deploy.export import ExportOptions
    from ptrack.deploy.export import export as write

    output = Output(json, quiet)
    description = write(ExportOptions(**options.fields_of(ExportOptions, given)), output.note)
    output.result(f"{out}: encoder.onnx, step.onnx, model.json, ptrack_onnx.py (opset {description['opset']})")
    output.document(description)

"""``ptrack convert checkpoint``: published weights and training checkpoints to safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptrack.cli import options
from ptrack.cli.console import Output


def checkpoint(
    source: Annotated[
        Path, typer.Argument(help="Published file of Track-On2, Track-On-R, TAPNext or TAPNext++, or latest.pth.")
    ],
    target: Annotated[Path, typer.Argument(help="File to write (.safetensors).")],
    backbone: Annotated[
        str | None, typer.Option(help="Transformer of a file that holds none, e.g. dinov3_s_plus (the default).")
    ] = None,
    model: Annotated[
        str, typer.Option(help="tapnext, tapnextpp or tapnextpp-512, for a file whose name does not say which.")
    ] = "",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Convert published or trained weights to safetensors, which hold no code and load faster.

    Example: ptrack convert checkpoint trackon2_dinov2_checkpoint.pt trackon2.safetensors
    """
    from ptrack.models.conversion import convert

    output = Output(json_mode=json, quiet=quiet)
    done = convert(source, target, model=model, backbone=backbone, overwrite=overwrite)
    output.result(f"{target}: {done.summary}")
    output.document({"path": str(target), **done.facts})

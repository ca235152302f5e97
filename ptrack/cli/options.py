"""Options that several commands share: each stands here once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

Occluded = Annotated[
    bool | None,
    typer.Option(
        "--occluded/--no-occluded",
        help="Draw occluded points, as rings, always or never. Default: fading, for some frames.",
        rich_help_panel="Look",
        show_default=False,
    ),
]
Trail = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Frames of a trail, 0 for none. Default: 12, and no longer than a quarter of the frame.",
        rich_help_panel="Look",
        show_default=False,
    ),
]

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel="Output")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.", rich_help_panel="Output")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.", rich_help_panel="Output")]
ResultFile = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Also write the result as JSON into this file.", metavar="FILE", rich_help_panel="Output"
    ),
]


def _complete_model(incomplete: str) -> list[str]:
    from ptrack.models.zoo import models

    return [name for name in models() if name.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Option(
        help="Model name; 'ptrack models' lists them.", autocompletion=_complete_model, rich_help_panel="Model"
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Model name; several give one table.",
        autocompletion=_complete_model,
        rich_help_panel="Model",
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="Weights file, for models that take one.", metavar="FILE", rich_help_panel="Model"),
]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Option(
        "--checkpoint",
        help="Weights, one per model that takes a file, in order.",
        metavar="FILE",
        rich_help_panel="Model",
    ),
]
Quality = Annotated[
    str | None,
    typer.Option(help="fast, default or best: the input's size, for models that have it.", rich_help_panel="Model"),
]
Memory = Annotated[int | None, typer.Option(help="Memory slots per point (Track-On2).", rich_help_panel="Model")]
SupportGrid = Annotated[
    int | None,
    typer.Option(help="Points per side of the extra grid that gives Track-On2 context.", rich_help_panel="Model"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel="Model")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.", rich_help_panel="Model")]


def _use_threads(number: int | None) -> int | None:
    """Let this process and those it starts use so many threads; their libraries read it when they are loaded."""
    if number is not None:
        os.environ["OMP_NUM_THREADS"] = str(number)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(number)
    return number


Threads = Annotated[
    int | None,
    typer.Option(
        help="CPU threads of the model. Default: what OMP_NUM_THREADS says, else one per core.",
        min=1,
        metavar="N",
        callback=_use_threads,
        show_default=False,
        rich_help_panel="Model",
    ),
]

MANY = "Many videos"
Workers = Annotated[
    int | None, typer.Option(help="Processes, each with its own model.", metavar="N", rich_help_panel=MANY)
]
Retries = Annotated[
    int,
    typer.Option(help="Further tries after a crash, a timeout or a network error.", rich_help_panel=MANY),
]
Timeout = Annotated[
    float | None, typer.Option(help="Seconds for one video or clip.", metavar="SECONDS", rich_help_panel=MANY)
]

QueryFile = Annotated[
    Path | None,
    typer.Option(
        "--queries", help="Points from a CSV (t,x,y[,id]), JSON or NPZ.", metavar="FILE", rich_help_panel="Points"
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        help="Points inside an image of the object: its non-zero or opaque pixels.",
        metavar="FILE",
        rich_help_panel="Points",
    ),
]

"""Options that several commands share: each stands here once."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer


def panel(title: str) -> Any:
    """Return ``typer.Option`` for the options of one panel of the help."""
    return partial(typer.Option, rich_help_panel=title)


points_option, model_option, look_option = panel("Points"), panel("Model"), panel("Look")
output_option, many_option = panel("Output"), panel("Many videos")

Occluded = Annotated[
    bool | None,
    look_option(
        "--occluded/--no-occluded",
        help="Draw occluded points, as rings, always or never. Default: fading, for some frames.",
        show_default=False,
    ),
]
Trail = Annotated[
    int | None,
    look_option(
        min=0,
        help="Frames of a trail, 0 for none. Default: 12, and no longer than a quarter of the frame.",
        show_default=False,
    ),
]

Json = Annotated[bool, output_option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, output_option("--quiet", "-q", help="Only errors.")]
Overwrite = Annotated[bool, output_option("--overwrite", help="Replace existing outputs.")]
ResultFile = Annotated[
    Path | None,
    output_option("--out", help="Also write the result as JSON into this file.", metavar="FILE"),
]


def _complete_model(incomplete: str) -> list[str]:
    from ptrack.models.zoo import models

    return [name for name in models() if name.startswith(incomplete)]


Model = Annotated[
    str,
    model_option(help="Model name; 'ptrack models' lists them.", autocompletion=_complete_model),
]
Models = Annotated[
    list[str] | None,
    model_option("--model", help="Model name; several give one table.", autocompletion=_complete_model),
]
Checkpoint = Annotated[
    Path | None,
    model_option(help="Weights file, for models that take one.", metavar="FILE"),
]
Checkpoints = Annotated[
    list[Path] | None,
    model_option("--checkpoint", help="Weights, one per model that takes a file, in order.", metavar="FILE"),
]
Quality = Annotated[
    str | None,
    model_option(help="fast, default or best: the input's size, for models that have it."),
]
Memory = Annotated[int | None, model_option(help="Memory slots per point (Track-On2).")]
SupportGrid = Annotated[
    int | None,
    model_option(help="Points per side of the extra grid that gives Track-On2 context."),
]
Device = Annotated[str, model_option(help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[str, model_option(help="auto, float32, bfloat16 or float16.")]


def _use_threads(number: int | None) -> int | None:
    """Let this process and those it starts use so many threads; their libraries read it when they are loaded."""
    if number is not None:
        os.environ["OMP_NUM_THREADS"] = str(number)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(number)
    return number


Threads = Annotated[
    int | None,
    model_option(
        help="CPU threads of the model. Default: what OMP_NUM_THREADS says, else one per core.",
        min=1,
        metavar="N",
        callback=_use_threads,
        show_default=False,
    ),
]

Workers = Annotated[int | None, many_option(help="Processes, each with its own model.", metavar="N")]
FileWorkers = Annotated[int | None, many_option("--workers", help="Processes that convert files.", metavar="N")]
Retries = Annotated[
    int,
    many_option(help="Further tries after a crash, a timeout or a network error."),
]
Timeout = Annotated[float | None, many_option(help="Seconds for one video, clip or file.", metavar="SECONDS")]
Report = Annotated[Path | None, many_option(help="What became of each, as .json or .csv.", metavar="FILE")]

QueryFile = Annotated[
    Path | None,
    points_option("--queries", help="Points from a CSV (t,x,y[,id]), JSON or NPZ.", metavar="FILE"),
]
Mask = Annotated[
    Path | None,
    points_option(help="Points inside an image of the object: its non-zero or opaque pixels.", metavar="FILE"),
]

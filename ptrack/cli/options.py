"""Options that several commands share: each stands here once."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ptrack.errors import ConfigError

_TIME = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ms|s|m|min|h|d)?")
_UNITS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def panel(title: str) -> Any:
    """Return ``typer.Option`` for the options of one panel of the help."""
    return partial(typer.Option, rich_help_panel=title)


def examples(*lines: str) -> str:
    """Return the end of a command's help: command lines, each a paragraph of its own."""
    return "\n\n".join(["Examples:", *lines]) + "\n"


def fields_of(config: type, given: Mapping[str, Any], **other: Any) -> dict[str, Any]:
    """Return the options that have the name of a field of a dataclass, and ``other`` fields, which come first.

    ``given`` is what ``locals()`` returns in the first line of a command: its options by name. A test reads all
    commands for options that have no field, and for fields that no option has.
    """
    return {f.name: given[f.name] for f in dataclasses.fields(config) if f.name in given} | other


def names(text: str | None) -> tuple[str, ...]:
    """Return what a text with commas lists, nothing for None."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def seconds_of(text: str | None, option: str) -> float | None:
    """Parse a length of time: ``90``, ``90s``, ``5m``, ``1h``, ``2d``; raises ConfigError."""
    if text is None:
        return None
    found = _TIME.fullmatch(text.strip().lower())
    if not found:
        raise ConfigError(f"{option} {text}: give a time such as 90, 90s, 5m, 1h or 2d.")
    return float(found[1]) * _UNITS[found[2]]


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

"""``ptrack bench live``: how old results are when they are published."""

from __future__ import annotations

from typing import Annotated

import typer

from ptrack.cli import options
from ptrack.cli.console import Output
from ptrack.cli.results import check_files, finish_json, parse_size


def live(
    model: Annotated[str, typer.Option(help="Model name.")] = "nano",
    quality: Annotated[str | None, typer.Option(help="fast, default or best, for models that have it.")] = None,
    points: Annotated[int, typer.Option(help="Points per side of a grid.", min=1)] = 8,
    rate: Annotated[
        list[float] | None, typer.Option(help="Pictures per second; may be repeated. Default: 15, 30, 60.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time per rate, after a warm-up of 2 s.", min=0.5)] = 10.0,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the pictures.")] = "640x480",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    out: options.ResultFile = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Time a stream on this machine from camera to message: ptrack bench live --rate 15 --rate 60."""
    given = locals()
    from ptrack.bench.live import LiveBenchOptions, bench_live, to_mapping

    check_files(out, overwrite=overwrite)
    rates = tuple(rate or (15.0, 30.0, 60.0))
    wanted = LiveBenchOptions(**options.fields_of(LiveBenchOptions, given, rates=rates, size=parse_size(size)))
    rows = bench_live(wanted, Output(quiet=quiet).result)
    finish_json(to_mapping(wanted, rows), out)

"""``ptrack bench train``: clips per second and memory of training."""

from __future__ import annotations

from typing import Annotated

import typer

from ptrack.cli import options
from ptrack.cli.console import Output
from ptrack.cli.results import check_files, finish_json
from ptrack.errors import count


def train(
    config: Annotated[
        str | None, typer.Option(help="YAML file, or the name of one in configs/train. Default: small Track-On2.")
    ] = None,
    set_values: Annotated[list[str] | None, typer.Option("--set", help="Any key: --set batch_size=8.")] = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    amp: Annotated[str, typer.Option(help="auto, off, bf16 or fp16.")] = "auto",
    steps: Annotated[int, typer.Option(help="Timed steps.", min=1)] = 5,
    warmup: Annotated[int, typer.Option(help="Steps before that.", min=0)] = 1,
    plain: Annotated[
        bool, typer.Option("--plain/--no-plain", help="Also time a plain loop over clips, frames.")
    ] = True,
    out: options.ResultFile = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Time training steps: ptrack bench train --config track_on2_kubric_dinov2 --device cuda."""
    check_files(out, overwrite=overwrite)
    from ptrack.bench.train import bench_train
    from ptrack.training.recipes import TrainRequest, resolve

    output = Output(quiet=quiet)
    model = {} if config else {"model": "track-on2"}
    plan = resolve(TrainRequest({"device": device, "amp": amp, **model}, config, tuple(set_values or ())))
    result = bench_train(plan.config, steps=steps, warmup=warmup, plain=plain, note=output.note)
    output.result(
        f"{result.clips_per_second:.2f} clips/s of {count(result.frames, 'frame')}, {count(result.points, 'point')}, "
        f"{result.size[1]}x{result.size[0]} px in batches of {result.batch} on {result.device}; "
        f"peak memory {result.memory_mib:.0f} MiB"
    )
    if result.speedup is not None:
        output.result(f"{result.speedup:.2f} times as fast as a plain loop over clips and frames")
    finish_json(result.as_dict(), out)

"""``ptrack train``: train nano, the transformer or Track-On2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptrack.cli import options
from ptrack.cli.console import Output
from ptrack.errors import count

if TYPE_CHECKING:
    from ptrack.training.engine import TrainResult
    from ptrack.training.recipes import TrainRequest

DATA, MODEL, RECIPE, RUN = "Data", "Model", "Recipe", "Run"


def _option(name: str, text: str, panel: str) -> Any:
    """Declare an option that may be spelled with dashes or underscores."""
    names = dict.fromkeys([f"--{name}", f"--{name.replace('-', '_')}"])
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False)


def _flag(name: str, text: str, panel: str) -> Any:
    """Declare a switch ``--name/--no-name``, also spelled ``--no_name``."""
    return typer.Option(f"--{name}/--no-{name}", f"--{name}/--no_{name}", help=text, rich_help_panel=panel)


def train(
    data_root: Annotated[
        str | None, _option("data-root", "Converted .h5 files or a PointOdyssey folder (rendered scenes).", DATA)
    ] = None,
    video_dirs: Annotated[str | None, _option("video-dirs", "Only these videos, separated by commas.", DATA)] = None,
    sequence_length: Annotated[int | None, _option("sequence-length", "Frames of a clip (8).", DATA)] = None,
    num_points: Annotated[int | None, _option("num-points", "Points of a clip, at most (8).", DATA)] = None,
    image_size: Annotated[int | None, _option("image-size", "Side of the square frames, pixels (256).", DATA)] = None,
    num_workers: Annotated[int | None, _option("num-workers", "Loader processes (4).", DATA)] = None,
    eval_data: Annotated[
        str | None, _option("eval-data", "Scored after each epoch: davis:FILE.pkl or a converted .h5.", DATA)
    ] = None,
    model: Annotated[
        str | None,
        _option("model", "nano, transformer, track-on2 (nano; transformer if there is a data set).", MODEL),
    ] = None,
    backbone: Annotated[
        str | None, _option("backbone", "resnet18, resnet34, resnet50, lite0 (resnet18); track-on2: others too.", MODEL)
    ] = None,
    pretrained: Annotated[bool | None, _flag("pretrained", "Start the backbone from published weights.", MODEL)] = None,
    iterations: Annotated[
        int | None, _option("iterations", "Refinements of the transformer, 1 is plain (4).", MODEL)
    ] = None,
    init_from: Annotated[
        str | None, _option("init-from", "Weights to start from: a file or a model's name.", MODEL)
    ] = None,
    config: Annotated[str | None, _option("config", "YAML file, or the name of one in configs/train.", RECIPE)] = None,
    set_values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any key of the configuration: --set arch.layers=6.",
            rich_help_panel=RECIPE,
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int | None, _option("batch-size", "Clips per step and process (4).", RECIPE)] = None,
    epochs: Annotated[int | None, _option("epochs", "Times through the data (50).", RECIPE)] = None,
    max_steps: Annotated[int | None, _option("max-steps", "Stop after so many steps.", RECIPE)] = None,
    lr: Annotated[float | None, _option("lr", "Peak learning rate (1e-4).", RECIPE)] = None,
    grad_accum: Annotated[int | None, _option("grad-accum", "Forward passes per step (1).", RECIPE)] = None,
    ema: Annotated[float | None, _option("ema", "Decay of averaged weights, 0 for none.", RECIPE)] = None,
    amp: Annotated[str | None, _option("amp", "auto, off, bf16 or fp16 (auto: off on the CPU).", RECIPE)] = None,
    seed: Annotated[
        int | None, _option("seed", "Decides initialisation, order, augmentation, dropout (0).", RECIPE)
    ] = None,
    save_dir: Annotated[str | None, _option("save-dir", "Checkpoints and pictures (./checkpoints).", RUN)] = None,
    log_dir: Annotated[str | None, _option("log-dir", "TensorBoard and training.jsonl (./logs).", RUN)] = None,
    resume: Annotated[str | None, _option("resume", "Go on from a checkpoint or its folder.", RUN)] = None,
    save_every: Annotated[
        str | None, _option("save-every", "Seconds between saves, 60 or 60s or 5m (60s).", RUN)
    ] = None,
    eval_every: Annotated[int | None, _option("eval-every", "Steps between validations (each epoch).", RUN)] = None,
    keep: Annotated[int | None, _option("keep", "Generations of latest.pth that stay (2).", RUN)] = None,
    device: Annotated[str | None, _option("device", "auto, cpu, cuda, cuda:1 or mps (auto).", RUN)] = None,
    threads: options.Threads = None,
    compile_model: Annotated[bool | None, _flag("compile", "torch.compile the model.", RUN)] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a tracker; without options nano, the packaged model, on rendered scenes.

    ptrack train --data-root pointodyssey/train --batch-size 8 --epochs 100

    ptrack train --resume checkpoints/latest.pth

    torchrun --nproc-per-node 4 -m ptrack train --config track_on2_kubric_dinov3 --data-root kubric.h5
    """
    given = locals()
    from ptrack.training.config import TrainConfig
    from ptrack.training.recipes import TrainRequest

    data = _given(
        root=data_root,
        videos=names(video_dirs),
        sequence_length=sequence_length,
        num_points=num_points,
        image_size=None if image_size is None else [image_size, image_size],
    )
    parts = {"data": data, "arch": _given(backbone=backbone, iterations=iterations)}
    other = {"save_every": options.seconds_of(save_every, "--save-every"), "compile": compile_model, **parts}
    values = _given(**options.fields_of(TrainConfig, given, **other))
    run(TrainRequest(values, config, tuple(set_values or ()), resume), Output(json, quiet))


def _given(**values: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {key: value for key, value in values.items() if value is not None and value != {}}


def names(text: str | None) -> list[str] | None:
    """Split a list with commas; folders are taken by their last part."""
    return None if text is None else [name.rstrip("/").rpartition("/")[2] for name in options.names(text)]


def describe_best(result: TrainResult) -> str:
    """Return the best validation as a part of a sentence; mentions it if training never came above its start."""
    if not result.best:
        return ""
    score, step = result.best["score"], result.best["step"]
    if step == 0:
        return f"; no validation was better than before training ({score:.2f}): best.safetensors holds these weights"
    start = f", {result.start:.2f} before training" if result.start is not None else ""
    return f"; best validation {score:.2f} after step {step:.0f}{start}"


def run(request: TrainRequest, output: Output) -> None:
    """Resolve the configuration, show it, train, and name the folder of the results."""
    import os
    from pathlib import Path

    from ptrack.cli.progress import TrainDisplay
    from ptrack.config import to_mapping
    from ptrack.training.logging import PlainLines
    from ptrack.training.recipes import resolve
    from ptrack.training.run import describe, train

    first = os.environ.get("RANK", "0") == "0"
    if not first:
        output = Output(quiet=True)
    plan = resolve(request)
    output.note(describe(plan.config).rstrip())
    with TrainDisplay(output) as display:
        listener = display if display.live else PlainLines(output.note)
        result = train(plan, [] if output.quiet else [listener], output.note)
    folder = Path(plan.config.save_dir)
    done = f"Trained {count(result.steps, 'step')}{describe_best(result)}"
    output.result(f"{done}. Checkpoints, weights and pictures are in {folder}.")
    if first:
        output.document(
            {
                "steps": result.steps,
                "epochs": result.epochs,
                "best": result.best,
                "latest": str(result.latest),
                "weights": str(folder / "best.safetensors"),
                "config": to_mapping(plan.config),
            }
        )

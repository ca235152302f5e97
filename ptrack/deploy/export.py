"""``ptrack export``: a model as two ONNX graphs, a description, and an example that runs them without torch.

DIR/encoder.onnx    a frame -> its features
DIR/step.onnx       frame, features, joining points, state -> positions, visibility, confidence, state
DIR/model.json      names, shapes, where the state starts, sizes, the weights' sha256
DIR/ptrack_onnx.py  tracks a video with numpy, onnxruntime and av
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ptrack._version import __version__
from ptrack.deploy.graphs import ANY, OUTPUTS, Axes, Graphs, adapter_of, graphs_of
from ptrack.errors import ModelError, OutputError
from ptrack.fileio import temporary_name
from ptrack.models.base import Configured, OnlineModel
from ptrack.models.entry import LoadedModel
from ptrack.models.zoo import build, find
from ptrack.tensors import dtype_name

OPSET = 20
NEEDED = ("onnx", "onnxscript")
EXAMPLE = "ptrack_onnx.py"
MOST = 1 << 16  # of every open axis


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is exported, and where to."""

    model: str
    out: Path  # a folder that does not exist or is empty
    checkpoint: Path | None = None
    quality: str | None = None
    memory: int | None = None
    vit_checkpoint: Path | None = None


def export(options: ExportOptions, note: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Export a model and return its description (``model.json``).

    Raises:
        ModelError: unknown model or option, a model that cannot be exported, or a missing package.
        CheckpointError: the weights are missing or damaged.
        OutputError: the folder is not empty or cannot be written.
    """
    entry = find(options.model)
    adapter_of(entry)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(f"Exporting needs {' and '.join(missing)}; install with: pip install 'pointtrack[onnx]'.")
    _check_folder(options.out)
    given = {"quality": options.quality, "memory": options.memory, "vit_checkpoint": options.vit_checkpoint}
    loaded = build(options.model, checkpoint=options.checkpoint, device="cpu", dtype="float32", **given)
    graphs = graphs_of(entry, loaded)
    description = describe(graphs, loaded)
    return write(graphs, description, options.out, note)


def _check_folder(out: Path) -> None:
    """Raise OutputError unless ``out`` can become the folder."""
    try:
        if out.exists() and not out.is_dir():
            raise OutputError(f"{out} is a file; give a folder that does not exist yet.")
        if out.is_dir() and any(out.iterdir()):
            raise OutputError(f"The folder {out} is not empty; choose another one or empty it.")
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.absolute().parent):
            pass
    except OSError as error:
        raise OutputError(f"Cannot write {out}: {error.strerror}. Choose a writable place.") from error


def describe(graphs: Graphs, loaded: LoadedModel) -> dict[str, Any]:
    """Return what a program must know to run the graphs."""
    model: OnlineModel = loaded.model
    assert isinstance(model, Configured)  # as all that can be exported are
    state = [
        {
            "name": x.name,
            "shape": list(x.axes),
            "dtype": dtype_name(x.example.dtype),
            "first": x.first,
            **({"most": x.most} if x.most is not None else {}),
        }
        for x in graphs.state
    ]
    return {
        "model": model.name,
        "ptrack": __version__,
        "weights_sha256": loaded.weights_sha256,
        "options": {key: str(value) for key, value in loaded.options.items()},
        "opset": OPSET,
        "files": {"encoder": "encoder.onnx", "step": "step.onnx"},
        "axes": {
            "N": "points of the state",
            "M": "points that join on this frame",
            "H": "height of the frame, pixels",
            "W": "width of the frame, pixels",
            "S": "remembered frames",
        },
        "frame": {"shape": [1, "H", "W", 3], "dtype": "uint8", "layout": "RGB, upright"},
        "input_size": list(model.config.input_size),
        "normalisation": "inside the encoder, resizing to input_size (height, width) included",
        "pixels": "(x, y), (0, 0) is the upper-left corner of the upper-left pixel",
        "features": [
            {"name": x.name, "shape": list(x.axes), "dtype": dtype_name(x.example.dtype)} for x in graphs.features
        ],
        "outputs": list(OUTPUTS),
        "state": state,
        "threshold": model.threshold,
        "support_grid": model.support_grid,
    }


def write(
    graphs: Graphs, description: dict[str, Any], out: Path, note: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Trace both graphs and write the folder, which appears when it is whole."""
    place = out.absolute()
    partial = temporary_name(place)
    try:
        partial.mkdir()
        note("tracing the encoder")
        _trace(graphs.encoder, [("frame", graphs.frame, (1, "H", "W", 3))], [f.name for f in graphs.features], partial)
        note("tracing the step, which takes longer")
        inputs = [
            ("frame", graphs.frame, (1, "H", "W", 3)),
            *((f.name, f.example, f.axes) for f in graphs.features),
            ("new", torch.tensor([[30.0, 40.0], [50.0, 60.0], [70.0, 20.0]]), ("M", 2)),
            *((f"state.{s.name}", s.example, s.axes) for s in graphs.state),
        ]
        _trace(graphs.step, inputs, [*OUTPUTS, *(f"new.{s.name}" for s in graphs.state)], partial)
        (partial / "model.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
        (partial / EXAMPLE).write_bytes((resources.files("ptrack.deploy") / EXAMPLE).read_bytes())
        os.replace(partial, place)
    except OSError as error:
        raise OutputError(f"Cannot write {out}: {error.strerror}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return description


def _trace(module: nn.Module, inputs: list[tuple[str, torch.Tensor, Axes]], outputs: list[str], folder: Path) -> None:
    """Write ``encoder.onnx`` or ``step.onnx``, whichever the inputs are for."""
    dims = {name: torch.export.Dim(name, min=least, max=MOST) for name, least in ANY.items()}
    shapes = tuple({i: dims[a] for i, a in enumerate(axes) if isinstance(a, str)} for _, _, axes in inputs)
    positional = shapes[:1] if len(inputs) == 1 else _as_signature(module, shapes)
    name = "encoder" if len(inputs) == 1 else "step"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            module.eval(), tuple(x for _, x, _ in inputs), dynamic_shapes=positional, strict=False
        )
        onnx = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[name for name, _, _ in inputs],
            output_names=outputs,
            external_data=False,
            optimize=False,  # onnxscript 0.7.2 merges values that differ: aligned positions were up to 4 px off
            verbose=False,
        )
        assert onnx is not None
        onnx.save(folder / f"{name}.onnx")


def _as_signature(module: nn.Module, shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Group the shapes of a module whose last parameter is ``*tensors`` as torch.export wants them."""
    import inspect

    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return shapes
    return (*shapes[: len(kinds) - 1], shapes[len(kinds) - 1 :])

"""Weights of TAPNext on disk: the published PyTorch and NumPy files, and safetensors with the configuration inside.

Names of tensors are those of the published PyTorch files, which are also those of the model. The NumPy files (TAPNext
and BootsTAPNext were trained in JAX) have other names, matrices with the input channel first, and attention heads
separate. Nothing in any file is ever executed.

Letters: C channels, h heads, d = C / h.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptrack.errors import CheckpointError, ConfigError, ModelError, did_you_mean
from ptrack.fileio import sha256_of
from ptrack.models import saved
from ptrack.models.saved import read_tensors
from ptrack.models.tapnext.config import TapNextConfig
from ptrack.models.tapnext.model import TapNext, sine_rows
from ptrack.untrusted import npz
from ptrack.untrusted.limits import reading

FORMAT = "ptrack-tapnext-1"  # in the metadata of our safetensors files
TABLE = "query_pos_embed"  # fixed sines that the published PyTorch files also hold
SIZES = {"tapnext": 256, "tapnextpp": 256, "tapnextpp-512": 512}  # side of the frames a network was trained on
FILES = {"bootstapnext_ckpt.npz": "tapnext", "tapnextpp_ckpt.pt": "tapnextpp", "tapnextpp_512.ckpt": "tapnextpp-512"}

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class TapNextCheckpoint:
    """Weights and what they are for."""

    config: TapNextConfig
    state: State  # names of the model; float32 on the CPU
    model: str = ""  # the name in ``ptrack models`` that they belong to; "" where the file leaves it open


# ---- files ----------------------------------------------------------------------------------------------------------


def read_checkpoint(path: Path | str, *, model: str = "") -> TapNextCheckpoint:
    """Read published weights, PyTorch or NumPy, or a safetensors file of ours.

    Published files do not state which network they are: all have the same tensors. Their names do.

    Args:
        path: the file.
        model: the name that the weights are asked for; it sets the size of the frames.

    Raises:
        CheckpointError: not readable, not such a file, or the weights of another network than ``model``.
        ModelError: there is no such model.
    """
    path = Path(path)
    metadata, state = _read(path)
    if "config" in metadata:
        config = saved.configuration(metadata, FORMAT, TapNextConfig, str(path))
        return _for(TapNextCheckpoint(config=config, state=state, model=metadata.get("model", "")), model, path)
    state = to_model(state, str(path))
    found = TapNextCheckpoint(config=_config(state), state=state, model=FILES.get(path.name, ""))
    return _for(found, model, path)


def holds(path: Path | str) -> bool:
    """Return whether a file looks like TAPNext's weights, of any of the three kinds.

    Raises:
        CheckpointError: it cannot be read.
    """
    metadata, state = _read(Path(path))
    return metadata.get("format") == FORMAT if metadata else bool(_stripped(state).keys() & _SIGNS)


_SIGNS = {"lin_proj.weight", "point_query_token", "backbone/embedding/kernel", "backbone/point_query_token"}


def _read(path: Path) -> tuple[dict[str, str], State]:
    """Return the metadata (safetensors only) and the tensors of a file."""
    if _is_npz(path):
        return {}, _read_npz(path)
    if path.suffix == ".safetensors":
        return saved.read(path, "; download or convert it again")
    return {}, read_tensors(path)


def _is_npz(path: Path) -> bool:
    """Whether a zip archive holds NumPy arrays; one of ``torch.save`` holds a pickle. By name where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return path.suffix == ".npz" and path.is_file()


def _read_npz(path: Path) -> State:
    with reading(path, CheckpointError, "weights in a NumPy archive"):
        return {name: torch.from_numpy(_array(values)) for name, values in npz.arrays(path).items()}


def _array(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32) if values.dtype.kind == "f" else values


def save_checkpoint(path: Path | str, checkpoint: TapNextCheckpoint, **notes: str) -> None:
    """Write safetensors with the configuration, the model's name and some text ``notes`` in its metadata.

    Raises:
        OutputError: the file cannot be written.
    """
    saved.write(path, FORMAT, checkpoint.config, checkpoint.state, model=checkpoint.model, **notes)


def convert(source: Path | str, target: Path | str, *, model: str = "", overwrite: bool = False) -> dict[str, Any]:
    """Write the weights of ``source`` as safetensors and return what they are.

    Args:
        source: a published file.
        target: the file to write.
        model: the name the weights belong to, where the file's name leaves it open.
        overwrite: replace an existing target.

    Raises:
        CheckpointError: ``source`` cannot be used.
        OutputError: ``target`` exists, has another suffix, or cannot be written.
        ModelError: there is no such model.
    """
    target = saved.check_target(target, overwrite=overwrite)
    checkpoint = read_checkpoint(source, model=model)
    if not checkpoint.model:
        raise CheckpointError(f"{source} does not say which network it is; add --model with one of {', '.join(SIZES)}.")
    save_checkpoint(target, checkpoint, source_sha256=sha256_of(source))
    return {
        "model": checkpoint.model,
        "tensors": len(checkpoint.state),
        "input_size": checkpoint.config.input_size,
    }


# ---- which network --------------------------------------------------------------------------------------------------


def _for(found: TapNextCheckpoint, model: str, path: Path) -> TapNextCheckpoint:
    """Return the checkpoint as that of ``model`` (any: ""), complete and with that network's frame size."""
    name = model or found.model
    if name and name not in SIZES:
        raise ModelError(f"TAPNext's weights are {', '.join(SIZES)}, not '{name}'.{did_you_mean(name, SIZES)}")
    if name and found.model and name != found.model:
        raise CheckpointError(
            f"{path} holds the weights of {found.model}, not of {name}; load them with --model {found.model}."
        )
    own = found.config
    published = TapNextConfig(input_size=own.input_size) == own  # a network of another shape keeps its own frame size
    config = TapNextConfig(input_size=SIZES[name]) if name and published else own
    if text := saved.differences(expected_shapes(config), found.state):
        raise CheckpointError(f"{path} does not fit {name or 'TAPNext'}: {text}.")
    return TapNextCheckpoint(config=config, state=found.state, model=name)


def _config(state: Mapping[str, Tensor]) -> TapNextConfig:
    """Read the architecture off the shapes of published tensors; what cannot be read is as published."""
    width = _size(state, "mask_token", 3, 768)
    bins = _size(state, "coordinate_head.6.weight", 0, 512)
    given = {
        "raster": bins // 2,
        "input_size": bins // 2,
        "patch": _size(state, "lin_proj.weight", 2, 8),
        "width": width,
        "depth": 1 + max((int(m[1]) for m in (re.match(r"blocks\.(\d+)\.", k) for k in state) if m), default=11),
        "heads": _size(state, "blocks.0.ssm_block.recurrent_block.rg_lru.a_gate.b", 0, 12),
        "hidden": _size(state, "blocks.0.ssm_block.mlp_block.ffw_down.weight", 1, 3072),
        "head_hidden": _size(state, "visible_head.0.weight", 0, 256),
        "conv_width": _size(state, "blocks.0.ssm_block.recurrent_block.conv_1d.w", 0, 4),
    }
    try:
        return TapNextConfig(**given)
    except ConfigError:
        return TapNextConfig()  # the shapes contradict each other: compare them with the published ones


def _size(state: Mapping[str, Tensor], key: str, axis: int, published: int) -> int:
    return state[key].shape[axis] if key in state and state[key].ndim > axis else published


def expected_shapes(config: TapNextConfig) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every tensor of the model, without allocating it."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in TapNext(config).state_dict().items()}


def build_model(checkpoint: TapNextCheckpoint) -> TapNext:
    """Build the model of a checkpoint in evaluation mode; it shares the checkpoint's tensors."""
    with torch.device("meta"):
        model = TapNext(checkpoint.config)
    model.load_state_dict(checkpoint.state, assign=True)
    if checkpoint.model:
        model.name = checkpoint.model
    return model.eval().requires_grad_(False)


# ---- names ----------------------------------------------------------------------------------------------------------


def to_model(state: Mapping[str, Tensor], where: str = "the checkpoint") -> State:
    """Return published tensors, PyTorch's or JAX's, under the model's names, as float32.

    The table of query positions is compared with its formula and left out.

    Raises:
        CheckpointError: no TAPNext, or another table.
    """
    state = _stripped(state)
    if not state.keys() & _SIGNS:
        raise CheckpointError(
            f"{where} is no TAPNext checkpoint: it has neither lin_proj.weight nor backbone/embedding/kernel, but "
            f"{', '.join(list(state)[:3])}."
        )
    if any(key.startswith("backbone/") for key in state):
        state = from_jax(state)
    table = state.pop(TABLE, None)
    if table is not None and not _is_table(table):
        raise CheckpointError(f"{where} holds another {TABLE} than TAPNext's fixed table; it is another network.")
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _stripped(state: Mapping[str, Tensor]) -> State:
    """Take the training program's prefix off the names."""
    return {key.removeprefix("tapnext."): value for key, value in state.items()}


def _is_table(table: Tensor) -> bool:
    """Whether (1, R * R, C) rows are the sines and cosines of their places, as far as float32 resolves."""
    side = round(table.shape[1] ** 0.5) if table.ndim == 3 else 0
    if side < 17 or table.shape[1] != side**2 or table.shape[2] % 4:
        return False
    half = table.shape[2] // 2
    waves = sine_rows(side, half)
    rows = table[0].float().view(side, side, -1)
    return bool(
        (rows[..., :half] - waves).abs().max() < 1e-4 and (rows[..., half:] - waves[:, None]).abs().max() < 1e-4
    )


_JAX_NAMES = [  # in order
    (r"^backbone/embedding/", "lin_proj."),
    (r"^backbone/pos_embedding$", "image_pos_emb"),
    (r"^backbone/Transformer/encoder_norm/", "encoder_norm."),
    (r"^backbone/Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"^backbone/", ""),
    (r"vit_block/LayerNorm_0/", "vit_block.ln_1."),
    (r"vit_block/LayerNorm_1/", "vit_block.ln_2."),
    (r"vit_block/MlpBlock_0/Dense_0/", "vit_block.mlp.0."),
    (r"vit_block/MlpBlock_0/Dense_1/", "vit_block.mlp.3."),
    (r"vit_block/MultiHeadDotProductAttention_0/out/", "vit_block.self_attention.out_proj."),
    (r"vit_block/MultiHeadDotProductAttention_0/", "vit_block.self_attention."),
    (r"_head/layers_(\d)/", r"_head.\1."),
    (r"/", "."),
]
_JAX_GROUPS = ("backbone/", "visible_head/", "coordinate_head/")  # other groups are not of the network


def from_jax(state: Mapping[str, Tensor]) -> State:
    """Return the arrays of a published ``.npz`` under the names and in the layout of the PyTorch files."""
    found: State = {}
    for key, value in state.items():
        if not key.startswith(_JAX_GROUPS):
            continue
        name = key
        for pattern, target in _JAX_NAMES:
            name = re.sub(pattern, target, name)
        kind = name.rpartition(".")[2]
        if kind == "kernel":
            name, value = name.removesuffix("kernel") + "weight", _kernel(name, value)
        elif kind == "scale" and "pre_norm" not in name:
            name = name.removesuffix("scale") + "weight"
        elif kind == "bias" and ".self_attention." in name:
            value = value.reshape(-1)  # (h, d)
        found[name] = value
    return _joined(found)


def _kernel(name: str, value: Tensor) -> Tensor:
    """Turn a JAX kernel into a PyTorch weight, output channel first."""
    if name == "lin_proj.kernel":
        return value[0].permute(3, 2, 0, 1).contiguous() if value.ndim == 5 else value  # (1, p, p, 3, C)
    if value.ndim < 2:
        return value  # of a wrong shape: it is listed as that
    if name.endswith("out_proj.kernel"):
        value = value.flatten(0, -2)  # (h, d, C)
    return value.flatten(1).T.contiguous()


def _joined(state: State) -> State:
    """Stack query, key and value of every attention."""
    done = {k: v for k, v in state.items() if not re.search(r"self_attention\.(query|key|value)\.", k)}
    bases = dict.fromkeys(k.rpartition("query.")[0] for k in state if ".self_attention.query." in k)
    for base in bases:
        for kind in ("weight", "bias"):
            names = [f"{base}{part}.{kind}" for part in ("query", "key", "value")]
            if all(name in state for name in names):
                done[f"{base}in_proj_{kind}"] = torch.cat([state[name] for name in names])
    return done

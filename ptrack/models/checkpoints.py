"""Weights of the online tracker on disk: safetensors with the configuration inside, and the published ``.pt`` files.

Names of tensors: ours are those of ``TrackOn2.state_dict()``. The published files differ in three ways: the encoder is
called ``backbone.vit_encoder``, the frozen transformer has the names of Hugging Face transformers (4.x or 5.x), and its
query, key and value matrices are apart.

Letters: C channels of the transformer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ptrack.errors import CheckpointError, ConfigError, OutputError
from ptrack.fileio import check_writable, sha256_of
from ptrack.models import saved
from ptrack.models.backbones.vit import VITS, VitSpec
from ptrack.models.online.config import OnlineConfig
from ptrack.untrusted.limits import reason_of

if TYPE_CHECKING:
    from ptrack.models.online.model import TrackOn2

FORMAT = "ptrack-online-1"  # in the metadata of our safetensors files
ADVICE = "; download it again"
WRAPPERS = ("state_dict", "model", "model_state", "ema_state_dict")
VIT = "backbone.encoder.vit."
OFFICIAL_ENCODER = "backbone.vit_encoder."

State = dict[str, Tensor]


@dataclass(frozen=True)
class OnlineCheckpoint:
    """Weights and what they are for."""

    config: OnlineConfig
    state: State  # our names; float32 on the CPU
    has_vit: bool  # the frozen DINO transformer is among them


# ---- files ----------------------------------------------------------------------------------------------------------


def read_checkpoint(path: Path | str, *, backbone: str | None = None) -> OnlineCheckpoint:
    """Read a published ``.pt`` file, a checkpoint of ``ptrack train``, or a safetensors file of ours.

    Nothing in the file is ever executed.

    Args:
        path: the file.
        backbone: the architecture to assume where a published file leaves it open (those without the transformer).

    Raises:
        CheckpointError: not readable, not such a file, or made for another architecture.
    """
    path = Path(path)
    if _is_pickle(path):
        content = saved.load_pickle(path)
        if saved.is_training(content):
            config, state = saved.trained_weights(content, saved.ONLINE, OnlineConfig, "Track-On2", str(path))
            return _checked(config, state, str(path))
        return from_official(_unwrap(content, str(path)), backbone=backbone, where=str(path))
    return _read_safetensors(path, backbone)


def read_pt(path: Path | str) -> State:
    """Return the tensors of a file of ``torch.save`` under their own names, wrappers and ``module.`` taken off.

    Raises:
        CheckpointError: damaged, not such a file, or holding anything but data.
    """
    return _unwrap(saved.load_pickle(path), str(path))


def read_tensors(path: Path | str) -> State:
    """Return the tensors of a ``torch.save`` or safetensors file under their own names.

    Raises:
        CheckpointError: not readable, or holding anything but tensors.
    """
    path = Path(path)
    if _is_pickle(path):
        return read_pt(path)
    return _unwrap(saved.read(path, ADVICE)[1], str(path))


def _is_pickle(path: Path) -> bool:
    """Whether a file starts like the zip archive of ``torch.save``, or like its older plain pickle."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"Cannot read the checkpoint {path}: {error.strerror or error}.") from error
    if head[8:] == b"{":  # safetensors: 8 bytes of length, which may look like anything, then JSON
        return False
    return head[:2] == b"PK" or head[:1] == b"\x80"


def _unwrap(content: Any, where: str) -> State:
    if isinstance(content, Mapping):
        for key in WRAPPERS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{where} holds no table of weights; give a file of a trained model.")
    return {str(k).removeprefix("module."): v for k, v in content.items()}


def _read_safetensors(path: Path, backbone: str | None) -> OnlineCheckpoint:
    metadata, state = saved.read(path, ADVICE)
    if "config" not in metadata:
        return from_official(_unwrap(state, str(path)), backbone=backbone, where=str(path))
    config = saved.configuration(metadata, FORMAT, OnlineConfig, str(path))
    return _checked(config, state, str(path))


def save_checkpoint(path: Path | str, checkpoint: OnlineCheckpoint, **notes: str) -> None:
    """Write safetensors with the configuration and some text ``notes`` in its metadata; the file appears when whole.

    Raises:
        OutputError: the file cannot be written.
    """
    saved.write(path, FORMAT, checkpoint.config, checkpoint.state, **notes)


def convert(source: Path | str, target: Path | str, *, backbone: str | None = None, overwrite: bool = False) -> dict:
    """Write the weights of ``source`` as safetensors and return what they are.

    Raises:
        CheckpointError: ``source`` cannot be used.
        OutputError: ``target`` exists, has another suffix, or cannot be written.
    """
    target = Path(target)
    if target.suffix != ".safetensors":
        raise OutputError(f"{target} must end in .safetensors.")
    check_writable(target, overwrite=overwrite)
    checkpoint = read_checkpoint(source, backbone=backbone)
    save_checkpoint(target, checkpoint, source_sha256=sha256_of(source))
    c = checkpoint.config
    return {
        "backbone": c.backbone,
        "tensors": len(checkpoint.state),
        "transformer": checkpoint.has_vit,
        "memory": c.memory,
    }


# ---- models ---------------------------------------------------------------------------------------------------------


def build_model(checkpoint: OnlineCheckpoint, *, memory: int | None = None, name: str = "track-on2") -> TrackOn2:
    """Build the model of a checkpoint in evaluation mode, with its memory set to ``memory`` frames afterwards.

    A transformer that is missing from the checkpoint keeps random weights: see :func:`add_vit`.
    """
    from ptrack.models.online.model import TrackOn2

    model = TrackOn2(checkpoint.config, name=name)
    model.load_state_dict(checkpoint.state, strict=False)
    if memory is not None:
        model.set_memory(memory)
    return model.eval()


def checkpoint_of(model: TrackOn2) -> OnlineCheckpoint:
    """Return the weights and configuration of a model (whose memory is as trained) for saving."""
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    return OnlineCheckpoint(model.config, state, any(key.startswith(VIT) for key in state))


def add_vit(
    checkpoint: OnlineCheckpoint, weights: Mapping[str, Tensor], where: str = "the DINO weights"
) -> OnlineCheckpoint:
    """Return the checkpoint with its transformer from a separate file (Hugging Face, timm or original names).

    Raises:
        CheckpointError: the weights are of another transformer.
    """
    vit = vit_from_any(weights, checkpoint.config.backbone)
    rest = {k: v for k, v in checkpoint.state.items() if not k.startswith(VIT)}
    return _checked(checkpoint.config, rest | {VIT + k: v for k, v in vit.items()}, where)


def _checked(config: OnlineConfig, state: State, where: str) -> OnlineCheckpoint:
    """Compare names and shapes with the architecture; a wholly absent transformer is allowed."""
    expected = expected_shapes(config)
    has_vit = any(key.startswith(VIT) for key in state)
    if not has_vit:
        expected = {k: v for k, v in expected.items() if not k.startswith(VIT)}
    if text := saved.differences(expected, state):
        raise CheckpointError(f"{where} does not fit Track-On2 with the backbone {config.backbone}: {text}.")
    return OnlineCheckpoint(config, state, has_vit or config.backbone not in VITS)


def expected_shapes(config: OnlineConfig) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every tensor of the model, without allocating it."""
    from ptrack.models.online.model import TrackOn2

    with torch.device("meta"):
        model = TrackOn2(config)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


# ---- published files ------------------------------------------------------------------------------------------------


def from_official(
    state: Mapping[str, Tensor], *, backbone: str | None = None, where: str = "the checkpoint"
) -> OnlineCheckpoint:
    """Convert the tensors of a published Track-On2 or Track-On-R file.

    Args:
        state: tensors under the official names (wrappers taken off).
        backbone: what to assume if the transformer is not among them.
        where: the file, for messages.

    Raises:
        CheckpointError: missing, unexpected or mis-shaped tensors, listed.
    """
    if "t_embedding" not in state or not any(k.startswith(OFFICIAL_ENCODER) for k in state):
        raise CheckpointError(
            f"{where} is not a Track-On2 checkpoint: it has no t_embedding and no {OFFICIAL_ENCODER}*."
        )
    config = _official_config(state, backbone, where)
    ours: State = {}
    vit: State = {}
    for key, value in state.items():
        if match := re.match(r"backbone\.vit_encoder\.dinov[23]\.(.*)", key):
            vit[match[1]] = value
        else:
            ours[key.replace(OFFICIAL_ENCODER, "backbone.encoder.", 1)] = value
    ours |= {VIT + key: value for key, value in vit_from_any(vit, config.backbone).items()}
    return _checked(config, {k: v.float() if v.is_floating_point() else v for k, v in ours.items()}, where)


def to_official(state: Mapping[str, Tensor], config: OnlineConfig) -> State:
    """Return our tensors under the official names (transformers 4.x for the transformer, without its mask token)."""
    vit = {key.removeprefix(VIT): value for key, value in state.items() if key.startswith(VIT)}
    rest = {key: value for key, value in state.items() if not key.startswith(VIT)}
    official = {key.replace("backbone.encoder.", OFFICIAL_ENCODER, 1): value for key, value in rest.items()}
    if not vit:
        return official
    spec = VITS[config.backbone]
    prefix = OFFICIAL_ENCODER + ("dinov3." if spec.rotary else "dinov2.")
    return official | {prefix + key: value for key, value in _vit_to_hf(vit, spec).items()}


def _official_config(state: Mapping[str, Tensor], backbone: str | None, where: str) -> OnlineConfig:
    """Read the architecture off the tensors' shapes."""
    try:
        width = state[OFFICIAL_ENCODER + "level_embed"].shape[1]
        _, dim, h, w = state["backbone.pos_embedding"].shape
        name = _official_backbone(state, width) or backbone or {384: "dinov3_s_plus", 768: "dinov3_b"}.get(width, "")
        return OnlineConfig(
            backbone=name,
            vit_upsample=VITS[name].upsample,
            input_size=(4 * h, 4 * w),
            dim=dim,
            memory=state["t_embedding"].shape[1] - 1,
            hidden=state["feature_attention.0.linear1.weight"].shape[0],
            decoder_layers=_count(state, r"feature_attention\.(\d+)\."),
            rerank_layers=_count(state, r"reranking_head\.local_decoder\.(\d+)\."),
            head_layers=_count(state, r"prediction_head\.offset_transformer\.(\d+)\."),
        )
    except (KeyError, ValueError, IndexError, ConfigError) as error:
        raise CheckpointError(f"{where} is not a Track-On2 checkpoint ({reason_of(error)}).") from error


def _official_backbone(state: Mapping[str, Tensor], width: int) -> str | None:
    """Name the transformer inside a published file, None if there is none."""
    names = [k for k in state if re.match(r"backbone\.vit_encoder\.dinov[23]\.", k)]
    if not names:
        return None
    if ".dinov2." in names[0]:
        return {384: "dinov2_s", 768: "dinov2_b"}.get(width)
    gated = any("gate_proj" in k for k in names)
    return {(384, True): "dinov3_s_plus", (384, False): "dinov3_s", (768, False): "dinov3_b"}.get((width, gated))


def _count(state: Iterable[str], pattern: str) -> int:
    return 1 + max((int(m[1]) for m in (re.match(pattern, k) for k in state) if m), default=-1)


# ---- the frozen transformer -----------------------------------------------------------------------------------------

_DROPPED = re.compile(r"(mask_token|bias_mask|rope_embed\.periods|pooler\..*|.*\.k_bias|head\..*)$")
_RENAMES = [
    (r"^(model|encoder)\.", ""),
    (r"^embeddings\.", ""),
    (r"^(register_tokens|storage_tokens)$", "reg_token"),
    (r"^position_embeddings$", "pos_embed"),
    (r"^(patch_embeddings\.projection|patch_embeddings|patch_embed\.proj)\.", "patch_proj."),
    (r"^layernorm\.", "norm."),
    (r"^layer\.", "blocks."),
    (r"\.attention\.attention\.(query|key|value)\.", lambda m: f".attn.{m[1][0]}."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.mlp\.(gate_proj|w1)\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.(down_proj|w3)\.", ".mlp.fc2."),
]


def vit_from_any(state: Mapping[str, Tensor], backbone: str) -> State:
    """Rename a DINO's tensors (transformers 4.x or 5.x, timm, or the original files) to those of ``Vit``."""
    if not state:
        return {}
    spec = VITS[backbone]
    gated = any(re.search(r"gate_proj|fc1_g|mlp\.w1", k) for k in state)
    scale = r".gamma_\1" if spec.rotary else r".ls\1.gamma"
    found: State = {}
    for key, value in state.items():
        name = key
        for pattern, target in _RENAMES:
            name = re.sub(pattern, target, name)
        name = re.sub(r"\.mlp\.up_proj\.", ".mlp.fc1_x." if gated else ".mlp.fc1.", name)
        name = re.sub(r"\.(?:layer_scale|ls)([12])\.(?:lambda1|gamma)$", scale, name)
        if not _DROPPED.search(name):
            found[name] = value
    return _fuse_qkv(found, spec)


def _fuse_qkv(state: State, spec: VitSpec) -> State:
    """Stack the query, key and value rows; DINOv3's biases stay apart and are zero where a file has none."""
    done = {k: v for k, v in state.items() if not re.search(r"\.attn\.(q|k|v)\.|\.attn\.qkv\.bias$", k)}
    blocks = sorted({k.split(".")[1] for k in state if k.startswith("blocks.")}, key=int)
    for i in blocks:
        base = f"blocks.{i}.attn."
        parts = [state.get(f"{base}{p}.weight") for p in "qkv"]
        if all(p is not None for p in parts):
            done[f"{base}qkv.weight"] = torch.cat(parts)  # type: ignore[arg-type]
        biases = [state.get(f"{base}{p}.bias") for p in "qkv"]
        packed = state.get(f"{base}qkv.bias")
        if packed is not None:
            biases = list(packed.nan_to_num(0.0).chunk(3))  # the original DINOv3 files hold NaN in the unused key rows
        if not spec.rotary:
            if all(b is not None for b in biases):
                done[f"{base}qkv.bias"] = torch.cat(biases)  # type: ignore[arg-type]
            continue
        for part, bias in (("q", biases[0]), ("v", biases[2])):
            if f"{base}{part}_bias" not in done:
                done[f"{base}{part}_bias"] = torch.zeros(spec.width) if bias is None else bias
    return done


def _vit_to_hf(state: State, spec: VitSpec) -> State:
    """Undo :func:`vit_from_any` towards the names of transformers 4.x."""
    layer, attn, out = (
        ("layer.", "attention.", "attention.o_proj.") if spec.rotary
        else ("encoder.layer.", "attention.attention.", "attention.output.dense.")
    )  # fmt: skip
    names = ("q_proj", "k_proj", "v_proj") if spec.rotary else ("query", "key", "value")
    gated = any("fc1_g" in k for k in state)
    up, down = ("mlp.up_proj.", "mlp.down_proj.") if spec.rotary else ("mlp.fc1.", "mlp.fc2.")
    patch = "embeddings.patch_embeddings." + ("" if spec.rotary else "projection.")
    norm = "norm." if spec.rotary else "layernorm."
    renames = [
        ("cls_token", "embeddings.cls_token"), ("reg_token", "embeddings.register_tokens"),
        ("pos_embed", "embeddings.position_embeddings"), ("patch_proj.", patch), ("attn.proj.", out),
        ("mlp.fc1_g.", "mlp.gate_proj."), ("mlp.fc1_x.", "mlp.up_proj."), ("mlp.fc1.", up), ("mlp.fc2.", down),
        ("ls1.gamma", "layer_scale1.lambda1"), ("ls2.gamma", "layer_scale2.lambda1"),
        ("gamma_1", "layer_scale1.lambda1"), ("gamma_2", "layer_scale2.lambda1"),
        ("attn.q_bias", "attention.q_proj.bias"), ("attn.v_bias", "attention.v_proj.bias"),
    ]  # fmt: skip
    done: State = {}
    for key, value in state.items():
        block = re.match(r"blocks\.(\d+)\.(.*)", key)
        head, rest = (f"{layer}{block[1]}.", block[2]) if block else ("", key)
        if rest.startswith("attn.qkv."):
            kind = rest.rpartition(".")[2]
            for name, part in zip(names, value.chunk(3), strict=True):
                done[f"{head}{attn}{name}.{kind}"] = part
            continue
        if not block and rest.startswith("norm."):
            rest = norm + rest.removeprefix("norm.")
        for source, target in renames:
            if rest.startswith(source) and (source != "mlp.fc1." or not gated):
                rest = target + rest.removeprefix(source)
                break
        done[head + rest] = value
    return done

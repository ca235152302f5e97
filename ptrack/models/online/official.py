"""The published ``.pt`` files of Track-On2 and Track-On-R, to ptrack's names and back.

They differ in three ways: the encoder is called ``backbone.vit_encoder``, the frozen transformer has the names of
Hugging Face transformers (4.x or 5.x), and its query, key and value matrices are stored one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from ptrack.errors import CheckpointError, ConfigError
from ptrack.models.backbones.vit import VITS
from ptrack.models.backbones.vit_weights import vit_from_any, vit_to_hf
from ptrack.models.online.checkpoint import VIT, OnlineCheckpoint, State, checked
from ptrack.models.online.config import OnlineConfig
from ptrack.untrusted.limits import reason_of

OFFICIAL_ENCODER = "backbone.vit_encoder."


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
    return checked(config, {k: v.float() if v.is_floating_point() else v for k, v in ours.items()}, where)


def to_official(state: Mapping[str, Tensor], config: OnlineConfig) -> State:
    """Return our tensors under the official names (transformers 4.x for the transformer, without its mask token)."""
    vit = {key.removeprefix(VIT): value for key, value in state.items() if key.startswith(VIT)}
    rest = {key: value for key, value in state.items() if not key.startswith(VIT)}
    official = {key.replace("backbone.encoder.", OFFICIAL_ENCODER, 1): value for key, value in rest.items()}
    if not vit:
        return official
    spec = VITS[config.backbone]
    prefix = OFFICIAL_ENCODER + ("dinov3." if spec.rotary else "dinov2.")
    return official | {prefix + key: value for key, value in vit_to_hf(vit, spec).items()}


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

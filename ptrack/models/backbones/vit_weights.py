"""Weights of DINO transformers under other programs' names: Hugging Face transformers 4.x and 5.x, timm, the authors'.

Letters: C channels of the transformer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ptrack.errors import CheckpointError
from ptrack.models.backbones.vit import VITS, VitSpec

State = dict[str, Tensor]

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


def fetch_vit(name: str) -> State:
    """Fetch the published weights of a DINO transformer through timm, which keeps them in Hugging Face's cache.

    Raises:
        CheckpointError: they are not here and cannot be fetched.
    """
    import timm

    weights = VITS[name].weights
    try:
        return timm.create_model(weights, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # the hub raises many kinds without a network
        raise CheckpointError(
            f"The weights of {name} cannot be fetched ({type(error).__name__}). Fetch https://huggingface.co/timm/"
            f"{weights} into the Hugging Face cache, or start from a Track-On2 checkpoint with --init-from."
        ) from error


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
    """Stack the query, key and value rows; DINOv3's biases stay separate and are zero where a file has none."""
    done = {k: v for k, v in state.items() if not re.search(r"\.attn\.(q|k|v)\.|\.attn\.qkv\.bias$", k)}
    blocks = sorted({k.split(".")[1] for k in state if k.startswith("blocks.")}, key=int)
    for i in blocks:
        base = f"blocks.{i}.attn."
        parts = [state[key] for p in "qkv" if (key := f"{base}{p}.weight") in state]
        if len(parts) == 3:
            done[f"{base}qkv.weight"] = torch.cat(parts)
        biases = [state.get(f"{base}{p}.bias") for p in "qkv"]
        packed = state.get(f"{base}qkv.bias")
        if packed is not None:
            biases = list(packed.nan_to_num(0.0).chunk(3))  # the original DINOv3 files hold NaN in the unused key rows
        if not spec.rotary:
            known = [bias for bias in biases if bias is not None]
            if len(known) == 3:
                done[f"{base}qkv.bias"] = torch.cat(known)
            continue
        for part, bias in (("q", biases[0]), ("v", biases[2])):
            if f"{base}{part}_bias" not in done:
                done[f"{base}{part}_bias"] = torch.zeros(spec.width) if bias is None else bias
    return done


def vit_to_hf(state: State, spec: VitSpec) -> State:
    """Undo :func:`vit_from_any`, towards the names of transformers 4.x."""
    layer, attn, out = (
        ("layer.", "attention.", "attention.o_proj.")
        if spec.rotary
        else ("encoder.layer.", "attention.attention.", "attention.output.dense.")
    )
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

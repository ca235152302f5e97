"""Deterministic pseudo-random weights for the Track-On2 parity fixtures.

``fill_state_dict({key: shape})`` returns ``{key: float32 array}``; every value depends only on the key and the
shape, so any implementation that can be addressed by the official key names can load the same weights.
Needs numpy only. The rule is also written in words in README.md, next to this file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tests.parity.values import digest_of, normal

# Tensors that are added to tokens (embeddings): 0 + scale * N(0,1), whatever their number of dimensions.
EMBEDDINGS = {
    "pos_embedding": 0.8,
    "t_embedding": 0.2,
    "level_embed": 0.2,
    "position_embeddings": 0.2,
    "cls_token": 0.2,
    "register_tokens": 0.2,
    "mask_token": 0.2,
}

# Gains on top of 1/sqrt(fan_in) for some weights: they keep the random network from giving every query the same
# answer. The first pattern found in the key (re.search) counts.
_MHA = r"^(feature_attention\.\d+|query_attention\.\d+|memory_attention\.\d+|reranking_head\.fusion)\."
GAINS = (
    (r"sampling_offsets\.weight$", 0.1),
    (_MHA + r"mha\.in_proj_weight$", 1.5),
    (_MHA + r"(mha\.out_proj|linear2)\.weight$", 0.3),
    (r"^backbone\.projections\.\d\.0\.weight$", 0.25),
    (r"^fpn\.output\.3\.weight$", 5.0),
    (r"^prediction_head\.(vis|unc)_layer\.2\.weight$", 4.0),
    (r"^prediction_head\.offset_layer\.1\.weight$", 0.5),
)

# Biases with an offset: value is offset + 0.02 * N(0,1).
BIAS_OFFSETS = {
    "fpn.output.1.bias": -1.5,
    "prediction_head.vis_layer.2.bias": 3.0,
}


def rule(name: str, shape: Sequence[int]) -> tuple[float, float, bool]:
    """(offset, scale, absolute): the value is offset + scale * N(0,1), or offset + scale * |N(0,1)|."""
    leaf = name.rsplit(".", 1)[-1]
    shape = tuple(int(s) for s in shape)
    if leaf in EMBEDDINGS:
        return 0.0, EMBEDDINGS[leaf], False
    if len(shape) >= 2:
        gain = next((g for pattern, g in GAINS if re.search(pattern, name)), 1.0)
        return 0.0, gain / math.sqrt(math.prod(shape[1:])), False
    if name.endswith("sampling_offsets.bias"):
        return 0.0, 1.0, False
    if leaf == "running_var":
        return 1.0, 0.1, True
    if leaf == "running_mean":
        return 0.0, 0.02, False
    if leaf.endswith("bias"):  # also in_proj_bias
        return BIAS_OFFSETS.get(name, 0.0), 0.02, False
    if leaf == "gamma":
        return 0.0, 0.1, False
    return 1.0, 0.05, False  # norm weights, layer scale


def fill_array(name: str, shape: Sequence[int]) -> np.ndarray:
    """The array of one key. Integer counters (num_batches_tracked) are int64 zeros."""
    shape = tuple(int(s) for s in shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    offset, scale, absolute = rule(name, shape)
    values = normal(name, shape)
    if absolute:
        values = np.abs(values)
    return np.asarray(offset + scale * values, dtype=np.float32)


def fill_state_dict(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """{key: shape} -> {key: array}, in the order given."""
    return {name: fill_array(name, shape) for name, shape in shapes.items()}


def digest(arrays: Mapping[str, np.ndarray], names: Iterable[str] | None = None) -> str:
    """sha256 over key names and little-endian float32 bytes, keys sorted (integer counters left out)."""
    return digest_of(
        arrays, (name for name in (arrays if names is None else names) if np.asarray(arrays[name]).dtype.kind == "f")
    )

"""Deterministic pseudo-random weights for the TAPNext parity fixtures.

``fill_state_dict({key: shape})`` returns ``{key: float32 array}``; every value depends only on the key and the
shape, so any implementation that can be addressed by the official key names can load the same weights. The idea and
the generator are those of ../track_on2/fill.py; the rule (scales, fan-in) is this model's own and is written in words
in README.md. Needs numpy only. About 194 million values: 5 to 10 s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tests.parity.values import digest_of, normal

# (pattern found in the key with re.search, offset, scale). The first match counts. A scale given as ("fan", axes, gain)
# means gain / sqrt(product of those axes of the shape).
RULES = (
    (r"^mask_token$", 0.0, 0.1),
    (r"^(unknown_token|point_query_token)$", 0.0, 0.5),
    (r"^image_pos_emb$", 0.0, 1.0),
    (r"\.a_param$", -6.0, 1.5),  # decay exp(-8 * gate * softplus): mostly 0.8 to 0.9999
    (r"_pre_norm\.scale$", 0.0, 0.1),  # RMS norm: multiplies by 1 + scale
    (r"conv_1d\.w$", 0.0, ("fan", (0,), 1.0)),
    (r"conv_1d\.b$", 0.0, 0.1),
    (r"(input_gate|a_gate)\.w$", 0.0, ("fan", (1,), 1.0)),
    (r"(input_gate|a_gate)\.b$", 0.0, 0.5),
    (r"ffw_up\.w$", 0.0, ("fan", (1,), 1.0)),
    (r"ffw_up\.b$", 0.0, 0.1),
    (r"linear_out\.weight$", 0.0, ("fan", (1,), 2.8)),
    (r"(ffw_down|mlp\.3)\.weight$", 0.0, ("fan", (1,), 0.35)),
    (r"out_proj\.weight$", 0.0, ("fan", (1,), 0.21)),
    (r"in_proj_weight$", 0.0, ("fan", (1,), 1.4)),
    (r"^lin_proj\.weight$", 0.0, ("fan", (1, 2, 3), 2.0)),
    (r"^coordinate_head\.6\.weight$", 0.0, ("fan", (1,), 9.0)),
    (r"^visible_head\.6\.weight$", 0.0, ("fan", (1,), 5.0)),
    (r"^visible_head\.6\.bias$", 2.0, 0.0),
    (r"(ln_1|ln_2|encoder_norm|visible_head\.[14]|coordinate_head\.[14])\.weight$", 1.0, 0.05),
    (r"bias$", 0.0, 0.05),  # also in_proj_bias
    (r"\.weight$", 0.0, ("fan", (1,), 1.0)),  # the other linear layers
)


def query_pos_embed(height: int = 256, width: int = 256, channels: int = 768) -> np.ndarray:
    """The one key that is a fixed table, (1, height * width, channels): not pseudo-random, also not in the digest."""
    m = channels // 4
    omega = 10000.0 ** -(np.arange(m) / (m - 1))
    rows, cols = np.arange(height)[:, None] * omega, np.arange(width)[:, None] * omega
    parts = (np.sin(cols)[None], np.cos(cols)[None], np.sin(rows)[:, None], np.cos(rows)[:, None])
    table = np.concatenate([np.broadcast_to(p, (height, width, m)) for p in parts], axis=-1)
    return np.asarray(table.reshape(1, height * width, channels), dtype=np.float32)


def rule(name: str, shape: Sequence[int]) -> tuple[float, float]:
    """(offset, scale): the value is offset + scale * N(0,1)."""
    for pattern, offset, scale in RULES:
        if re.search(pattern, name):
            if isinstance(scale, tuple):
                _, axes, gain = scale
                scale = gain / math.sqrt(math.prod(int(shape[a]) for a in axes))
            return offset, scale
    raise KeyError(f"no rule for {name}")


def fill_array(name: str, shape: Sequence[int]) -> np.ndarray:
    """The array of one key."""
    shape = tuple(int(s) for s in shape)
    if name == "query_pos_embed":
        side = math.isqrt(shape[1])
        return query_pos_embed(side, side, shape[2])
    offset, scale = rule(name, shape)
    values = normal(name, shape)
    return np.asarray(offset + scale * values, dtype=np.float32)


def fill_state_dict(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """{key: shape} -> {key: array}, in the order given."""
    return {name: fill_array(name, shape) for name, shape in shapes.items()}


def digest(arrays: Mapping[str, np.ndarray], names: Iterable[str] | None = None) -> str:
    """sha256 over key names and little-endian float32 bytes, keys sorted, query_pos_embed left out."""
    return digest_of(arrays, (name for name in (arrays if names is None else names) if name != "query_pos_embed"))

"""How fast a frame could be at best: its operations and bytes against what the processor does in the same run.

The operations are those of products and convolutions, counted while one more frame is tracked. The bytes are what must
move whatever the program does: weights, frame and features read once, the state read and written once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from ptrack.models.devices import wait_for

SIDE = 1024  # of the square matrices whose product is timed: 2.1 GFLOP
COPIED = 1 << 27  # bytes of the copy that is timed: more than a processor's caches hold
ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class PeakSpeed:
    """What the processor does, measured."""

    gflops: float  # float32 products of matrices, GFLOP/s
    gigabytes: float  # copied from memory to memory, read and written bytes, GB/s


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The least time of a frame's encoding and step."""

    gflop: float
    megabytes: float
    seconds: float  # the larger of both, at the measured peak


@lru_cache(maxsize=8)
def measure_peak(device: str, threads: int) -> PeakSpeed:
    """Time products and copies on a device; ``threads`` only tells runs with different numbers of them from each other.

    Takes some tenths of a second.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        a = torch.randn(SIDE, SIDE, device=device)
        source = torch.empty(COPIED // 4, device=device)
        target = torch.empty_like(source)
        product = _best(lambda: torch.mm(a, a), device)
        copy = _best(lambda: target.copy_(source), device)
    return PeakSpeed(gflops=2e-9 * SIDE**3 / product, gigabytes=2e-9 * COPIED / copy)


def _best(work: Callable[[], Any], device: str) -> float:
    """Return the shortest of some times, in seconds."""
    times = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        work()
        wait_for(torch.device(device))
        times.append(time.perf_counter() - began)
    return min(times[1:])


def floor_of(work: Callable[[], Any], model: Any, moved: Any, state: Callable[[], Any], peak: PeakSpeed) -> Floor:
    """Count what ``work``, one frame, does.

    Args:
        work: encodes and steps.
        model: whose weights are read.
        moved: tensors that are read once: frame and features.
        state: returns the tensors that are read and written.
        peak: of the device.
    """
    with FlopCounterMode(display=False, custom_mapping=_fused()) as counter:
        work()
    gflop = counter.get_total_flops() / 1e9
    weights = [*model.parameters(), *model.buffers()] if isinstance(model, torch.nn.Module) else []
    megabytes = (_bytes(weights) + _bytes(moved) + 2 * _bytes(state())) / 1e6
    return Floor(gflop=gflop, megabytes=megabytes, seconds=max(gflop / peak.gflops, 1e-3 * megabytes / peak.gigabytes))


def _bytes(tree: Any) -> int:
    """Return the bytes of all tensors in a tree, those of dataclasses included."""
    found: dict[int, int] = {}
    waiting = [tree]
    while waiting:
        for leaf in tree_flatten(waiting.pop())[0]:
            if isinstance(leaf, Tensor):
                found[leaf.data_ptr()] = leaf.nbytes
            elif hasattr(leaf, "__dataclass_fields__"):
                waiting.append([getattr(leaf, name) for name in leaf.__dataclass_fields__])
    return sum(found.values())


def _fused() -> dict[Any, Any]:
    """Return the operations of oneDNN's fused layers, which PyTorch's own counter does not know."""
    if not torch.backends.mkldnn.is_available():
        return {}

    def linear(x: Any, other: Any, *more: Any, out_shape: Any = None, **__: Any) -> int:
        return 2 * torch.Size(x).numel() * out_shape[-1]

    def convolution(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return 2 * out_shape[0] * torch.Size(out_shape[2:]).numel() * torch.Size(weight).numel()

    ops = torch.ops.mkldnn
    named = {"_linear_pointwise": linear, "_convolution_pointwise": convolution}
    return {getattr(ops, name): count for name, count in named.items() if hasattr(ops, name)}

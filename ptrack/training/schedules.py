"""Learning rates, seeds and averaged weights: pure functions of the step, so that a resumed run goes on exactly."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

WARMUP_START = 1e-5  # of the peak rate, Track-On2


def learning_rate(step: int, total: int, peak: float, *, warmup: float = 0.0, schedule: str = "cosine") -> float:
    """Return the rate of optimisation step ``step`` (from 0) of ``total``.

    Linear from ``1e-5 * peak`` over the first ``warmup`` share of the steps, then a cosine to 0 (or constant).
    """
    rising = int(warmup * total)
    if step < rising:
        return peak * (WARMUP_START + (1 - WARMUP_START) * step / rising)
    if schedule == "constant":
        return peak
    done = (step - rising) / max(1, total - rising)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def derive_seed(seed: int, *parts: int | str) -> int:
    """Return a number in [0, 2**63) that depends on all arguments and on nothing else."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Leave torch's global random state as it was found."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield


class Average:
    """Exponential moving average of weights; integer buffers are copied (BatchNorm's counters).

    The first steps use ``(1 + step) / (10 + step)`` when that is smaller than ``decay``, so that the average does not
    remember the initialisation for long.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights after optimisation step ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            mine = self.values[name]
            if mine.is_floating_point():
                mine.lerp_(value.to(mine.dtype), 1 - decay)
            else:
                mine.copy_(value)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Go on from saved values."""
        for name, value in values.items():
            self.values[name].copy_(value)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Put the averaged weights into ``model``, and its own back afterwards."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.values)
        try:
            yield
        finally:
            model.load_state_dict(own)

"""From a point's token to its position, visibility and confidence.

Letters: N points, R bins per axis (the side of the raster), K = 17 bins around a position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptrack.models.tapnext.config import WINDOW, TapNextConfig


def head(c: TapNextConfig, outputs: int) -> nn.Sequential:
    """Return an output head; its parts are numbered as in the published files."""

    def layer(width: int) -> list[nn.Module]:
        return [nn.Linear(width, c.head_hidden), nn.LayerNorm(c.head_hidden), nn.GELU()]

    return nn.Sequential(*layer(c.width), *layer(c.head_hidden), nn.Linear(c.head_hidden, outputs))


def locate(logits: Tensor, temperature: float, window: int) -> Tensor:
    """Return the coordinate per axis: the mean of the bins near the best one.

    The softmax runs over all bins before the distant ones are cut off.

    Args:
        logits: (..., R) of one axis.
        temperature: factor on the logits.
        window: bins on either side of the best one that count.

    Returns:
        (...) raster coordinates in 0.5 .. R - 0.5.
    """
    bins = torch.arange(logits.shape[-1], device=logits.device)
    near = (bins - logits.argmax(-1, keepdim=True)).abs() <= window
    p = (temperature * logits).softmax(-1) * near
    return (p * bins).sum(-1) / p.sum(-1) + 0.5


def window_probabilities(logits: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probabilities of the 17 bins around a position on one axis, and their distances to it.

    At the border the 17 bins are moved inside.

    Args:
        logits: (..., R).
        centre: (...) raster coordinate.

    Returns:
        Two (..., K) tensors: probability of each bin, its centre minus the position in pixels of the raster.
    """
    first = (centre - (WINDOW / 2)).floor().clamp(0, logits.shape[-1] - WINDOW)
    bins = first[..., None] + torch.arange(WINDOW, device=logits.device)
    return logits.softmax(-1).gather(-1, bins.long()), bins + 0.5 - centre[..., None]


def mass_near(py: Tensor, px: Tensor, dy: Tensor, dx: Tensor, radius: float) -> Tensor:
    """Return the probability (...) within ``radius`` pixels of the position, of two independent axes.

    Args:
        py, px: (..., K) probabilities of the bins.
        dy, dx: (..., K) their distances to the position.
        radius: pixels of the raster.
    """
    inside = dy[..., :, None] ** 2 + dx[..., None, :] ** 2 <= radius**2 + 1e-8
    return (py[..., :, None] * px[..., None, :] * inside).sum((-2, -1)).clamp(max=1.0)

"""Frames as they come -> images of the model's size.

Letters: B frames, H W their size, h w the model's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ptrack.errors import ModelError


def _taps(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper source index and the upper one's share for each target pixel (half-pixel centres)."""
    position = ((torch.arange(target, device=device, dtype=torch.float32) + 0.5) * (source / target) - 0.5).clamp(min=0)
    low = position.long().clamp(max=source - 1)
    return low, (low + 1).clamp(max=source - 1), position - low


def prepare(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly without antialiasing.

    Equal to ``F.interpolate(frames.float(), size, mode="bilinear")`` up to rounding, but only pixels that are needed
    are ever turned into floats: an 8K frame costs no more memory than a small one.

    Args:
        frames: (B, H, W, 3) RGB, uint8 or floating point in 0..255.
        size: (h, w).

    Returns:
        (B, 3, h, w) float32 in 0..255, channels last in memory.

    Raises:
        ModelError: not of that shape, or without a pixel.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ModelError(f"Frames must have the shape (B, H, W, 3), not {tuple(frames.shape)}.")
    top, bottom, dy = _taps(frames.shape[1], size[0], frames.device)
    left, right, dx = _taps(frames.shape[2], size[1], frames.device)

    def row(index: Tensor) -> Tensor:
        line = frames.index_select(1, index)
        a, b = line.index_select(2, left).float(), line.index_select(2, right).float()
        return torch.lerp(a, b, dx[:, None])

    return torch.lerp(row(top), row(bottom), dy[:, None, None]).permute(0, 3, 1, 2)

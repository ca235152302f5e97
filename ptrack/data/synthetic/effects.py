"""What the camera does to a rendered clip: blur of motion and focus, exposure, noise and compression.

All functions take and return one clip (T, 3, H, W) float32; colours are linear up to ``encode`` and gamma 2 after it.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as nnf
from torch import Tensor

from ptrack.data.synthetic.scene import Effects

TAPS = 7  # samples along a motion
LONGEST = 24.0  # pixels of motion blur at most


def motion_blur(picture: Tensor, velocity: Tensor, shutter: float) -> Tensor:
    """Average along the motion, centred on where the track is.

    Args:
        picture: (T, 3, H, W).
        velocity: (T, 2, H, W) pixels per frame, x and y.
        shutter: share of the frame interval that the shutter is open.
    """
    h, w = picture.shape[-2:]
    reach = _widened(velocity * shutter)
    device = picture.device
    y, x = torch.meshgrid(torch.arange(h, device=device) + 0.5, torch.arange(w, device=device) + 0.5, indexing="ij")
    total = torch.zeros_like(picture)
    for tap in range(TAPS):
        part = (tap + 0.5) / TAPS - 0.5
        grid = torch.stack([(x + reach[:, 0] * part) * (2 / w) - 1, (y + reach[:, 1] * part) * (2 / h) - 1], -1)
        total += nnf.grid_sample(picture, grid, align_corners=False, padding_mode="border")
    return total / TAPS


def _widened(reach: Tensor) -> Tensor:
    """Give pixels beside a faster thing its motion: it sweeps over them. Looked for in cells of 4 pixels and around."""
    length = (reach * reach).sum(1, keepdim=True)
    reach = reach * (LONGEST / length.sqrt().clamp(min=LONGEST))
    size = reach.shape[-2:]
    cell = 4
    coarse = nnf.interpolate(reach, size=((size[0] + cell - 1) // cell, (size[1] + cell - 1) // cell), mode="nearest")
    _, where = nnf.max_pool2d((coarse * coarse).sum(1, keepdim=True), 3, 1, 1, return_indices=True)
    widest = torch.gather(coarse.flatten(2), 2, where.flatten(2).expand(-1, 2, -1)).view_as(coarse)
    widest = nnf.interpolate(widest, size=size, mode="nearest")
    return torch.where((widest * widest).sum(1, keepdim=True) > 2 * length, widest, reach)


def box_blur(picture: Tensor, radius: int) -> Tensor:
    """Average over squares of 2 * radius + 1 pixels, first along rows, then along columns; borders are repeated."""
    side = 2 * radius + 1
    h, w = picture.shape[-2:]
    padded = nnf.pad(picture, (radius, radius, radius, radius), mode="replicate")
    rows = padded[..., :h, :].clone()
    for k in range(1, side):
        rows += padded[..., k : k + h, :]
    total = rows[..., :w].clone()
    for k in range(1, side):
        total += rows[..., k : k + w]
    return total.mul_(1 / side**2)


def _soft(picture: Tensor, radius: int) -> Tensor:
    """Blur by two box filters."""
    return box_blur(box_blur(picture, radius), radius)


def defocus(picture: Tensor, depth: Tensor, strength: float, focus: float) -> Tensor:
    """Blur by the distance from the focus.

    Args:
        picture: (T, 3, H, W).
        depth: (T, 1, H, W) metres.
        strength: pixels of blur radius per 1/metre.
        focus: 1/metre.
    """
    radius = (strength * (1 / depth - focus).abs()).clamp(max=4)
    radius = box_blur(radius, 2)  # no sharp border between sharp and blurred
    small, large = _soft(picture, 1), _soft(picture, 3)
    near = torch.lerp(picture, small, radius.clamp(max=1))
    return torch.lerp(near, large, ((radius - 1) / 3).clamp(0, 1))


def encode(picture: Tensor, gain: Tensor | None, gamma: float) -> Tensor:
    """Expose and turn linear colours into displayed ones in [0, 1]; bright ones roll off instead of clipping hard."""
    if gain is not None:
        picture = picture * gain[:, :, None, None]
    picture = picture.clamp(min=0).sqrt()
    if gamma != 1:
        picture = picture.pow(gamma)
    return torch.where(picture > 0.8, 1 - 0.2 * torch.exp((0.8 - picture) / 0.2), picture)


def hash_noise(shape: torch.Size, seed: int, device: torch.device, start: int = 0) -> Tensor:
    """Return about normal noise, the same on every device: the sum of four bytes of an integer hash, unit variance.

    ``start`` is the number of the first value, so that a clip can be made in parts.
    """
    # 32-bit products wrap around on every device; the masks undo the sign extension of the shifts.
    x = torch.arange(shape.numel(), dtype=torch.int32, device=device) + ((seed & 0x3FFFFFFF) + start)
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * -0x7B935975
    x = x ^ ((x >> 16) & 0xFFFF)
    total = (x & 255) + ((x >> 8) & 255) + ((x >> 16) & 255) + ((x >> 24) & 255)
    return ((total - 510).float() / 147.8).view(shape)  # four uniform bytes: variance 4 * (256^2 - 1) / 12


def noisy(picture: Tensor, level: float, seed: int, first: int) -> Tensor:
    """Add noise of a standard deviation in 8-bit levels, stronger in bright parts; ``first`` is the first frame."""
    return picture + hash_noise(picture.shape, seed, picture.device, first * picture[0].numel()) * (
        0.6 + 0.6 * picture
    ) * (level / 255)


@lru_cache(maxsize=8)
def _cosines(device: str) -> Tensor:
    """Return the 8 x 8 matrix of the orthonormal cosine transform."""
    n = torch.arange(8, dtype=torch.float64)
    matrix = torch.cos(torch.pi * (2 * n[None] + 1) * n[:, None] / 16) * 0.5
    matrix[0] *= 0.5**0.5
    return matrix.float().to(device)


@lru_cache(maxsize=128)
def _steps(quality: int, chroma: bool, device: str) -> Tensor:
    """Return quantisation steps (8, 8) in units of 1/255: growing with frequency, as in JPEG."""
    n = torch.arange(8, dtype=torch.float32)
    base = 10 + (7.0 if not chroma else 11.0) * (n[:, None] + n[None]) * (1 + 0.04 * n[:, None] * n[None])
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    return ((base * scale).clamp(min=1) / 255).to(device)


def compress(picture: Tensor, quality: int) -> Tensor:
    """Quantise 8 x 8 blocks of the cosine transform of brightness and (coarser) colour.

    Args:
        picture: (T, 3, H, W) in [0, 1].
        quality: 1 (worst) .. 100.
    """
    h, w = picture.shape[-2:]
    padded = nnf.pad(picture, (0, -w % 8, 0, -h % 8), mode="replicate")
    r, g, b = padded.unbind(1)
    bright = 0.299 * r + 0.587 * g + 0.114 * b
    device = str(picture.device)
    bright = _quantised(bright, _steps(quality, False, device))
    blue = _quantised(0.564 * (b - (0.299 * r + 0.587 * g + 0.114 * b)), _steps(quality, True, device))
    red = _quantised(0.713 * (r - (0.299 * r + 0.587 * g + 0.114 * b)), _steps(quality, True, device))
    r, b = bright + 1.403 * red, bright + 1.773 * blue
    out = torch.stack([r, (bright - 0.299 * r - 0.114 * b) / 0.587, b], 1)
    return out[..., :h, :w]


def _quantised(plane: Tensor, steps: Tensor) -> Tensor:
    count, h, w = plane.shape
    c = _cosines(str(plane.device))
    blocks = plane.view(count, h // 8, 8, w // 8, 8).transpose(2, 3)
    coded = torch.round((c @ blocks @ c.T) / steps) * steps
    return (c.T @ coded @ c).transpose(2, 3).reshape(count, h, w)


def finish(
    picture: Tensor,
    depth: Tensor,
    velocity: Tensor | None,
    effects: Effects,
    gain: Tensor | None,
    seed: int,
    first: int,
) -> Tensor:
    """Apply all effects of a clip to linear colours of some of its frames and return (T, H, W, 3) uint8.

    Args:
        picture: (T, 3, H, W).
        depth: (T, 1, H, W) metres.
        velocity: (T, 2, H, W) pixels per frame, or None.
        effects: of the clip.
        gain: (T, 3) of these frames, or None.
        seed: of the noise.
        first: number of the first of these frames in the clip.
    """
    if effects.defocus:
        picture = defocus(picture, depth, effects.defocus, effects.focus)
    if velocity is not None and effects.shutter:
        picture = motion_blur(picture, velocity, effects.shutter)
    picture = encode(picture, gain, effects.gamma)
    if effects.blur:
        picture = torch.lerp(picture, _soft(picture, 1), effects.blur)
    if effects.noise:
        picture = noisy(picture, effects.noise, seed, first)
    if effects.quality:
        picture = compress(picture.clamp(0, 1), effects.quality)
    return (picture * 255 + 0.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

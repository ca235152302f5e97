"""The coordinate convention of ptrack, and every change of it. Nothing else converts coordinates.

Raster coordinates, ``(x, y)``, float32: (0, 0) is the upper-left corner of the upper-left pixel, the centre of that
pixel is (0.5, 0.5) and (W, H) is the lower-right corner of the image. This is TAP-Vid's convention. Resizing an image
therefore scales coordinates by the size ratio with no half-pixel shift. OpenCV puts (0, 0) at the centre of the first
pixel, half a pixel away.

All functions take NumPy arrays or torch tensors ``(..., 2)`` and return new ones of the same kind; inputs are never
changed. Sizes are ``(H, W)``, as in array shapes.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np

Points = TypeVar("Points")  # np.ndarray or torch.Tensor, (..., 2) in (x, y)
Size = tuple[int, int]  # (H, W)


def _times(points: Any, x: float, y: float) -> Any:
    """Multiply the x and y columns; works for NumPy and torch without importing torch."""
    if isinstance(points, np.ndarray):
        return points * np.asarray([x, y], dtype=points.dtype)
    scaled = points.clone()  # not times a new tensor: on a GPU, that one would wait for the host
    scaled[..., 0] *= x
    scaled[..., 1] *= y
    return scaled


def rescale(points: Points, source: Size, target: Size) -> Points:
    """Convert points from an image of size ``source`` (H, W) to the same image resized to ``target`` (H, W)."""
    return _times(points, target[1] / source[1], target[0] / source[0])


def normalise(points: Points, size: Size) -> Points:
    """Convert pixels to [0, 1] x [0, 1] of an image of size (H, W)."""
    return _times(points, 1.0 / size[1], 1.0 / size[0])


def denormalise(points: Points, size: Size) -> Points:
    """Convert [0, 1] x [0, 1] to pixels of an image of size (H, W)."""
    return _times(points, float(size[1]), float(size[0]))


def to_opencv(points: Points) -> Points:
    """Convert raster coordinates to pixel-centre coordinates, where (0, 0) is the centre of the first pixel."""
    return cast(Any, points) - 0.5


def from_opencv(points: Points) -> Points:
    """Convert pixel-centre coordinates to raster coordinates."""
    return cast(Any, points) + 0.5


def inside(points: np.ndarray, size: Size) -> np.ndarray:
    """Return a boolean (...,) array: the point lies in the closed image rectangle [0, W] x [0, H]; NaN is outside."""
    x, y = points[..., 0], points[..., 1]
    return (x >= 0) & (x <= size[1]) & (y >= 0) & (y <= size[0])


def grid_points(n: int, size: Size) -> np.ndarray:
    """Return the centres of an ``n`` x ``n`` division of the image, row by row: (n*n, 2) float32 pixels.

    The outer points stay half a cell away from the border, so every point lies on the image.
    """
    h, w = size
    x = (np.arange(n, dtype=np.float64) + 0.5) * (w / n)
    y = (np.arange(n, dtype=np.float64) + 0.5) * (h / n)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)


def support_points(n: int, size: Size) -> np.ndarray:
    """Return Track-On2's support grid (arXiv 2509.19115, CoTracker's convention): (n*n, 2) float32 pixels.

    ``n`` points from W/64 to W - W/64 along x and from W/64 to H - W/64 along y, row by row, x fastest;
    ``n == 1`` gives the image centre.
    """
    h, w = size
    if n == 1:
        return np.asarray([[w / 2, h / 2]], dtype=np.float32)
    margin = w / 64
    x = np.linspace(margin, w - margin, n)
    y = np.linspace(margin, h - margin, n)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)

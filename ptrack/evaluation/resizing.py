"""Resizing frames as the published evaluations do, each with its own filter."""

from __future__ import annotations

import numpy as np

from ptrack.errors import ConfigError

FILTERS = ("lanczos", "linear")


def resize(rgb: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
    """Resize a picture.

    Args:
        rgb: (H, W, 3) uint8.
        size: (H', W').
        method: "lanczos", antialiased, bit-equal to TAP-Vid's; "linear", half-pixel centres and no antialiasing,
            within one grey level of OpenCV's bilinear filter.

    Raises:
        ConfigError: another method.
    """
    if method not in FILTERS:
        raise ConfigError(f"There is no resampling '{method}'; choose one of {', '.join(FILTERS)}.")
    if rgb.shape[:2] == tuple(size):
        return rgb
    return _lanczos(rgb, size) if method == "lanczos" else _linear(rgb, size)


def _lanczos(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image  # comes with imageio

    return np.asarray(Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.LANCZOS))


def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, per target pixel, its two source pixels and the weight of the second."""
    at = (np.arange(target, dtype=np.float64) + 0.5) * (source / target) - 0.5
    low = np.floor(at)
    weight = (at - low).astype(np.float32)
    first = np.clip(low, 0, source - 1).astype(np.int64)
    return first, np.clip(low + 1, 0, source - 1).astype(np.int64), weight


def _linear(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, bottom, wy = _taps(rgb.shape[0], size[0])
    left, right, wx = _taps(rgb.shape[1], size[1])
    wy3, wx3 = wy[:, None, None], wx[None, :, None]
    rows = rgb[top].astype(np.float32) * (1 - wy3) + rgb[bottom].astype(np.float32) * wy3
    mixed = rows[:, left] * (1 - wx3) + rows[:, right] * wx3
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)

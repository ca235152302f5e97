"""Colours of points: by where they start, by id, by motion, by visibility, by confidence. All RGB uint8.

Letters: T frames, N points.
"""

from __future__ import annotations

import colorsys

import numpy as np

from ptrack.tracks import Tracks

GOLDEN = 0.618034  # turn of the hue from one id to the next: neighbours differ, and no colour repeats exactly


def hex_colours(rgb: np.ndarray) -> list[str]:
    """Return (N, 3) uint8 colours as ``#rrggbb``."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in rgb.tolist()]


def hsv(hue: np.ndarray, saturation: np.ndarray | float = 0.9, value: np.ndarray | float = 1.0) -> np.ndarray:
    """Return (N, 3) uint8 RGB of hues in turns (any real number) and saturation and value in [0, 1]."""
    h, s, v = np.broadcast_arrays(np.mod(hue, 1.0), saturation, value)
    rows = [colorsys.hsv_to_rgb(float(a), float(b), float(c)) for a, b, c in zip(h, s, v, strict=True)]
    return np.round(np.asarray(rows or np.zeros((0, 3))) * 255).astype(np.uint8)


def by_start(tracks: Tracks) -> np.ndarray:
    """Return (N, 3): the hue turns with the start's place across the picture, the brightness with its height.

    Neighbours get like colours, so that a patch that falls apart is seen at once.
    """
    size = np.maximum([tracks.info.width, tracks.info.height], 1)
    place = np.nan_to_num(tracks.queries[:, 1:] / size, nan=0.5).clip(0, 1)
    hue = 0.85 * (0.75 * place[:, 1] + 0.25 * place[:, 0])
    return hsv(hue, 0.65 + 0.35 * place[:, 0], 1.0)


def by_id(tracks: Tracks) -> np.ndarray:
    """Return (N, 3) colours that differ from point to point, for any number of points."""
    order = np.arange(tracks.num_points)
    return hsv(order * GOLDEN, 0.75 + 0.25 * (order // 8 % 2), 1.0 - 0.18 * (order // 16 % 3))


def heat(values: np.ndarray) -> np.ndarray:
    """Return colours (..., 3) from blue (0) over green and yellow to red (1); values outside are clipped."""
    values = np.nan_to_num(np.asarray(values, dtype=np.float64)).clip(0, 1)
    stops = np.asarray([[48, 84, 235], [32, 178, 200], [70, 200, 80], [250, 210, 40], [240, 60, 40]], float)
    at = values * (len(stops) - 1)
    low = np.minimum(at.astype(int), len(stops) - 2)
    rest = (at - low)[..., None]
    return np.round(stops[low] * (1 - rest) + stops[low + 1] * rest).astype(np.uint8)

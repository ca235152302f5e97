"""Colours for points: stable, unlike their neighbours', readable on any picture and by the colour-blind."""

from __future__ import annotations

import numpy as np

from ptrack.geometry import Size

# OKLab to linear sRGB, in two matrices (Björn Ottosson, "A perceptual color space for image processing", 2020).
_LAB_TO_LMS = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
_CHROMA = 0.17  # vivid, and nearly everywhere inside sRGB at the lightness used here


def from_oklch(lightness: np.ndarray, chroma: np.ndarray | float, hue: np.ndarray) -> np.ndarray:
    """Return (..., 3) uint8 sRGB for OKLCH lightness and chroma (about 0 to 1 and 0 to 0.4) and hue in radians.

    Colours outside sRGB are clipped.
    """
    lab = np.stack(np.broadcast_arrays(lightness, chroma * np.cos(hue), chroma * np.sin(hue)), axis=-1)
    linear = np.clip(((lab @ _LAB_TO_LMS.T) ** 3) @ _LMS_TO_RGB.T, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)


def by_position(xy: np.ndarray, size: Size) -> np.ndarray:
    """Return (N, 3) uint8 colours for points (N, 2) in a frame of size (H, W): hue runs across, lightness runs down.

    The hue goes through seven eighths of the circle from left to right, so that the two sides differ, and leans a
    little with y; rows with NaN get white.
    """
    h, w = size
    finite = np.asarray(np.isfinite(xy).all(axis=-1))
    place = np.clip(np.where(finite[..., None], xy, 0.0) / np.array([w, h], dtype=np.float64), 0.0, 1.0)
    hue = 0.35 + 2 * np.pi * (0.80 * place[..., 0] + 0.075 * place[..., 1])
    colours = from_oklch(0.88 - 0.30 * place[..., 1], _CHROMA, hue)
    return np.where(finite[..., None], colours, np.uint8(255))


def by_number(count: int) -> np.ndarray:
    """Return ``count`` well separated colours (count, 3) uint8: hues step by the golden angle, lightness alternates."""
    number = np.arange(count)
    return from_oklch(0.70 + 0.08 * (number % 3 - 1), _CHROMA, number * np.pi * (3 - np.sqrt(5)))


def _between(values: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Return (..., 3) uint8 colours for values in [0, 1], linear between ``stops`` (K, 3); others are clipped."""
    at = np.clip(values, 0, 1) * (len(stops) - 1)
    low = np.minimum(at.astype(int), len(stops) - 2)
    rest = (at - low)[..., None]
    return np.round(stops[low] * (1 - rest) + stops[low + 1] * rest).astype(np.uint8)


# Orange and blue stay two colours for every kind of colour blindness, and the middle, where a probability decides
# nothing, is grey. Violet to yellow grows lighter all the way, so it can be read without any colour at all.
_PROBABILITY = np.asarray([[240, 110, 0], [250, 185, 110], [225, 225, 225], [110, 175, 240], [20, 105, 220]], float)
_AMOUNT = np.asarray([[60, 45, 185], [140, 75, 205], [215, 100, 145], [248, 155, 70], [253, 230, 80]], float)


def by_value(values: np.ndarray) -> np.ndarray:
    """Return (..., 3) uint8 colours for probabilities: 0 orange, 0.5 grey, 1 blue; NaN is white."""
    finite = np.asarray(np.isfinite(values))
    return np.where(finite[..., None], _between(np.where(finite, values, 0.0), _PROBABILITY), np.uint8(255))


def by_amount(values: np.ndarray) -> np.ndarray:
    """Return (..., 3) uint8 colours from violet (0) over red and orange to yellow (1); NaN counts as 0."""
    return _between(np.nan_to_num(np.asarray(values, dtype=np.float64)), _AMOUNT)

"""Which colour a point has, by mode: where it starts, its id, its motion, its visibility, its confidence. RGB uint8.

Letters: T frames, S steps, N points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ptrack.errors import ConfigError, did_you_mean
from ptrack.tracks import Tracks
from ptrack.viz import colours

MODES = ("start", "id", "motion", "visibility", "confidence")
SCALE_STEPS = 64  # colours of a drawn scale
_SAMPLES = 512  # frames looked at to find which speed counts as fast


def hex_colours(rgb: np.ndarray) -> list[str]:
    """Return (N, 3) uint8 colours as ``#rrggbb``."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in rgb.tolist()]


def by_start(tracks: Tracks) -> np.ndarray:
    """Return (N, 3) by where a point's query is: neighbours get like colours, so a patch that breaks up is seen."""
    size = (max(tracks.info.height, 1), max(tracks.info.width, 1))
    return colours.by_position(tracks.queries[:, 1:], size)


def by_id(tracks: Tracks) -> np.ndarray:
    """Return (N, 3) colours that differ from one point to the next, for any number of points."""
    return colours.by_number(tracks.num_points)


def speeds(tracks: Tracks, first: int, last: int) -> np.ndarray:
    """Return (last - first + 1, N) pixels per frame into each of the frames ``first`` .. ``last``; NaN if unknown."""
    start = max(first - 1, 0)
    moves = np.linalg.norm(np.diff(tracks.tracks[start : last + 1], axis=0), axis=-1)
    if first == 0:
        moves = np.concatenate([np.full((1, tracks.num_points), np.nan, moves.dtype), moves])
    return moves


def fast(tracks: Tracks) -> float:
    """Return the speed, pixels per frame, that counts as fast: the 98th percentile of visible points in a sample."""
    sample = np.unique(np.linspace(1, max(tracks.num_frames - 1, 1), _SAMPLES).astype(int))
    sample = sample[sample < tracks.num_frames]
    moves = np.linalg.norm(tracks.tracks[sample] - tracks.tracks[sample - 1], axis=-1)
    visible = tracks.visible[sample] & tracks.visible[sample - 1]
    moves = moves[np.isfinite(moves) & visible]
    return max(float(np.percentile(moves, 98)), 1e-6) if moves.size else 1.0


@dataclass(frozen=True)
class ColourScale:
    """What colours that stand for numbers mean; drawn beside them."""

    label: str  # the quantity with its unit
    low: str  # number at the first colour
    high: str  # number at the last colour
    colours: np.ndarray  # (K, 3) uint8, from low to high


@dataclass(frozen=True)
class ColourScheme:
    """The colours of all points over time, and their scale if they stand for numbers."""

    colours: Callable[[int, int], np.ndarray]  # (first, last) row -> (last - first + 1, N, 3) uint8
    scale: ColourScale | None = None


def probability_scale(label: str) -> ColourScale:
    """Return the scale of probabilities from 0 to 1."""
    return ColourScale(label, "0", "1", colours.by_value(np.linspace(0, 1, SCALE_STEPS)))


def amount_scale(label: str, low: str, high: str) -> ColourScale:
    """Return the scale of an amount that grows from violet to yellow."""
    return ColourScale(label, low, high, colours.by_amount(np.linspace(0, 1, SCALE_STEPS)))


def check_mode(mode: str) -> None:
    """Raise ConfigError, with the nearest known one, for an unknown colour mode."""
    if mode not in MODES:
        raise ConfigError(f"Unknown colour mode '{mode}'.{did_you_mean(mode, MODES)} Known: {', '.join(MODES)}.")


def colouring(tracks: Tracks, mode: str) -> ColourScheme:
    """Return the colours of a mode.

    Raises:
        ConfigError: unknown mode.
    """
    check_mode(mode)
    if mode in ("start", "id"):
        fixed = by_start(tracks) if mode == "start" else by_id(tracks)
        return ColourScheme(lambda first, last: np.broadcast_to(fixed, (last - first + 1, *fixed.shape)))
    if mode == "motion":
        top = fast(tracks)
        scale = amount_scale("speed (px/frame)", "0", f"{top:.3g}+")
        return ColourScheme(lambda first, last: colours.by_amount(speeds(tracks, first, last) / top), scale)
    values = tracks.visibility if mode == "visibility" else tracks.confidence
    return ColourScheme(lambda first, last: colours.by_value(values[first : last + 1]), probability_scale(mode))

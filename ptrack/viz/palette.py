"""Which colour a point has, by mode: where it starts, its id, its motion, its visibility, its confidence. RGB uint8.

Letters: T frames, S steps, N points.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptrack.errors import ConfigError, did_you_mean
from ptrack.tracks import Tracks
from ptrack.viz import colours

MODES = ("start", "id", "motion", "visibility", "confidence")
_SAMPLES = 512  # frames looked at to find how fast fast is


def hex_colours(rgb: np.ndarray) -> list[str]:
    """Return (N, 3) uint8 colours as ``#rrggbb``."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in rgb.tolist()]


def by_start(tracks: Tracks) -> np.ndarray:
    """Return (N, 3) by where a point's query is: neighbours get like colours, so a patch that falls apart is seen."""
    size = (max(tracks.info.height, 1), max(tracks.info.width, 1))
    return colours.by_position(tracks.queries[:, 1:], size)


def by_id(tracks: Tracks) -> np.ndarray:
    """Return (N, 3) colours that differ from one point to the next, for any number of points."""
    return colours.by_number(tracks.num_points)


def heat(values: np.ndarray) -> np.ndarray:
    """Return colours (..., 3) from blue (0) over green and yellow to red (1); values outside are clipped, NaN is 0."""
    values = np.nan_to_num(np.asarray(values, dtype=np.float64)).clip(0, 1)
    stops = np.asarray([[48, 84, 235], [32, 178, 200], [70, 200, 80], [250, 210, 40], [240, 60, 40]], float)
    at = values * (len(stops) - 1)
    low = np.minimum(at.astype(int), len(stops) - 2)
    rest = (at - low)[..., None]
    return np.round(stops[low] * (1 - rest) + stops[low + 1] * rest).astype(np.uint8)


def speeds(tracks: Tracks, first: int, last: int) -> np.ndarray:
    """Return (last - first + 1, N) pixels per frame into each of the frames ``first`` .. ``last``; NaN if unknown."""
    start = max(first - 1, 0)
    moves = np.linalg.norm(np.diff(tracks.tracks[start : last + 1], axis=0), axis=-1)
    if first == 0:
        moves = np.concatenate([np.full((1, tracks.num_points), np.nan, moves.dtype), moves])
    return moves


def fast(tracks: Tracks) -> float:
    """Return the speed, pixels per frame, that counts as fast: the 98th percentile over a sample of frames."""
    some = np.unique(np.linspace(1, max(tracks.num_frames - 1, 1), _SAMPLES).astype(int))
    some = some[some < tracks.num_frames]
    moves = np.linalg.norm(tracks.tracks[some] - tracks.tracks[some - 1], axis=-1)
    moves = moves[np.isfinite(moves)]
    return max(float(np.percentile(moves, 98)), 1e-6) if moves.size else 1.0


def colouring(tracks: Tracks, mode: str) -> Callable[[int, int], np.ndarray]:
    """Return a function that gives the colours (last - first + 1, N, 3) for the frames ``first`` .. ``last``.

    Raises:
        ConfigError: unknown mode.
    """
    if mode not in MODES:
        raise ConfigError(f"Unknown colour mode '{mode}'.{did_you_mean(mode, MODES)} Known: {', '.join(MODES)}.")
    if mode in ("start", "id"):
        fixed = by_start(tracks) if mode == "start" else by_id(tracks)
        return lambda first, last: np.broadcast_to(fixed, (last - first + 1, *fixed.shape))
    if mode == "motion":
        top = fast(tracks)
        return lambda first, last: heat(speeds(tracks, first, last) / top)
    values = tracks.visibility if mode == "visibility" else tracks.confidence
    return lambda first, last: colours.by_value(values[first : last + 1])

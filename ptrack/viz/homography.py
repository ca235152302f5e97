"""Camera motion from tracks: homographies between frames, fitted robustly to the points of the background.

Letters: T frames, N points.
"""

from __future__ import annotations

import numpy as np

from ptrack.homography import fit, ransac, refine
from ptrack.tracks import Tracks

THRESHOLD = 3.0  # pixels at a frame side of 480: the farthest a background point may lie from where the camera puts it
PAIRS = 200  # pairs of frames that decide what is background
MIN_SHARE = 0.5  # of the pairs in which a point must move with the camera to count as background


def scaled_threshold(tracks: Tracks) -> float:
    """Return ``THRESHOLD`` in pixels of the tracks' frame."""
    return THRESHOLD * max(1.0, min(tracks.info.height, tracks.info.width) / 480)


def background_points(tracks: Tracks) -> np.ndarray:
    """Return (N,) bool: the points that move with the camera in most of the pairs of frames in which they are seen.

    Pairs lie up to 10 frames apart, so that slow objects have time to move. Deterministic.
    """
    total = tracks.num_frames
    gap = int(np.clip(total // 3, 1, 10))
    firsts = np.unique(np.linspace(0, max(total - gap - 1, 0), min(PAIRS, max(total - gap, 0))).astype(int))
    seen, moved = np.zeros(tracks.num_points), np.zeros(tracks.num_points)
    for t in firsts:
        both = _both(tracks, t, t + gap)
        if len(both) < 5:
            continue
        a, b = tracks.tracks[t, both].astype(np.float64), tracks.tracks[t + gap, both].astype(np.float64)
        _, inliers = ransac(a, b, scaled_threshold(tracks), seed=int(t))
        seen[both] += 1
        moved[both] += inliers
    return (seen > 0) & (moved >= MIN_SHARE * np.maximum(seen, 1))


def _both(tracks: Tracks, s: int, t: int) -> np.ndarray:
    """Return the points that are visible, with a position, in both frames."""
    whole = np.isfinite(tracks.tracks[s, :, 0]) & np.isfinite(tracks.tracks[t, :, 0])
    return np.flatnonzero(whole & tracks.visible[s] & tracks.visible[t])


def step(tracks: Tracks, background: np.ndarray, t: int) -> np.ndarray:
    """Return the 3 x 3 homography from frame ``t - 1`` to ``t`` by the background; the identity for ``t = 0``.

    Least squares with the weights of Tukey's biweight, so that a point that slips off the background does no harm.
    """
    if t == 0:
        return np.eye(3)
    both = _both(tracks, t - 1, t)
    both = both[background[both]]
    a, b = tracks.tracks[t - 1, both].astype(np.float64), tracks.tracks[t, both].astype(np.float64)
    return refine(fit(a, b), a, b, rounds=3 if len(both) > 8 else 0, least=7)


class CameraMotion:
    """Where points of earlier frames lie in the current one if they had stayed on the background.

    Args:
        tracks: with at least a few background points; without, nothing is compensated.
        length: how many frames back one may ask.
    """

    def __init__(self, tracks: Tracks, length: int) -> None:
        self.background = background_points(tracks)
        self._tracks, self._length = tracks, length
        self._steps: dict[int, np.ndarray] = {}

    def to_current(self, t: int, first: int) -> np.ndarray:
        """Return (t - first + 1, 3, 3): the maps from frames ``first`` .. ``t`` to frame ``t``."""
        for old in [s for s in self._steps if s <= t - self._length or s > t]:
            del self._steps[old]
        maps = [np.eye(3)]
        for s in range(t, first, -1):
            if s not in self._steps:
                self._steps[s] = step(self._tracks, self.background, s)
            maps.append(maps[-1] @ self._steps[s])
        return np.stack(maps[::-1])

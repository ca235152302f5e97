"""Camera motion from tracks: homographies between frames, fitted robustly to the points of the background.

Letters: M hypotheses, K correspondences, T frames, N points.
"""

from __future__ import annotations

import numpy as np

from ptrack.tracks import Tracks

HYPOTHESES = 256  # random quadruples per pair of frames: enough for 60 % outliers with 99.9 % certainty
THRESHOLD = 3.0  # pixels at a frame side of 480: the farthest a background point may lie from where the camera puts it
PAIRS = 200  # pairs of frames that decide what is background
MIN_SHARE = 0.5  # of the pairs in which a point must move with the camera to count as background


def apply(h: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Map points (..., 2) by homographies (..., 3, 3) that broadcast over all but the last axis of points."""
    projected = np.concatenate([xy, np.ones_like(xy[..., :1])], axis=-1) @ np.swapaxes(h, -1, -2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return projected[..., :2] / projected[..., 2:]


def _normaliser(xy: np.ndarray) -> np.ndarray:
    """Return the 3 x 3 similarity that brings points to mean 0 and mean distance sqrt(2) (Hartley 1997)."""
    centre = xy.mean(axis=0)
    spread = np.linalg.norm(xy - centre, axis=1).mean()
    s = np.sqrt(2) / max(spread, 1e-9)
    return np.asarray([[s, 0, -s * centre[0]], [0, s, -s * centre[1]], [0, 0, 1]])


def _equations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the (..., 2K, 9) linear equations of ``b = H a`` for points (..., K, 2)."""
    x, y, u, v = a[..., 0], a[..., 1], b[..., 0], b[..., 1]
    zero, one = np.zeros_like(x), np.ones_like(x)
    first = np.stack([x, y, one, zero, zero, zero, -u * x, -u * y, -u], axis=-1)
    second = np.stack([zero, zero, zero, x, y, one, -v * x, -v * y, -v], axis=-1)
    return np.concatenate([first, second], axis=-2)


def fit(a: np.ndarray, b: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the 3 x 3 homography that maps points ``a`` (K, 2) to ``b`` (K, 2) best in the algebraic least squares.

    With 3 points it is affine, with 1 or 2 a shift, with none the identity.
    """
    if len(a) < 3:
        shift = np.eye(3)
        shift[:2, 2] = (b - a).mean(axis=0) if len(a) else 0
        return shift
    w = np.ones(len(a)) if weights is None else weights
    if len(a) == 3:
        system = np.column_stack([a, np.ones(3)])
        affine = np.linalg.lstsq(system, b, rcond=None)[0].T
        return np.vstack([affine, [0, 0, 1]])
    na, nb = _normaliser(a), _normaliser(b)
    rows = _equations(apply(na, a), apply(nb, b)) * np.concatenate([w, w])[:, None]
    h = np.linalg.eigh(rows.T @ rows)[1][:, 0].reshape(3, 3)  # the null direction, from 9 x 9 numbers
    h = np.linalg.inv(nb) @ h @ na
    return h / h[2, 2] if abs(h[2, 2]) > 1e-12 else np.eye(3)


def _hypotheses(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (M, 3, 3) exact homographies of random quadruples; those without a solution are left out."""
    choice = rng.random((HYPOTHESES, len(a))).argpartition(3, axis=1)[:, :4]
    rows = _equations(a[choice], b[choice])
    matrix, right = rows[..., :8], -rows[..., 8]
    good = np.abs(np.linalg.det(matrix)) > 1e-9
    solved = np.linalg.solve(matrix[good], right[good][..., None])[..., 0]
    return np.concatenate([solved, np.ones((len(solved), 1))], axis=1).reshape(-1, 3, 3)


def ransac(a: np.ndarray, b: np.ndarray, threshold: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the homography that most of the points agree on and which do: (3, 3) and (K,) bool.

    Random sample consensus (Fischler and Bolles 1981), then two least-squares fits to the points in agreement.

    Args:
        a: (K, 2) pixels in one frame.
        b: (K, 2) pixels in the other.
        threshold: pixels between ``b`` and the mapped ``a`` up to which a point agrees.
        seed: of the random choice; the same seed gives the same result.
    """
    if len(a) < 5:
        return fit(a, b), np.ones(len(a), bool)
    scale = max(float(np.ptp(a)), 1.0)
    models = _hypotheses(a / scale, b / scale, np.random.default_rng(seed))
    identity = np.eye(3)[None]
    models = np.concatenate([models, identity])
    distance = np.linalg.norm(apply(models, (a / scale)[None]) - (b / scale)[None], axis=-1) * scale
    agree = np.nan_to_num(distance, nan=np.inf) <= threshold
    inliers = agree[agree.sum(axis=1).argmax()]
    h = np.eye(3)
    for _ in range(2):
        if inliers.sum() < 4:
            break
        h = fit(a[inliers], b[inliers])
        inliers = np.nan_to_num(np.linalg.norm(apply(h, a) - b, axis=1), nan=np.inf) <= threshold
    return h, inliers


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
    h = fit(a, b)
    for _ in range(3 if len(both) > 8 else 0):
        distance = np.linalg.norm(apply(h, a) - b, axis=1)
        reach = max(4.685 * 1.4826 * float(np.median(distance)), 0.05)
        weights = np.clip(1 - (distance / reach) ** 2, 0, None)
        if (weights > 0).sum() < 8:
            break
        h = fit(a, b, weights)
    return h


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

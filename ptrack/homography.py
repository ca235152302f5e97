"""Homographies: plane to plane, fitted exactly, by least squares, or robustly.

Letters: M hypotheses, K correspondences.
"""

from __future__ import annotations

import numpy as np

HYPOTHESES = 256  # random quadruples: enough for 60 % outliers with 99.9 % certainty


def apply(h: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Map points (..., 2) by homographies (..., 3, 3) that broadcast over all but the last axis of points."""
    projected = np.concatenate([xy, np.ones_like(xy[..., :1])], axis=-1) @ np.swapaxes(h, -1, -2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return projected[..., :2] / projected[..., 2:]


def distance(h: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (..., K) pixels between ``b`` and where ``h`` puts ``a``; infinite where it puts a point nowhere."""
    off = np.linalg.norm(apply(h, a) - b, axis=-1)
    return np.where(np.isnan(off), np.inf, off)


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
    agree = distance(models, (a / scale)[None], (b / scale)[None]) * scale <= threshold
    inliers = agree[agree.sum(axis=1).argmax()]
    h = np.eye(3)
    for _ in range(2):
        if inliers.sum() < 4:
            break
        h = fit(a[inliers], b[inliers])
        inliers = distance(h, a, b) <= threshold
    return h, inliers


def refine(
    h: np.ndarray, a: np.ndarray, b: np.ndarray, rounds: int, least: int, threshold: float = np.inf
) -> np.ndarray:
    """Return ``h`` after ``rounds`` least-squares fits with the weights of Tukey's biweight to the points near it.

    It stays as it is when no more than ``least`` points lie within ``threshold`` pixels or have a weight.
    """
    for _ in range(rounds):
        off = distance(h, a, b)
        near = off <= threshold
        if near.sum() <= least:
            break
        reach = np.clip(4.685 * 1.4826 * float(np.median(off[near])), 0.05, threshold)
        weights = np.clip(1 - (off / reach) ** 2, 0, None)
        if (weights > 0).sum() <= least:
            break
        h = fit(a, b, weights)
    return h

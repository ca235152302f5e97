"""Planes: a homography per frame from the points of a region, the corner pin of four corners, stabilisation.

Letters: T frames, N points, K points seen in two frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ptrack import homography
from ptrack.errors import ConfigError, TracksError, count
from ptrack.tracks import Tracks

LEAST = 4  # points of a homography
CORNERS = ("upper-left", "upper-right", "lower-right", "lower-left")
REFINEMENTS = 5  # weighted fits, after which the weights hardly change
UNSURE = 2.0  # px of a corner's standard error from which its frames are named
FLAT = 0.01  # second singular value of the points over the first below which they lie on a line


@dataclass(frozen=True, kw_only=True)
class PlanarConfig:
    """Which points lie on the plane, and from where they are followed. Raises ConfigError for values out of range."""

    region: tuple[str, ...] = ()  # ids; empty: all points
    reference: int | None = None  # source frame; None: the first one with the most points of the region
    threshold: float = 3.0  # px up to which a point agrees with the plane

    def __post_init__(self) -> None:
        if not 0 < self.threshold < np.inf:
            raise ConfigError(f"--threshold {self.threshold:g}: it must be pixels above 0.")


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A plane followed through the frames; NaN where it could not be."""

    reference: int  # source frame
    frame_index: np.ndarray  # (T,) source frames
    seconds: np.ndarray  # (T,) as the tracks hold them
    from_reference: np.ndarray  # (T, 3, 3): where a raster pixel of the reference frame is in each frame
    to_reference: np.ndarray  # (T, 3, 3): its inverse, which holds the plane still (stabilisation)
    points: np.ndarray  # (T,) int: points of the region seen in both frames
    inliers: np.ndarray  # (T,) int: those that agree with the plane
    residual: np.ndarray  # (T,) px: root of the mean square distance of the inliers from where the plane puts them
    region: np.ndarray  # (N, 2) the region's points in the reference frame, NaN where not seen
    agree: np.ndarray  # (T, N) bool: which of them are inliers
    sentences: tuple[str, ...]  # what was found, in words


def plane(tracks: Tracks, config: PlanarConfig | None = None) -> Plane:
    """Return the homographies between a reference frame and all others, by RANSAC over the visible points of a region.

    Raises:
        TracksError: an id does not exist, no point is visible, the reference is no frame of the tracks, has fewer than
            four visible points of the region, or has them on one line.
    """
    config = config or PlanarConfig()
    region = tracks.select(config.region) if config.region else tracks
    xy = region.tracks.astype(np.float64)
    xy[~region.visible] = np.nan
    seen = np.asarray(np.isfinite(xy).all(axis=2))
    start = _reference(tracks, seen, config)
    number, t = int(tracks.frame_index[start]), tracks.num_frames
    if _spread(xy[start, seen[start]]) <= FLAT:
        raise TracksError(f"The points of the region lie on one line in frame {number}; they give no plane.")
    forward, residual = np.full((t, 3, 3), np.nan), np.full(t, np.nan)
    points, agree = (seen & seen[start]).sum(axis=1), np.zeros_like(seen)
    for row in range(t):
        both = seen[row] & seen[start]
        if points[row] >= LEAST and _spread(xy[row, both]) > FLAT and _spread(xy[start, both]) > FLAT:
            h, near, far = _fit(xy[start, both], xy[row, both], config.threshold)
            if near.sum() >= LEAST:
                forward[row], agree[row, both], residual[row] = h, near, far
    inliers = agree.sum(axis=1)
    backward = np.full_like(forward, np.nan)
    good = np.isfinite(residual)
    backward[good] = np.linalg.inv(forward[good])
    backward[good] /= backward[good][:, 2:, 2:]
    return Plane(
        reference=number,
        frame_index=tracks.frame_index,
        seconds=tracks.pts_seconds,
        from_reference=forward,
        to_reference=backward,
        points=points,
        inliers=inliers,
        residual=residual,
        region=xy[start],
        agree=agree,
        sentences=_sentences(number, points, inliers, residual, start),
    )


def _reference(tracks: Tracks, seen: np.ndarray, config: PlanarConfig) -> int:
    """Return the row of the reference frame."""
    number = seen.sum(axis=1)
    if not number.any():
        raise TracksError("No point of the region is visible in any frame; there is no plane to follow.")
    if config.reference is None:
        start = int(number.argmax())
    else:
        at = np.flatnonzero(tracks.frame_index == config.reference)
        if not len(at):
            first, last = tracks.frame_index[[0, -1]]
            raise TracksError(f"--reference {config.reference}: the tracks hold the frames {first} to {last}.")
        start = int(at[0])
    if number[start] < LEAST:
        frame = int(tracks.frame_index[start])
        raise TracksError(
            f"Frame {frame} has {count(int(number[start]), 'visible point')} of the region; a homography needs at "
            f"least {LEAST}. Track more points on the plane."
        )
    return start


def _spread(xy: np.ndarray) -> float:
    """Return how far (K, 2) points are from lying on one line: 0 on a line, 1 for a round cloud."""
    values = np.linalg.svd(xy - xy.mean(axis=0), compute_uv=False)
    return float(values[1] / values[0]) if values[0] > 0 else 0.0


def _fit(a: np.ndarray, b: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the homography from ``a`` to ``b`` (K, 2), which points agree with it, and their residual in pixels.

    The consensus at the whole threshold may lie between the plane and an object that has moved by little more than it;
    that at a quarter of it is tried too, and the one with the smaller sum of cut-off distances is refined.
    """
    shift_a, shift_b = np.eye(3), np.eye(3)
    shift_a[:2, 2], shift_b[:2, 2] = -a.mean(axis=0), b.mean(axis=0)
    a0, b0 = a - a.mean(axis=0), b - b.mean(axis=0)  # small numbers keep the equations well conditioned
    found = [homography.ransac(a0, b0, limit)[0] for limit in (threshold, threshold / 4)]
    best = min(found, key=lambda one: np.minimum(homography.distance(one, a0, b0), threshold).sum())
    h = homography.refine(best, a0, b0, REFINEMENTS, LEAST, threshold)
    distance = homography.distance(h, a0, b0)
    agree = distance <= threshold
    h = shift_b @ h @ shift_a
    residual = float(np.sqrt((distance[agree] ** 2).mean())) if agree.any() else np.nan
    return h / h[2, 2], agree, residual


def _sentences(
    number: int, points: np.ndarray, inliers: np.ndarray, residual: np.ndarray, start: int
) -> tuple[str, ...]:
    good = np.flatnonzero(np.isfinite(residual))
    others = good[good != start]
    lines = [f"Reference: frame {number}, {count(int(points[start]), 'point')}."]
    if len(others):
        share = inliers[others].sum() / points[others].sum()
        lines.append(
            f"Residual of the points that agree ({share:.0%}): median {np.median(residual[others]):.2g} px, "
            f"largest {residual[others].max():.2g} px."
        )
        exact = int((inliers[others] == LEAST).sum())
        if exact:
            lines.append(
                f"In {count(exact, 'frame')} only {LEAST} points decide: their residual is 0 whatever the error."
            )
    lost = len(residual) - len(good)
    if lost:
        lines.append(f"{count(lost, 'frame')} without a plane: fewer than {LEAST} points seen, or all on one line.")
    if len(residual) == 1:
        lines.append("With 1 frame the plane does not move.")
    return tuple(lines)


def parse_corners(text: str) -> tuple[tuple[float, float], ...]:
    """Return four (x, y) raster pixels from "10,10 90,10 90,60 10,60"; raises ConfigError."""
    words = text.split()
    pairs = [re.fullmatch(r"([^,]+),([^,]+)", word) for word in words]
    try:
        corners = tuple((float(p[1]), float(p[2])) for p in pairs if p)
    except ValueError:
        corners = ()
    if len(corners) != 4 or len(words) != 4 or not np.isfinite(corners).all():
        raise ConfigError(
            f"--corners {text}: give four corners as x,y with spaces between them, from the upper left one clockwise."
        )
    return corners


def corner_errors(found: Plane, corners: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return the standard errors of four corners in pixels, (T, 4): by the residual, and by where the points lie.

    First-order propagation through the least squares fit of the points that agree. A corner far from them is carried
    there by few degrees of perspective, so its error may be many times the residual. 0 in the reference frame, NaN
    without a plane, infinite where four points decide.
    """
    at = np.asarray(corners, np.float64)
    errors = np.full((len(found.residual), len(at)), np.nan)
    for t in np.flatnonzero(np.isfinite(found.residual)):
        points = found.region[found.agree[t]]
        free = 2 * len(points) - 8  # measured numbers beyond the eight of a homography
        variance = len(points) * found.residual[t] ** 2 / free if free else np.inf  # of one coordinate of a point
        if found.frame_index[t] == found.reference:
            variance = 0.0
        centre, spread = points.mean(axis=0), points.std()  # small numbers keep the equations well conditioned
        scale = np.asarray([[spread, 0, centre[0]], [0, spread, centre[1]], [0, 0, 1]])
        h = found.from_reference[t] @ scale
        inside, outside = (_slopes(h / h[2, 2], (xy - centre) / spread) for xy in (points, at))
        shape = outside @ np.linalg.pinv(inside.reshape(-1, 8))  # (4, 2, 2K): how the points' errors move a corner
        errors[t] = np.sqrt(variance) * np.linalg.norm(shape, axis=(1, 2)) if variance else 0.0
    return errors


def _slopes(h: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return (K, 2, 8): by how much where ``h`` puts (K, 2) points moves with its first eight numbers."""
    ones, none = np.ones(len(xy)), np.zeros((len(xy), 3))
    rows = np.column_stack([xy, ones])
    u, v, w = (rows @ h.T).T
    du = np.column_stack([rows, none, -rows[:, :2] * (u / w)[:, None]])
    dv = np.column_stack([none, rows, -rows[:, :2] * (v / w)[:, None]])
    return np.stack([du, dv], axis=1) / w[:, None, None]


def corner_sentence(found: Plane, corners: Sequence[tuple[float, float]]) -> str:
    """Return in words how sure the corners are, and in which frames they are not."""
    worst = corner_errors(found, corners).max(axis=1)
    known = np.flatnonzero(np.isfinite(worst))
    frames = found.frame_index[np.flatnonzero(worst > UNSURE)]
    text = "Corners: no standard error, as four points decide in every frame."
    if len(known):
        most = known[worst[known].argmax()]
        text = (
            f"Corners: standard error median {np.median(worst[known]):.2g} px, largest {worst[most]:.2g} px in frame "
            f"{found.frame_index[most]}."
        )
    if len(frames):
        text += (
            f" Above {UNSURE:g} px in {count(len(frames), 'frame')} ({frames[0]} to {frames[-1]}): few points agree "
            "there, or the corners lie far from them."
        )
    return text


def corner_pin(tracks: Tracks, found: Plane, corners: Sequence[tuple[float, float]]) -> Tracks:
    """Return tracks of four corners on a plane, with the ids ``CORNERS``; any export writes them.

    Their visibility is 1 where the plane was found, the confidence is the share of points that agree with it, and the
    query is the corner in the reference frame. The last of the warnings is ``corner_sentence``.

    Args:
        tracks: those of ``found``.
        corners: four (x, y) raster pixels in the reference frame, from the upper left one clockwise.
    """
    xy = homography.apply(found.from_reference, np.asarray(corners, np.float64)[None])
    start = int(np.flatnonzero(found.frame_index == found.reference)[0])
    xy[start] = corners
    known = np.isfinite(xy).all(axis=2)
    sentence = corner_sentence(found, corners)
    share = found.inliers / np.maximum(found.points, 1)
    return replace(
        tracks,
        tracks=xy.astype(np.float32),
        visibility=known.astype(np.float32),
        confidence=np.where(known, share[:, None], 0).astype(np.float32),
        queries=np.column_stack([np.full(4, start), np.asarray(corners)]).astype(np.float32),
        ids=np.asarray(CORNERS),
        info=replace(tracks.info, settings="", warnings=(*tracks.info.warnings, *found.sentences, sentence)),
    )


PLANE_COLUMNS = (
    *("frame", "time_s", "points", "inliers", "residual_px"),
    *(f"from_reference_{r}{c}" for r in range(3) for c in range(3)),
    *(f"to_reference_{r}{c}" for r in range(3) for c in range(3)),
)


def plane_rows(found: Plane) -> Iterable[list[Any]]:
    """Yield a row of ``PLANE_COLUMNS`` per frame; matrices by rows, for raster pixels."""
    for t in range(len(found.frame_index)):
        matrices = (*found.from_reference[t].ravel().tolist(), *found.to_reference[t].ravel().tolist())
        head = int(found.frame_index[t]), float(found.seconds[t]), int(found.points[t]), int(found.inliers[t])
        yield [*head, float(found.residual[t]), *matrices]


def as_document(found: Plane) -> dict[str, Any]:
    """Return the plane as what JSON can hold: None where there is none."""
    rows = [[None if v != v else v for v in row] for row in plane_rows(found)]
    frames = [
        {**dict(zip(PLANE_COLUMNS[:5], row[:5], strict=True)), "from_reference": row[5:14], "to_reference": row[14:]}
        for row in rows
    ]
    return {"reference": found.reference, "sentences": found.sentences, "frames": frames}

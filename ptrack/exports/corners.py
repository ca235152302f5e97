"""Four corners per frame, for corner pins of compositing programs.

Letters: T frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ptrack.errors import TracksError
from ptrack.exports.common import frame_size
from ptrack.geometry import Size
from ptrack.tracks import Tracks


@dataclass(frozen=True)
class CornerPin:
    """Where the corners of a plane lie, in the frames in which all four are known."""

    corners: np.ndarray  # (T, 4, 2) raster pixels: upper left, upper right, lower right, lower left
    frames: np.ndarray  # (T,) int64 source frames
    rows: np.ndarray  # (T,) int64 rows of the tracks
    size: Size  # (H, W) of the frame

    @classmethod
    def of(cls, tracks: Tracks, name: str) -> Self:
        """Return the corners of tracks of four points, in any order: which is which is decided in the first frame.

        Raises:
            TracksError: there are not four points, they never have a position together, or they do not form a
                four-sided figure there; ``name`` is the format that asks.
        """
        if tracks.num_points != 4:
            raise TracksError(
                f"The format '{name}' needs exactly 4 points, the corners of a plane; these tracks have "
                f"{tracks.num_points}. Track the four corners alone."
            )
        rows = np.flatnonzero(np.isfinite(tracks.tracks).all(axis=(1, 2)))
        if not len(rows):
            raise TracksError(
                f"The format '{name}' needs frames in which all 4 points have a position; there are none."
            )
        corners = tracks.tracks[rows].astype(np.float64)
        return cls(corners[:, corner_order(corners[0])], tracks.frame_index[rows], rows, frame_size(tracks, name))


def corner_order(quad: np.ndarray) -> np.ndarray:
    """Return the order (4,) that makes points (4, 2) upper left, upper right, lower right, lower left.

    Around their middle, clockwise on the screen, from the one nearest to the upper left corner of their bounding box.

    Raises:
        TracksError: one lies inside the triangle of the others, or three on a line.
    """
    offset = quad - quad.mean(axis=0)
    order = np.argsort(np.arctan2(offset[:, 1], offset[:, 0]), kind="stable")
    side = np.roll(quad[order], -1, axis=0) - quad[order]
    turn = side[:, 0] * np.roll(side[:, 1], -1) - side[:, 1] * np.roll(side[:, 0], -1)
    if not (turn > 1e-6).all():
        raise TracksError("The 4 points do not form a four-sided figure in their first common frame; pick its corners.")
    start = int((quad[order] - quad.min(axis=0)).sum(axis=1).argmin())
    return np.roll(order, -start)

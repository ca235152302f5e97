"""Which points come and go on a live stream: lost ones are removed, empty regions get new ones.

Letters: N points, G cells per side.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ptrack import geometry
from ptrack.errors import ConfigError

MOST_PER_CELL = 4  # points in all per cell of the grid, hidden ones included: bounds memory where nothing is removed
SEED_EVERY = 10  # frames between two looks at the coverage


@dataclass(frozen=True, kw_only=True)
class PointOptions:
    """When points are removed and added."""

    max_lost: int | None = None  # remove a point that was not visible for so many frames
    min_coverage: float | None = None  # add points when fewer than this share of the cells hold a visible one
    grid: int = 16  # cells per side

    def __post_init__(self) -> None:
        if self.max_lost is not None and self.max_lost < 1:
            raise ConfigError(f"--max-lost {self.max_lost}: give 1 frame or more.")
        if self.min_coverage is not None and not 0 < self.min_coverage <= 1:
            raise ConfigError(f"--min-coverage {self.min_coverage:g}: give a share above 0 and up to 1.")


@dataclass
class PointKeeper:
    """Counts how long each point is lost and where points are missing."""

    options: PointOptions
    size: tuple[int, int]  # (H, W) that positions refer to
    _lost: dict[str, int] = field(default_factory=dict)  # frames in a row, by id
    _frames: int = 0

    def lost(self, ids: np.ndarray, visible: np.ndarray) -> list[str]:
        """Count a frame and return the ids to remove.

        Args:
            ids: (N,) names.
            visible: (N,) bool.
        """
        if self.options.max_lost is None:
            return []
        self._lost = {i: 0 if v else self._lost.get(i, 0) + 1 for i, v in zip(ids.tolist(), visible, strict=True)}
        return [name for name, count in self._lost.items() if count >= self.options.max_lost]

    def missing(self, xy: np.ndarray, visible: np.ndarray) -> np.ndarray:
        """Return (K, 2) places for new points: the centres of cells without a visible point, if too many are empty.

        Args:
            xy: (N, 2) raster pixels.
            visible: (N,) bool.
        """
        none = np.zeros((0, 2), np.float32)
        self._frames += 1
        o = self.options
        if o.min_coverage is None or self._frames % SEED_EVERY:
            return none
        held = self.cells(xy[visible & np.isfinite(xy).all(axis=1)])
        if held.mean() >= o.min_coverage:
            return none
        room = MOST_PER_CELL * o.grid**2 - len(xy)
        return geometry.grid_points(o.grid, self.size)[~held.ravel()][: max(0, room)]

    def cells(self, xy: np.ndarray) -> np.ndarray:
        """Return (G, G) bool: which cells of the frame hold any of the points (N, 2); rows are y."""
        g, (h, w) = self.options.grid, self.size
        held = np.zeros((g, g), bool)
        inside = xy[geometry.inside(xy, self.size)]
        column = np.minimum((inside[:, 0] * g / w).astype(int), g - 1)
        row = np.minimum((inside[:, 1] * g / h).astype(int), g - 1)
        held[row, column] = True
        return held

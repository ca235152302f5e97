"""Anti-aliased drawing in NumPy: discs, rings and thick lines, thousands at a time, blended onto a copy of a picture.

A shape is a small square patch of pixels around it. Its coverage in every pixel comes from the pixel centre's distance
to the shape; where shapes of one call overlap, the one with the most coverage wins the pixel, so that the joints of a
trail do not darken. All patches of a call have one size and are worked on together; long lines are cut into pieces.

Coordinates are raster pixels (see ``ptrack.geometry``): the centre of the first pixel is (0.5, 0.5). Shapes may lie
partly or wholly outside the picture; rows with NaN are skipped.

Letters: K shapes, P pixels of a patch's side, H W the picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_ID_BITS = 20  # a pixel's key is 12 bits of coverage above 20 bits of shape number
_COVERAGE = (1 << (32 - _ID_BITS)) - 1
_PIXELS = 1 << 20  # patch pixels that are worked on at once; 4 MB per float32 temporary


class Canvas:
    """A picture to draw on. The frame given is copied and never changed; the result is ``rgb``.

    Args:
        frame: (H, W, 3) uint8.
    """

    def __init__(self, frame: np.ndarray) -> None:
        self.rgb = np.array(frame, dtype=np.uint8, order="C")
        self.height, self.width = frame.shape[:2]
        self._keys = np.zeros(self.height * self.width, dtype=np.uint32)

    def discs(self, xy: np.ndarray, radius: float, colours: np.ndarray, alpha: np.ndarray | float = 1.0) -> None:
        """Draw filled discs at (K, 2), ``radius`` pixels, colours (K, 3) or (3,) uint8, opacity (K,) or one number."""
        self.rings(xy, radius, radius, colours, alpha)

    def rings(
        self, xy: np.ndarray, radius: float, width: float, colours: np.ndarray, alpha: np.ndarray | float = 1.0
    ) -> None:
        """Draw rings: outer ``radius`` and ``width`` in pixels; a width as large as the radius fills the disc."""
        for part, offset, pixels, index in self._patches(xy, radius + 1.0):
            distance = np.hypot(offset[0], offset[1])
            coverage = np.clip(radius + 0.5 - distance, 0.0, 1.0)
            if width < radius:
                coverage *= np.clip(distance - (radius - width) + 0.5, 0.0, 1.0)
            self._blend(part, coverage, pixels, index, len(xy), colours, alpha)

    def lines(
        self,
        start: np.ndarray,
        end: np.ndarray,
        width: float,
        colours: np.ndarray,
        alpha: np.ndarray | float = 1.0,
    ) -> None:
        """Draw lines with round ends from (K, 2) to (K, 2), ``width`` pixels, colours and opacity per line."""
        count = len(start)
        whole = np.arange(count)
        length = np.hypot(*(end - start).T) if count else np.zeros(0)
        seen = np.isfinite(length) & self._near(start, end, width)
        start, end, whole, length = start[seen], end[seen], whole[seen], length[seen]
        longest = max(3.0, 2.0 * width)  # of a piece; patches stay small and round trails need few
        pieces = np.maximum(1, np.ceil(length / longest)).astype(np.int64)
        owner = np.repeat(np.arange(len(whole)), pieces)
        step = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        vector = ((end - start) / pieces[:, None])[owner]
        begin = start[owner] + vector * step[:, None]
        self._capsules(begin, vector, whole[owner], width / 2, count, colours, alpha)

    def _near(self, start: np.ndarray, end: np.ndarray, width: float) -> np.ndarray:
        """Return which lines' bounding boxes touch the picture."""
        low, high = np.fmin(start, end) - width, np.fmax(start, end) + width
        return (high >= 0).all(axis=1) & (low[:, 0] <= self.width) & (low[:, 1] <= self.height)

    def _capsules(
        self,
        begin: np.ndarray,
        vector: np.ndarray,
        shape: np.ndarray,
        radius: float,
        count: int,
        colours: np.ndarray,
        alpha: np.ndarray | float,
    ) -> None:
        """Draw short round-ended pieces; ``shape`` (K,) tells which line a piece belongs to."""
        reach = float(np.abs(vector).max(initial=0.0)) / 2 + radius + 1.0
        middle = begin + vector / 2
        vector = vector.astype(np.float32)
        inverse = 1.0 / np.maximum((vector**2).sum(axis=1), 1e-12)
        for part, (dx, dy), pixels, index in self._patches(middle, reach):
            vx, vy = vector[part][index, 0], vector[part][index, 1]
            along = np.clip((dx * vx + dy * vy) * inverse[part][index], -0.5, 0.5)
            distance = np.hypot(dx - along * vx, dy - along * vy)
            coverage = np.clip(radius + 0.5 - distance, 0.0, min(1.0, 2 * radius))
            self._blend(shape[part], coverage, pixels, index, count, colours, alpha)

    def _patches(
        self, xy: np.ndarray, reach: float
    ) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]]:
        """Yield, for some shapes at a time, the pixels within ``reach`` of their middle.

        Gives: which shapes (numbers into ``xy``); the offsets (dx, dy) of their pixel centres from the shape's middle;
        the pixels' flat positions in the picture; and for each pixel its shape's place among those yielded.
        """
        side = int(np.ceil(2 * reach)) + 1
        finite = np.isfinite(xy).all(axis=1)
        low = np.floor(np.where(finite[:, None], xy, -1e6) - reach)
        seen = finite & (low > -side).all(axis=1) & (low[:, 0] < self.width) & (low[:, 1] < self.height)
        shapes = np.flatnonzero(seen)
        reel = np.arange(side)
        for at in range(0, len(shapes), max(1, _PIXELS // (side * side))):
            part = shapes[at : at + max(1, _PIXELS // (side * side))]
            corner = low[part].astype(np.int64)
            columns, rows = corner[:, 0, None] + reel, corner[:, 1, None] + reel  # (K, P)
            dx = (columns + 0.5 - xy[part, 0, None]).astype(np.float32)
            dy = (rows + 0.5 - xy[part, 1, None]).astype(np.float32)
            inside = ((rows >= 0) & (rows < self.height))[:, :, None] & ((columns >= 0) & (columns < self.width))[:, None]
            inside &= (dx * dx)[:, None] + (dy * dy)[:, :, None] <= np.float32(reach * reach)
            k, r, c = np.nonzero(inside)
            yield part, (dx[k, c], dy[k, r]), rows[k, r] * self.width + columns[k, c], k

    def _blend(
        self,
        shapes: np.ndarray,
        coverage: np.ndarray,
        pixels: np.ndarray,
        index: np.ndarray,
        count: int,
        colours: np.ndarray,
        alpha: np.ndarray | float,
    ) -> None:
        """Blend the pixels of several shapes; where they overlap, the most opaque one counts."""
        shape = shapes[index]
        opacity = coverage * np.broadcast_to(np.asarray(alpha, dtype=np.float32), (count,))[shape]
        key = (opacity * _COVERAGE).astype(np.uint32) << np.uint32(_ID_BITS) | (shape & ((1 << _ID_BITS) - 1)).astype(
            np.uint32
        )
        np.maximum.at(self._keys, pixels, key)
        wins = (self._keys[pixels] == key) & (opacity > 0)
        self._keys[pixels] = 0
        pixels, opacity = pixels[wins], opacity[wins, None]
        colour = np.broadcast_to(np.asarray(colours, dtype=np.float32), (count, 3))[shape[wins]]
        flat = self.rgb.reshape(-1, 3)
        below = flat[pixels].astype(np.float32)
        flat[pixels] = (below + (colour - below) * opacity + 0.5).astype(np.uint8)

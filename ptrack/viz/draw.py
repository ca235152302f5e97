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

_ID_BITS = 20  # a pixel's key is 12 bits of coverage above 20 bits of shape number (modulo 1 048 576)
_COVERAGE = (1 << (32 - _ID_BITS)) - 1
_PIXELS = 1 << 17  # patch pixels that are worked on at once: temporaries of 0.5 MB stay in the cache

Number = np.ndarray | float
_Patches = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class _Brush:
    """Colour and opacity of every shape of a call."""

    def __init__(self, colours: np.ndarray, alpha: Number, count: int) -> None:
        self.colours = np.broadcast_to(np.asarray(colours, dtype=np.float32), (count, 3))
        self.opacity = np.broadcast_to(np.asarray(alpha, dtype=np.float32), (count,))


class Canvas:
    """A picture to draw on. The frame given is copied and never changed; the result is ``rgb``.

    Args:
        frame: (H, W, 3) uint8.
    """

    def __init__(self, frame: np.ndarray) -> None:
        self.rgb = np.array(frame, dtype=np.uint8, order="C")
        self.height, self.width = frame.shape[:2]
        self._keys = np.zeros(self.height * self.width, dtype=np.uint32)
        self._stamped: list[tuple[np.ndarray, np.ndarray]] = []  # flat pixels and their keys of the running call

    def discs(self, xy: np.ndarray, radius: Number, colours: np.ndarray, alpha: Number = 1.0) -> None:
        """Draw filled discs at (K, 2); ``radius`` and opacity (K,) or one number, colours (K, 3) or (3,) uint8."""
        self.rings(xy, radius, np.asarray(radius) + 1.0, colours, alpha)

    def rings(self, xy: np.ndarray, radius: Number, width: Number, colours: np.ndarray, alpha: Number = 1.0) -> None:
        """Draw rings: outer ``radius`` and ``width`` (K,) or one number, pixels; a width above it fills the disc."""
        outer = np.broadcast_to(np.asarray(radius, dtype=np.float32), (len(xy),))
        inner = outer - np.asarray(width, dtype=np.float32)
        brush = _Brush(colours, alpha, len(xy))
        for part, dx, dy, spots in self._patches(xy, float(outer.max(initial=0.0)) + 1.0):
            distance = np.sqrt(dx * dx + dy * dy)
            coverage = np.minimum(outer[part, None, None] + 0.5 - distance, distance - (inner[part, None, None] - 0.5))
            self._stamp(part, np.minimum(coverage, 1.0), spots, brush)
        self._settle(brush)

    def lines(
        self,
        start: np.ndarray,
        end: np.ndarray,
        width: float,
        colours: np.ndarray,
        alpha: Number = 1.0,
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
        self._capsules(begin, vector, whole[owner], width / 2, _Brush(colours, alpha, count))

    def _near(self, start: np.ndarray, end: np.ndarray, width: float) -> np.ndarray:
        """Return which lines' bounding boxes touch the picture."""
        low, high = np.fmin(start, end) - width, np.fmax(start, end) + width
        return (high >= 0).all(axis=1) & (low[:, 0] <= self.width) & (low[:, 1] <= self.height)

    def _capsules(self, begin: np.ndarray, vector: np.ndarray, shape: np.ndarray, radius: float, brush: _Brush) -> None:
        """Draw short round-ended pieces; ``shape`` (K,) states which line a piece belongs to."""
        reach = float(np.abs(vector).max(initial=0.0)) / 2 + radius + 0.5
        vectors = vector.astype(np.float32)[:, :, None, None]
        inverse = 1.0 / np.maximum((vectors**2).sum(axis=1), 1e-12)
        thickest = min(1.0, 2 * radius)  # coverage of a line thinner than a pixel
        for part, dx, dy, spots in self._patches(begin + vector / 2, reach):
            vx, vy = vectors[part, 0], vectors[part, 1]
            along = dx * (vx * inverse[part]) + dy * (vy * inverse[part])
            np.clip(along, -0.5, 0.5, out=along)
            off_x = dx - along * vx
            along *= vy
            off_y = np.subtract(dy, along, out=along)
            off_x *= off_x
            off_y *= off_y
            distance = np.sqrt(np.add(off_x, off_y, out=off_x), out=off_x)
            coverage = np.subtract(np.float32(radius + 0.5), distance, out=distance)
            self._stamp(shape[part], np.minimum(coverage, np.float32(thickest), out=coverage), spots, brush)
        self._settle(brush)

    def _patches(self, xy: np.ndarray, reach: float) -> Iterator[_Patches]:
        """Yield, part by part, the square of pixels around each shape that holds all within ``reach`` of its middle.

        Gives: which shapes (numbers into ``xy``); the offsets dx (K, 1, P) and dy (K, P, 1) of the pixel centres from
        the shapes' middles; and the pixels' flat places in the picture (K, P, P), -1 outside.
        """
        side = int(np.ceil(2 * reach)) + 1
        finite = np.asarray(np.isfinite(xy).all(axis=1))
        low = np.ceil(np.where(finite[:, None], xy, -1e6) - reach - 0.5)
        seen = finite & (low > -side).all(axis=1) & (low[:, 0] < self.width) & (low[:, 1] < self.height)
        shapes = np.flatnonzero(seen)
        reel = np.arange(side, dtype=np.int32)
        chunk = max(1, _PIXELS // (side * side))
        for at in range(0, len(shapes), chunk):
            part = shapes[at : at + chunk]
            corner = low[part].astype(np.int32)
            columns, rows = corner[:, 0, None] + reel, corner[:, 1, None] + reel  # (K, P)
            dx = (columns + 0.5 - xy[part, 0, None]).astype(np.float32)[:, None, :]
            dy = (rows + 0.5 - xy[part, 1, None]).astype(np.float32)[:, :, None]
            spots = (rows * np.int32(self.width))[:, :, None] + columns[:, None, :]
            if (corner < 0).any() or columns[:, -1].max() >= self.width or rows[:, -1].max() >= self.height:
                outside = ((rows < 0) | (rows >= self.height))[:, :, None]
                spots[outside | ((columns < 0) | (columns >= self.width))[:, None, :]] = -1
            yield part, dx, dy, spots

    def _stamp(self, shapes: np.ndarray, coverage: np.ndarray, spots: np.ndarray, brush: _Brush) -> None:
        """Enter (K, P, P) coverages of several shapes into the keys; each pixel keeps its most opaque shape."""
        opacity = coverage * brush.opacity[shapes, None, None]
        drawn = np.flatnonzero((opacity > 1 / 256) & (spots >= 0))
        shape = shapes[drawn // (coverage.shape[1] * coverage.shape[2])].astype(np.uint32)
        level = (opacity.reshape(-1)[drawn] * np.float32(_COVERAGE)).astype(np.uint32)
        key = level << np.uint32(_ID_BITS) | shape & np.uint32((1 << _ID_BITS) - 1)
        pixels = spots.reshape(-1)[drawn]
        np.maximum.at(self._keys, pixels, key)
        self._stamped.append((pixels, key))

    def _settle(self, brush: _Brush) -> None:
        """Blend what was stamped onto the picture, once per pixel, and clear the keys."""
        for pixels, key in self._stamped:
            wins = np.flatnonzero(self._keys[pixels] == key)
            pixels, key = pixels[wins], key[wins]
            self._keys[pixels] = 0  # a later list that holds the same key for this pixel finds it settled
            weight = ((key >> np.uint32(_ID_BITS)).astype(np.float32) * np.float32(1 / _COVERAGE))[:, None]
            flat = self.rgb.reshape(-1, 3)
            below = flat[pixels].astype(np.float32)
            mixed = brush.colours[key & np.uint32((1 << _ID_BITS) - 1)]
            mixed -= below
            mixed *= weight
            mixed += below
            mixed += 0.5
            flat[pixels] = mixed.astype(np.uint8)
        self._stamped.clear()

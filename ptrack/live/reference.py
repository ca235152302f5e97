"""Points chosen once on a picture, found again on a live stream.

The picture is laid over the stream's: a grid of points is tracked from it into the live frame and back, and those that
return agree on a homography. The picture, bent by it, is then as near to the live frame as one frame of a video is to
the next, and the points are tracked from there. Where the first look finds nothing, the next frames are tried with the
picture shifted, turned and scaled.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptrack import geometry
from ptrack.errors import InputError, QueryError
from ptrack.homography import apply, ransac
from ptrack.tracks import Queries
from ptrack.video import open_source
from ptrack.video.picture import resize

if TYPE_CHECKING:
    from ptrack.queries_io import QueryPlan
    from ptrack.tracking.tracker import Tracker

GRID = 20  # points per side that are tracked to lay the picture over the stream
RETURN_SHARE = 0.006  # of the longer side: how far a point may be from its start after the way there and back
AGREE_SHARE = 0.01  # of the longer side: how far points may be from where the homography puts them
MIN_AGREEING = 24  # points of the grid that must agree: 6 %; at random 5 of 400 do
ROUNDS = 3  # of laying the picture over, each from where the last one left it
# What the picture is tried with, one after the other: scale, turn in degrees, shift as shares of the frame.
TRIES = (
    *((scale, 0, 0.0, 0.0) for scale in (1.0, 0.7, 1.4)),
    *((1.0, turn, 0.0, 0.0) for turn in (20, -20)),
    *((1.0, 0, *shift) for shift in ((0.25, 0.0), (-0.25, 0.0), (0.0, 0.25), (0.0, -0.25))),
)


class Reference:
    """A picture with points on it.

    Args:
        rgb: (H, W, 3) uint8.
        queries: points on it; their frame numbers are not looked at.
        size: (H, W) of the stream.
        note: called with sentences for the user.
    """

    def __init__(
        self,
        rgb: np.ndarray,
        queries: Queries,
        size: geometry.Size,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._rgb = resize(rgb, (size[1], size[0]))
        self._xy = geometry.rescale(queries.xy, (rgb.shape[0], rgb.shape[1]), size)
        self._ids, self._size, self._note = queries.ids, size, note
        self._tries = cycle(TRIES)
        self._looked = 0

    def start(self, tracker: Tracker, rgb: np.ndarray) -> bool:
        """Look for the picture in a live frame; when it is found, the tracker has its points and has seen it."""
        self._looked += 1
        if self._looked == 2:
            self._note("The reference is not in the first frame; looking for it in the next ones.")
        h = self.lay_over(tracker, rgb, next(self._tries))
        if h is None:
            return False
        bent = _bent(self._rgb, h)
        xy = apply(h, self._xy.astype(np.float64)).astype(np.float32)
        on = geometry.inside(xy, self._size)
        if not on.any():
            return False
        if not on.all():
            self._note(f"{int((~on).sum())} of {len(on)} points of the reference lie outside the stream's picture.")
        tracker.reset(self._size)
        tracker.add(xy[on], self._ids[on])
        tracker.step(bent)
        return True

    def lay_over(
        self, tracker: Tracker, rgb: np.ndarray, attempt: tuple[float, float, float, float]
    ) -> np.ndarray | None:
        """Return the (3, 3) homography from the reference at the stream's size to a live frame, None if none is found.

        Args:
            tracker: is reset.
            rgb: (H, W, 3) live frame.
            attempt: scale, turn and shift to begin with.
        """
        h = _similarity(attempt, self._size)
        grid = geometry.grid_points(GRID, self._size)
        agreeing = 0
        for _ in range(ROUNDS):
            there, good = self._there_and_back(tracker, _bent(self._rgb, h), rgb, grid)
            if good.sum() < MIN_AGREEING:
                return None
            back, longest = np.linalg.inv(h), max(self._size)
            found, agree = ransac(apply(back, grid[good].astype(np.float64)), there[good], AGREE_SHARE * longest)
            agreeing = int(agree.sum())
            if agreeing < MIN_AGREEING:
                return None
            h = found
        return h

    def _there_and_back(
        self, tracker: Tracker, one: np.ndarray, other: np.ndarray, grid: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (K, 2) places of the grid in the other picture, and which of them are visible and lead back."""
        there, seen = _tracked(tracker, one, other, grid)
        inside = seen & geometry.inside(there, self._size)
        back, also = np.full_like(grid, np.inf), np.zeros(len(grid), bool)
        if inside.any():
            back[inside], also[inside] = _tracked(tracker, other, one, there[inside])
        near = np.linalg.norm(np.where(np.isfinite(back), back, 1e6) - grid, axis=1) <= RETURN_SHARE * max(self._size)
        return there, inside & also & near


def _tracked(tracker: Tracker, one: np.ndarray, other: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Track (K, 2) points from one picture into another: (K, 2) places and (K,) whether they are visible there."""
    tracker.reset((one.shape[0], one.shape[1]))
    tracker.add(xy)
    tracker.step(one)
    result = tracker.step(other)
    return result.positions, (result.visibility >= tracker.model.threshold) & np.isfinite(result.positions).all(axis=1)


def _similarity(attempt: tuple[float, float, float, float], size: geometry.Size) -> np.ndarray:
    """Return the homography that scales and turns about the centre and then shifts."""
    scale, degrees, right, down = attempt
    h, w = size
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    x, y = w / 2, h / 2
    return np.asarray([[c, -s, x - c * x + s * y + right * w], [s, c, y - s * x - c * y + down * h], [0, 0, 1.0]])


def _bent(rgb: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Return a picture as the homography ``h`` moves its points, black where nothing comes from."""
    if np.allclose(h, np.eye(3), atol=1e-9):
        return rgb
    from PIL import Image

    inverse = np.linalg.inv(h)
    numbers = (inverse / inverse[2, 2]).ravel()[:8].tolist()  # from the new picture's places to the old one's
    image = Image.fromarray(rgb)
    return np.array(image.transform(image.size, Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BILINEAR))


def open_reference(
    path: Path, plan: QueryPlan, size: geometry.Size, note: Callable[[str], None] = lambda text: None
) -> Reference:
    """Read the picture, or the frame of a video, on which points were chosen.

    Args:
        path: an image or a video.
        plan: the points; of a video, all must be on one frame.
        size: (H, W) of the stream.
        note: called with sentences for the user.

    Raises:
        InputError: it cannot be read, or has no such frame.
        QueryError: points on several frames, or outside the picture.
    """
    with open_source(str(path)) as source:
        queries = plan.build((source.info.height, source.info.width))
        times = sorted(set(queries.t.tolist()))
        if len(times) > 1:
            raise QueryError(
                f"The points of --reference {path} lie on {len(times)} frames; choose all of them on one frame."
            )
        frame = next((f for i, f in enumerate(source) if i == times[0]), None)
    if frame is None:
        raise InputError(f"{path} has no frame {times[0]}, on which the points are.")
    return Reference(frame.rgb, queries, size, note)

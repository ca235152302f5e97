"""Pictures made of pictures: side by side, error lines against the truth, a crop that follows a point, contact sheets.

Letters: T frames, N points, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ptrack.errors import TracksError
from ptrack.tracks import Tracks
from ptrack.viz import marks
from ptrack.viz.draw import Canvas
from ptrack.viz.painter import TracksPainter, View, whole_frame
from ptrack.viz.recent import jumps
from ptrack.viz.style import OverlayStyle

RED = np.asarray([255, 40, 40], np.uint8)
WHITE = np.full(3, 255, np.uint8)
GAP = 4  # pixels between the pictures of a sheet or a row
DIMMED = 0.45  # brightness of a still under the trails
SMOOTHING = 5  # frames on each side that a following crop is averaged over, so that it does not tremble


def grid(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return pictures (H, W, 3) of one size in rows of ``columns``, with a dark gap between them."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 24, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // columns * (height + GAP), i % columns * (width + GAP)
        sheet[y : y + height, x : x + width] = picture
    return sheet


def columns_for(count: int, height: int, width: int) -> int:
    """Return how many pictures of this size to put in a row, so that the whole is about 16:9."""
    best = min(range(1, count + 1), key=lambda c: abs(np.log(c * width / (-(-count // c) * height) / (16 / 9))))
    return int(best)


class Truth:
    """Ground truth to compare with: rows and points are matched by source frame and id.

    Args:
        tracks: what is judged.
        truth: the true tracks.

    Raises:
        TracksError: the two have no point or no frame in common.
    """

    def __init__(self, tracks: Tracks, truth: Tracks) -> None:
        where = {name: n for n, name in enumerate(truth.ids.tolist())}
        self._pairs = np.asarray([(n, where[i]) for n, i in enumerate(tracks.ids.tolist()) if i in where], np.int64)
        rows = {int(f): t for t, f in enumerate(truth.frame_index)}
        self._rows = [rows.get(int(f), -1) for f in tracks.frame_index]
        if not len(self._pairs) or max(self._rows, default=-1) < 0:
            raise TracksError("The ground truth has no point or no frame in common with the tracks; ids must agree.")
        self._tracks, self._truth = tracks, truth

    def errors(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the predicted and the true positions (K, 2) of the points that are truly visible in row ``t``."""
        row = self._rows[t]
        if row < 0:
            return np.zeros((0, 2)), np.zeros((0, 2))
        ours, theirs = self._pairs.T
        a, b = self._tracks.tracks[t, ours], self._truth.tracks[row, theirs]
        good = np.isfinite(a[:, 0]) & np.isfinite(b[:, 0]) & self._truth.visible[row, theirs]
        return a[good], b[good]

    def draw(self, t: int, view: View, canvas: Canvas, style: OverlayStyle) -> float:
        """Draw a red line from each predicted point to its true place, a white ring there; returns the mean error.

        The error is in pixels of the tracks' frame, NaN when nothing is visible.
        """
        a, b = self.errors(t)
        width, radius = style.sizes(canvas.height, canvas.width, self._tracks.num_points)
        canvas.lines(view.place(a), view.place(b), max(1.0, 0.8 * width), RED, 0.95)
        canvas.rings(view.place(b), 0.8 * radius, max(0.8, 0.3 * radius), WHITE, 0.9)
        return float(np.linalg.norm(a - b, axis=1).mean()) if len(a) else float("nan")


class Comparison:
    """One or several sets of tracks of one video, side by side, each with its name.

    Args:
        painters: one per set.
        names: the panels' headings; none are written for a single set without ``truth``.
        truth: per set, what to draw the error lines to, or None.
    """

    def __init__(
        self, painters: Sequence[TracksPainter], names: Sequence[str], truth: Sequence[Truth | None] = ()
    ) -> None:
        self.painters, self.names = list(painters), list(names)
        self.truth = list(truth) or [None] * len(self.painters)
        self._rows = [{int(f): t for t, f in enumerate(p.tracks.frame_index)} for p in self.painters]

    def paint(self, frame_index: int, view: View) -> np.ndarray:
        """Return the panels for a source frame in one picture; sets that lack the frame show it bare."""
        panels = [self._panel(i, frame_index, view) for i in range(len(self.painters))]
        return panels[0] if len(panels) == 1 else grid(panels, columns_for(len(panels), *view.rgb.shape[:2]))

    def _panel(self, i: int, frame_index: int, view: View) -> np.ndarray:
        canvas, words, t = Canvas(view.rgb), self.names[i], self._rows[i].get(frame_index)
        truth, painter = self.truth[i], self.painters[i]
        if t is not None:
            painter.draw(t, view, canvas)
            if truth is not None:
                error = truth.draw(t, view, canvas, painter.style)
                words += f"  mean error {error:.2f} px" if np.isfinite(error) else ""
            painter.draw_scale(canvas)
        if len(self.painters) > 1 or truth is not None:
            size = marks.text_size(canvas.height)
            marks.draw_text(canvas.rgb, words, 0.4 * size, 0.3 * size, size)
        return canvas.rgb


class FollowCrop:
    """A window that follows one point, enlarged.

    Args:
        tracks: hold the point.
        name: its id.
        side: width and height of the window in pixels of the frame.
        zoom: enlargement.

    Raises:
        TracksError: there is no such point, or it never has a position.
    """

    def __init__(self, tracks: Tracks, name: str, side: int = 160, zoom: float = 3.0) -> None:
        path = tracks.select([name]).tracks[:, 0].astype(np.float64)
        known = np.flatnonzero(np.isfinite(path[:, 0]))
        if not len(known):
            raise TracksError(f"Point '{name}' never has a position, so nothing can follow it.")
        every = np.arange(len(path))
        filled = np.stack([np.interp(every, known, path[known, axis]) for axis in (0, 1)], axis=1)
        padded = np.pad(filled, ((SMOOTHING, SMOOTHING), (0, 0)), mode="edge")
        sums = np.cumsum(np.vstack([np.zeros((1, 2)), padded]), axis=0)
        window = 2 * SMOOTHING + 1
        self._centre = (sums[window:] - sums[:-window]) / window
        self._side, self._zoom = side, zoom
        self._frame = (tracks.info.width, tracks.info.height)

    def view(self, t: int, rgb: np.ndarray) -> View:
        """Return the enlarged window of row ``t``; it stays inside the frame where that is large enough."""
        from PIL import Image

        sx, sy = rgb.shape[1] / (self._frame[0] or rgb.shape[1]), rgb.shape[0] / (self._frame[1] or rgb.shape[0])
        limit = np.asarray([rgb.shape[1] / sx, rgb.shape[0] / sy])
        size = np.minimum(self._side, limit)
        corner = np.clip(self._centre[t] - size / 2, 0, limit - size)
        out = np.maximum(np.round(size * self._zoom / 2).astype(int) * 2, 2)  # even, as video codecs like it
        box = (corner[0] * sx, corner[1] * sy, (corner[0] + size[0]) * sx, (corner[1] + size[1]) * sy)
        picture = Image.fromarray(rgb).resize((int(out[0]), int(out[1])), Image.Resampling.BICUBIC, box=box)
        scale = out / size
        x, y = -corner * scale
        return View(np.asarray(picture), (float(scale[0]), float(scale[1])), (float(x), float(y)))


def evenly(count: int, total: int) -> np.ndarray:
    """Return up to ``count`` row numbers spread over 0 .. total - 1, the first and the last included."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))


def reduced(rgb: np.ndarray, width: int) -> np.ndarray:
    """Return a picture no wider than ``width`` pixels, at the same proportions."""
    from PIL import Image

    if rgb.shape[1] <= width:
        return rgb
    height = max(1, round(rgb.shape[0] * width / rgb.shape[1]))
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))


def contact_sheet(
    painter: TracksPainter, frames: Iterable[tuple[int, np.ndarray]], count: int = 12, width: int = 480
) -> np.ndarray:
    """Return a sheet of ``count`` frames spread over the tracks, each with its time, drawn at ``width`` pixels.

    Args:
        painter: of the tracks.
        frames: ``(row, (H, W, 3) uint8)`` in order; others than the chosen ones are passed over.
    """
    chosen, pictures = set(evenly(count, painter.tracks.num_frames).tolist()), []
    for t, rgb in frames:
        if t in chosen:
            view = whole_frame(painter.tracks, reduced(rgb, width))
            picture = painter.paint(t, view)
            size = marks.text_size(picture.shape[0])
            words = f"frame {painter.tracks.frame_index[t]}, {painter.tracks.pts_seconds[t]:.2f} s"
            marks.draw_text(picture, words, 0.4 * size, 0.3 * size, size)
            pictures.append(picture)
    return grid(pictures, columns_for(len(pictures), *pictures[0].shape[:2]))


def long_exposure(painter: TracksPainter, frames: Iterable[tuple[int, np.ndarray]]) -> np.ndarray:
    """Return one still: the middle frame, dimmed, under the whole trails of all points; occluded stretches left out.

    Args:
        painter: of the tracks.
        frames: ``(row, (H, W, 3) uint8)`` in order; read up to the middle one.
    """
    background = np.zeros((2, 2, 3))
    for t, rgb in frames:
        background = rgb
        if t >= painter.tracks.num_frames // 2:
            break
    background = (background * DIMMED).astype(np.uint8)
    view = whole_frame(painter.tracks, background)
    canvas = Canvas(background)
    for piece in _pieces(painter.tracks, painter.style, canvas, view, painter):
        canvas.lines(*piece)
    painter.draw_scale(canvas)
    return canvas.rgb


def _pieces(
    tracks: Tracks, style: OverlayStyle, canvas: Canvas, view: View, painter: TracksPainter
) -> Iterator[tuple[np.ndarray, np.ndarray, float, np.ndarray, float]]:
    """Yield the arguments of ``Canvas.lines`` for 64 frames at a time."""
    width, _ = style.sizes(canvas.height, canvas.width, tracks.num_points)
    for first in range(0, max(tracks.num_frames - 1, 0), 64):
        last = min(first + 64, tracks.num_frames - 1)
        xy = view.place(tracks.tracks[first : last + 1])
        both = tracks.visible[first:last] & tracks.visible[first + 1 : last + 1]
        both &= ~jumps(xy, min(canvas.height, canvas.width))
        xy_from, xy_to = xy[:-1][both], xy[1:][both]
        colours = painter.scheme.colours(first, last)[1:][both]
        yield xy_from, xy_to, 0.8 * width, colours, style.opacity

"""What tracks look like in Python and notebooks: one line, a summary with a picture, a table of pandas.

Letters: T frames, N points.
"""

from __future__ import annotations

import importlib
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ptrack.errors import TracksError, count

if TYPE_CHECKING:
    from ptrack.tracks import Tracks
    from ptrack.viz.figure import ShownFigure

DRAWN_POINTS = 200  # lines in the picture; more would only fill it
DRAWN_ROWS = 120  # corners of a line: a notebook keeps every output in its file
HUES = 360 * 0.618  # degrees from one colour to the next: neighbours differ


def _size(tracks: Tracks) -> str:
    info = tracks.info
    return f"{info.width}x{info.height} px" if min(info.width, info.height) > 0 else "frame size unknown"


def _visible_share(tracks: Tracks) -> str:
    return f"{tracks.visible.mean():.0%} visible" if tracks.visible.size else "nothing to see"


def line(tracks: Tracks) -> str:
    """Return one line: sizes, rate, where from, and how much is visible."""
    info = tracks.info
    parts = [
        f"{count(tracks.num_frames, 'frame')} x {count(tracks.num_points, 'point')}",
        _size(tracks),
        f"{info.fps:g} fps" if info.fps else "",
        f"source={info.source!r}" if info.source else "",
        f"model={info.model!r}" if info.model else "",
        _visible_share(tracks),
    ]
    return f"Tracks({', '.join(part for part in parts if part)})"


def html(tracks: Tracks) -> str:
    """Return an HTML table of what the tracks hold, and the paths of up to 200 points as a picture (SVG)."""
    info, names = tracks.info, [str(i) for i in tracks.ids[:8]]
    more = f", ... ({tracks.num_points})" if tracks.num_points > len(names) else ""
    rows = {
        "frames": f"{tracks.num_frames}" + (f", {info.fps:g} per second" if info.fps else ""),
        "points": ", ".join(names) + more,
        "picture": _size(tracks),
        "source": info.source,
        "model": info.model,
        "visible": _visible_share(tracks).removesuffix(" visible"),
        "remarks": " ".join(info.warnings),
    }
    cells = "".join(
        f"<tr><th style='text-align:left'>{key}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for key, value in rows.items()
        if value
    )
    return f"<div><strong>Tracks</strong><table>{cells}</table>{_picture(tracks)}</div>"


def _picture(tracks: Tracks) -> str:
    """Return an SVG of the paths, broken where a point is not visible; empty without a position."""
    xy = tracks.tracks[:: max(1, -(-tracks.num_frames // DRAWN_ROWS)), :DRAWN_POINTS]
    seen = tracks.visible[:: max(1, -(-tracks.num_frames // DRAWN_ROWS)), :DRAWN_POINTS] & np.isfinite(xy).all(axis=2)
    if not seen.any():
        return ""
    width, height = tracks.info.width, tracks.info.height
    if min(width, height) < 1:
        width, height = (max(1, int(np.ceil(xy[seen][:, k].max()))) for k in (0, 1))
    stroke = max(width, height) / 300
    paths = "".join(_path(xy[:, n], seen[:, n], n, stroke) for n in range(xy.shape[1]) if seen[:, n].any())
    style = "max-width:420px;background:#16181d"
    return (
        f"<svg viewBox='0 0 {width} {height}' style='{style}' role='img' aria-label='paths of the points'>{paths}</svg>"
    )


def _path(xy: np.ndarray, seen: np.ndarray, n: int, stroke: float) -> str:
    words, before = [], False
    for (x, y), now in zip(xy.tolist(), seen.tolist(), strict=True):
        if now:
            words.append(f"{'L' if before else 'M'}{x:.1f} {y:.1f}")
        before = now
    x, y = xy[np.flatnonzero(seen)[-1]].tolist()
    colour = f"hsl({HUES * n % 360:.0f} 80% 65%)"
    trail = f"<path d='{''.join(words)}' fill='none' stroke='{colour}' stroke-width='{stroke:.2g}'/>"
    return f"{trail}<circle cx='{x:.1f}' cy='{y:.1f}' r='{1.6 * stroke:.2g}' fill='{colour}'/>"


def table(tracks: Tracks) -> Any:
    """Return a ``pandas.DataFrame`` with a row per frame and point. Raises TracksError when pandas is not installed."""
    try:
        pd = importlib.import_module("pandas")
    except ImportError as error:
        raise TracksError("to_pandas() needs pandas, which is not installed: pip install pandas") from error
    t, n = tracks.num_frames, tracks.num_points
    return pd.DataFrame(
        {
            "frame": np.repeat(tracks.frame_index, n),
            "time_s": np.repeat(tracks.pts_seconds, n),
            "id": np.tile(tracks.ids.astype(object), t),
            "x": tracks.tracks[..., 0].ravel(),
            "y": tracks.tracks[..., 1].ravel(),
            "visibility": tracks.visibility.ravel(),
            "confidence": tracks.confidence.ravel(),
            "visible": tracks.visible.ravel(),
        }
    )


def figure(tracks: Tracks) -> ShownFigure:
    """Return a figure of positions, speed and visibility over time. Raises TracksError without matplotlib."""
    try:
        plots = importlib.import_module("ptrack.viz.plots")  # by name: a data type must not depend on its pictures
        return plots.tracks_figure(tracks)
    except ImportError as error:
        raise TracksError("plot() needs matplotlib, which is not installed: pip install matplotlib") from error

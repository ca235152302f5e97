"""The paths of points as a picture for notebooks.

Letters: T frames, N points.
"""

from __future__ import annotations

import numpy as np

DRAWN_POINTS = 200  # lines in the picture; more would only fill it
DRAWN_ROWS = 120  # corners of a line: a notebook keeps every output in its file
HUES = 360 * 0.618  # degrees from one colour to the next: neighbours differ


def paths_svg(xy: np.ndarray, visible: np.ndarray, width: int, height: int) -> str:
    """Return an SVG of up to 200 points' paths, broken where a point is not visible; "" without a visible position.

    Args:
        xy: (T, N, 2) pixels, NaN where there is no position.
        visible: (T, N) bool.
        width: of the frame in pixels, below 1 if unknown.
        height: the same.
    """
    rows = slice(None, None, max(1, -(-len(xy) // DRAWN_ROWS)))
    xy = xy[rows, :DRAWN_POINTS]
    seen = visible[rows, :DRAWN_POINTS] & np.isfinite(xy).all(axis=2)
    if not seen.any():
        return ""
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

"""Plots and tables of tracks over time (matplotlib, drawn without a display).

Letters: T frames, N points.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptrack.fileio import write_csv
from ptrack.tracks import Tracks
from ptrack.viz import palette

if TYPE_CHECKING:
    from ptrack.figure import ShownFigure

COLUMNS: tuple[str, ...] = (
    *("id", "first_frame", "last_frame", "frames", "visible_share", "path_px"),
    *("mean_speed_px_per_frame", "max_speed_px_per_frame", "mean_confidence"),
)


def point_table(tracks: Tracks) -> list[dict[str, Any]]:
    """Return one dict per point with the keys ``COLUMNS``; None where a point has no position or moves nowhere.

    Frames are source frames; ``visible_share`` and ``mean_confidence`` count the frames with a position.
    """
    return [_summary(tracks, n) for n in range(tracks.num_points)]


def _summary(tracks: Tracks, n: int) -> dict[str, Any]:
    xy = tracks.tracks[:, n].astype(np.float64)
    known = np.flatnonzero(np.isfinite(xy[:, 0]))
    moves = np.linalg.norm(np.diff(xy, axis=0), axis=1)
    moves = moves[np.isfinite(moves)]
    frames = tracks.frame_index[known]
    values = (
        str(tracks.ids[n]),
        int(frames[0]) if len(known) else None,
        int(frames[-1]) if len(known) else None,
        len(known),
        round(float(tracks.visible[known, n].mean()), 4) if len(known) else None,
        round(float(moves.sum()), 3),
        round(float(moves.mean()), 4) if len(moves) else None,
        round(float(moves.max()), 4) if len(moves) else None,
        round(float(tracks.confidence[known, n].mean()), 4) if len(known) else None,
    )
    return dict(zip(COLUMNS, values, strict=True))


def write_table(tracks: Tracks, path: Path | str) -> None:
    """Write ``point_table`` as CSV."""
    write_csv(path, [COLUMNS, *([row[name] for name in COLUMNS] for row in point_table(tracks))])


def plot_tracks(tracks: Tracks, path: Path | str) -> None:
    """Write ``tracks_figure`` as a picture (.png, .svg or .pdf)."""
    tracks_figure(tracks).save(path)


def tracks_figure(tracks: Tracks) -> ShownFigure:
    """Return x, y and speed over time and the visibility of all points as one figure.

    Lines are interrupted where a point is occluded; the raster below shows every point's visibility probability.
    """
    from ptrack.figure import LEGEND_UP_TO, ShownFigure, draw_legend, draw_lines

    figure = ShownFigure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True, gridspec_kw={"height_ratios": [3, 3, 2, 2]})
    known = np.isfinite(tracks.pts_seconds).all() and bool((np.diff(tracks.pts_seconds) > 0).all())
    time = tracks.pts_seconds if known else tracks.frame_index.astype(float)
    seen = np.where(tracks.visible[..., None], tracks.tracks, np.nan)
    speed = palette.speeds(tracks, 0, tracks.num_frames - 1) if tracks.num_frames else np.zeros((0, tracks.num_points))
    speed = np.where(tracks.visible, speed, np.nan)
    colours = palette.by_start(tracks) / 255
    values_of = {"x (px)": seen[..., 0], "y (px)": seen[..., 1], "speed (px/frame)": speed}
    for axis, (label, values) in zip(axes, values_of.items(), strict=False):
        draw_lines(axis, label, time, values, tracks.ids.tolist(), colours)
    axes[1].invert_yaxis()  # as in the picture: y grows downwards
    _raster(axes[3], tracks, time)
    axes[3].set_xlabel("time (s)" if known else "frame")
    axes[0].set_title(f"{Path(tracks.info.source).name or 'tracks'}: {tracks.num_points} points")
    if 0 < tracks.num_points <= LEGEND_UP_TO:
        draw_legend(axes[0])
    return figure


def _raster(axis: Any, tracks: Tracks, time: np.ndarray) -> None:
    """Draw the visibility probabilities, one row per point; dark grey where a point has no position."""
    from matplotlib.colors import ListedColormap

    from ptrack.figure import LEGEND_UP_TO

    axis.set_facecolor("0.4")
    axis.set_ylabel("visibility by point")
    if tracks.num_frames == 0 or tracks.num_points == 0:
        return
    values = np.where(np.isfinite(tracks.tracks[..., 0]), tracks.visibility, np.nan).T
    step = (time[-1] - time[0]) / max(len(time) - 1, 1) or 1.0
    extent = (time[0] - step / 2, time[-1] + step / 2, tracks.num_points - 0.5, -0.5)
    cmap = ListedColormap(palette.probability_scale("").colours / 255)
    picture = axis.imshow(values, aspect="auto", extent=extent, cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
    axis.figure.colorbar(picture, ax=axis, label="probability")
    if tracks.num_points <= LEGEND_UP_TO:
        axis.set_yticks(range(tracks.num_points), tracks.ids.tolist())

"""Plots of measures over time, with units (matplotlib, drawn without a display)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptrack.analysis.measuring import Measures
from ptrack.errors import OutputError

ENDINGS = (".png", ".svg", ".pdf")


def check_plot(path: Path | str | None) -> None:
    """Raise OutputError unless the name ends as a picture that can be drawn."""
    if path is not None and Path(path).suffix.lower() not in ENDINGS:
        raise OutputError(f"--plot {path}: a plot ends in {', '.join(ENDINGS)}.")


def plot_measures(found: Measures, path: Path | str) -> None:
    """Write x, y, speed and acceleration, and distances and angles where there are some, over time as one figure."""
    from ptrack.figure import LEGEND_UP_TO, ShownFigure, draw_legend, draw_lines

    u, ids = found.unit, list(found.ids)
    side = f"y ({u})" if found.y_up else f"y ({u}, downwards)"
    parts = [
        (f"x ({u})", ids, found.position[..., 0]),
        (side, ids, found.position[..., 1]),
        (f"speed ({u}/s)", ids, found.speed),
        (f"acceleration ({u}/s²)", ids, found.acceleration),
        (f"path ({u})", ids, found.path),
        (f"distance ({u})", ["-".join(p) for p in found.pairs], found.distance),
        ("angle (deg)", ["-".join(c) for c in found.corners], found.angle),
    ]
    parts = [part for part in parts if part[1]]
    sd = found.position_sd
    sides = {} if sd is None else {f"x ({u})": sd[..., 0], side: sd[..., 1]}  # bands of one standard deviation
    figure = ShownFigure(figsize=(11, 1.9 * len(parts) + 0.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(parts), 1, sharex=True))
    for axis, (label, names, values) in zip(axes, parts, strict=True):
        lines = draw_lines(axis, label, found.seconds, values, names)
        if label in sides and len(names) <= LEGEND_UP_TO:
            low, high = values - sides[label], values + sides[label]
            for k, line in enumerate(lines):
                colour = line.get_color()
                axis.fill_between(found.seconds, low[:, k], high[:, k], color=colour, alpha=0.2, linewidth=0)
        if len(names) <= LEGEND_UP_TO and (axis is axes[0] or names is not ids):
            draw_legend(axis)
    axes[-1].set_xlabel("time (s)")
    figure.save(path)

"""A matplotlib figure that needs no display and that notebooks show, without pyplot and its global state."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ptrack.fileio import atomic_path

NOTEBOOK_DPI = 72  # pixels per inch of a picture that a notebook stores
LEGEND_UP_TO = 12  # lines that are named in a plot; more would cover it


class ShownFigure(Figure):
    """A figure of which a notebook shows the picture."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, dpi=NOTEBOOK_DPI)
        return file.getvalue()

    def save(self, path: Path | str) -> None:
        """Write the picture (.png, .svg or .pdf), whole or not at all."""
        with atomic_path(path) as temporary:
            self.savefig(temporary, dpi=120)


def draw_lines(
    axis: Any, label: str, time: np.ndarray, values: np.ndarray, names: Iterable[str], colours: np.ndarray | None = None
) -> list[Any]:
    """Draw (T, N) values over (T,) time, a line per name; returns the lines. One row is drawn as points."""
    marker = "." if len(time) == 1 else ""
    lines = []
    for n, name in enumerate(names):
        colour = None if colours is None else colours[n]
        lines += axis.plot(time, values[:, n], color=colour, linewidth=1, marker=marker, label=name)
    axis.set_ylabel(label)
    axis.grid(alpha=0.3)
    return lines


def draw_legend(axis: Any) -> None:
    """Name the lines beside the plot."""
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")

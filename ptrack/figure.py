"""A matplotlib figure that needs no display and that notebooks show, without pyplot and its global state."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

NOTEBOOK_DPI = 72  # pixels per inch of a picture that a notebook stores


class ShownFigure(Figure):
    """A figure of which a notebook shows the picture."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, dpi=NOTEBOOK_DPI)
        return file.getvalue()

"""What tracking asks of whatever draws its overlay: given by the caller, so that tracking knows no pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np


class Drawing(Protocol):
    """Draws the points of one video, frame after frame: ``ptrack.viz.overlay.Overlay``."""

    def draw(
        self, frame: np.ndarray, xy: np.ndarray, visible: np.ndarray, confidence: np.ndarray | None = None
    ) -> np.ndarray:
        """Return a copy of the (H, W, 3) frame with points at (N, 2) pixels, (N,) bool and (N,) 0..1 drawn on it."""
        ...


# Called with the frames of a trail and with whether occluded points are drawn always or never; None leaves the standard
# look. A function of a module, so that it can be sent to workers: ``ptrack.viz.overlay.asked_overlay``.
DrawingMaker: TypeAlias = Callable[[int | None, bool | None], Drawing]

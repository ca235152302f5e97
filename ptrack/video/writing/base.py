"""What all writers share: their interface, the check of a frame, and times that rise from 0."""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np

from ptrack.errors import OutputError
from ptrack.video.select import NOMINAL_FPS


class VideoWriter(ABC):
    """Takes frames one by one. Nothing appears under the final name before ``close``; nothing is left after an error.

    Use it as a context manager: an exception in the block discards the output.
    """

    path: Path
    frames_written: int

    @abstractmethod
    def write(self, rgb: np.ndarray, pts: float | None = None) -> None:
        """Add a frame, (H, W, 3) uint8 RGB, shown from ``pts`` (seconds) until the next one's time.

        The first frame's time becomes 0. Frames must all have one size; ``pts`` must increase.

        Raises:
            OutputError: the frame does not fit, or the disk is full.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish the output and give it its final name. Without any frame nothing is written."""

    @abstractmethod
    def abort(self) -> None:
        """Discard everything."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def check_frame(rgb: np.ndarray, size: tuple[int, int] | None, path: Path) -> None:
    """Raise OutputError unless ``rgb`` is (H, W, 3) uint8 and, if given, of ``size`` (H, W)."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise OutputError(f"{path}: a frame must be (H, W, 3) uint8, not {rgb.shape} {rgb.dtype}.")
    if size is not None and rgb.shape[:2] != size:
        raise OutputError(f"{path}: the frame size changed from {size[1]}x{size[0]} to {rgb.shape[1]}x{rgb.shape[0]}.")


class OutputClock:
    """Turns presentation times into strictly increasing ticks that start at 0.

    Attributes:
        duration: ticks from the last frame but one to the last; for which the last one is shown.
    """

    def __init__(self, base: Fraction, fps: float | None) -> None:
        self._base, self._period = base, 1 / (fps or NOMINAL_FPS)
        self._origin: float | None = None
        self._last: int | None = None
        self._last_seconds = 0.0
        self.duration = max(1, round(self._period / float(base)))

    def ticks(self, pts: float | None) -> int:
        """Return the ticks of a frame at ``pts`` seconds; one period after the last frame if None or not a number."""
        if pts is None or not np.isfinite(pts):
            pts = self._last_seconds + self._period if self._last is not None else 0.0
        if self._origin is None:
            self._origin = pts
        ticks = round((pts - self._origin) / float(self._base))
        if self._last is not None:
            ticks = max(ticks, self._last + 1)
            self.duration = ticks - self._last
        self._last, self._last_seconds = ticks, pts
        return ticks

"""From a decoded picture to what a viewer would see: uint8 RGB, upright, square pixels, not larger than asked."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_ODDEST_PIXEL = 8  # sample aspect ratios beyond 8:1 are header damage, not anamorphic video


class Orientation(NamedTuple):
    """A display matrix reduced to right angles: transpose first, then mirror."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def degrees(self) -> int:
        """Counter-clockwise rotation, 0, 90, 180 or 270; a mirrored picture counts as its rotation after mirroring."""
        if self.transpose:
            return 90 if self.mirror_y else 270
        return 180 if self.mirror_y else 0

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Return the upright (H, W, C) picture, C-contiguous."""
        if self.transpose:
            picture = picture.transpose(1, 0, 2)
        return np.ascontiguousarray(picture[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])


def orientation_of(frame: VideoFrame) -> Orientation:
    """Return the orientation a frame's display matrix asks for (nothing without one).

    The matrix maps x' = a x + c y, y' = b x + d y in 16.16 fixed point, rows (a, b, u), (c, d, v), (x, y, w).
    """
    side_data: Any = frame.side_data
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data), dtype="<i4", count=5).tolist()
            if abs(b) + abs(c) > abs(a) + abs(d):
                return Orientation(True, c < 0, b < 0)
            return Orientation(False, a < 0, d < 0)
    return Orientation()


def shrunk(width: int, height: int, max_size: int | None) -> tuple[int, int]:
    """Return (width, height) reduced so that the longer side is at most ``max_size``; never enlarged."""
    longest = max(width, height)
    if max_size is None or longest <= max_size:
        return width, height
    return max(1, round(width * max_size / longest)), max(1, round(height * max_size / longest))


def over_black(rgba: np.ndarray) -> np.ndarray:
    """Return (..., 4) uint8 RGBA laid over black as (..., 3) RGB."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)


class Converter:
    """Turns decoded frames of one stream into displayed RGB pictures, all of the first frame's size.

    Attributes:
        width, height: pixels of the displayed picture before reduction to ``max_size``.
        rotation: degrees counter-clockwise that are applied.
        resized: frames of another size have been met (and resized).
    """

    def __init__(self, first: VideoFrame, sample_aspect_ratio: Fraction | None, max_size: int | None) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()  # one for all frames: it keeps its tables
        self._orientation = orientation_of(first)
        self._coded = first.width, first.height
        width, height = self._square_pixels(first, sample_aspect_ratio)
        if self._orientation.transpose:
            width, height = height, width
        self.width, self.height = width, height
        self.rotation = self._orientation.degrees
        self.size = shrunk(width, height, max_size)  # (width, height) of the result
        self.resized = False

    @staticmethod
    def _square_pixels(first: VideoFrame, ratio: Fraction | None) -> tuple[int, int]:
        if not ratio or ratio <= 0 or not Fraction(1, _ODDEST_PIXEL) <= ratio <= _ODDEST_PIXEL:
            return first.width, first.height
        return max(1, round(first.width * ratio)), first.height

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB, C-contiguous and not shared with the decoder."""
        from av.video.reformatter import Interpolation

        self.resized |= (frame.width, frame.height) != self._coded
        width, height = reversed(self.size) if self._orientation.transpose else self.size
        shrinks = width * height < frame.width * frame.height
        alpha = any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8"
        picture = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgba" if alpha else "rgb24",
            interpolation=Interpolation.AREA if shrinks else Interpolation.BICUBIC,
        ).to_ndarray()
        return self._orientation.apply(over_black(picture) if alpha else picture)

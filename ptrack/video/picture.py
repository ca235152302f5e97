"""From a decoded picture to what a viewer would see: uint8 RGB, upright, square pixels, not larger than asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptrack.video.crop import Crop
from ptrack.video.depth import Depth, chosen_range, range_warning, sample_of, slabs

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
    """Return (..., 4) uint8 or uint16 RGBA laid over black as (..., 3) RGB of the same type."""
    opaque = np.iinfo(rgba.dtype).max
    wide = np.uint16 if rgba.dtype == np.uint8 else np.uint32
    rgb = np.empty((*rgba.shape[:-1], 3), rgba.dtype)
    for rows in slabs(rgba.shape):
        alpha = rgba[rows, ..., 3:].astype(wide)
        rgb[rows] = (rgba[rows, ..., :3] * alpha + opaque // 2) // opaque
    return rgb


def resize(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB resized to ``size`` (width, height): by area when it shrinks, else bicubic."""
    if (rgb.shape[1], rgb.shape[0]) == size:
        return rgb
    from PIL import Image

    shrinks = size[0] * size[1] < rgb.shape[0] * rgb.shape[1]
    image = Image.fromarray(rgb).resize(size, Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC)
    return np.array(image)


def as_colours(values: np.ndarray) -> np.ndarray:
    """Return (H, W) grey or (H, W, 3) as (H, W, 3)."""
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


def deep_format(name: str) -> str | None:
    """Return the pixel format in which a frame's 16-bit or floating-point numbers are read, None for fewer bits.

    Formats that are declared to have 9 to 14 bits, and all YUV, fill the range of their type by definition.
    """
    for prefixes, target in (
        (("gray16",), "gray16le"),
        (("rgb48", "bgr48", "gbrp16"), "rgb48le"),
        (("grayf32",), "grayf32le"),
        (("gbrpf32",), "gbrpf32le"),
    ):
        if name.startswith(prefixes):
            return target
    return None


class Converter:
    """Turns decoded frames of one stream into displayed RGB pictures, all of the first frame's size.

    Attributes:
        width, height: pixels of the displayed picture before reduction to ``max_size``.
        rotation: degrees counter-clockwise that are applied.
        resized: frames of another size have been met (and resized).
    """

    def __init__(
        self,
        first: VideoFrame,
        sample_aspect_ratio: Fraction | None,
        max_size: int | None,
        crop: Crop | None = None,
    ) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()  # one for all frames: it keeps its tables
        self._orientation = orientation_of(first)
        self._coded = first.width, first.height
        self._crop = crop or Crop()
        self._depth: Depth | None = None
        self._format: str | None = None  # in which the numbers for ``_depth`` are read; None: as for 8 bits
        width, height = self._crop.leaves(*self._coded)
        width = _square_pixels(width, sample_aspect_ratio)
        if self._orientation.transpose:
            width, height = height, width
        self.width, self.height = width, height
        self.rotation = self._orientation.degrees
        self.size = shrunk(width, height, max_size)  # (width, height) of the result
        self.resized = False

    def take_range(self, low: float, high: float, frame: VideoFrame) -> None:
        """Show the values ``low`` to ``high``, in the numbers of this frame's pixel format, as black to white."""
        self._format = deep_format(frame.format.name)
        bits = max(component.bits for component in frame.format.components)
        factor = 1.0
        if self._format is None and bits > 8:
            self._format = "rgb48le"
            factor = 65535 / (2**bits - 1)
        self._depth = Depth(low * factor, high * factor)

    def choose_range(
        self,
        first: VideoFrame,
        asked: tuple[float, float] | None,
        name: str,
        later: Callable[[], Sequence[np.ndarray]] = lambda: (),
    ) -> str:
        """Set the range of pictures of more than eight bits: as asked for, or from frames of the source.

        Args:
            first: the first frame.
            asked: the range that was asked for, if any.
            name: of the source.
            later: gives samples of later frames, if there are any; without them the range is that of the numbers' kind.

        Returns:
            A sentence about the range that was chosen; empty if none was.
        """
        if asked is not None:
            self.take_range(*asked, first)
            return ""
        values = self.deep_values(first)
        if values is None:
            return ""
        samples = [sample_of(values), *later()]
        low, high = chosen_range(samples, whole=len(samples) > 1)
        self.take_range(low, high, first)
        return range_warning(name, samples, (low, high))

    def deep_values(self, frame: VideoFrame) -> np.ndarray | None:
        """Return the (H, W) or (H, W, 3) 16-bit or floating-point numbers of a frame; None if it has fewer bits."""
        target = deep_format(frame.format.name)
        return None if target is None else self._reformatter.reformat(frame, format=target).to_ndarray()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB, C-contiguous and not shared with the decoder."""
        self.resized |= (frame.width, frame.height) != self._coded
        width, height = reversed(self.size) if self._orientation.transpose else self.size
        if self._depth is None and not any(self._crop):
            return self._orientation.apply(self._eight_bits(frame, width, height))
        if self._format is not None:
            values = self._reformatter.reformat(frame, format=self._format).to_ndarray()
        else:
            values = self._eight_bits(frame, frame.width, frame.height)
        rgb = as_colours(self._depth(values) if self._depth is not None else values)
        left, top, right, bottom = self._crop
        rgb = rgb[top : rgb.shape[0] - bottom, left : rgb.shape[1] - right]
        return self._orientation.apply(resize(np.ascontiguousarray(rgb), (width, height)))

    def _eight_bits(self, frame: VideoFrame, width: int, height: int) -> np.ndarray:
        """Return (height, width, 3) uint8 RGB, alpha over black."""
        from av.video.reformatter import Interpolation

        shrinks = width * height < frame.width * frame.height
        alpha = any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8"
        picture = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgba" if alpha else "rgb24",
            interpolation=Interpolation.AREA if shrinks else Interpolation.BICUBIC,
        ).to_ndarray()
        return over_black(picture) if alpha else picture


def _square_pixels(width: int, ratio: Fraction | None) -> int:
    """Return the width at which a picture's pixels are square."""
    if not ratio or ratio <= 0 or not Fraction(1, _ODDEST_PIXEL) <= ratio <= _ODDEST_PIXEL:
        return width
    return max(1, round(width * ratio))

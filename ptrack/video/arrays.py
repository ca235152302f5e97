"""Frames that are already in memory or made by Python code: arrays, sequences and iterators of arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ptrack.errors import InputError
from ptrack.video.depth import Depth
from ptrack.video.frames import Frame, FrameSource, ReadOptions, SourceInfo
from ptrack.video.picture import over_black, resize, shrunk
from ptrack.video.select import NOMINAL_FPS, Shown, nothing_selected, selected


def as_rgb(picture: Any, what: str, values: tuple[float, float] | None = None) -> np.ndarray:
    """Return one picture, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8, as (H, W, 3) RGB; alpha over black.

    With ``values``, those that become black and white, it may have any number type.

    Raises:
        InputError: another shape or number type.
    """
    array = np.asarray(picture)
    if values is not None and array.dtype.kind in "uif":
        array = Depth(*values)(array)
    if array.dtype != np.uint8:
        raise InputError(
            f"{what} holds {array.dtype} numbers; frames must be uint8 from 0 to 255. "
            "Give range, for example range=(0, 1), or convert first: (frames * 255).astype('uint8')."
        )
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise InputError(f"{what} has the shape {np.shape(picture)}; a frame must be (H, W, 3) or (H, W).")
    if array.shape[2] == 4:
        return over_black(array)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


class Fitter:
    """Brings pictures of any size to the first one's size, reduced to ``max_size``."""

    def __init__(self, first: np.ndarray, max_size: int | None) -> None:
        self.height, self.width = first.shape[:2]
        self.size = shrunk(self.width, self.height, max_size)
        self.resized = False

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Return the picture at the common size."""
        self.resized |= rgb.shape[:2] != (self.height, self.width)
        return resize(rgb, self.size)

    def warning(self, name: str) -> str:
        """Return the sentence about mixed sizes."""
        return f"{name}: the pictures differ in size; all are resized to {self.size[0]}x{self.size[1]}."


def chosen(count: int, options: ReadOptions, fps: float) -> range:
    """Return the numbers of the frames that ``options`` select out of ``count`` evenly timed ones."""

    def number(bound: int | float | None, default: int) -> int:
        if isinstance(bound, float):
            return int(np.ceil(bound * fps - 1e-4))  # the first frame at or after that time
        return default if bound is None else bound

    return range(min(count, number(options.start, 0)), min(count, number(options.end, count)), options.stride)


class ArraySource(FrameSource):
    """An array (T, H, W, 3) or (T, H, W), or a sequence of such frames. Nothing is copied before it is read."""

    def __init__(self, frames: Sequence[Any] | np.ndarray, options: ReadOptions, name: str = "array") -> None:
        super().__init__(options)
        if isinstance(frames, np.ndarray) and frames.ndim not in (3, 4):
            raise InputError(f"The frames have the shape {frames.shape}; they must be (T, H, W, 3) or (T, H, W).")
        if isinstance(frames, np.ndarray) and frames.ndim == 3 and frames.shape[2] in (3, 4):
            raise InputError(
                f"One picture of the shape {frames.shape} is no video; give frames[None] for a video of one frame."
            )
        if len(frames) == 0:
            raise InputError("There are no frames in the array; give at least one.")
        self._frames, self._name = frames, name
        self._fps = options.fps or NOMINAL_FPS
        self._numbers = chosen(len(frames), options, self._fps)
        if not self._numbers:
            raise nothing_selected(name, options)
        self._fit = Fitter(as_rgb(frames[0], "The first frame", options.range), options.max_size)
        self.info = SourceInfo(
            name=name,
            kind="array",
            width=self._fit.width,
            height=self._fit.height,
            fps=options.fps and options.fps / options.stride,
            expected_frames=len(self._numbers),
        )

    def _frame(self, number: int) -> Frame:
        rgb = self._fit(as_rgb(self._frames[number], f"Frame {number}", self.options.range))
        if self._fit.resized and not self.warnings:
            self.warnings.append(self._fit.warning(self._name))
        return Frame(rgb, number, number / self._fps)

    def __iter__(self) -> Iterator[Frame]:
        return map(self._frame, self._numbers)

    def reversed(self, stop: int) -> Iterator[Frame]:
        """Yield the selected frames ``stop - 1 .. 0``."""
        return map(self._frame, reversed(self._numbers[:stop]))

    def sha256(self) -> str:
        """Return the SHA-256 of the pixels, frame after frame."""
        digest = hashlib.sha256()
        for frame in self._frames:
            digest.update(np.ascontiguousarray(frame).data)
        return digest.hexdigest()


class IteratorSource(FrameSource):
    """Any iterator or iterable of frames; it can be read once."""

    def __init__(self, frames: Iterable[Any], options: ReadOptions, name: str = "iterator") -> None:
        super().__init__(options)
        self._frames, self._name = iter(frames), name
        try:
            self._first = as_rgb(next(self._frames), "The first frame", options.range)
        except StopIteration:
            raise InputError("The iterator gives no frames; give at least one.") from None
        self._fit = Fitter(self._first, options.max_size)
        self._begun = False
        self.info = SourceInfo(
            name=name,
            kind="array",
            width=self._fit.width,
            height=self._fit.height,
            fps=options.fps and options.fps / options.stride,
            rereadable=False,
        )

    def _timeline(self) -> Iterator[Shown[np.ndarray]]:
        fps = self.options.fps or NOMINAL_FPS
        yield Shown(0.0, self._first, True)
        for number, picture in enumerate(self._frames, 1):
            yield Shown(number / fps, as_rgb(picture, f"Frame {number}", self.options.range), True)

    def __iter__(self) -> Iterator[Frame]:
        if self._begun:
            raise InputError(f"The {self._name} has been read already and cannot be read again. Give a list or a file.")
        self._begun = True
        return self._read()

    def _read(self) -> Iterator[Frame]:
        empty = True
        for frame in selected(self._timeline(), self.options, self._fit):
            if self._fit.resized and not self.warnings:
                self.warnings.append(self._fit.warning(self._name))
            empty = False
            yield frame
        if empty:
            raise nothing_selected(self._name, self.options)

    def reversed(self, stop: int) -> Iterator[Frame]:
        """Refuse: an iterator cannot be read backwards."""
        raise InputError(f"The {self._name} cannot be read backwards; backward tracking needs a file or an array.")

"""Frames that are already in memory or made by Python code: arrays, sequences and iterators of arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image

from ptrack.errors import InputError
from ptrack.tensors import as_numpy, is_tensor
from ptrack.video.depth import Depth
from ptrack.video.frames import Frame, FrameSource, ReadOptions, SourceInfo
from ptrack.video.picture import over_black, resize, shrunk
from ptrack.video.select import NOMINAL_FPS, Shown, nothing_selected, selected

CHANNELS = (1, 3, 4)  # grey, RGB, RGB with alpha
PLAIN_MODES = ("L", "RGB", "RGBA", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # of PIL: the numbers are the picture
TURNED = 0x0112  # EXIF tag of the orientation; 1 is upright
ROUNDING = 1e-3  # by which floating-point values may exceed 0..1; less than half a step of 255


def as_array(picture: Any, what: str) -> np.ndarray:
    """Return one picture, an array, tensor or PIL image, as an array with the channels last; nothing is rescaled.

    Raises:
        InputError: a PIL image that asks for being turned, or no picture at all.
    """
    if isinstance(picture, Image.Image):
        picture = _of_pil(picture, what)
    if isinstance(picture, str | bytes | PathLike | Mapping):
        raise InputError(
            f"{what} is a {type(picture).__name__}; a frame must be an array (H, W, 3), a tensor or a PIL image. "
            'Files are read from a folder or pattern: "shots/*.png".'
        )
    array = np.asarray(as_numpy(picture))
    first = array.ndim == 3 and array.shape[2] not in CHANNELS and array.shape[0] in CHANNELS
    return np.moveaxis(array, 0, 2) if first else array


def _of_pil(image: Image.Image, what: str) -> Image.Image:
    if image.getexif().get(TURNED, 1) != 1:
        raise InputError(
            f"{what} is a PIL image with a rotation in its EXIF data, which PIL has not applied. Give "
            "PIL.ImageOps.exif_transpose(image), so that it is upright."
        )
    if image.mode in PLAIN_MODES:
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def as_rgb(picture: Any, what: str, values: tuple[float, float] | None = None) -> np.ndarray:
    """Return one picture as (H, W, 3) uint8 RGB; alpha over black.

    Args:
        picture: (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels C; uint8, or floating point from 0 to 1.
        what: its name in errors, the beginning of a sentence.
        values: those that become black and white; with them the picture may have any number type.

    Raises:
        InputError: another shape or number type, or floating point beyond 0..1.
    """
    array = as_array(picture, what)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in CHANNELS or array.size == 0:
        raise InputError(f"{what} has the shape {np.shape(picture)}; a frame must be (H, W, 3) or (H, W).")
    if values is not None and array.dtype.kind in "uif":
        array = Depth(*values)(array)
    elif array.dtype.kind == "f":
        array = _of_unit_range(array, what)
    if array.dtype != np.uint8:
        raise InputError(
            f"{what} holds {array.dtype} numbers; frames must be uint8 from 0 to 255 or floating point from 0 to 1. "
            "Give ptrack.read_frames(frames, range=(black, white)), or convert them first."
        )
    if array.shape[2] == 4:
        return over_black(array)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _of_unit_range(array: np.ndarray, what: str) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        found = "NaN" if np.isnan(low) else f"{array.dtype} numbers from {low:g} to {high:g}"
        raise InputError(
            f"{what} holds {found}; floating-point frames must lie between 0 and 1. "
            "Divide or clip them, or give ptrack.read_frames(frames, range=(black, white))."
        )
    return Depth(0, 1)(array)


class Pictures:
    """Turns the pictures of one source into (H, W, 3) uint8 RGB; all must have numbers of the first one's kind."""

    def __init__(self, values: tuple[float, float] | None) -> None:
        self.values = values
        self._first: np.dtype[Any] | None = None

    def __call__(self, picture: Any, what: str) -> np.ndarray:
        """Return the picture ``what``; see ``as_rgb``."""
        array = as_array(picture, what)
        self._first = self._first or array.dtype
        if (array.dtype.kind == "f") != (self._first.kind == "f"):
            raise InputError(
                f"{what} holds {array.dtype} numbers, the first frame {self._first}; give all frames one type."
            )
        return as_rgb(array, what, self.values)


def as_clip(frames: Any) -> np.ndarray | Sequence[Any]:
    """Return an array or tensor of a whole clip as a sequence of its frames; in memory nothing is copied.

    Raises:
        InputError: several clips, one picture, or a shape that could be either.
    """
    if len(frames.shape) == 5:
        if len(frames) != 1:
            raise InputError(
                f"The frames have the shape {tuple(frames.shape)}, which is {len(frames)} videos; track one at a time: "
                "[tracker(video, queries) for video in videos]."
            )
        frames = frames[0]
    shape = tuple(frames.shape)
    if len(shape) not in (3, 4):
        raise InputError(f"The frames have the shape {shape}; they must be (T, H, W, 3) or (T, H, W).")
    if len(shape) == 3 and shape[2] in (3, 4):
        raise InputError(f"One picture of the shape {shape} is no video; give frames[None] for a video of one frame.")
    if len(shape) == 3 and shape[0] == 3:
        raise InputError(
            f"Frames of the shape {shape} may be one picture (3, H, W) or three grey ones (T, H, W); "
            "give frames[None] for the one, frames[..., None] for the others."
        )
    elsewhere = is_tensor(frames) and frames.device.type != "cpu"
    return list(frames) if elsewhere else np.asarray(as_numpy(frames))  # from a GPU frames come one at a time


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

    def info(self, name: str, kind: str, options: ReadOptions, **more: Any) -> SourceInfo:
        """Return what is known of a source of pictures that have no times of their own."""
        rate = options.fps and options.fps / options.stride
        return SourceInfo(name=name, kind=kind, width=self.width, height=self.height, fps=rate, **more)

    def warn(self, name: str, warnings: list[str]) -> None:
        """Add the sentence for the user, once there was a picture of another size, to a list without any."""
        if self.resized and not warnings:
            warnings.append(self.warning(name))

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
    """An array or tensor (T, H, W, 3), (T, 3, H, W) or (T, H, W), or a sequence of frames, read when needed."""

    def __init__(self, frames: Any, options: ReadOptions, name: str = "array") -> None:
        super().__init__(options)
        if hasattr(frames, "shape"):
            frames = as_clip(frames)
        if len(frames) == 0:
            raise InputError("There are no frames in the array; give at least one.")
        self._frames, self._name = frames, name
        self._fps = options.fps or NOMINAL_FPS
        self._numbers = chosen(len(frames), options, self._fps)
        if not self._numbers:
            raise nothing_selected(name, options)
        self._rgb = Pictures(options.range)
        self._fit = Fitter(self._rgb(frames[0], "The first frame"), options.max_size)
        self.info = self._fit.info(name, "array", options, expected_frames=len(self._numbers))

    def _frame(self, number: int) -> Frame:
        rgb = self._fit(self._rgb(self._frames[number], f"Frame {number}"))
        self._fit.warn(self._name, self.warnings)
        return Frame(rgb, number, number / self._fps)

    def __iter__(self) -> Iterator[Frame]:
        return map(self._frame, self._numbers)

    def reversed(self, stop: int) -> Iterator[Frame]:
        """Yield the selected frames ``stop - 1 .. 0``."""
        return map(self._frame, reversed(self._numbers[:stop]))

    def sha256(self) -> str:
        """Return the SHA-256 of the pixels, frame after frame."""
        digest = hashlib.sha256()
        for number, frame in enumerate(self._frames):
            digest.update(np.ascontiguousarray(as_array(frame, f"Frame {number}")).data)
        return digest.hexdigest()


class IteratorSource(FrameSource):
    """Any iterator or iterable of frames; it can be read once."""

    def __init__(self, frames: Iterable[Any], options: ReadOptions, name: str = "iterator") -> None:
        super().__init__(options)
        self._frames, self._name = iter(frames), name
        try:
            self._rgb = Pictures(options.range)
            self._first = self._rgb(next(self._frames), "The first frame")
        except StopIteration:
            raise InputError("The iterator gives no frames; give at least one.") from None
        self._fit = Fitter(self._first, options.max_size)
        self._begun = False
        self.info = self._fit.info(name, "array", options, rereadable=False)

    def _timeline(self) -> Iterator[Shown[np.ndarray]]:
        fps = self.options.fps or NOMINAL_FPS
        yield Shown(0.0, self._first, True)
        for number, picture in enumerate(self._frames, 1):
            yield Shown(number / fps, self._rgb(picture, f"Frame {number}"), True)

    def __iter__(self) -> Iterator[Frame]:
        if self._begun:
            raise InputError(f"The {self._name} has been read already and cannot be read again. Give a list or a file.")
        self._begun = True
        return self._read()

    def _read(self) -> Iterator[Frame]:
        empty = True
        for frame in selected(self._timeline(), self.options, self._fit):
            self._fit.warn(self._name, self.warnings)
            empty = False
            yield frame
        if empty:
            raise nothing_selected(self._name, self.options)

    def reversed(self, stop: int) -> Iterator[Frame]:
        """Refuse: an iterator cannot be read backwards."""
        raise InputError(f"The {self._name} cannot be read backwards; backward tracking needs a file or an array.")

"""Folders of images, glob patterns and single images, in natural order (frame2 before frame10)."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ptrack.errors import InputError
from ptrack.video.arrays import Fitter, chosen
from ptrack.video.frames import Frame, FrameSource, ReadOptions, SourceInfo
from ptrack.video.picture import over_black
from ptrack.video.select import NOMINAL_FPS, nothing_selected

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("png", "jpg", "jpeg", "jpe", "jfif", "bmp", "dib", "tif", "tiff", "webp"),
        *("ppm", "pgm", "pbm", "pnm", "tga", "jp2", "avif"),
    )
)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that compares runs of digits as numbers and the rest without case."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def in_folder(folder: Path) -> list[Path]:
    """Return the images of a folder in natural order; hidden and other files are left out.

    Raises:
        InputError: it holds no images or may not be read.
    """
    try:
        paths = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    except OSError as error:
        raise InputError(f"The folder {folder} may not be read: {error.strerror or error}.") from error
    paths = [p for p in paths if p.is_file()]
    if not paths:
        raise InputError(
            f"The folder {folder} holds no images (such as .png or .jpg). Give a folder of frames or a video file."
        )
    return sorted(paths, key=lambda p: (natural_key(p.name), p.name))


def by_pattern(pattern: str) -> list[Path]:
    """Return the images a glob pattern finds, in natural order.

    Raises:
        InputError: it finds none.
    """
    paths = [Path(p) for p in glob.glob(pattern, recursive=True)]
    paths = [p for p in paths if p.is_file() and p.suffix.lower() in SUFFIXES]
    if not paths:
        raise InputError(f"No image matches {pattern}. Check the pattern, and quote it in the shell.")
    return sorted(paths, key=lambda p: (natural_key(str(p)), str(p)))


def read_image(path: Path) -> np.ndarray:
    """Return an image file as (H, W, 3) uint8 RGB, turned as its EXIF orientation says, alpha over black.

    Sixteen-bit grey keeps its upper eight bits.

    Raises:
        OSError, ValueError, SyntaxError: it cannot be decoded (what Pillow raises).
    """
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
            grey = np.asarray(upright).astype(np.int64) >> 8
            return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        if upright.has_transparency_data:
            return over_black(np.asarray(upright.convert("RGBA")))
        return np.array(upright.convert("RGB"))


class ImageSequence(FrameSource):
    """Image files as frames. They carry no times; ``ReadOptions.fps`` (25 if not given) sets them."""

    def __init__(self, paths: list[Path], name: str, options: ReadOptions) -> None:
        super().__init__(options)
        self._paths, self._name = paths, name
        self._fps = options.fps or NOMINAL_FPS
        self._numbers = chosen(len(paths), options, self._fps)
        if not self._numbers:
            raise nothing_selected(name, options)
        self._fit = Fitter(self._first_good(), options.max_size)
        self.info = SourceInfo(
            name=name,
            kind="images",
            width=self._fit.width,
            height=self._fit.height,
            fps=options.fps and options.fps / options.stride,
            expected_frames=len(self._numbers),
        )

    def _first_good(self) -> np.ndarray:
        """Return the first selected picture that can be read; its size is the sequence's."""
        for number in self._numbers:
            rgb = self._raw(number)
            if rgb is not None:
                return rgb
        path = self._paths[self._numbers[0]]
        what = "not an image that can be read" if path.stat().st_size else "empty (0 bytes)"
        raise InputError(f"{path} is {what}; replace or remove it.")

    def _raw(self, number: int) -> np.ndarray | None:
        """Return a picture at its own size; None with a warning if the file is damaged."""
        path = self._paths[number]
        try:
            return read_image(path)
        except (OSError, ValueError, SyntaxError) as error:
            if self.options.strict:
                raise InputError(f"{path} cannot be read as an image; it is damaged. Replace or remove it.") from error
            self._warn(f"{path} cannot be read as an image; a placeholder keeps its place.")
            return None

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def _load(self, number: int) -> np.ndarray | None:
        rgb = self._raw(number)
        if rgb is None:
            return None
        rgb = self._fit(rgb)
        if self._fit.resized:
            self._warn(self._fit.warning(self._name))
        return rgb

    def _stand_in(self, position: int) -> np.ndarray:
        """Return the last good selected picture before ``position``, else the first good one after it."""
        for other in [*range(position - 1, -1, -1), *range(position + 1, len(self._numbers))]:
            rgb = self._load(self._numbers[other])
            if rgb is not None:
                return rgb
        raise InputError(f"{self._name}: none of the images can be read any more.")

    def _frame(self, position: int) -> Frame:
        number = self._numbers[position]
        rgb = self._load(number)
        ok = rgb is not None
        return Frame(rgb if rgb is not None else self._stand_in(position), number, number / self._fps, ok)

    def __iter__(self) -> Iterator[Frame]:
        return map(self._frame, range(len(self._numbers)))

    def reversed(self, stop: int) -> Iterator[Frame]:
        """Yield the selected frames ``stop - 1 .. 0``."""
        return map(self._frame, range(min(stop, len(self._numbers)) - 1, -1, -1))

    def sha256(self) -> str:
        """Return the SHA-256 over the names and bytes of all files in order."""
        digest = hashlib.sha256()
        for path in self._paths:
            digest.update(os.fsencode(path.name) + b"\0")
            digest.update(path.read_bytes())
        return digest.hexdigest()

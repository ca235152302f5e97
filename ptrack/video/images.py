"""Folders of images, glob patterns, single images and TIFF stacks as frames."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ptrack.errors import InputError
from ptrack.video.arrays import Fitter, chosen
from ptrack.video.depth import Depth, chosen_range, range_warning, sample_of, spread, type_range
from ptrack.video.findings import untimed_warning
from ptrack.video.frames import Frame, FrameSource, ReadOptions
from ptrack.video.picture import as_colours
from ptrack.video.select import NOMINAL_FPS, nothing_selected
from ptrack.video.still import DamagedPictureError, PictureFile


class Page(NamedTuple):
    """One picture of a file."""

    path: Path
    number: int = 0


class ImageSequence(FrameSource):
    """Pictures in files as frames. They carry no times; ``ReadOptions.fps`` (25 if not given) sets them.

    Args:
        pages: the pictures in order.
        name: the source, as the user named it.
        options: which of them.
        warnings: sentences about the choice of files.
    """

    def __init__(self, pages: Sequence[Page], name: str, options: ReadOptions, warnings: Sequence[str] = ()) -> None:
        super().__init__(options)
        self.warnings += warnings
        self._pages, self._name = pages, name
        self._stacked = len({page.path for page in pages}) < len(pages)
        self._open: PictureFile | None = None  # a stack that is being read: its pages are found one after another
        self._fps = options.fps or NOMINAL_FPS
        self._numbers = chosen(len(pages), options, self._fps)
        if not self._numbers:
            raise nothing_selected(name, options)
        if options.fps is None and len(pages) > 1:
            self._warn(untimed_warning(name))
        self._depth = Depth(*options.range) if options.range is not None else self._chosen_depth()
        self._fit = Fitter(self._first_good(), options.max_size)
        self.close()
        self.info = self._fit.info(name, "images", options, expected_frames=len(self._numbers))

    def _chosen_depth(self) -> Depth | None:
        """Return the range for pictures of more than eight bits, from a few of them; None if they have eight."""
        samples: list[np.ndarray] = []
        bits = None
        for number in spread(len(self._pages)):
            page = self._pages[number]
            try:
                with self._file(page.path) as file:
                    if not self._stacked and file.several() and len(self._pages) > 1:
                        self._warn(f"{page.path} holds several pictures; the first of each file is used.")
                    values, own = file.values(page.number), file.bits
            except (OSError, DamagedPictureError):
                continue
            if values.dtype == np.uint8 and not samples:
                return None
            if values.dtype != np.uint8:
                bits = own
                samples.append(sample_of(values))
        if not samples:
            return None
        samples = [sample for sample in samples if sample.dtype == samples[0].dtype]
        low, high = chosen_range(samples, bits)
        self._warn(range_warning(self._name, samples, (low, high)))
        return Depth(low, high)

    def _first_good(self) -> np.ndarray:
        """Return the first selected picture that can be read; its size is the sequence's."""
        for number in self._numbers:
            rgb = self._raw(number)
            if rgb is not None:
                return rgb
        path = self._pages[self._numbers[0]].path
        what = "not an image that can be read" if path.stat().st_size else "empty (0 bytes)"
        raise InputError(f"{path} is {what}; replace or remove it.")

    @contextmanager
    def _file(self, path: Path) -> Iterator[PictureFile]:
        """Give an open picture file; a stack is kept open until ``close``."""
        if not self._stacked:
            with PictureFile(path, self.options.max_pixels) as file:
                yield file
            return
        if self._open is None or self._open.path != path:
            self.close()
            self._open = PictureFile(path, self.options.max_pixels)
        yield self._open

    def close(self) -> None:
        """Close the stack that is being read."""
        if self._open is not None:
            self._open.close()
        self._open = None

    def _raw(self, number: int) -> np.ndarray | None:
        """Return a picture as RGB at its own size; None with a warning if the file is damaged."""
        page = self._pages[number]
        try:
            with self._file(page.path) as file:
                return self._rgb(file.values(page.number))
        except (OSError, DamagedPictureError) as error:
            self.close()
            where = f"{page.path}, picture {page.number}," if len(self._pages) > 1 and page.number else f"{page.path}"
            if self.options.strict:
                raise InputError(f"{where} cannot be read as an image; it is damaged. Replace or remove it.") from error
            self._warn(f"{where} cannot be read as an image; a placeholder keeps its place.")
            return None

    def _rgb(self, values: np.ndarray) -> np.ndarray:
        if values.dtype != np.uint8 or self.options.range is not None:
            # A deep picture among many of 8 bits, where none was looked at, gets the range of its type.
            values = (self._depth or Depth(*type_range(values.dtype)))(values)
        return as_colours(values)

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
        return self._frames(range(len(self._numbers)))

    def reversed(self, stop: int) -> Iterator[Frame]:
        """Yield the selected frames ``stop - 1 .. 0``."""
        return self._frames(range(min(stop, len(self._numbers)) - 1, -1, -1))

    def _frames(self, positions: Iterable[int]) -> Iterator[Frame]:
        try:
            yield from map(self._frame, positions)
        finally:
            self.close()

    def sha256(self) -> str:
        """Return the SHA-256 over the names and bytes of all files in order."""
        digest = hashlib.sha256()
        for path in dict.fromkeys(page.path for page in self._pages):
            digest.update(os.fsencode(path.name) + b"\0")
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

"""Animated PNG, WebP and AVIF, and GIFs that ffmpeg does not split, decoded by Pillow picture by picture."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

from ptrack import errors, fileio
from ptrack.errors import InputError
from ptrack.video.arrays import Fitter
from ptrack.video.depth import Depth
from ptrack.video.findings import Findings
from ptrack.video.frames import Frame, FrameSource, ReadOptions, SourceInfo, backwards
from ptrack.video.picture import as_colours
from ptrack.video.select import Span, expected_count, nothing_selected, selected, with_pictures
from ptrack.video.still import DamagedPictureError, PictureFile

UNTIMED_DELAY = 0.1  # seconds that a picture without a delay is shown, as browsers do


class AnimatedImage(FrameSource):
    """A file of several pictures with delays.

    Args:
        path: the file.
        name: the source, as the user named it.
        options: which frames; ``fps`` is that of pictures without delays, 10 if not given.
    """

    def __init__(self, path: Path, name: str, options: ReadOptions) -> None:
        super().__init__(options)
        self._path, self._name = path, name
        self._findings = Findings(name, options.strict, self.warnings)
        self._delay = 1 / options.fps if options.fps else UNTIMED_DELAY
        self._depth = Depth(*options.range) if options.range is not None else None
        with self._opened() as file:
            self._pages = file.pages()
            first = next((rgb for _, rgb in self._pictures(file) if rgb is not None), None)
            kind, delay = file.kind, file.duration() or self._delay
        if first is None:
            many = errors.count(len(self._pages), "picture")
            raise InputError(f"{name}: none of its {many} can be read; it is damaged.")
        self._fit = Fitter(first, options.max_size)
        self.info = SourceInfo(
            name=name,
            kind="gif" if kind == "GIF" else "video",
            width=self._fit.width,
            height=self._fit.height,
            fps=1 / delay / options.stride,
            expected_frames=expected_count(len(self._pages), 1 / delay, options),
        )

    @contextmanager
    def _opened(self) -> Iterator[PictureFile]:
        try:
            with PictureFile(self._path, self.options.max_pixels) as file:
                yield file
        except DamagedPictureError as error:
            raise InputError(f"{self._name} cannot be read as an image; it is damaged.") from error

    def _pictures(self, file: PictureFile) -> Iterator[tuple[float, np.ndarray | None]]:
        """Yield (seconds, RGB) of all pictures; RGB is None where one cannot be decoded."""
        seconds = 0.0
        lost: list[int] = []
        for page in self._pages:
            try:
                values = file.values(page)
            except DamagedPictureError as error:
                self._findings.refuse(f"picture {page} cannot be decoded ({error}).")
                lost.append(page)
                yield seconds, None
                seconds += self._delay
                continue
            yield seconds, as_colours(self._depth(values) if self._depth is not None else values)
            delay = file.duration()
            if delay is None and not self.options.fps:
                self._findings.note("delay", "its pictures carry no delays; each is shown for 0.1 s.")
            seconds += delay or self._delay
        if lost:
            text = (
                f"{len(lost)} of {errors.count(len(self._pages), 'picture')} cannot be decoded, number {lost[0]} first"
            )
            self._findings.note("lost", f"{text}; placeholders keep the time aligned.")

    def _read(self, skip: int) -> Generator[Frame]:
        """Yield the selected frames from position ``skip`` on."""
        span = Span()
        position = skip
        with self._opened() as file:
            steps = with_pictures(span.watch(self._pictures(file)))
            for frame in selected(steps, self.options, self._fit, skip):
                position += 1
                yield frame
        if self._fit.resized:
            self._findings.sentence("size", self._fit.warning(self._name))
        if position == 0:
            raise nothing_selected(self._name, self.options, span)

    def __iter__(self) -> Iterator[Frame]:
        return self._read(0)

    def reversed(self, stop: int) -> Iterator[Frame]:
        """Yield the selected frames ``stop - 1 .. 0`` in blocks, each decoded from the start of the file."""
        return backwards(stop, self._fit.size, lambda begin, end: islice(self._read(begin), end - begin))

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes."""
        return fileio.sha256_of(self._path)

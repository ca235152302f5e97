"""What travels through ptrack: one decoded frame with its place in time, and the description of where it came from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np

BLOCK_BYTES = 128 << 20  # RGB held at once when reading backwards


@dataclass(frozen=True, slots=True)
class Frame:
    """One displayed picture (rotation, sample aspect ratio and --max-size already applied)."""

    rgb: np.ndarray  # (H, W, 3) uint8, C-contiguous, RGB
    index: int  # frame number in the source, counted from 0 before --start and --stride
    pts: float  # seconds on the source's own clock (a start offset is kept); from 0 for cameras; never steps back
    ok: bool = True  # False: a placeholder for a frame that could not be decoded


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known about a source once its first frame is decoded."""

    name: str  # as the user gave it (path, URL, "array")
    kind: str  # "video", "images", "gif", "camera", "array"
    width: int  # pixels of the displayed picture BEFORE --max-size; all coordinates refer to this size
    height: int
    rotation: int = 0  # degrees of display rotation that were applied, 0, 90, 180 or 270
    fps: float | None = None  # average frames per second after --stride, None if unknown
    expected_frames: int | None = None  # a hint for progress bars, never trusted
    live: bool = False  # frames arrive in real time and cannot be asked for again
    rereadable: bool = True  # iterating again gives the same frames


class FrameSource(ABC):
    """A stream of frames. Iterate it (again and again if ``info.rereadable``); use it as a context manager."""

    info: SourceInfo

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        self.warnings: list[str] = []  # sentences for the user, filled while reading
        self.truncated = False  # the source ended early because of damage

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the selected frames in order, decoding as they are asked for."""

    @abstractmethod
    def reversed(self, stop: int) -> Iterator[Frame]:
        """Yield the selected frames ``stop - 1 .. 0`` (positions in the iteration) in bounded memory."""

    def sha256(self) -> str | None:
        """Return the SHA-256 of the source's bytes, or None for sources without a fixed content."""
        return None

    def close(self) -> None:  # noqa: B027 - most sources hold nothing between iterations
        """Release the decoder, file or camera."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def backwards(stop: int, size: tuple[int, int], read: Callable[[int, int], Iterable[Frame]]) -> Generator[Frame]:
    """Yield the frames ``stop - 1 .. 0``, read forwards in blocks of at most ``BLOCK_BYTES``.

    Args:
        stop: number of frames.
        size: (width, height) of their pictures.
        read: gives the frames from one position up to another, exclusive.
    """
    block = max(1, BLOCK_BYTES // (3 * size[0] * size[1]))
    for end in range(stop, 0, -block):
        frames = list(read(max(0, end - block), end))
        while frames:
            yield frames.pop()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Which frames of a source to read, and at which size.

    ``start`` and ``end`` are a frame number (int) or a time in seconds (float), on the clock of ``Frame.pts``; ``end``
    is exclusive.
    """

    start: int | float | None = None  # first frame; int frame number, float seconds
    end: int | float | None = None  # exclusive; int frame number, float seconds
    stride: int = 1  # keep every stride-th frame from start
    max_size: int | None = None  # longest side in pixels after reduction; never enlarges
    fps: float | None = None  # frames per second of sources without times (folders, arrays, raw H.264); 25 if None
    strict: bool = False  # damage, an early end or a clock that jumps is an error instead of a warning
    range: tuple[float, float] | None = None  # values that become black and white, in the source's own numbers
    max_pixels: int = 1 << 27  # the most pixels of a picture, 134 million: 16K video (15360x8640) is just below
    extra: dict[str, str] = field(default_factory=dict)  # options for the demuxer (ffmpeg names)

"""Frames of a source that does not wait: a thread reads, drops what comes too fast, and reconnects."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import numpy as np

from ptrack.errors import ConfigError, InputError, PTrackError
from ptrack.video.arrays import Fitter
from ptrack.video.frames import Frame, FrameSource, SourceInfo
from ptrack.video.prefetch import ReadAhead

BACKOFF = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between tries to reconnect; the last one repeats
SILENCE_SECONDS = 2.0  # without a picture before it is reported
_PASSWORD = re.compile(r"(?<=://)[^/@\s]*@")


@dataclass(frozen=True, kw_only=True)
class CaptureOptions:
    """How to read a source that does not wait."""

    realtime: bool = True  # drop the oldest waiting frame instead of falling behind
    waiting: int = 2  # frames that may wait for the tracker; more smooth hiccups, fewer are younger
    pace: bool = False  # give a file's frames at the times they were taken, as a camera would
    reconnect: bool = True  # of cameras and streams; a file that ends has ended

    def __post_init__(self) -> None:
        if self.waiting < 1:
            raise ConfigError(f"waiting is {self.waiting}; at least 1 frame must be able to wait.")


@dataclass(frozen=True, slots=True)
class Captured:
    """A frame on its way to the tracker."""

    rgb: np.ndarray | None  # (H, W, 3) uint8; None for a picture that could not be decoded
    number: int  # of all frames that came, the dropped ones included, from 0
    at: float  # when it came, in seconds of ``time.monotonic``
    time: float  # when it came, in seconds since 1970 by this machine's clock
    seconds: float  # since the first frame: by arrival for cameras, by its own time for files


def without_password(address: str) -> str:
    """Return an address without the user name and password in it."""
    return _PASSWORD.sub("", address)


class Capture:
    """Frames of a source, newest first where they come too fast. Iterate it once, inside the ``with`` block.

    Args:
        connect: opens the source; called again to reconnect.
        options: dropping, pacing, reconnecting.
        note: called with sentences for the user, from the reading thread.

    Raises:
        InputError: the source cannot be opened the first time.

    Attributes:
        info: of the source when it was first opened; later pictures are brought to its size.
        reconnects: how often the source was opened again.
    """

    def __init__(
        self,
        connect: Callable[[], FrameSource],
        options: CaptureOptions | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._connect, self._note = connect, note
        self.options = options or CaptureOptions()
        self._source = connect()
        self.info: SourceInfo = self._source.info
        self.name = without_password(self.info.name)
        self.reconnects = 0
        self._fit: Fitter | None = None
        self._number = 0
        self._first: tuple[float, float] | None = None  # of the first frame: arrival, own time
        self._ahead = ReadAhead(
            self._read(),
            "ptrack-capture",
            count=self.options.waiting,
            newest=self.options.realtime,
            patience=2.0,
            release=self._close_source,
        )

    @property
    def came(self) -> int:
        """How many frames have come so far, the dropped ones included."""
        return self._number

    @property
    def dropped(self) -> int:
        """How many frames came and were never given."""
        return self._ahead.dropped

    @property
    def over(self) -> bool:
        """Whether no further frame will come."""
        return self._ahead.over

    @property
    def live(self) -> bool:
        """Whether the source is a camera or stream rather than a file."""
        return self.info.live

    def __enter__(self) -> Self:
        self._ahead.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading; a silent stream is waited for 2 seconds at most, its thread ends when it speaks again."""
        self._ahead.close()

    def __iter__(self) -> Iterator[Captured]:
        return iter(self._ahead)

    def next(self, timeout: float | None) -> Captured | None:
        """Return the next frame, None at the end of the source or after ``timeout`` seconds without one.

        Raises:
            PTrackError: what went wrong while reading a file.
        """
        return self._ahead.get(timeout)

    # -- the reading thread

    def _close_source(self) -> None:
        with suppress(Exception):
            self._source.close()

    def _read(self) -> Iterator[Captured]:
        while True:
            reason = yield from self._read_source()
            if self._ahead.closed or not (self.live and self.options.reconnect) or not self._open_again(reason):
                return

    def _read_source(self) -> Generator[Captured, None, str]:
        """Yield the frames of the open source until it ends; return why it ended."""
        last = time.monotonic()
        try:
            for frame in self._source:
                now = time.monotonic()
                if self.live and now - last > SILENCE_SECONDS:
                    self._note(f"{self.name} gave no picture for {now - last:.1f} s.")
                last = now
                if self.options.pace and not self._wait_until_due(frame):
                    break
                yield self._captured(frame)
        except PTrackError as error:
            if not self.live:
                raise
            return without_password(str(error))
        return "it ended"

    def _wait_until_due(self, frame: Frame) -> bool:
        """Wait for a file's frame to be due; return False when stopped meanwhile."""
        if self._first is None:
            return True
        due = self._first[0] + frame.pts - self._first[1]
        return self._ahead.pause(due - time.monotonic())

    def _captured(self, frame: Frame) -> Captured:
        """Number a frame that came just now."""
        rgb = self._sized(frame.rgb) if frame.ok else None
        now = time.monotonic()
        self._first = self._first or (now, frame.pts)
        seconds = now - self._first[0] if self.live else frame.pts - self._first[1]
        item = Captured(rgb, self._number, now, time.time(), seconds)
        self._number += 1
        return item

    def _sized(self, rgb: np.ndarray) -> np.ndarray:
        """Return a picture at the size of the first one."""
        if self._fit is None:
            self._fit = Fitter(rgb, None)
        known = self._fit.resized
        rgb = self._fit(rgb)
        if self._fit.resized and not known:
            w, h = self._fit.size
            self._note(f"{self.name} changes its picture size; pictures are resized to {w}x{h}, as the first one.")
        return rgb

    def _open_again(self, reason: str) -> bool:
        """Reconnect with growing pauses; return False when stopped meanwhile."""
        lost = time.monotonic()
        self._note(f"The connection to {self.name} is lost ({reason.rstrip('.')}); connecting again.")
        self._close_source()
        tries = 0
        while not self._ahead.closed:
            try:
                self._source = self._connect()
            except (InputError, OSError):
                self._ahead.pause(BACKOFF[min(tries, len(BACKOFF) - 1)])
                tries += 1
                continue
            self.reconnects += 1
            self._note(f"{self.name} is back after {time.monotonic() - lost:.1f} s.")
            return True
        return False

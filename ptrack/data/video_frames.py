"""The frames of a video file as a clip's frames: decoded in one go forward, one frame in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.data.clips import Frames
from ptrack.data.images import Codec
from ptrack.errors import DataError, InputError, PTrackError
from ptrack.video.frames import Frame
from ptrack.video.sources import open_source


class VideoFrames(Frames):
    """Frames of a video, optionally at a fixed rate. Reading them in order decodes the file once more.

    Args:
        path: anything ``ptrack.video.open_source`` reads again and again.
        rate: frames per second to resample to, each output frame being the last one shown by then (as ffmpeg's
            ``fps`` filter rounds); None keeps the frames of the file.
        limit: at most so many frames.

    Raises:
        DataError: the video cannot be read or holds no frames.
    """

    def __init__(self, path: Path, rate: float | None = None, limit: int | None = None) -> None:
        self.path = path
        times: list[float] = []
        try:
            with open_source(path) as source:
                self.size = (source.info.height, source.info.width)
                self.fps = rate or source.info.fps
                times.extend(frame.pts for frame in source)
                self.truncated = source.truncated
        except (InputError, OSError) as error:
            raise DataError(f"The video {path} cannot be read: {error}") from error
        if not times:
            raise DataError(f"The video {path} has no frames.")
        self.pick = resampled(np.asarray(times), rate)[:limit]  # (T,) position in the file of each frame
        self.timestamps = np.asarray(times)[self.pick] - times[0]
        self._reader: Iterator[Frame] | None = None
        self._at = -1
        self._frame: Frame | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None, "_at": -1, "_frame": None}

    def __len__(self) -> int:
        return len(self.pick)

    def encoded(self, t: int) -> tuple[Codec, bytes]:
        """Return "raw" and the pixels."""
        return "raw", self.rgb(t).tobytes()

    def rgb(self, t: int) -> np.ndarray:
        """Return frame ``t``; going back starts decoding from the first frame.

        Raises:
            DataError: the frame is damaged.
        """
        wanted = int(self.pick[t])
        if self._reader is None or wanted < self._at:
            self._reader, self._at = self._read(), -1
        while self._at < wanted:
            try:
                self._frame = next(self._reader)
            except (StopIteration, PTrackError) as error:
                self._reader = None
                raise DataError(f"Frame {t} of {self.path} cannot be decoded.") from error
            self._at += 1
        if self._frame is None or not self._frame.ok:
            raise DataError(f"Frame {t} of {self.path} is damaged.")
        return self._frame.rgb

    def _read(self) -> Iterator[Frame]:
        with open_source(self.path) as source:
            yield from source


def resampled(times: np.ndarray, rate: float | None) -> np.ndarray:
    """Return the position of the input frame shown at each output frame; ``times`` (T,) rising seconds."""
    if rate is None or len(times) < 2:
        return np.arange(len(times))
    slot = np.floor((times - times[0]) * rate + 0.5).astype(np.int64)
    last = np.floor((times[-1] - times[0] + np.median(np.diff(times))) * rate + 0.5)
    return np.searchsorted(slot, np.arange(max(int(last), 1)), side="right") - 1

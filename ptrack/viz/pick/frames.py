"""Pictures for the page: any frame as JPEG, decoded when asked for, in bounded memory."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from ptrack.errors import InputError, PTrackError
from ptrack.video import ReadOptions, open_source

BLOCK = 16  # frames decoded together: scrubbing asks for neighbours next
CACHE_BYTES = 256 << 20  # of JPEGs; about 4000 frames of 854x480
MAX_SIDE = 1280  # pixels of the pictures' longest side; coordinates stay those of the full frame
QUALITY = 90


def jpeg(rgb: np.ndarray) -> bytes:
    """Return an (H, W, 3) uint8 picture as JPEG."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "JPEG", quality=QUALITY)
    return data.getvalue()


class FrameStore:
    """Frames of a rereadable source by number. A thread walks through it once: it counts, and fills the cache.

    Args:
        video: anything ``open_source`` can open again and again.

    Raises:
        InputError: the source cannot be read, or cannot be read twice (a camera).
    """

    def __init__(self, video: Any) -> None:
        self._video = video
        with open_source(video) as source:
            self.info = source.info
            self.sha256 = source.sha256()
        if self.info.live or not self.info.rereadable:
            raise InputError(f"{self.info.name} cannot be read again; points can be picked on files only.")
        self.count = 1  # frames known to exist
        self.complete = False  # ``count`` is final
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._decoding = threading.Lock()
        self._stop = False
        self._walker = threading.Thread(target=self._walk, name="ptrack-pick-frames", daemon=True)
        self._walker.start()

    def get(self, index: int) -> bytes | None:
        """Return frame ``index`` as JPEG, None if there is none."""
        found = self._cached(index)
        if found is not None or index < 0 or (self.complete and index >= self.count):
            return found
        with self._decoding:
            found = self._cached(index)
            if found is None:
                self._decode(index - index % BLOCK)
                found = self._cached(index)
        return found

    def close(self) -> None:
        """Stop the thread."""
        self._stop = True
        self._walker.join(timeout=10)

    def _cached(self, index: int) -> bytes | None:
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
            return self._cache.get(index)

    def _decode(self, start: int) -> None:
        try:
            options = ReadOptions(start=start, end=start + BLOCK, max_size=MAX_SIDE)
            with open_source(self._video, options) as source:
                for frame in source:
                    self._keep(frame.index, jpeg(frame.rgb))
        except PTrackError:
            return  # nothing there: the caller answers "no such frame"

    def _keep(self, index: int, data: bytes) -> None:
        with self._lock:
            self._bytes += len(data) - len(self._cache.pop(index, b""))
            self._cache[index] = data
            while self._bytes > CACHE_BYTES and len(self._cache) > BLOCK:
                self._bytes -= len(self._cache.popitem(last=False)[1])

    def _walk(self) -> None:
        """Count the frames; keep their pictures as long as they fit, so that the first scrub is quick."""
        try:
            with open_source(self._video, ReadOptions(max_size=MAX_SIDE)) as source:
                for frame in source:
                    if self._stop:
                        return
                    self.count = max(self.count, frame.index + 1)
                    if self._bytes < CACHE_BYTES // 2:
                        self._keep(frame.index, jpeg(frame.rgb))
        finally:
            self.complete = True

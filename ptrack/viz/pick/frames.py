"""Pictures for the page: any frame as JPEG, decoded when asked for, in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np

from ptrack.data.images import jpeg
from ptrack.errors import InputError, PTrackError
from ptrack.video import ReadOptions, open_source
from ptrack.video.seeking import SeekableVideo

BLOCK = 16  # frames decoded together: scrubbing asks for neighbours next
CACHE_BYTES = 256 << 20  # of JPEGs; about 4000 frames of 854x480
MAX_SIDE = 1280  # pixels of the pictures' longest side; coordinates stay those of the full frame


class PictureCache:
    """JPEGs by frame number; those looked at least recently go first when ``limit`` bytes are exceeded."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, index: int) -> bytes | None:
        """Return a picture, None if it is not held."""
        with self._lock:
            if index in self._held:
                self._held.move_to_end(index)
            return self._held.get(index)

    def put(self, index: int, data: bytes) -> None:
        """Hold a picture; the newest ``BLOCK`` always stay."""
        with self._lock:
            self._bytes += len(data) - len(self._held.pop(index, b""))
            self._held[index] = data
            while self._bytes > self.limit and len(self._held) > BLOCK:
                self._bytes -= len(self._held.popitem(last=False)[1])


class FrameStore:
    """Frames of a source by number, as JPEG.

    Where a file's packets describe its frames (``SeekableVideo``), any frame is decoded from the key frame before
    it, and their number is known at once. Otherwise a thread walks through the source to count, and fills half of the
    cache.

    Args:
        video: anything ``open_source`` can open again and again.

    Raises:
        InputError: the source cannot be read, or cannot be read twice (a camera).
    """

    def __init__(self, video: Any) -> None:
        self._video = video
        self._source = open_source(video, ReadOptions(max_size=MAX_SIDE))
        self.info = self._source.info
        if self.info.live or not self.info.rereadable:
            raise InputError(f"{self.info.name} cannot be read again; points can be picked on files only.")
        self._cache = PictureCache(CACHE_BYTES)
        self._decoding = threading.Lock()
        self._stop = False
        self._sha256: str | None = None
        self._seekable = SeekableVideo.open(self._source)
        self.count = len(self._seekable) if self._seekable is not None else 1  # frames known to exist
        self.complete = self._seekable is not None  # ``count`` is final
        self._walker = threading.Thread(target=self._walk, name="ptrack-pick-frames", daemon=True)
        if self._seekable is None:
            self._walker.start()

    def sha256(self) -> str | None:
        """Return the SHA-256 of the source's bytes; read once."""
        if self._sha256 is None:
            self._sha256 = self._source.sha256()
        return self._sha256

    def get(self, index: int) -> bytes | None:
        """Return frame ``index`` as JPEG, None if there is none or it cannot be decoded."""
        found = self._cache.get(index)
        if found is not None or index < 0 or (self.complete and index >= self.count):
            return found
        with self._decoding:
            found = self._cache.get(index)
            if found is None:
                self._decode(index - index % BLOCK, index)
                found = self._cache.get(index)
        return found

    def close(self) -> None:
        """Stop the thread and close the source."""
        self._stop = True
        if self._walker.is_alive():
            self._walker.join(timeout=10)
        with self._decoding:
            if self._seekable is not None:
                self._seekable.close()
            self._source.close()

    def _decode(self, start: int, wanted: int) -> None:
        """Put the block of frames from ``start`` on into the cache."""
        if self._seekable is not None:
            self._hold((frame.index, frame.rgb) for frame in self._seekable.frames(start, start + BLOCK))
        if self._cache.get(wanted) is None:  # not seekable, or damaged there: the reader fills gaps
            try:
                options = ReadOptions(start=start, end=start + BLOCK, max_size=MAX_SIDE)
                with open_source(self._video, options) as source:
                    self._hold((frame.index, frame.rgb) for frame in source)
            except PTrackError:
                return  # nothing there: the caller answers "no such frame"

    def _hold(self, frames: Iterable[tuple[int, np.ndarray]]) -> None:
        for index, rgb in frames:
            self._cache.put(index, jpeg(rgb))

    def _walk(self) -> None:
        """Count the frames; keep the first pictures, so that the first scrub is quick."""
        held = 0
        try:
            with open_source(self._video, ReadOptions(max_size=MAX_SIDE)) as source:
                for frame in source:
                    if self._stop:
                        return
                    self.count = max(self.count, frame.index + 1)
                    if held < CACHE_BYTES // 2:
                        data = jpeg(frame.rgb)
                        held += len(data)
                        self._cache.put(frame.index, data)
        except PTrackError:
            return  # what was read until here can be shown
        finally:
            self.complete = True

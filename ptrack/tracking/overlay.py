"""The video with the tracks drawn: beside tracking in a thread, or from finished rows in a pass of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np

from ptrack import geometry
from ptrack.tracking.drawing import Drawing
from ptrack.tracking.frame_tracker import StepResult
from ptrack.tracking.stream import Row
from ptrack.tracks_io import format_of, load_tracks
from ptrack.untrusted import h5
from ptrack.video.frames import Frame, FrameSource
from ptrack.video.prefetch import PrefetchedFrames

AHEAD = 4  # frames that wait to be drawn, at most


class OverlaySink:
    """Draws tracks over frames and writes them to a video; left by an error, no video stays.

    Args:
        path: .mp4, .gif or another name that ``open_writer`` knows.
        source: gives the rate and the size that positions refer to.
        threshold: visibility probability from which a point counts as visible.
        drawing: draws each frame.
    """

    def __init__(self, path: Path, source: FrameSource, threshold: float, drawing: Drawing) -> None:
        from ptrack.video import open_writer

        self._writer = open_writer(path, fps=source.info.fps, overwrite=True)
        self._drawing = drawing
        self._threshold = threshold
        self._size = (source.info.height, source.info.width)

    def write(self, frame: Frame, result: StepResult) -> None:
        """Draw one frame."""
        size = (frame.rgb.shape[0], frame.rgb.shape[1])
        xy = geometry.rescale(np.asarray(result.positions, np.float32), self._size, size)
        visible = result.visibility >= self._threshold
        self._writer.write(self._drawing.draw(frame.rgb, xy, visible, result.confidence), frame.pts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._writer.__exit__(kind)


class OverlayThread:
    """Draws and encodes in a thread, so that both overlap with tracking; errors come out of ``put`` and of leaving."""

    def __init__(self, sink: OverlaySink) -> None:
        self._sink = sink
        self._pool = ThreadPoolExecutor(1, "ptrack-overlay")
        self._waiting: deque[Future[None]] = deque()
        self._sound = True  # no frame has failed; after one nothing more is drawn

    def put(self, row: Row) -> None:
        """Hand over a tracked frame; wait while ``AHEAD`` others are to be drawn."""
        self._waiting.append(self._pool.submit(self._write, row))
        if len(self._waiting) > AHEAD:
            self._waiting.popleft().result()

    def _write(self, row: Row) -> None:
        if self._sound:
            self._sound = False
            self._sink.write(row.frame, row.result)
            self._sound = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            while kind is None and self._waiting:
                self._waiting.popleft().result()
        except BaseException:
            kind = True
            raise
        finally:
            self._pool.shutdown(cancel_futures=True)
            self._sink.__exit__(kind)


def draw_rows(sink: OverlaySink, rows: Path, source: FrameSource, drawn: Callable[[int, StepResult], None]) -> None:
    """Draw the rows of a tracks file over its source, which is read again.

    Args:
        sink: gets every frame.
        rows: the file; of an HDF5 one no more than a row is in memory.
        source: as it was tracked.
        drawn: called with the number of frames done and the row of the last one; may raise to stop.
    """
    with _stored(rows) as results, PrefetchedFrames(source) as frames:
        for at, (frame, result) in enumerate(zip(frames, results, strict=False), start=1):
            sink.write(frame, result)
            drawn(at, result)


@contextmanager
def _stored(path: Path) -> Iterator[Iterator[StepResult]]:
    """Yield the rows of a tracks file in any format."""
    if format_of(path) != "h5":
        tracks = load_tracks(path)
        yield map(StepResult, tracks.tracks, tracks.visibility, tracks.confidence)
        return
    with h5.opened(path) as file:
        columns = [file.dataset(name) for name in ("tracks", "visibility", "confidence")]
        yield (StepResult(*(data[at] for data in columns)) for at in range(len(columns[0])))

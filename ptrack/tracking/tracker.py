"""The tracker that users load: frame by frame, or a whole source at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch

from ptrack.errors import QueryError
from ptrack.tracking.frame_tracker import FrameTracker, Picture, QueryRows, locked
from ptrack.tracking.stream import as_queries, backward_rows, run_info, stream_rows, warnings_of
from ptrack.tracks import Tracks
from ptrack.tracks_io import concatenate_rows
from ptrack.video import open_source
from ptrack.video.frames import FrameSource
from ptrack.video.prefetch import PrefetchedFrames


class Tracker(FrameTracker):
    """Tracks points through a stream of frames in constant memory.

    Streaming::

        tracker.reset()
        tracker.add([[x, y], ...])
        positions, visibility, confidence = tracker.step(frame)

    Whole videos: ``tracker.track(frames_or_path, queries)``.

    Calls from several threads take turns, and ``track`` is one call; hold ``lock`` over calls that belong together. For
    videos at the same time load one tracker for each.

    Args:
        model: an online model.
        support_grid: points per side of an extra grid added on the first frame, tracked along and never returned;
            it gives the model context. Default: what the model wants.
        weights_sha256: of the weights file, recorded in the tracks.
        options: that the model was built with, recorded in the tracks.
    """

    @locked
    def track(
        self,
        source: FrameSource | str | os.PathLike[str] | int | np.ndarray | torch.Tensor | Iterable[Picture],
        queries: QueryRows | None = None,
        *,
        grid: int = 16,
        backward: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Tracks:
        """Track points through a whole source; everything stays in memory. ``tracker(source, queries)`` is the same.

        Args:
            source: a file, folder or camera; (T, H, W, 3) or (T, 3, H, W) array or tensor, uint8 or floating point from
                0 to 1; list or iterator of such frames or of PIL images; or an open ``FrameSource``.
            queries: ``Queries`` or (N, 3) rows (t, x, y); None for a uniform ``grid`` x ``grid`` on the first frame.
            grid: points per side when ``queries`` is None.
            backward: also track from each query back to the first frame (the source is read a second time).
            progress: called with the number of finished frames.

        Raises:
            InputError, QueryError: see ``ptrack.video.open_source`` and ``Queries``.
        """
        if not isinstance(source, FrameSource):
            with open_source(source) as opened:
                return self.track(opened, queries, grid=grid, backward=backward, progress=progress)
        if backward and not source.info.rereadable:
            raise QueryError(
                f"Backward tracking reads the source twice, which {source.info.name} does not allow; use a file."
            )
        size = (source.info.height, source.info.width)
        points = as_queries(queries, grid, size)
        info = run_info(self, source, points, backward)
        self.reset(size)
        self.add(points, check_inside=False)
        rows = []
        for row in stream_rows(self, PrefetchedFrames(source), 1 if source.info.live else None):
            rows.append((*row.result, row.frame.index, row.frame.pts))
            if progress:
                progress(len(rows))
        arrays = concatenate_rows(rows, len(points))
        if backward:
            for at, mask, result in backward_rows(self, source, points, len(rows)):
                for name, value in zip(("tracks", "visibility", "confidence"), result, strict=True):
                    arrays[name][at, mask] = value[mask]
        info = replace(info, truncated=source.truncated, warnings=warnings_of(source, points, len(rows)))
        return Tracks(**arrays, queries=points.points.copy(), ids=points.ids, info=info)

    __call__ = track

"""Bringing tracks and their video together: is it the right one, and which frame belongs to which row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.errors import InputError, TracksError
from ptrack.tracks import Tracks
from ptrack.video import Frame, FrameSource, ReadOptions, open_source
from ptrack.video.sources import packaged


def options_for(tracks: Tracks, max_size: int | None = None) -> ReadOptions:
    """Return the options that read just the frames of the tracks: their first, last and common step."""
    index = tracks.frame_index
    if len(index) == 0:
        raise TracksError("The tracks hold no frames, so there is nothing to show.")
    steps = np.diff(index)
    stride = int(np.gcd.reduce(steps)) if len(steps) and (steps > 0).all() else 1
    return ReadOptions(start=int(index[0]), end=int(index[-1]) + 1, stride=max(stride, 1), max_size=max_size)


def open_video_of(
    tracks: Tracks, video: Any = None, *, force: bool = False, max_size: int | None = None
) -> FrameSource:
    """Open the video that the tracks were made on.

    Args:
        tracks: what will be shown; its ``info`` names the source and holds its SHA-256.
        video: a path or anything ``open_source`` takes; None for the source named in the tracks.
        force: go on although the video is another one.
        max_size: longest side in pixels after reduction.

    Raises:
        InputError: the video is missing, or its bytes are not those of the tracked one and ``force`` is false.
        TracksError: the tracks name no source, or hold no frames.
    """
    options = options_for(tracks, max_size)
    if video is None:
        video = tracks.info.source
        if not video or not Path(packaged(video)).exists():
            why = f"the source '{video}' they name does not exist here" if video else "they name no source"
            raise InputError(f"The video of these tracks is needed and {why}; give it with --video.")
    source = open_source(video, options)
    try:
        if not force:
            check_same(tracks, source)
    except InputError:
        source.close()
        raise
    return source


def check_same(tracks: Tracks, source: FrameSource) -> None:
    """Raise InputError when ``source`` is not the one that was tracked: by its SHA-256, else by its frame size."""
    digest = source.sha256() if tracks.info.source_sha256 else None
    if digest and digest != tracks.info.source_sha256:
        raise InputError(
            f"The tracks belong to another video: {source.info.name} has the SHA-256 {digest[:12]}..., the tracked "
            f"{tracks.info.source} has {tracks.info.source_sha256[:12]}.... "
            "Give the right one, or add --force (force=True)."
        )
    size, tracked = (source.info.width, source.info.height), (tracks.info.width, tracks.info.height)
    if min(tracked) > 0 and size != tracked:
        raise InputError(
            f"The tracks belong to a {tracked[0]}x{tracked[1]} video, but {source.info.name} is {size[0]}x{size[1]}. "
            "Give the right one, or add --force (force=True)."
        )


def with_size(tracks: Tracks, source: FrameSource) -> Tracks:
    """Return the tracks with the frame size filled in from the source where they do not hold one."""
    if min(tracks.info.width, tracks.info.height) > 0:
        return tracks
    return replace(tracks, info=replace(tracks.info, width=source.info.width, height=source.info.height))


def paired(tracks: Tracks, source: FrameSource) -> Iterator[tuple[int, Frame]]:
    """Yield ``(row of the tracks, frame)`` in order; frames without a row are passed over.

    Raises:
        InputError: the source ended before the first frame of the tracks.
    """
    rows = {int(index): t for t, index in enumerate(tracks.frame_index)}
    found = False
    for frame in source:
        if frame.index in rows:
            found = True
            yield rows[frame.index], frame
    if not found:
        raise InputError(
            f"{source.info.name} has none of the {tracks.num_frames} frames of the tracks "
            f"(the first is frame {int(tracks.frame_index[0])}). Give the right video with --video."
        )

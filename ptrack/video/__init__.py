"""Frames in and frames out: files, image folders, cameras and arrays as one stream; H.264, GIF and PNG out."""

from __future__ import annotations

from ptrack.video.frames import Frame, FrameSource, ReadOptions, SourceInfo
from ptrack.video.prefetch import PrefetchedFrames
from ptrack.video.sources import open_source, read_frames
from ptrack.video.writing import VideoWriter, open_writer

__all__ = [
    "Frame",
    "FrameSource",
    "PrefetchedFrames",
    "ReadOptions",
    "SourceInfo",
    "VideoWriter",
    "open_source",
    "open_writer",
    "read_frames",
]

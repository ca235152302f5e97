"""Frames out: H.264 video, GIF and PNG sequences, written under a temporary name and renamed when whole."""

from __future__ import annotations

from ptrack.video.writing.base import VideoWriter
from ptrack.video.writing.formats import open_writer

__all__ = ["VideoWriter", "open_writer"]

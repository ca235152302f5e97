"""ptrack tracks any point through any video.

Three lines::

    tracker = ptrack.load("nano", device="cpu")
    tracks = tracker.track("video.mp4", queries=None)  # None is a uniform grid
    ptrack.save_tracks(tracks, "video.tracks.h5")

Names are imported when they are first used, so ``import ptrack`` is quick and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptrack._version import __version__

if TYPE_CHECKING:
    from ptrack.errors import PTrackError
    from ptrack.tracking.load import load
    from ptrack.tracking.tracker import Tracker
    from ptrack.tracks import Queries, Tracks
    from ptrack.tracks_io import load_tracks, save_tracks
    from ptrack.video import FrameSource, VideoWriter, open_source, read_frames
    from ptrack.viz.notebook import show

_WHERE = {
    "FrameSource": "ptrack.video",
    "PTrackError": "ptrack.errors",
    "Queries": "ptrack.tracks",
    "Tracker": "ptrack.tracking.tracker",
    "Tracks": "ptrack.tracks",
    "VideoWriter": "ptrack.video",
    "load": "ptrack.tracking.load",
    "load_tracks": "ptrack.tracks_io",
    "open_source": "ptrack.video",
    "read_frames": "ptrack.video",
    "save_tracks": "ptrack.tracks_io",
    "show": "ptrack.viz.notebook",
}

__all__ = [
    "FrameSource",
    "PTrackError",
    "Queries",
    "Tracker",
    "Tracks",
    "VideoWriter",
    "__version__",
    "load",
    "load_tracks",
    "open_source",
    "read_frames",
    "save_tracks",
    "show",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'ptrack' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__

"""The viewer inside a notebook.

``ptrack.show(tracks, video)`` as the last line of a cell plays the video with its points there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from ptrack.errors import InputError
from ptrack.fileio import check_writable, write_text
from ptrack.tracks import Tracks
from ptrack.video.sources import packaged
from ptrack.viz.html.builder import viewer_page
from ptrack.viz.pairing import open_video_of

CONTROLS = 150  # pixels of the page above and below the picture
PICTURE = 620  # pixels of the picture's width, in a cell of about a thousand


@dataclass(frozen=True)
class Viewer:
    """The viewer's page: shown in notebooks, elsewhere saved as a file for the browser."""

    page: str = field(repr=False)  # a whole HTML document with the video in it
    height: int  # pixels that it takes in the notebook

    def _repr_html_(self) -> str:
        # A document of its own: its style and keys do not touch the notebook's.
        frame = f"width:100%;height:{self.height}px;border:0"
        return f'<iframe srcdoc="{escape(self.page, quote=True)}" style="{frame}" title="ptrack viewer"></iframe>'

    def save(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Write the page as one HTML file and return its path; OutputError if it exists or cannot be written."""
        target = check_writable(path, overwrite=overwrite)
        write_text(target, self.page)
        return target


def show(
    tracks: Tracks, video: Any = None, *, max_size: int | None = 640, height: int | None = None, force: bool = False
) -> Viewer:
    """Show tracks over their video in a notebook: play, scrub, pick points. The video becomes a part of the page.

    Args:
        tracks: what to show.
        video: the tracked video as it was given to ``Tracker.track``: a path, array, list of frames; by default the
            file that the tracks name.
        max_size: longest side in pixels of the embedded video, which notebooks store; None keeps its size.
        height: pixels of the page; by default as the picture needs.
        force: show them although the video is another one.

    Raises:
        InputError: the video is missing, can be read only once, or is another one.
        TracksError: the tracks hold no frames.
    """
    if video is None and not Path(packaged(tracks.info.source)).is_file():
        raise InputError("The tracks name no video file that exists here; give the video: ptrack.show(tracks, video).")
    with open_video_of(tracks, video, force=force, max_size=max_size) as source:
        page = viewer_page(tracks, source)
        needed = PICTURE * source.info.height / source.info.width + CONTROLS
    return Viewer(page, height or round(min(max(needed, 360), 820)))

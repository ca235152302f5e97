"""TAP-Vid RGB-Stacking (arXiv 2211.03726): 50 simulated robot videos in one pickle, without names."""

from __future__ import annotations

from ptrack.data.sources._tapvid import TapVidSource


class TapVidRgbStacking(TapVidSource):
    """Videos are named by the file and their position in it."""

    name = "tapvid-rgb-stacking"
    title = "TAP-Vid RGB-Stacking"
    layout = "tapvid_rgb_stacking.pkl, or a folder with it"


SOURCE = TapVidRgbStacking

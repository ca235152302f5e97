"""TAP-Vid DAVIS (arXiv 2211.03726): 30 annotated videos of DAVIS 2017 in one pickle."""

from __future__ import annotations

from typing import Any

from ptrack.data.sources._tapvid import TapVidSource


class TapVidDavis(TapVidSource):
    """Videos by name, sorted as the published evaluation sorts them."""

    name = "tapvid-davis"
    title = "TAP-Vid DAVIS"
    layout = "tapvid_davis.pkl, or a folder with it"

    def order(self, item: tuple[str, int]) -> Any:
        """Return the sorting key: the name."""
        return item[0]


SOURCE = TapVidDavis

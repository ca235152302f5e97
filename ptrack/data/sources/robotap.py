"""RoboTAP (arXiv 2308.15975): 265 annotated robot videos in several pickles."""

from __future__ import annotations

from pathlib import Path

from ptrack.data.sources._tapvid import TapVidSource


class RoboTap(TapVidSource):
    """Two files may use one video name, so names carry the file's."""

    name = "robotap"
    title = "RoboTAP"
    layout = "a folder with robotap_split0.pkl, robotap_split1.pkl, ..."

    def naming(self, path: Path, index: int, name: str | None) -> str:
        """Return ``<file>_<name>``."""
        return f"{path.stem}_{index if name is None else name}"


SOURCE = RoboTap

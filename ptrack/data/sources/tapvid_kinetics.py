"""TAP-Vid Kinetics (arXiv 2211.03726): ready pickles, or the published CSV with the videos."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from ptrack.data.clips import Clip
from ptrack.data.source import ClipRef, files
from ptrack.data.sources._tapvid import TapVidSource
from ptrack.data.video_frames import VideoFrames
from ptrack.errors import DataError

RATE = 25.0  # frames per second of the annotation
FRAMES = 250


class TapVidKinetics(TapVidSource):
    """Coordinates are half a source pixel smaller than the CSV's raster values, as in the published pickles."""

    name = "tapvid-kinetics"
    title = "TAP-Vid Kinetics"
    layout = "a folder with 0000_of_0010.pkl ..., or with tapvid_kinetics.csv and the videos ID_000010_000020.mp4 below"
    convention = "pixel_index"
    default_codec = "jpeg"

    def __init__(self, root: Path | str, *, depth: bool = False) -> None:
        super().__init__(root, depth=depth)
        found = [self.root] if self.root.suffix == ".csv" else sorted(self.root.glob("*.csv"))
        self.table = found[0] if found else None
        self.parallel = self.table is not None  # the CSV's clips lie in their own files

    def listed(self) -> list[ClipRef]:
        """List the examples of the pickles, or the clips of the CSV in order of first appearance."""
        if self.table is None:
            return super().listed()
        videos = {p.stem: p for p in files(self.table.parent, "*.mp4")}
        return [self.ref("eval", name, name, str(videos.get(name, ""))) for name in self._rows()]

    def _rows(self) -> dict[str, list[str]]:
        if self.table is None:
            return {}
        return _rows(self.table, self.table.stat().st_mtime_ns)

    def load(self, ref: ClipRef) -> Clip:
        """Load a clip; a video of the CSV is decoded at 25 frames/s and gives at most 250 frames."""
        if self.table is None:
            return super().load(ref)
        name, video = ref.key
        if not video:
            raise DataError(f"The video {name}.mp4 of {self.table.name} is not below {self.table.parent}.")
        frames = VideoFrames(Path(video), RATE, FRAMES)
        values = _parse(self._rows()[name], f"{self.table}, {name}")[:, : len(frames)]
        size = frames.size
        tracks = values[..., :2] * np.asarray([size[1], size[0]], np.float64) - 0.5
        visible = (values[..., 2] == 0).T
        return self.clip(
            ref,
            frames,
            size,
            tracks=tracks.transpose(1, 0, 2),
            visibility=visible,
            valid=visible,
            fps=RATE,
        )

    def rate(self) -> float | None:
        """Return 25 frames per second."""
        return RATE


@lru_cache(maxsize=1)
def _rows(table: Path, stamp: int) -> dict[str, list[str]]:
    """Return clip name -> the remaining text of its rows, clips in order of first appearance."""
    found: dict[str, list[str]] = {}
    try:
        with open(table, encoding="utf-8") as file:
            for line in file:
                if not line.strip():
                    continue
                name, start, end, rest = line.split(",", 3)
                found.setdefault(f"{name}_{int(start):06d}_{int(end):06d}", []).append(rest)
    except (OSError, ValueError) as error:
        raise DataError(
            f"The table {table} cannot be read ({error}), {sum(map(len, found.values()))} rows were fine."
        ) from error
    return found


def _parse(rows: list[str], where: str) -> np.ndarray:
    """Return (N, T, 3) float64 of (x, y, occluded) triples.

    Raises:
        DataError: a row has no whole triples of numbers, or rows differ in length.
    """
    try:
        values = np.asarray([[float(v) for v in row.split(",")] for row in rows], np.float64)
        return values.reshape(len(rows), -1, 3)
    except ValueError as error:
        raise DataError(f"{where}: its rows are not equally many triples x, y, occluded ({error}).") from error


SOURCE = TapVidKinetics

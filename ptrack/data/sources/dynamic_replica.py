"""Dynamic Replica (arXiv 2305.02296): rendered rooms with animated people and animals, left camera."""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.data.clips import Clip, FileFrames
from ptrack.data.source import SPLITS, ClipRef, Source, first_size
from ptrack.errors import DataError
from ptrack.untrusted import text
from ptrack.untrusted.limits import check_file, reading


class DynamicReplica(Source):
    """All paths come from the JSON list; only cameras with trajectories (left) become clips.

    The ``viewpoint`` entries are not stored: which way their axes point could not be confirmed.
    """

    name = "dynamic-replica"
    title = "Dynamic Replica"
    layout = "ROOT/[SPLIT/]frame_annotations_SPLIT.jgz with the sequences beside it"

    def listed(self) -> list[ClipRef]:
        """List the sequences of all splits that have trajectories, in the order of the list."""
        lists = sorted(self.root.glob("frame_annotations_*.jgz")) + sorted(self.root.glob("*/frame_annotations_*.jgz"))
        found = []
        for path in lists:
            split = path.name.removeprefix("frame_annotations_").removesuffix(".jgz")
            split = split if split in SPLITS else path.parent.name
            try:
                names = list(_sequences(path, path.stat().st_mtime_ns))
            except DataError:
                names = [path.stem]  # listed, so that it is reported when it cannot be loaded
            found += [self.ref(split, name, str(path), name) for name in names]
        return found

    def load(self, ref: ClipRef) -> Clip:
        """Load the left camera of a sequence."""
        path = Path(ref.key[0])
        entries = _sequences(path, path.stat().st_mtime_ns)[ref.key[1]]
        base = path.parent
        try:
            frames = FileFrames([base / e["image"]["path"] for e in entries])
            points = [_trajectory(base / e["trajectories"]["path"]) for e in entries]
            times = np.asarray([e["frame_timestamp"] for e in entries], np.float64)
            size = first_size(frames)
            sides = {
                "masks": _side(base, entries, "mask"),
                "depth": _side(base, entries, "depth") if self.depth else None,
            }
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: '{ref.name}' is malformed ({type(error).__name__}: {error}).") from error
        counts = {len(p["traj_2d"]) for p in points}
        if len(counts) > 1:
            raise DataError(f"{path}: the trajectory files of '{ref.name}' hold {sorted(counts)} points.")
        return self.clip(
            ref,
            frames,
            size,
            tracks=np.stack([p["traj_2d"][:, :2] for p in points]),
            visibility=np.stack([p["verts_inds_vis"] for p in points]),
            trajs_3d=np.stack([p["traj_3d_world"] for p in points]),
            timestamps=times,
            fps=_rate(times),
            **sides,
        )


@lru_cache(maxsize=2)
def _sequences(path: Path, stamp: int) -> dict[str, list[dict[str, Any]]]:
    """Return sequence name -> frames of its left camera with trajectories, in time order."""
    with reading(path, DataError, "a list of frames"):
        with gzip.open(path, "rb") as file:
            entries = text.parse_json(file.read(text.JSON_BYTES // 2))
        found: dict[str, list[dict[str, Any]]] = {}
        for entry in entries:
            if (entry.get("trajectories") or {}).get("path") and entry.get("camera_name", "left") == "left":
                found.setdefault(entry["sequence_name"], []).append(entry)
    for frames in found.values():
        frames.sort(key=lambda e: e["frame_number"])
    return found


def _trajectory(path: Path) -> dict[str, np.ndarray]:
    """Read one frame's points; only tensors are admitted."""
    from ptrack.untrusted import torch_files

    check_file(path, DataError, "file of trajectories")
    with reading(path, DataError, "trajectories"):
        content = torch_files.load(path)
        return {key: content[key].numpy() for key in ("traj_2d", "traj_3d_world", "verts_inds_vis")}


def _rate(times: np.ndarray) -> float | None:
    """Return frames per second from timestamps, None if they hold none."""
    steps = np.diff(times)
    return float(np.round(1 / np.median(steps), 3)) if len(steps) and np.median(steps) > 0 else None


def _side(base: Path, entries: list[dict[str, Any]], key: str) -> FileFrames | None:
    """Return mask or depth pictures, absent ones left out."""
    paths = [base / e[key]["path"] if (e.get(key) or {}).get("path") else None for e in entries]
    present = [p if p is not None and p.is_file() else None for p in paths]
    return FileFrames(present) if any(present) else None


SOURCE = DynamicReplica

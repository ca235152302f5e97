"""PointOdyssey (arXiv 2307.15055), versions 1.0 to 1.2, and the simple layout ``VIDEO/frames`` + ``anno.npz``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptrack.data import source
from ptrack.data.clips import Clip, FileFrames, Frames
from ptrack.data.source import SPLITS, ClipRef, Source

ANNOTATIONS = ("anno.npz", "annot.npz", "annotations.npz")  # v1.2, the authors' example, v1.0
PICTURES = {"rgbs": r"rgb_(\d+)\.(?:jpe?g|png)", "frames": r"frame_(\d+)\.(?:jpe?g|png)"}
OPTIONAL = ("trajs_3d", "intrinsics", "extrinsics", "fps")  # scenes without them have None there
DEPTH_SCALE = 1000.0 / 65535.0  # metres per stored value


class PointOdyssey(Source):
    """Sequences with 2-D and 3-D tracks, cameras and masks; older files have float16 and ``visibilities`` 0/1/2."""

    name = "point-odyssey"
    title = "PointOdyssey"
    layout = (
        "ROOT/[SPLIT/]SEQUENCE/rgbs/rgb_00000.jpg with anno.npz (or annot, annotations), "
        "or ROOT/VIDEO/frames/frame_000000.jpg with anno.npz"
    )

    def listed(self) -> list[ClipRef]:
        """List every folder, at most two levels down, that has frames or an annotation."""
        found = [self.root] if _is_sequence(self.root) else source.sequences(self.root, _is_sequence)
        return [self._ref(folder) for folder in found]

    def _ref(self, folder: Path) -> ClipRef:
        parent = folder.parent
        nested = parent not in (self.root, self.root.parent)
        return self.ref(parent.name if nested or parent.name in SPLITS else "all", folder.name, str(folder))

    def load(self, ref: ClipRef) -> Clip:
        """Load a sequence; cameras of v1.0 follow another axis convention and are kept as they are."""
        folder = Path(ref.key[0])
        where, anno = source.load_npz([folder / name for name in ANNOTATIONS], OPTIONAL)
        kind = "frames" if (folder / "frames").is_dir() and not (folder / "rgbs").is_dir() else "rgbs"
        frames = FileFrames(source.numbered_frames(folder / kind, PICTURES[kind], first=0))
        tracks = source.need(anno, "trajs_2d", where)
        source.check_count(folder, len(frames), len(tracks))
        return self.clip(
            ref,
            frames,
            source.first_size(frames),
            tracks=tracks,
            **_visibility(anno, where, simple=kind == "frames"),
            **{key: source.filled(anno, key) for key in ("trajs_3d", "intrinsics", "extrinsics")},
            fps=float(anno["fps"]) if "fps" in anno and anno["fps"].size == 1 else None,
            masks=_pictures(folder / "masks", len(frames)),
            depth=_pictures(folder / "depths", len(frames)) if self.depth else None,
            depth_scale=DEPTH_SCALE if self.depth and (folder / "depths").is_dir() else None,
        )


def _is_sequence(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in PICTURES) or any((folder / n).is_file() for n in ANNOTATIONS)


def _visibility(anno: dict[str, np.ndarray], where: Path, simple: bool) -> dict[str, Any]:
    """Return visibility and valid from any of the key styles: ``visibs`` with or without ``valids``, ``visibilities``.

    In PointOdyssey the flags may be 0 (hidden), 1 (visible) or 2 (invalid).
    """
    flags = source.need(anno, "visibilities" if "visibs" not in anno and "visibilities" in anno else "visibs", where)
    if simple:
        return {"visibility": flags != 0, "valid": source.filled(anno, "valids")}
    valid = anno["valids"] if "valids" in anno else flags.astype(np.float32) < 2
    return {"visibility": flags.astype(np.float32) == 1, "valid": valid}


def _pictures(folder: Path, count: int) -> Frames | None:
    """Return side pictures named by number, absent ones left out; None when there are none."""
    if not folder.is_dir():
        return None
    found = {p.stem.rpartition("_")[2]: p for p in folder.iterdir() if p.suffix == ".png"}
    paths = [found.get(f"{t:05d}") for t in range(count)]
    return FileFrames(paths) if any(paths) else None


SOURCE = PointOdyssey

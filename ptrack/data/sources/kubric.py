"""Kubric MOVi-F as released with CoTracker3 (arXiv 2410.11831): folders of PNG frames with a dict in a ``.npy``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptrack.data.clips import Clip, FileFrames
from ptrack.data.pickles import load_npy
from ptrack.data.source import SPLITS, ClipRef, Source, check_count, first_size, need, numbered_frames, sequences
from ptrack.errors import DataError


class Kubric(Source):
    """The key ``visibility`` holds OCCLUSION flags: True is hidden, as the published readers take it."""

    name = "kubric"
    title = "Kubric MOVi-F (CoTracker3 release)"
    layout = "ROOT/0000/frames/000.png and ROOT/0000/0000.npy"
    convention = "raster"

    def listed(self) -> list[ClipRef]:
        """List the sequence folders, in ROOT or in its split folders."""
        found = [(f.parent.name if f.parent.name in SPLITS else "", f) for f in sequences(self.root, _is_sequence)]
        return [self.ref(s or "train", f.name, str(f)) for s, f in found if s or f.parent == self.root]

    def load(self, ref: ClipRef) -> Clip:
        """Load a sequence."""
        folder = Path(ref.key[0])
        where = folder / f"{folder.name}.npy"
        anno = load_npy(where)
        if not isinstance(anno, dict):
            raise DataError(f"The annotation {where} holds no dict.")
        frames = FileFrames(numbered_frames(folder / "frames", r"(\d+)\.(?:png|jpe?g)"))
        coords, hidden = need(anno, "coords", where), need(anno, "visibility", where)
        if coords.ndim != 3 or hidden.shape != coords.shape[:2]:
            raise DataError(f"{where}: coords {coords.shape} and visibility {hidden.shape} do not fit together.")
        check_count(folder, len(frames), coords.shape[1])
        return self.clip(
            ref,
            frames,
            first_size(frames),
            tracks=coords.transpose(1, 0, 2),
            visibility=np.not_equal(hidden, 0).T == 0,
        )


def _is_sequence(folder: Path) -> bool:
    return (folder / "frames").is_dir() or (folder / f"{folder.name}.npy").is_file()


SOURCE = Kubric

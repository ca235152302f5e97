"""EgoPoints (arXiv 2412.04592): sparsely annotated egocentric sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptrack.data import source
from ptrack.data.clips import Clip, FileFrames
from ptrack.data.source import SPLITS, ClipRef, Source


class EgoPoints(Source):
    """Coordinates carry information only where ``valid``; visibility labels have their own mask ``vis_valid``."""

    name = "ego-points"
    title = "EgoPoints"
    layout = "ROOT/SEQUENCE/rgbs/frame_0000000001.jpg and ROOT/SEQUENCE/annot.npz"
    default_split = "eval"

    def listed(self) -> list[ClipRef]:
        """List the sequence folders, in ROOT or in its split folders."""
        found = source.sequences(self.root, _is_sequence)
        splits = ((f.parent.name if f.parent.name in SPLITS else self.default_split, f) for f in found)
        return [self.ref(split, f.name, str(f)) for split, f in splits]

    def load(self, ref: ClipRef) -> Clip:
        """Load a sequence; its frames are numbered from 1."""
        folder = Path(ref.key[0])
        where, anno = source.load_npz([folder / "annot.npz"])
        frames = FileFrames(source.numbered_frames(folder / "rgbs", r"frame_(\d+)\.(?:jpe?g|png)", first=1))
        tracks, valid = source.need(anno, "trajs_2d", where), source.need(anno, "valids", where)
        source.check_count(folder, len(frames), len(tracks))
        sparse = "vis_valids" in anno
        return self.clip(
            ref,
            frames,
            source.first_size(frames),
            tracks=tracks,
            visibility=source.need(anno, "visibs", where),
            valid=valid,
            vis_valid=source.filled(anno, "vis_valids"),
            out_of_view=source.filled(anno, "out_of_view"),
            occluded_label=source.filled(anno, "occluded"),
            is_dynamic=source.filled(anno, "dynamic_obj_tracks"),
            annotated_frames=np.flatnonzero((valid != 0).any(axis=1)) if sparse else None,
        )


def _is_sequence(folder: Path) -> bool:
    return (folder / "rgbs").is_dir() or (folder / "annot.npz").is_file()


SOURCE = EgoPoints

"""BADJA (arXiv 1811.05804): joints of animals, annotated about every fifth frame of DAVIS videos."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.data.clips import Clip, FileFrames
from ptrack.data.source import ClipRef, Source, files, first_size
from ptrack.errors import DataError
from ptrack.untrusted import text
from ptrack.untrusted.limits import reading

JOINTS = (8, 9, 10, 12, 13, 14, 15, 18, 19, 20, 22, 23, 24, 25, 28, 31, 32, 33, 35, 36)  # the 20 that are scored


class Badja(Source):
    """Joints are (row, column) pixel indices on disk; hidden ones carry meaningless coordinates."""

    name = "badja"
    title = "BADJA"
    layout = "ROOT/joint_annotations/ANIMAL.json with ROOT/DAVIS/JPEGImages and ROOT/extra_videos"
    convention = "pixel_index"

    def listed(self) -> list[ClipRef]:
        """List the animals."""
        found = files(self.root / "joint_annotations", "*.json")
        return [self.ref("eval", path.stem, str(path)) for path in found]

    def load(self, ref: ClipRef) -> Clip:
        """Load all frames from the first to the last annotated one; frames between have no visible joint."""
        where = Path(ref.key[0])
        labels = _labels(where)
        numbers = sorted(labels)
        first = numbers[0]
        frames, masks = self._files(labels[first], numbers[-1])
        tracks = np.zeros((len(frames), len(JOINTS), 2), np.float32)
        visible = np.zeros(tracks.shape[:2], np.bool_)
        for number, label in labels.items():
            tracks[number - first] = label["joints"][list(JOINTS)][:, ::-1]
            visible[number - first] = label["visibility"][list(JOINTS)]
        pictures = FileFrames(frames)
        return self.clip(
            ref,
            pictures,
            first_size(pictures),
            tracks=tracks,
            visibility=visible,
            valid=visible,
            annotated_frames=np.asarray(numbers) - first,
            first_frame_number=first,
            track_ids=np.asarray(JOINTS),
            masks=FileFrames(masks) if any(masks) else None,
        )

    def _files(self, label: dict[str, Any], last: int) -> tuple[list[Path | None], list[Path | None]]:
        """Return the frame files from the label's to number ``last``, and the mask files (None where absent)."""
        image, mask = Path(label["image_path"]), Path(label["segmentation_path"])
        frames: list[Path | None] = []
        masks: list[Path | None] = []
        for number in range(_number(image), last + 1):
            stem = f"{number:0{len(image.stem)}d}"
            path = self.root / image.with_name(stem + image.suffix)
            if not path.is_file():
                raise DataError(f"The frame {path} is missing.")
            side = self.root / mask.with_name(stem + mask.suffix)
            frames.append(path)
            masks.append(side if side.is_file() else None)
        return frames, masks


def _number(path: Path) -> int:
    if not re.fullmatch(r"\d+", path.stem):
        raise DataError(f"BADJA frames are named by their number; '{path}' is not.")
    return int(path.stem)


def _labels(where: Path) -> dict[int, dict[str, Any]]:
    """Return frame number -> label with ``joints`` (37, 2) and ``visibility`` (37,) arrays."""
    with reading(where, DataError, "an annotation"):
        entries = text.load_json(where)
        labels = {}
        for entry in entries:
            joints = np.asarray(entry["joints"], np.float64)
            visible = np.asarray(entry["visibility"]) != 0
            if joints.shape != (37, 2) or visible.shape != (37,):
                raise ValueError(f"joints {joints.shape}, visibility {visible.shape}")
            labels[_number(Path(entry["image_path"]))] = entry | {"joints": joints, "visibility": visible}
    if not labels:
        raise DataError(f"The annotation {where} has no frames.")
    return labels


SOURCE = Badja

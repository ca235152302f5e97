"""Tables and JSON of rows: napari's Tracks layer and COCO-like keypoints."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from ptrack import geometry
from ptrack.fileio import atomic_path
from ptrack.tracks import Tracks


def write_napari(tracks: Tracks, path: Path) -> None:
    """Write ``track_id, t, y, x`` (napari's order) with visibility, confidence and the point's id as properties.

    Rows are sorted by track and time, as napari asks; positions that are NaN have no row. ``t`` is the source frame,
    coordinates have the pixel's centre at whole numbers.
    """
    xy = geometry.to_opencv(tracks.tracks)
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["track_id", "t", "y", "x", "visibility", "confidence", "id"])
        for n in range(tracks.num_points):
            for t in np.flatnonzero(np.isfinite(xy[:, n]).all(axis=1)):
                x, y = xy[t, n]
                seen, sure = tracks.visibility[t, n], tracks.confidence[t, n]
                frame = int(tracks.frame_index[t])
                rows.writerow([n, frame, f"{y:.4f}", f"{x:.4f}", f"{seen:.4f}", f"{sure:.4f}", tracks.ids[n]])


def write_coco(tracks: Tracks, path: Path) -> None:
    """Write COCO-like keypoints: one image and one annotation per frame, all points as its keypoints.

    ``v`` is 0 without a position (x = y = 0), 1 for an occluded and 2 for a visible point. Coordinates start at the
    upper-left corner of the image.
    """
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(coco_document(tracks), file, ensure_ascii=False, allow_nan=False)


def coco_document(tracks: Tracks) -> dict[str, Any]:
    """Return what ``write_coco`` writes."""
    info = tracks.info
    images = [
        {"id": t, "file_name": f"{int(index):06d}.jpg", "width": info.width, "height": info.height,
         "frame_index": int(index), "pts_seconds": float(pts)}
        for t, (index, pts) in enumerate(zip(tracks.frame_index, tracks.pts_seconds, strict=True))
    ]  # fmt: skip
    return {
        "info": {"description": f"Point tracks of {info.source}", "version": info.ptrack_version},
        "images": images,
        "annotations": [_annotation(tracks, t) for t in range(tracks.num_frames)],
        "categories": [{"id": 1, "name": "points", "keypoints": tracks.ids.tolist(), "skeleton": []}],
    }


def _annotation(tracks: Tracks, t: int) -> dict[str, Any]:
    xy = tracks.tracks[t].astype(np.float64)
    present = np.isfinite(xy).all(axis=1)
    flags = np.where(present, np.where(tracks.visible[t], 2, 1), 0)
    keypoints = np.column_stack([np.round(np.where(present[:, None], xy, 0), 4), flags])
    box = [0.0, 0.0, 0.0, 0.0]
    if present.any():
        low, high = xy[present].min(axis=0), xy[present].max(axis=0)
        box = [round(float(v), 4) for v in (*low, *(high - low))]
    return {
        "id": t, "image_id": t, "category_id": 1, "iscrowd": 0, "num_keypoints": int((flags > 0).sum()),
        "keypoints": [int(v) if i % 3 == 2 else v for i, v in enumerate(keypoints.ravel().tolist())],
        "bbox": box, "area": round(box[2] * box[3], 4),
    }  # fmt: skip


def guess_csv(path: Path) -> str:
    """Return the format name of a CSV file from the first word of its first line."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return "dlc-csv" if file.readline().startswith("scorer,") else "csv"

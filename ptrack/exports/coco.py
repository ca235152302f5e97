"""COCO keypoints, as pycocotools and the detectors that train on COCO read them.

Letters: T frames, N points.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ptrack import geometry
from ptrack.errors import TracksError
from ptrack.fileio import write_text
from ptrack.tracks import Tracks
from ptrack.video.listing import by_pattern, in_folder, is_pattern


def write_coco(tracks: Tracks, path: Path) -> None:
    """Write COCO keypoints: one image and one annotation per frame, all points as its keypoints.

    ``v`` is 0 without a position (x = y = 0), 1 for an occluded and 2 for a visible point. Keypoints have whole numbers
    at pixel centres: COCO's are pixel indices, to which detectors add 0.5. Boxes start at the upper-left corner of the
    image and hold all points with a position. Ids count from 1, as pycocotools takes 0 for "nothing matched".
    """
    write_text(path, json.dumps(coco_document(tracks), ensure_ascii=False, allow_nan=False))


def coco_document(tracks: Tracks) -> dict[str, Any]:
    """Return what ``write_coco`` writes."""
    info = tracks.info
    names = picture_names(tracks)
    stamps = np.where(np.isfinite(tracks.pts_seconds), tracks.pts_seconds, -1.0).tolist()
    images = [
        {
            **{"id": t + 1, "file_name": names[t], "width": info.width, "height": info.height},
            **{"frame_index": int(tracks.frame_index[t]), "pts_seconds": None if stamps[t] < 0 else stamps[t]},
        }
        for t in range(tracks.num_frames)
    ]
    return {
        "info": {"description": f"Point tracks of {info.source}", "version": info.ptrack_version},
        "images": images,
        "annotations": [_annotation(tracks, t) for t in range(tracks.num_frames)],
        "categories": [{"id": 1, "name": "points", "keypoints": tracks.ids.tolist(), "skeleton": []}],
    }


def picture_names(tracks: Tracks) -> list[str]:
    """Return ``file_name`` of every row.

    Of an image folder or pattern these are the pictures' own names, relative to the folder that holds all of them. A
    video's frames have no files: they are numbered as ``ffmpeg -i VIDEO -start_number 0 %06d.jpg`` writes them.

    Raises:
        TracksError: the folder no longer holds the tracked pictures.
    """
    paths = _pictures(tracks.info.source)
    if paths is None:
        return [f"{int(index):06d}.jpg" for index in tracks.frame_index]
    if tracks.num_frames and int(tracks.frame_index.max()) >= len(paths):
        raise TracksError(
            f"{tracks.info.source} holds {len(paths)} pictures, but the tracks have frame "
            f"{int(tracks.frame_index.max())}; put back what was tracked, so that names and frames agree."
        )
    folder = os.path.commonpath([path.parent for path in paths])
    return [Path(os.path.relpath(paths[int(index)], folder)).as_posix() for index in tracks.frame_index]


def _pictures(source: str) -> list[Path] | None:
    """Return the files that frames 0, 1, ... of a source were read from; None if it is no folder or pattern here."""
    if source and Path(source).is_dir():
        return in_folder(Path(source)).paths
    if is_pattern(source):
        return by_pattern(source).paths
    return None


def _annotation(tracks: Tracks, t: int) -> dict[str, Any]:
    xy = tracks.tracks[t].astype(np.float64)
    present = np.isfinite(xy).all(axis=1)
    flags = np.where(present, np.where(tracks.visible[t], 2, 1), 0)
    places = np.where(present[:, None], np.round(geometry.to_opencv(xy), 4), 0)
    keypoints = [v for (x, y), flag in zip(places.tolist(), flags.tolist(), strict=True) for v in (x, y, flag)]
    box = [0.0, 0.0, 0.0, 0.0]
    if present.any():
        low, high = xy[present].min(axis=0), xy[present].max(axis=0)
        box = [round(float(v), 4) for v in (*low, *(high - low))]
    return {
        **{"id": t + 1, "image_id": t + 1, "category_id": 1, "iscrowd": 0, "num_keypoints": int((flags > 0).sum())},
        **{"keypoints": keypoints, "bbox": box, "area": round(box[2] * box[3], 4)},
    }

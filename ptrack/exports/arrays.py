"""NumPy archives of the field: TAP-Vid's and CoTracker's arrays, readable without pickle.

Letters: T frames, N points.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptrack import geometry
from ptrack.errors import TracksError
from ptrack.exports.common import build_tracks, frame_size
from ptrack.fileio import atomic_path
from ptrack.tracks import Tracks, TracksInfo
from ptrack.untrusted import Refused, npz
from ptrack.untrusted.limits import check_file, reading


def write_tapvid(tracks: Tracks, path: Path) -> None:
    """Write ``points`` (N, T, 2) as fractions of the image, ``occluded`` (N, T) bool and ``query_points`` (N, 3).

    ``query_points`` are rows (t, y, x) in pixels, as in TAP-Vid's evaluation; ids and times travel in extra keys.
    """
    size = frame_size(tracks, "tapvid")
    points = geometry.normalise(tracks.tracks, size).transpose(1, 0, 2)
    _write(path, tracks, points=points, occluded=~tracks.visible.T, query_points=tracks.queries[:, [0, 2, 1]])


def write_cotracker(tracks: Tracks, path: Path) -> None:
    """Write ``pred_tracks`` (1, T, N, 2) in pixel-centre pixels and ``pred_visibility`` (1, T, N) bool."""
    queries = np.column_stack([tracks.queries[:, 0], geometry.to_opencv(tracks.queries[:, 1:])])
    xy = geometry.to_opencv(tracks.tracks)[None]
    _write(path, tracks, pred_tracks=xy, pred_visibility=tracks.visible[None], queries=queries)


def _write(path: Path, tracks: Tracks, **arrays: Any) -> None:
    """Write arrays with the ids, the frame size and the times behind them."""
    size, fps = np.asarray([tracks.info.height, tracks.info.width]), np.asarray(tracks.info.fps)
    times: dict[str, Any] = {"frame_index": tracks.frame_index, "pts_seconds": tracks.pts_seconds, "fps": fps}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays, ids=tracks.ids, image_size=size, **times)


def read_tapvid(path: Path) -> Tracks:
    """Read the arrays of ``write_tapvid``; only ``points`` and ``occluded`` are needed if ``image_size`` is given."""
    with reading(path, TracksError, "TAP-Vid's arrays"):
        data = _load(path, ("points", "occluded", "image_size"))
        size = _size(data)
        xy = geometry.denormalise(npz.numbers("points", data["points"]), size).transpose(1, 0, 2)
        return _build(path, data, xy, ~npz.numbers("occluded", data["occluded"], bool, "bfiu").T, size)


def read_cotracker(path: Path) -> Tracks:
    """Read ``pred_tracks`` and ``pred_visibility`` with or without the leading batch dimension of 1."""
    with reading(path, TracksError, "CoTracker's arrays"):
        data = _load(path, ("pred_tracks", "pred_visibility"))
        xy = npz.numbers("pred_tracks", data["pred_tracks"])
        visible = npz.numbers("pred_visibility", data["pred_visibility"], bool, "bfiu")
        if xy.ndim == 4 and xy.shape[0] == 1:
            xy, visible = xy[0], visible[0]
        return _build(path, data, geometry.from_opencv(xy), visible, _size(data))


def _size(data: dict[str, Any]) -> geometry.Size:
    """Return (H, W), (0, 0) where the arrays do not hold it. Raises Refused when it is impossible."""
    h, w = (int(v) for v in data.get("image_size", np.zeros(2)))
    if not (0 <= h < 1 << 31 and 0 <= w < 1 << 31):
        raise Refused(f"holds the impossible image size {w}x{h}")
    return h, w


def _load(path: Path, needed: tuple[str, ...]) -> dict[str, Any]:
    check_file(path, TracksError, "file of tracks")
    with reading(path, TracksError, "a NumPy archive"):
        data = npz.arrays(path)
    missing = [key for key in needed if key not in data]
    if missing:
        raise Refused(f"has no array '{missing[0]}'; it holds {', '.join(sorted(data)[:20]) or 'nothing'}")
    return data


def _build(path: Path, data: dict[str, Any], xy: np.ndarray, visible: np.ndarray, size: geometry.Size) -> Tracks:
    if xy.ndim != 3 or xy.shape[-1] != 2 or visible.shape != xy.shape[:2]:
        raise Refused(f"holds positions of the shape {xy.shape} and visibility {visible.shape}, which do not fit")
    info = TracksInfo(source=str(path), height=size[0], width=size[1], fps=float(data.get("fps", 0.0)))
    return build_tracks(
        xy, visible.astype(np.float32), data.get("ids"), info, data.get("frame_index"), data.get("pts_seconds")
    )


def guess_npz(path: Path) -> str:
    """Return the format name of an NPZ file from the names of its arrays."""
    with reading(path, TracksError, "a NumPy archive"), npz.opened(path) as archive:
        names = set(archive.names())
    if {"points", "occluded"} <= names:
        return "tapvid"
    return "cotracker" if "pred_tracks" in names else "npz"

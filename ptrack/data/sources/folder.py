"""Your own videos: each with its tracks beside it, ``walk.mp4`` + ``walk.csv`` (or .npz, or a file ptrack wrote)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.data.clips import Clip, FileFrames, Frames
from ptrack.data.source import ClipRef, Source, check_count, first_size, load_npz
from ptrack.data.video_frames import VideoFrames
from ptrack.errors import DataError, PTrackError
from ptrack.untrusted import text
from ptrack.untrusted.limits import reading

VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
PICTURES = (".jpg", ".jpeg", ".png")
TRACKS = (".csv", ".npz", ".tracks.csv", ".tracks.npz", ".tracks.h5", ".tracks.json")
COLUMNS = {"frame": ("frame", "t"), "id": ("id", "point", "track"), "x": ("x",), "y": ("y",)}


class Folder(Source):
    """Coordinates are ptrack's raster pixels; CSV columns are frame, id, x, y and optionally visibility or occluded.

    NPZ arrays are ``tracks`` (T, N, 2) and ``visibility`` (T, N) (or ``trajs_2d`` and ``visibs``), optionally
    ``valid``, ``queries`` and ``fps``. A folder of numbered JPEG or PNG frames counts as a video.
    """

    name = "folder"
    title = "your own videos"
    layout = "ROOT/[SPLIT/]NAME.mp4 (or a folder NAME of pictures) with NAME.csv or NAME.npz beside it"
    convention = "raster"
    default_codec = "jpeg"

    def listed(self) -> list[ClipRef]:
        """List the videos and picture folders that have tracks beside them, and the videos that lack them."""
        found = []
        for path in sorted(self.root.rglob("*")):
            parts = path.relative_to(self.root).parts
            if any(p.startswith(".") for p in parts):
                continue
            video = path.is_file() and path.suffix.lower() in VIDEOS
            pictures = path.is_dir() and _tracks_of(path) is not None
            if video or pictures:
                split = "/".join(parts[:-1]) or "all"
                found.append(self.ref(split, path.stem if video else path.name, str(path)))
        return found

    def load(self, ref: ClipRef) -> Clip:
        """Load a video and its tracks."""
        path = Path(ref.key[0])
        where = _tracks_of(path)
        if where is None:
            name = path.stem if path.is_file() else path.name
            raise DataError(f"The video {path} has no tracks beside it; add {name}.csv or {name}.npz.")
        frames, size, fps = _open(path)
        arrays = _read(where, len(frames))
        check_count(path, len(frames), len(arrays["tracks"]))
        return self.clip(ref, frames, size, **{"fps": fps} | arrays)


def _tracks_of(video: Path) -> Path | None:
    stem = video.name if video.is_dir() else video.stem
    return next((p for suffix in TRACKS if (p := video.with_name(stem + suffix)).is_file()), None)


def _open(path: Path) -> tuple[Frames, tuple[int, int], float | None]:
    if path.is_file():
        video = VideoFrames(path)
        return video, video.size, video.fps
    from ptrack.video.listing import natural_key

    pictures = [p for p in path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")]
    ordered: list[Path] = sorted(pictures, key=lambda p: natural_key(p.name))
    frames = FileFrames(ordered)
    return frames, first_size(frames), None


def _read(where: Path, count: int) -> dict[str, Any]:
    """Return tracks, visibility and what else a tracks file holds, for ``count`` frames."""
    if where.suffix == ".csv":
        return _from_csv(where, count)
    if where.suffix == ".npz":
        return _from_arrays(load_npz([where])[1], where, count)
    from ptrack.tracks_io import load_tracks

    try:
        tracks = load_tracks(where)
    except PTrackError as error:
        raise DataError(str(error)) from error
    return _placed(tracks.tracks, tracks.visible, tracks.frame_index, where, count)


def _from_arrays(arrays: Mapping[str, np.ndarray], where: Path, count: int) -> dict[str, Any]:
    def first(*names: str) -> np.ndarray | None:
        return next((arrays[n] for n in names if n in arrays), None)

    tracks, seen = first("tracks", "trajs_2d"), first("visibility", "visibs", "visible")
    if tracks is None or tracks.ndim != 3:
        raise DataError(f"The tracks {where} need an array 'tracks' (T, N, 2); they have {', '.join(arrays)}.")
    threshold = json.loads(str(arrays["info"])).get("threshold", 0.5) if "info" in arrays else 0.5
    seen = np.isfinite(tracks).all(-1) if seen is None else seen
    visible = np.asarray(seen >= threshold if np.asarray(seen).dtype.kind == "f" else seen != 0)
    if "frame_index" in arrays:
        return _placed(tracks, visible, arrays["frame_index"], where, count)
    queries = first("queries")
    more: dict[str, Any] = {"valid": first("valid", "valids"), "queries": queries}
    if queries is not None and len(queries) == tracks.shape[1]:
        more["query_track"] = np.arange(len(queries))
    fps = first("fps")
    return {"tracks": tracks, "visibility": visible} | more | ({} if fps is None else {"fps": float(fps)})


def _placed(tracks: np.ndarray, seen: np.ndarray, index: np.ndarray, where: Path, count: int) -> dict[str, Any]:
    """Put rows that name their frame into all ``count`` frames; frames without a row have no points."""
    if len(index) and (index.min() < 0 or index.max() >= count):
        raise DataError(f"The tracks {where} speak of frame {index.max()}, but the video has {count} frames.")
    xy = np.full((count, *tracks.shape[1:]), np.nan, np.float32)
    visible = np.zeros((count, tracks.shape[1]), np.bool_)
    xy[index], visible[index] = tracks, seen
    return {"tracks": xy, "visibility": visible}


def _from_csv(where: Path, count: int) -> dict[str, Any]:
    with reading(where, DataError, "tracks"):
        lines = text.csv_rows(where)
        header = next(lines, [])
        rows = [dict(zip_longest(header, row[: len(header)], fillvalue="")) for row in lines]
    names = {n.strip().lower(): n for n in (rows[0] if rows else {}) if n}
    column: dict[str, str] = {}
    for key, words in COLUMNS.items():
        found = next((names[w] for w in words if w in names), "")
        if not found:
            raise DataError(
                f"The tracks {where} have no column '{key}'; the first line must say frame,id,x,y,visibility."
            )
        column[key] = found
    return _table(rows, column, names, where, count)


def _table(
    rows: list[dict[str, Any]], column: dict[str, str], names: dict[str, str], where: Path, count: int
) -> dict[str, Any]:
    ids = {name: i for i, name in enumerate(dict.fromkeys(r[column["id"]] for r in rows))}
    xy = np.full((count, len(ids), 2), np.nan, np.float32)
    visible = np.zeros((count, len(ids)), np.bool_)
    seen = next((names[n] for n in ("visibility", "visible") if n in names), None)
    hidden = names.get("occluded")
    for number, row in enumerate(rows, 2):
        try:
            t, i = int(row[column["frame"]]), ids[row[column["id"]]]
            if not 0 <= t < count:
                raise DataError(f"{where}, line {number}: there is no frame {t}; the video has {count} frames.")
            xy[t, i] = [float(row[column[c]]) if row[column[c]] else np.nan for c in ("x", "y")]
            visible[t, i] = float(row[seen] or 0) >= 0.5 if seen else not float((hidden and row[hidden]) or 0) >= 0.5
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}, line {number}: {error}.") from error
    return {"tracks": xy, "visibility": visible}


SOURCE = Folder

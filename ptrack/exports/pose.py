"""Writing pose-estimation formats: DeepLabCut's tables and SLEAP's analysis file; ``deeplabcut.py`` reads the first.

Both put (0, 0) at the centre of the upper-left pixel. One point of ptrack is one body part (DeepLabCut) or one node of
a single instance (SLEAP). Letters: T frames, N points.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptrack import geometry
from ptrack.errors import TracksError
from ptrack.fileio import atomic_path, write_csv
from ptrack.tracks import Tracks
from ptrack.untrusted import Refused, h5
from ptrack.untrusted.limits import reading

SCORER = "ptrack"
COORDS = ("x", "y", "likelihood")
DLC_KEY = "df_with_missing"  # the key DeepLabCut itself uses


def dlc_values(tracks: Tracks) -> np.ndarray:
    """Return DeepLabCut's columns (T, 3 N) float64: x, y, likelihood of every point; likelihood is the visibility."""
    values = np.concatenate([geometry.to_opencv(tracks.tracks), tracks.visibility[..., None]], axis=2)
    return values.astype(np.float64).reshape(tracks.num_frames, -1)


def write_dlc_csv(tracks: Tracks, path: Path) -> None:
    """Write DeepLabCut's CSV: header rows scorer, bodyparts, coords; then the source frame and the columns."""
    head = [["scorer", *[SCORER] * (3 * tracks.num_points)], ["bodyparts", *np.repeat(tracks.ids, 3).tolist()]]
    head.append(["coords", *COORDS * tracks.num_points])
    frames = zip(tracks.frame_index.tolist(), dlc_values(tracks), strict=True)
    rows = ([frame, *("" if np.isnan(v) else f"{v:.6g}" for v in values)] for frame, values in frames)
    write_csv(path, chain(head, rows))


def write_dlc_h5(tracks: Tracks, path: Path) -> None:
    """Write DeepLabCut's HDF5: a pandas table in the 'fixed' layout under ``df_with_missing``, without any pickle.

    ``pandas.read_hdf(path)`` gives the columns (scorer, bodyparts, coords) and the source frame as index.
    """
    with atomic_path(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        _attributes(file, CLASS="GROUP", PYTABLES_FORMAT_VERSION="2.1", TITLE="", VERSION="1.0")
        group = file.create_group(DLC_KEY)
        _attributes(
            group, CLASS="GROUP", TITLE="", VERSION="1.0", pandas_type="frame", encoding="UTF-8", errors="strict"
        )
        _attributes(group, axis0_variety="multi", axis1_variety="regular", block0_items_variety="multi")
        for name, value in {"axis0_nlevels": 3, "block0_items_nlevels": 3, "nblocks": 1, "ndim": 2}.items():
            group.attrs[name] = np.int64(value)
        for prefix in ("axis0", "block0_items"):
            _column_levels(group, prefix, tracks.ids.tolist())
        index = _array(group, "axis1", tracks.frame_index.astype(np.int64), kind="integer")
        index.attrs["name"] = np.bytes_(b"N.")  # pandas' way of saying None
        _array(group, "block0_values", dlc_values(tracks))


def _column_levels(group: h5py.Group, prefix: str, names: list[str]) -> None:
    """Write the three-level column index as pandas stores it: per level the words, and per column which word."""
    n = len(names)
    levels = [
        ("scorer", [SCORER], [0] * (3 * n)),
        ("bodyparts", names, np.repeat(np.arange(n), 3).tolist()),
        ("coords", list(COORDS), [0, 1, 2] * n),
    ]
    for i, (name, words, codes) in enumerate(levels):
        data = np.asarray([word.encode("utf-8") for word in words] or [b""])
        level = _array(group, f"{prefix}_level{i}", data, kind="string", name=name, nan_rep="")
        _attributes(level, **{f"{prefix}_name{name}": name})
        _array(group, f"{prefix}_label{i}", np.asarray(codes, dtype=np.int32))


def _array(group: h5py.Group, key: str, data: np.ndarray, **attributes: str) -> h5py.Dataset:
    dataset = group.create_dataset(key, data=data)
    _attributes(dataset, CLASS="ARRAY", FLAVOR="numpy", TITLE="", VERSION="2.4", **attributes)
    dataset.attrs["transposed"] = np.uint8(1)
    return dataset


def _attributes(target: Any, **values: str) -> None:
    """Store text as PyTables does: fixed-length UTF-8, an empty one as a null string of length 1."""
    for name, value in values.items():
        if value:
            raw = value.encode("utf-8")
            target.attrs.create(name, raw, dtype=h5py.string_dtype("utf-8", len(raw)))
        else:
            target.attrs[name] = h5py.Empty(h5py.string_dtype("utf-8", 1))


def write_sleap(tracks: Tracks, path: Path) -> None:
    """Write SLEAP's analysis HDF5: ``tracks`` (1, 2, N, F), ``point_scores`` (1, N, F), ``track_occupancy`` (F, 1).

    F counts the source's frames from 0 to the last tracked one; frames that were not tracked are NaN.
    """
    n = tracks.num_points
    total = int(tracks.frame_index.max()) + 1 if tracks.num_frames else 0
    xy = np.full((total, n, 2), np.nan)
    scores = np.full((total, n), np.nan)
    xy[tracks.frame_index] = geometry.to_opencv(tracks.tracks)
    scores[tracks.frame_index] = tracks.visibility
    present = np.isfinite(xy[..., 0]) & np.isfinite(xy[..., 1])
    occupied = present.sum(axis=1) > 0
    instance = np.where(
        occupied, np.nansum(np.where(present, scores, 0), axis=1) / np.maximum(present.sum(axis=1), 1), 0
    )
    arrays = {
        "tracks": (xy.transpose(2, 1, 0)[None], ["track", "xy", "node", "frame"]),
        "point_scores": (scores.T[None], ["track", "node", "frame"]),
        "instance_scores": (instance[None], ["track", "frame"]),
        "tracking_scores": (instance[None], ["track", "frame"]),
        "track_occupancy": (occupied[:, None].astype(np.uint8), ["frame", "track"]),
    }
    with atomic_path(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        file.attrs.update({"preset": "matlab", "format": "analysis", "skeleton_name": "ptrack"})
        for name, (data, dims) in arrays.items():
            file.create_dataset(name, data=data, compression="gzip").attrs["dims"] = json.dumps(dims)
        _sleap_names(file, tracks)


def _sleap_names(file: h5py.File, tracks: Tracks) -> None:
    """Write the names, the empty skeleton edges and where the tracks come from."""
    file.create_dataset("track_names", data=[SCORER.encode()])
    file.create_dataset("node_names", data=np.asarray([name.encode("utf-8") for name in tracks.ids.tolist()] or [b""]))
    file.create_dataset("edge_names", shape=(0, 2), dtype="S1")
    file.create_dataset("edge_inds", shape=(0, 2), dtype=np.int64)
    file.create_dataset("labels_path", data="")
    file.create_dataset("video_path", data=tracks.info.source)
    file.create_dataset("video_ind", data=0)
    provenance = {"ptrack_version": tracks.info.ptrack_version, "model": tracks.info.model}
    file.create_dataset("provenance", data=json.dumps(provenance))


def guess_h5(path: Path) -> str:
    """Return the format name of an HDF5 file from what is in it.

    Raises:
        TracksError: it is damaged or no HDF5 file.
    """
    with reading(path, TracksError, "HDF5"), h5.opened(path) as file:
        if "track_occupancy" in file:
            return "sleap"
        return "dlc-h5" if any(_is_frame(file, name) for name in file.names()[:100]) else "h5"


def _is_frame(file: h5.H5Group, name: str) -> bool:
    """Whether a group of the file is a table of pandas; whatever else stands there is for the reader to refuse."""
    try:
        return "frame" in str(file.group(name).attribute("pandas_type"))
    except Refused:
        return False

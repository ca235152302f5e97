"""Predicted tracks on disk: one NPZ per video, ours or another tool's.

Letters: T frames, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptrack import geometry
from ptrack.errors import TracksError
from ptrack.evaluation.protocols import Case
from ptrack.fileio import atomic_path
from ptrack.untrusted import npz
from ptrack.untrusted.limits import check_file, reading

TRACKS = ("tracks", "pred_tracks", "trajs_2d", "trajectories")
SEEN = ("visibility", "pred_visibility", "visibs", "visible", "pred_visible")
HIDDEN = ("occluded", "pred_occluded")


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a tracker predicts for one video."""

    tracks: np.ndarray  # (T, Q, 2) float32 pixels of the case's size
    visibility: np.ndarray  # (T, Q) float32 probability in [0, 1]
    threshold: float  # probability from which a point counts as visible

    @property
    def visible(self) -> np.ndarray:
        """(T, Q) bool."""
        return self.visibility >= self.threshold


def save_prediction(path: Path, prediction: Prediction, case: Case) -> None:
    """Write a prediction: ``tracks``, ``visibility``, ``queries``, ``size`` (H, W) and ``threshold``."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            tracks=prediction.tracks,
            visibility=prediction.visibility,
            queries=case.queries,
            size=np.asarray(case.size),
            threshold=np.float64(prediction.threshold),
        )


def load_prediction(path: Path, case: Case, threshold: float = 0.5) -> Prediction:
    """Read a prediction for a case.

    Arrays: ``tracks`` (T, Q, 2) pixels (also ``pred_tracks``, ``trajs_2d``), Q in the order of the protocol's queries;
    ``visibility`` (T, Q), bool or probabilities (also ``pred_visibility``, ``visibs``), or ``occluded``. A leading
    axis of length 1 is dropped. ``size`` (H, W) is the picture the pixels refer to; without it, what the protocol gives
    to trackers. ``queries`` (Q, 3), rows (t, x, y), are compared if they are there.

    Raises:
        TracksError: the file is missing or damaged, or its shapes or queries are not those of the case.
    """
    arrays = _read(path)
    wanted = (case.frames, len(case.queries))
    tracks = _one(arrays, TRACKS, path, (*wanted, 2))
    if any(k in arrays for k in HIDDEN):
        seen = 1.0 - (_one(arrays, HIDDEN, path, wanted) != 0)
    else:
        seen = _one(arrays, SEEN, path, wanted)
    if np.isnan(seen).any() or (seen < 0).any() or (seen > 1).any():
        raise TracksError(f"The visibility in {path} must be bool or probabilities between 0 and 1.")
    if "size" in arrays:
        size = (int(arrays["size"][0]), int(arrays["size"][1]))
        tracks = tracks if size == case.size else geometry.rescale(tracks.astype(np.float64), size, case.size)
        if "queries" in arrays:
            _compare(arrays["queries"], case, size, path)
    level = float(arrays["threshold"]) if "threshold" in arrays else threshold
    return Prediction(tracks.astype(np.float32), seen.astype(np.float32), level)


def _read(path: Path) -> dict[str, np.ndarray]:
    check_file(path, TracksError, "file of predictions")
    with reading(path, TracksError, "predictions"):
        return npz.arrays(path)


def _one(arrays: dict[str, np.ndarray], names: tuple[str, ...], path: Path, shape: tuple[int, ...]) -> np.ndarray:
    name = next((n for n in names if n in arrays), None)
    if name is None:
        raise TracksError(f"The predictions {path} have no array '{names[0]}'; they have {', '.join(arrays)}.")
    array = arrays[name]
    if array.ndim == len(shape) + 1 and len(array) == 1:
        array = array[0]
    if array.shape != shape:
        raise TracksError(
            f"'{name}' in {path} has the shape {array.shape}, but the video has {shape[0]} frames and the protocol "
            f"{shape[1]} queries: {shape} is needed."
        )
    return array


def _compare(queries: np.ndarray, case: Case, size: tuple[int, int], path: Path) -> None:
    """Refuse predictions that were made for other points."""
    if queries.shape != case.queries.shape:
        raise TracksError(f"{path} was made for {len(queries)} queries, the protocol has {len(case.queries)}.")
    xy = geometry.rescale(queries[:, 1:].astype(np.float64), size, case.size)
    distance = np.abs(np.column_stack([queries[:, 0], xy]) - case.queries).max(axis=1, initial=0)
    if (distance > 0.01).any():
        i = int(np.argmax(distance))
        raise TracksError(
            f"{path} was made for other points: its query {i} is {queries[i].tolist()}, the protocol's "
            f"{case.queries[i].tolist()}."
        )

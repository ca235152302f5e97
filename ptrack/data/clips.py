"""A clip in memory: frames that are decoded when asked for, and the tracks of its points.

Every dataset, the synthetic world and the HDF5 store speak this type. Nothing is filtered, clipped or shifted here:
evaluation protocols apply *different* bounds and filters, so a clip holds what its source states.

Letters: T frames, N tracks, Q queries, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.data import images
from ptrack.data.images import Codec
from ptrack.errors import DataError

CONVENTIONS = ("raster", "pixel_index", "unknown")


class Frames(ABC):
    """The pictures of a clip, read when asked for."""

    @abstractmethod
    def __len__(self) -> int:
        """T."""

    @abstractmethod
    def encoded(self, t: int) -> tuple[Codec, bytes]:
        """Return the codec ("jpeg", "png", "raw") and the stored bytes of frame ``t``; empty bytes: no picture."""

    def rgb(self, t: int) -> np.ndarray:
        """Return frame ``t`` as (H, W, 3) uint8 RGB; grey is expanded.

        Raises:
            DataError: the frame is absent or damaged.
        """
        return images.decode_rgb(self._present(t))

    def values(self, t: int) -> np.ndarray:
        """Return the stored values of picture ``t`` (uint16 depth, palette indices): (H, W) or (H, W, C).

        Raises:
            DataError: the picture is absent or damaged.
        """
        return images.decode_values(self._present(t))

    def present(self, t: int) -> bool:
        """Return whether there is a picture at ``t`` (masks and depth may exist for some frames only)."""
        return len(self.encoded(t)[1]) > 0

    def _present(self, t: int) -> bytes:
        data = self.encoded(t)[1]
        if not data:
            raise DataError(f"There is no picture for frame {t}.")
        return data


class ArrayFrames(Frames):
    """Frames that are in memory as (T, H, W, 3) uint8 RGB (or (T, H, W) values for masks and depth)."""

    def __init__(self, array: np.ndarray) -> None:
        if array.ndim not in (3, 4) or array.dtype not in (np.uint8, np.uint16):
            raise DataError(f"Frames must be (T, H, W, 3) uint8, not {array.shape} {array.dtype}.")
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def encoded(self, t: int) -> tuple[Codec, bytes]:
        """Return "raw" and the bytes of the array."""
        return "raw", np.ascontiguousarray(self.array[t]).tobytes()

    def rgb(self, t: int) -> np.ndarray:
        """Return a copy of frame ``t``."""
        frame = np.array(self.array[t])
        return frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=2)

    def values(self, t: int) -> np.ndarray:
        """Return a copy of picture ``t`` as stored."""
        return np.array(self.array[t])


class BytesFrames(Frames):
    """Encoded frames that are in memory, one ``bytes`` each (empty where there is no picture)."""

    def __init__(self, data: Sequence[bytes]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def encoded(self, t: int) -> tuple[Codec, bytes]:
        """Return the codec found in the bytes, and the bytes."""
        data = bytes(self.data[t])
        return images.codec_of(data) if data else "png", data


class FileFrames(Frames):
    """Encoded frames that are files, read one at a time (None where there is no picture)."""

    def __init__(self, paths: Sequence[Path | None]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def encoded(self, t: int) -> tuple[Codec, bytes]:
        """Return the codec found in the file, and the file's bytes.

        Raises:
            DataError: the file cannot be read or is neither JPEG nor PNG.
        """
        path = self.paths[t]
        if path is None:
            return "png", b""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"Cannot read {path}: {error.strerror or error}.") from error
        try:
            return images.codec_of(data), data
        except DataError:
            raise DataError(f"{path} is neither a JPEG nor a PNG picture.") from None


@dataclass(frozen=True, eq=False, kw_only=True)
class Clip:
    """One video with its tracks. Make it with ``Clip.build``, which brings arrays into the stated form.

    ``visibility`` does not imply ``valid``: EgoPoints labels the visibility of frames without coordinates.
    """

    id: str  # unique in a store: <source>/<split>/<sequence>
    source: str  # name of the dataset, as in ``ptrack convert --list``
    split: str  # as the source calls it; "all" when it has none
    name: str  # of the sequence, exactly as in the source (any Unicode)
    frames: Frames
    size: tuple[int, int]  # (H, W) pixels of every frame
    tracks: np.ndarray  # (T, N, 2) float32 original pixels (x, y), the source's values; NaN where it has none
    visibility: np.ndarray  # (T, N) bool; False where not finite; no out-of-bounds rule
    valid: np.ndarray  # (T, N) bool, the coordinate carries information; False where not finite
    coord_convention: str = "unknown"  # "raster" (pixel i covers [i, i+1)), "pixel_index" (its centre is i), "unknown"
    fps: float | None = None  # None: unknown
    frame_ok: np.ndarray | None = None  # (T,) bool, False: the frame's bytes cannot be decoded; None: all can
    queries: np.ndarray | None = None  # (Q, 3) float32 rows (t, x, y), only where the source defines queries
    query_track: np.ndarray | None = None  # (Q,) int64, the track of each query
    vis_valid: np.ndarray | None = None  # (T, N) bool, the visibility label is known (EgoPoints)
    out_of_view: np.ndarray | None = None  # (T, N) bool (EgoPoints)
    occluded_label: np.ndarray | None = None  # (T, N) bool (EgoPoints)
    is_dynamic: np.ndarray | None = None  # (N,) bool, on a moving object
    track_ids: np.ndarray | None = None  # (N,) int64
    annotated_frames: np.ndarray | None = None  # (k,) int64, frames that carry annotation (BADJA, EgoPoints)
    timestamps: np.ndarray | None = None  # (T,) float64 seconds
    intrinsics: np.ndarray | None = None  # (T, 3, 3) float32 pixels
    extrinsics: np.ndarray | None = None  # (T, 4, 4) float32 world to camera
    trajs_3d: np.ndarray | None = None  # (T, N, 3) float32 world
    masks: Frames | None = None  # segmentation pictures, T of them, some may be absent
    depth: Frames | None = None  # depth pictures, T of them
    depth_scale: float | None = None  # depth in the source's unit per stored value; None: values are float16 bits
    first_frame_number: int | None = None  # number of frame 0 in the source, where it does not start at its first

    def __post_init__(self) -> None:
        t, n = len(self.frames), self.tracks.shape[1] if self.tracks.ndim == 3 else -1
        lengths = {"T": t, "N": n, "Q": -1 if self.queries is None else len(self.queries), "2": 2, "3": 3, "4": 4}
        for name, letters in _LENGTHS.items():
            value, shape = getattr(self, name), tuple(lengths[letter] for letter in letters)
            if value is not None and value.shape != shape:
                raise DataError(
                    f"{self.id}: '{name}' has the shape {value.shape}, but {shape} fits its {t} frames and {n} tracks."
                )
        for name in ("masks", "depth"):
            if (side := getattr(self, name)) is not None and len(side) != t:
                raise DataError(f"{self.id}: there are {len(side)} {name} pictures for {t} frames.")
        if self.coord_convention not in CONVENTIONS:
            raise DataError(f"{self.id}: coord_convention must be one of {', '.join(CONVENTIONS)}.")

    @classmethod
    def build(cls, *, tracks: Any, visibility: Any, valid: Any = None, **others: Any) -> Clip:
        """Make a clip from arrays of any number type.

        ``tracks`` become float32 with NaN for every value that is not finite; where a pair is not finite, visibility
        and valid become False. ``visibility`` and ``valid`` may be bool, integer or float (not 0 is True);
        ``valid`` is "finite" by default. The optional arrays get the types stated at the fields.

        Raises:
            DataError: a shape does not fit, naming the clip and the array.
        """
        with np.errstate(over="ignore"):  # float64 beyond float32's range counts as not finite
            xy = np.array(tracks, dtype=np.float32)
        xy[~np.isfinite(xy)] = np.nan
        seen = _cast(visibility, np.bool_)
        if xy.ndim != 3 or xy.shape[-1] != 2 or seen.shape != xy.shape[:2]:
            raise DataError(
                f"{others.get('id', '?')}: the tracks have the shape {xy.shape} and visibility {seen.shape}; "
                "(T, N, 2) and (T, N) are needed."
            )
        ok = np.asarray(np.isfinite(xy).all(axis=-1))
        known = ok if valid is None else _cast(valid, np.bool_)
        if known.shape != ok.shape:
            raise DataError(f"{others.get('id', '?')}: 'valid' has the shape {known.shape}, not {ok.shape}.")
        typed: dict[str, Any] = {
            k: v if v is None or k not in _ARRAYS else _cast(v, _ARRAYS[k][0]) for k, v in others.items()
        }
        return cls(tracks=xy, visibility=seen & ok, valid=known & ok, **typed)

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.frames)

    @property
    def num_tracks(self) -> int:
        """N."""
        return self.tracks.shape[1]

    @property
    def finite(self) -> np.ndarray:
        """(T, N) bool: both coordinates are finite."""
        return np.asarray(np.isfinite(self.tracks).all(axis=-1))

    @property
    def tracks_filled(self) -> np.ndarray:
        """(T, N, 2) float32: the tracks with (0, 0) where they are not finite, for arithmetic."""
        return np.where(self.finite[..., None], self.tracks, np.float32(0))

    def video(self) -> np.ndarray:
        """Decode all frames: (T, H, W, 3) uint8. Frames marked as damaged are black."""
        out = np.zeros((self.num_frames, *self.size, 3), np.uint8)
        for t in range(self.num_frames):
            if self.frame_ok is None or self.frame_ok[t]:
                out[t] = self.frames.rgb(t)
        return out


# Optional arrays: their type, and their lengths (T frames, N tracks, Q queries); no lengths: any.
_ARRAYS: dict[str, tuple[type, str]] = {
    "frame_ok": (np.bool_, "T"),
    "queries": (np.float32, "Q3"),
    "query_track": (np.int64, "Q"),
    "vis_valid": (np.bool_, "TN"),
    "out_of_view": (np.bool_, "TN"),
    "occluded_label": (np.bool_, "TN"),
    "is_dynamic": (np.bool_, "N"),
    "track_ids": (np.int64, "N"),
    "annotated_frames": (np.int64, ""),
    "timestamps": (np.float64, "T"),
    "intrinsics": (np.float32, "T33"),
    "extrinsics": (np.float32, "T44"),
    "trajs_3d": (np.float32, "TN3"),
}
OPTIONAL_ARRAYS = tuple(_ARRAYS)
_LENGTHS = {"visibility": "TN", "valid": "TN", "tracks": "TN2"} | {name: of for name, (_, of) in _ARRAYS.items() if of}


def _cast(value: Any, kind: type) -> np.ndarray:
    """Return a copy of an array in another number type (bool: not equal zero)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(value).astype(kind)

"""What the loader hands to training: one clip cut, augmented and reduced to N points, and batches of them.

Letters: B clips, T frames, N points, H W pixels of the frames as given here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ptrack.errors import DataError


class SampleKey(NamedTuple):
    """Which sample: the position in the dataset and the epoch."""

    index: int
    epoch: int = 0


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """One training clip. Everything refers to the frames as they are here, after resizing and augmentation."""

    frames: Tensor  # (T, H, W, 3) uint8 RGB
    tracks: Tensor  # (T, N, 2) float32 raster pixels (x, y); always finite, (0, 0) where not valid
    visibility: Tensor  # (T, N) bool; False outside the frame, under an erased patch, on damaged frames
    valid: Tensor  # (T, N) bool, the coordinate carries information; use it beside visibility in position losses
    query_time: Tensor  # (N,) int64 frame of each query; the point is visible and valid there
    query_xy: Tensor  # (N, 2) float32 pixels, equal to ``tracks[query_time[n], n]``
    clip_id: str  # ``Clip.id``
    frame_index: Tensor  # (T,) int64 frame numbers in the clip
    size: tuple[int, int]  # (H, W) of the clip's original frames

    def points(self, index: Tensor | slice) -> TrainingSample:
        """Return the sample with some of its points."""
        return replace(
            self,
            tracks=self.tracks[:, index],
            visibility=self.visibility[:, index],
            valid=self.valid[:, index],
            query_time=self.query_time[index],
            query_xy=self.query_xy[index],
        )


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B samples stacked; as many points as the sample with the fewest has."""

    frames: Tensor  # (B, T, H, W, 3) uint8 RGB
    tracks: Tensor  # (B, T, N, 2) float32 pixels
    visibility: Tensor  # (B, T, N) bool
    valid: Tensor  # (B, T, N) bool
    query_time: Tensor  # (B, N) int64
    query_xy: Tensor  # (B, N, 2) float32
    clip_ids: tuple[str, ...]  # B
    frame_index: Tensor  # (B, T) int64
    sizes: tuple[tuple[int, int], ...]  # B original (H, W)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the frames as they are here."""
        return self.frames.shape[2], self.frames.shape[3]

    @property
    def queries(self) -> Tensor:
        """(B, N, 3) float32 rows (t, x, y)."""
        return torch.cat([self.query_time[..., None].float(), self.query_xy], dim=-1)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> TrainingBatch:
        """Return the batch on ``device``."""
        return self._each(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> TrainingBatch:
        """Return the batch in page-locked memory (called by ``DataLoader(pin_memory=True)``)."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> TrainingBatch:
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return replace(self, **{name: change(value) for name, value in values if isinstance(value, Tensor)})


def collate(samples: Sequence[TrainingSample]) -> TrainingBatch:
    """Stack samples; each keeps its first N points, N being the smallest count in the batch (as Track-On2 does).

    The points of a sample are in random order, so keeping the first ones is a random choice.

    Raises:
        DataError: there is no sample, or their frames differ in number or size.
    """
    if not samples:
        raise DataError("A batch needs at least one sample.")
    shapes = {tuple(s.frames.shape) for s in samples}
    if len(shapes) > 1:
        raise DataError(f"The samples of a batch must have the same frames; they have {sorted(shapes)} (T, H, W, 3).")
    n = min(s.tracks.shape[1] for s in samples)
    cut = [s.points(slice(n)) for s in samples]
    stacked = ("frames", "tracks", "visibility", "valid", "query_time", "query_xy", "frame_index")
    return TrainingBatch(
        **{name: torch.stack([getattr(s, name) for s in cut]) for name in stacked},
        clip_ids=tuple(s.clip_id for s in cut),
        sizes=tuple(s.size for s in cut),
    )

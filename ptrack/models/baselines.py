"""``lk`` and ``static``: the two baselines without learning, as online models.

``static`` leaves every point where it was. ``lk`` is OpenCV's pyramidal Lucas-Kanade optical flow from frame to frame
(Bouguet 2000) with a forward-backward check: a point whose way back misses its start by more than ``max_error`` pixels
is hidden, keeps its last position and is tried again from there in the next frames; it may then follow what covers it.

Letters: B frames, N points, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptrack import geometry
from ptrack.errors import ConfigError, ModelError
from ptrack.models.base import StepOutput
from ptrack.models.entry import LoadedModel, LoadRequest


@dataclass(frozen=True)
class PointsState:
    """Where the points are."""

    xy: Tensor  # (N, 2) float32 raster pixels
    added: Tensor  # (N,) bool, added on the current frame and not yet stepped, for ``lk``
    image: Any = None  # (H, W) uint8 grey picture of the last frame, for ``lk``


class Baseline:
    """What both do alike: of a point they remember only where it is; they have no weights and run on the CPU."""

    threshold = 0.5
    support_grid = 0
    memory = None
    encode_batch = 1
    device = torch.device("cpu")

    def init_state(self) -> PointsState:
        """Return a state without points."""
        return PointsState(torch.zeros(0, 2), torch.zeros(0, dtype=torch.bool))

    def add(self, state: PointsState, features: Any, xy: Tensor) -> PointsState:
        """Append (N, 2) points, in pixels of this frame."""
        new = torch.ones(len(xy), dtype=torch.bool)
        return replace(state, xy=torch.cat([state.xy, xy.cpu().float()]), added=torch.cat([state.added, new]))

    def keep(self, state: PointsState, index: Tensor) -> PointsState:
        """Keep the points of ``index``."""
        return replace(state, xy=state.xy[index], added=state.added[index])


class StaticModel(Baseline):
    """Every point stays where it was queried, visible."""

    name = "static"

    def encode(self, frames: Tensor) -> Sequence[Any]:
        """Keep nothing of the frames."""
        return [()] * len(frames)  # not None: that would mean a missing frame

    def step(self, state: PointsState, features: Any) -> tuple[PointsState, StepOutput]:
        """Return the same positions again."""
        ones = torch.ones(len(state.xy))
        return state, StepOutput(state.xy, ones, ones)


@dataclass(frozen=True, kw_only=True)
class LucasKanadeConfig:
    """Settings of ``lk``."""

    window: int = 21  # side of the window that is compared, in pixels of its pyramid level
    levels: int = 4  # reductions by 2 above the full picture
    max_error: float = 1.0  # pixels between a point and its way forward and back, above which it is hidden

    def __post_init__(self) -> None:
        if self.window < 3 or self.levels < 0 or self.max_error <= 0:
            raise ConfigError("lk needs window >= 3, levels >= 0 and max_error > 0.")


class LucasKanadeModel(Baseline):
    """Pyramidal Lucas-Kanade from frame to frame with a forward-backward check.

    Raises:
        ModelError: OpenCV is not installed.
    """

    name = "lk"

    def __init__(self, config: LucasKanadeConfig | None = None) -> None:
        self.config = config or LucasKanadeConfig()
        self._cv2 = _opencv()

    def encode(self, frames: Tensor) -> Sequence[np.ndarray]:
        """(B, H, W, 3) uint8 -> B grey pictures."""
        return [self._cv2.cvtColor(np.ascontiguousarray(f), self._cv2.COLOR_RGB2GRAY) for f in frames.cpu().numpy()]

    def step(self, state: PointsState, features: np.ndarray) -> tuple[PointsState, StepOutput]:
        """Follow every point from the last frame into this one."""
        xy, error = self._flow(state, features)
        size = features.shape
        good = (error <= self.config.max_error) & geometry.inside(xy, (size[0], size[1]))
        added = state.added.numpy()
        good |= added
        xy = np.where(good[:, None] & ~added[:, None], xy, state.xy.numpy())
        sure = np.where(added, 1.0, np.exp(-np.where(np.isfinite(error), error, np.inf) / self.config.max_error))
        positions = torch.from_numpy(xy.astype(np.float32))
        visibility = torch.from_numpy(good.astype(np.float32))
        new = PointsState(positions, torch.zeros(len(xy), dtype=torch.bool), features)
        return new, StepOutput(positions, visibility, torch.from_numpy(sure.astype(np.float32)))

    def _flow(self, state: PointsState, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (N, 2) positions in ``image`` and the (N,) forward-backward errors, infinite where lost."""
        before = state.xy.numpy()
        if state.image is None or not len(before) or state.image.shape != image.shape:
            return before, np.zeros(len(before))
        options = {"winSize": (self.config.window,) * 2, "maxLevel": self.config.levels}
        start = np.ascontiguousarray(geometry.to_opencv(before), np.float32)[:, None]
        there, found, _ = self._cv2.calcOpticalFlowPyrLK(state.image, image, start, None, **options)
        back, returned, _ = self._cv2.calcOpticalFlowPyrLK(image, state.image, there, None, **options)
        error = np.linalg.norm((back - start)[:, 0], axis=-1)
        lost = (found[:, 0] == 0) | (returned[:, 0] == 0)
        return geometry.from_opencv(there[:, 0]), np.where(lost, np.inf, error)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ModelError(
            "The model 'lk' needs OpenCV, which is not installed; install it with: pip install 'pointtrack[bench]'."
        ) from error
    return cv2


def build_static(request: LoadRequest) -> LoadedModel:
    """Build ``static`` (see ``ptrack.models.zoo``)."""
    return LoadedModel(model=StaticModel())


def build_lk(request: LoadRequest) -> LoadedModel:
    """Build ``lk`` (see ``ptrack.models.zoo``)."""
    return LoadedModel(model=LucasKanadeModel())

"""The offline tracker behind the calls of an online model: a window that slides one frame at a time.

The state keeps the features of the last S frames and the estimates of the points there, so memory does not grow
with the video: S * h/4 * w/4 * C * 1.33 * 4 bytes of features (45 MB for 8 frames of 256 x 256 at width 256) and, for
each point, 38 kB of templates. Correlating reads 64 feature rows per point, frame and level; points go through that
in chunks of at most 64 MB.

Letters: N points, S frames in the window, L levels, K template cells, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ptrack import geometry
from ptrack.models.base import StepOutput
from ptrack.models.offline.model import Estimate, PointTransformer, QueryTemplates


@dataclass(frozen=True)
class TransformerFeatures:
    """One frame as the transformer sees it."""

    maps: tuple[Tensor, ...]  # L x (1, 1, h, w, C)
    size: tuple[int, int]  # (H, W) of the frame as given


@dataclass(frozen=True)
class WindowState:
    """Everything the tracker remembers. S grows to the window's length and stays there."""

    maps: tuple[Tensor, ...]  # L x (1, S, h, w, C), empty before the first frame
    templates: tuple[Tensor, ...]  # L x (1, N, K, C), empty without points
    query_xy: Tensor  # (N, 2) model pixels
    age: Tensor  # (N,) int64 frames since the query frame; -1 before it was stepped
    xy: Tensor  # (S, N, 2) model pixels
    visibility: Tensor  # (S, N) logit
    confidence: Tensor  # (S, N) logit


class StreamingTransformer:
    """Obeys :class:`ptrack.models.base.OnlineModel`. Each step refines the last S frames and reports the newest one.

    Args:
        model: the network; put into evaluation mode.
        device: where to run.
        iterations: refinements per frame, the configured number by default.
    """

    name = "transformer"
    encode_batch = 4
    support_grid = 0
    memory = None

    def __init__(
        self,
        model: PointTransformer,
        device: torch.device | str = "cpu",
        iterations: int | None = None,
    ) -> None:
        self.model = model.eval().to(device)
        self.threshold = model.config.threshold
        self.iterations = iterations

    @property
    def device(self) -> torch.device:
        """Where the weights and the state live."""
        return self.model.head.weight.device

    @torch.no_grad()
    def encode(self, frames: Tensor) -> list[TransformerFeatures]:
        """Turn (B, H, W, 3) uint8 RGB frames into B per-frame features."""
        size = (frames.shape[1], frames.shape[2])
        maps = self.model.encode(frames.to(self.device))
        return [TransformerFeatures(tuple(m[i][None, None] for m in maps), size) for i in range(len(frames))]

    def init_state(self) -> WindowState:
        """Return the state of a tracker without points."""
        nothing = torch.zeros(0, 0, device=self.device)
        return WindowState(
            (),
            (),
            torch.zeros(0, 2, device=self.device),
            torch.zeros(0, dtype=torch.int64, device=self.device),
            torch.zeros(0, 0, 2, device=self.device),
            nothing,
            nothing,
        )

    @torch.no_grad()
    def add(self, state: WindowState, features: TransformerFeatures, xy: Tensor) -> WindowState:
        """Return the state with (N_new, 2) points, in pixels of this frame, appended after the present ones."""
        if len(xy) == 0:
            return state
        inside = geometry.rescale(xy.to(self.device, torch.float32), features.size, self.model.size)
        zero = torch.zeros(1, len(xy), dtype=torch.int64, device=self.device)
        new = self.model.points(features.maps, zero, inside[None]).templates
        old = state.templates or tuple(t[:, :0] for t in new)
        blank = state.visibility.new_zeros(len(state.visibility), len(xy))
        return replace(
            state,
            templates=tuple(torch.cat(pair, 1) for pair in zip(old, new, strict=True)),
            query_xy=torch.cat([state.query_xy, inside]),
            age=torch.cat([state.age, zero[0] - 1]),
            xy=torch.cat([state.xy, inside.expand(len(state.xy), -1, -1)], 1),
            visibility=torch.cat([state.visibility, blank], 1),
            confidence=torch.cat([state.confidence, blank], 1),
        )

    def keep(self, state: WindowState, index: Tensor) -> WindowState:
        """Return the state with only the points of ``index`` (K,) int64, in that order."""
        index = index.to(self.device)
        return replace(
            state,
            templates=tuple(t[:, index] for t in state.templates),
            query_xy=state.query_xy[index],
            age=state.age[index],
            xy=state.xy[:, index],
            visibility=state.visibility[:, index],
            confidence=state.confidence[:, index],
        )

    @torch.no_grad()
    def step(self, state: WindowState, features: TransformerFeatures) -> tuple[WindowState, StepOutput]:
        """Track all points of the state into this frame. QueryTemplates added on this frame are tracked too."""
        state = self._with_frame(state, features)
        if len(state.age) == 0:
            nothing = torch.zeros(0, device=self.device)
            return state, StepOutput(torch.zeros(0, 2, device=self.device), nothing, nothing)
        S = len(state.xy)
        points = QueryTemplates(state.templates, (S - 1 - state.age)[None], state.query_xy[None])
        estimate = Estimate(state.xy[None], state.visibility[None], state.confidence[None])
        out = self.model.refine(state.maps, points, estimate, 0, self.iterations)
        state = replace(
            state,
            xy=out.xy[-1, 0],
            visibility=out.visibility_logit[-1, 0],
            confidence=out.confidence_logit[-1, 0],
        )
        xy = geometry.rescale(state.xy[-1], self.model.size, features.size)
        return state, StepOutput(xy, state.visibility[-1].sigmoid(), state.confidence[-1].sigmoid())

    def _with_frame(self, state: WindowState, features: TransformerFeatures) -> WindowState:
        """Return the state with one more frame, estimated to be like the last one, and at most S frames."""
        S = self.model.config.window

        def slide(old: Tensor, new: Tensor, axis: int) -> Tensor:
            return torch.cat([old, new], axis).narrow(
                axis, max(0, old.shape[axis] + 1 - S), min(S, old.shape[axis] + 1)
            )

        last = state.xy[-1:] if len(state.xy) else state.query_xy[None]
        blank = state.visibility.new_zeros(1, len(state.age))
        old = state.maps or tuple(m[:, :0] for m in features.maps)
        return replace(
            state,
            maps=tuple(slide(a, b, 1) for a, b in zip(old, features.maps, strict=True)),
            age=state.age + 1,
            xy=slide(state.xy, last, 0),
            visibility=slide(state.visibility, state.visibility[-1:] if len(state.xy) else blank, 0),
            confidence=slide(state.confidence, state.confidence[-1:] if len(state.xy) else blank, 0),
        )

"""nano: a small online tracker that starts as a patch matcher and learns what to add.

Read from the top: :meth:`Nano.encode` a frame, :meth:`Nano.add` points, then per frame :meth:`Nano.track` in five
stages: motion of the picture, search of a window, refinement, remembering, judgement.

- Features are those of an ImageNet network at strides 4, 8 and 16, joined and projected: what a patch matcher needs.
- Patches are compared with patches (region-to-region correlation: LocoTrack, arXiv 2407.15420; CoTracker3, arXiv
  2410.11831), of the query frame and of the last confident frame.
- Every learned part starts at zero: the untrained network is a training-free matcher, ``ptrack.models.nano.matching``.
- A point remembers tokens of its past frames (Track-On2, arXiv 2509.19115, section 3); a recurrent state drifts.
- Points do not see each other: what a point does never depends on which others are tracked.
- Streaming, whole clips and training run the same stages.

Letters: B clips, N points of all clips together, H W pixels of a frame as given, h w cells of stride 4, C channels,
S = 9 cells of a patch, K = 2 templates, D channels of a token, M remembered frames, V side of the search window,
I refinement iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptrack import geometry
from ptrack.errors import ConfigError
from ptrack.models.backbones.lite0 import TAPS, Lite0, joined, stretched
from ptrack.models.base import StepOutput
from ptrack.models.graph import GraphReplay
from ptrack.models.layers.linear import is_inference
from ptrack.models.layers.windows import PATCH, bordered, soft_argmax
from ptrack.models.nano.alignment import grey_frames
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.judgement import Verdict, aligned_points, is_aligned, moved_points, visible_probability
from ptrack.models.nano.layers import MAX_BACK, Recall, zeroed
from ptrack.models.nano.matcher import PatchMatcher, nearest_cell, nobody
from ptrack.models.nano.motion import PictureMotion, PointMotion, picture_motion
from ptrack.models.nano.plain import plainness, steadied
from ptrack.models.nano.projecting import projected
from ptrack.models.nano.refinement import Refiner
from ptrack.models.nano.search import Search, Steer
from ptrack.models.nano.state import FIRST, NanoFeatures, NanoState, PointStates, Templates, to_cells, to_pixels

LEVEL_WEIGHTS = (0.7, 1.0, 1.0)  # of the L2-normalised maps at strides 4, 8, 16
# Milliseconds on one core of a Xeon: a pixel of the input encoded, a step without points, a point of it, and a
# refinement of that point. Within ``BALANCE`` the two side by side keep half of the threads busy each, and that pays.
ENCODE_PIXEL, STEP, STEP_POINT, STEP_ITERATION = 0.000185, 13.0, 0.08, 0.03
BALANCE = (0.65, 1.5)
FAR = 2048.0  # cells, 14 widths of a picture: what learned layers make of much longer ways overflows

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class NanoOutputs:
    """What the model predicts for one frame; positions in cells of stride 4."""

    logits: Tensor  # (N, V, V) of the search
    origin: Tensor  # (N, 2) int64 upper-left cell of the window
    xy: Tensor  # (I + 1, N, 2) coarse position and after every iteration
    visibility_logit: Tensor  # (N,)
    confidence_logit: Tensor  # (N,)
    shown: Tensor  # (N, 2) the last of ``xy`` steadied and aligned, or where the picture carried an unseen point
    visible: Tensor  # (N,) probability: that of ``visibility_logit``, bounded by what speaks against the position


class Nano(nn.Module):
    """The tracker. Implements ``ptrack.models.base.OnlineModel``.

    Args:
        config: the architecture.
        backbone: tensors of EfficientNet-Lite0, see ``ptrack.models.backbones.lite0``.
        projection: (C, 176) that turns the normalised taps into the map; random if None.
        name: as in ``ptrack models``.

    Raises:
        ConfigError: without a projection, the map does not have the configured channels.
    """

    support_grid = 0
    memory = None

    def __init__(
        self,
        config: NanoConfig,
        backbone: dict[str, Tensor],
        projection: Tensor | None = None,
        name: str = "nano",
    ) -> None:
        super().__init__()
        c = self.config = config
        self.name, self.threshold, self.iterations = name, c.threshold, c.iterations
        self.backbone = Lite0(backbone, fine=True)
        self.projection = self._projection(projection)
        self.matcher = PatchMatcher(c.patch_sigma, c.border)
        self.steer = Steer(c.token, len(PATCH))
        self.refiner = Refiner(c)
        self.recall = Recall(c.token, c.memory) if c.memory else None
        fits = [[1 / scale, -at / scale, -slope / scale] for at, slope, scale in (c.visible_fit, c.confident_fit)]
        self.fit = nn.Parameter(torch.tensor(fits))  # of score, 1 and backward error
        self.heads = zeroed(nn.Linear(c.token, 2))
        self.replay = GraphReplay(self._track_one_clip)  # of a step, on a GPU

    def _projection(self, given: Tensor | None) -> nn.Parameter | None:
        c, taps = self.config, sum(TAPS.values())
        if not c.project:
            if c.dim != taps:
                raise ConfigError(f"Without a projection dim must be {taps}, not {c.dim}.")
            return None
        start = torch.linalg.qr(torch.randn(taps, c.dim))[0].T if given is None else given
        return nn.Parameter(start.clone(), requires_grad=c.tune)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.fit.device

    @property
    def encode_batch(self) -> int:
        """A batch keeps a GPU busy; on a CPU one frame already does, and bits do not depend on the batch."""
        return 1 if self.device.type == "cpu" else 8

    @property
    def encodes_ahead(self) -> range:
        """On a CPU, with as many points as make a step take about as long as encoding a frame."""
        h, w = self.config.input_size
        return balanced_points(h * w, self.iterations) if self.device.type == "cpu" else range(0)

    # ---- frame -> features ------------------------------------------------------------------------------------------

    def features(self, frames: Tensor) -> NanoFeatures:
        """Encode (B, H, W, 3) RGB frames, uint8 or floating point in 0..255."""
        frames, size = frames.to(self.device), (frames.shape[1], frames.shape[2])
        fine, *taps = self.backbone(stretched(frames, self.config.input_size))
        y = self._map(taps)
        grey = grey_frames(frames) if is_aligned(size, self.config) else y.new_empty(len(frames), 0, 0)
        return NanoFeatures(bordered(y, self.config.border), fine.permute(0, 2, 3, 1).contiguous(), grey, size)

    def _map(self, taps: Sequence[Tensor]) -> Tensor:
        """Join, project and centre maps of strides 4, 8 and 16: (B, h, w, C), unit length per cell."""
        if self.projection is not None and is_inference(taps[0]):
            return projected(taps, LEVEL_WEIGHTS, self.projection, self.config.centre)
        y = joined(taps, LEVEL_WEIGHTS)
        if self.projection is not None:
            y = F.linear(y, self.projection)
        if self.config.centre:
            y = y - y.mean((1, 2), keepdim=True)  # what all cells share does not distinguish them
        if self.projection is not None or self.config.centre:
            y = F.normalize(y, dim=-1)
        return y

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Sequence[NanoFeatures]:
        """Turn (B, H, W, 3) uint8 RGB frames into B per-frame features."""
        batch = self.features(frames)
        return [batch[i] for i in range(len(frames))]

    # ---- state ------------------------------------------------------------------------------------------------------

    def init_state(self) -> NanoState:
        """Return a state without points."""
        return NanoState(PointStates.none(self.config, self.device))

    def add(self, state: NanoState, features: NanoFeatures, xy: Tensor) -> NanoState:
        """Append (N, 2) points given in pixels of this frame."""
        cells = self._to_cells(xy.to(self.device, torch.float32), features.size)
        new = self._new_points(features, _one_clip(cells), cells)
        return replace(state, points=state.points.extended(new))

    def _new_points(self, frame: NanoFeatures, clip: Tensor, cells: Tensor) -> PointStates:
        new = PointStates.at(frame, clip, cells, self.config)
        return replace(new, plain=plainness(self.matcher, frame, clip, cells, self.config))

    def keep(self, state: NanoState, index: Tensor) -> NanoState:
        """Keep the points of ``index``."""
        return replace(state, points=state.points.select(index.to(self.device)))

    def _to_cells(self, xy: Tensor, size: geometry.Size) -> Tensor:
        """Return the (N, 2) cells of queries; those farther outside than ``FAR`` start there."""
        return to_cells(xy, size, self.config.input_size).clamp(-FAR, FAR)

    def _to_pixels(self, cells: Tensor, size: geometry.Size) -> Tensor:
        return to_pixels(cells, size, self.config.input_size)

    # ---- one frame of tracking --------------------------------------------------------------------------------------

    def step(self, state: NanoState, features: NanoFeatures) -> tuple[NanoState, StepOutput]:
        """Find every point in this frame."""
        replayed = self.device.type == "cuda" and len(state.points.xy) and state.previous is not None
        run = self.replay if replayed and not torch.is_grad_enabled() else self._track_one_clip
        state, xy, visible, confident = run(state, features)
        return state, StepOutput(self._to_pixels(xy, features.size), visible, confident.sigmoid())

    def _track_one_clip(self, state: NanoState, frame: NanoFeatures) -> tuple[NanoState, Tensor, Tensor, Tensor]:
        state, out = self.track(state, frame, _one_clip(state.points.xy))
        return state, out.shown, out.visible, out.confidence_logit

    def track(self, state: NanoState, frame: NanoFeatures, clip: Tensor) -> tuple[NanoState, NanoOutputs]:
        """Find the points of B clips in their frames.

        Args:
            state: of all points.
            frame: features of the B frames.
            clip: (N,) int64, the clip of every point.
        """
        points = state.points
        previous = frame.map if state.previous is None else state.previous

        # 1. Motion: how the picture moved around every point. Where it is not seen, it is expected to move along.
        picture = self._motion(previous, frame, clip)
        motion = PointMotion.still(points.xy) if picture is None else picture.near(clip, points.xy)
        anchor = points.anchor if picture is None else points.anchor + picture.near(clip, points.anchor).shift
        expected = torch.where(points.unseen[:, None] > 0, points.xy + motion.shift, points.xy)

        # 2. Search: the mixed template against every cell of a window around the expected place, and of a doubted
        # point around its anchor.
        found = Search(self.config, self.matcher, self.steer, frame, clip).find(points, expected, anchor)
        coarse = torch.where(points.added[:, None], points.xy, found.xy)
        back = self._backward_error(points, previous, frame, clip, coarse.detach())

        # 3. Refine: look closely at the place, in all templates at strides 4 and 2, and move; on a plain surface mostly
        # with the picture.
        positions, token = self.refiner.refine(points, frame, clip, found, coarse, back, motion, self.iterations)
        refined = positions[-1].detach()
        xy = steadied(points, refined, picture, clip) if frame.has_grey else refined

        # 4. Remember: the token looks at the point's own past and joins it.
        token, past, filled = self._remember(points, token)

        # 5. Judge: is it visible, is it right, may the last template be renewed, or does the picture carry the point?
        template = Templates.cut(frame, clip, xy)
        verdict = self._judge(points, template, back, token)

        moved = moved_points(points, refined, xy, motion, anchor, verdict)
        moved = aligned_points(moved, state, frame, clip, verdict, self.config)
        after = replace(
            moved,
            templates=points.templates.renewed(Templates(template.coarse.detach(), template.fine), verdict.renew),
            token=token,
            past=past,
            filled=filled,
            added=torch.zeros_like(points.added),
        )
        outputs = NanoOutputs(
            logits=found.logits,
            origin=found.origin,
            xy=torch.stack(positions),
            visibility_logit=verdict.visibility_logit,
            confidence_logit=verdict.confidence_logit,
            shown=moved.shown,
            visible=visible_probability(moved, frame, verdict, self.config),
        )
        return NanoState(after, frame.map.detach(), frame.grey), outputs

    # ---- 1. motion --------------------------------------------------------------------------------------------------

    def _motion(self, previous: Tensor, frame: NanoFeatures, clip: Tensor) -> PictureMotion | None:
        c = self.config
        if not c.carry or nobody(clip):
            return None
        return picture_motion(self.matcher, previous, frame, c.radius, c.back_radius)

    # ---- 2. search --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _backward_error(
        self, points: PointStates, previous: Tensor, frame: NanoFeatures, clip: Tensor, xy: Tensor
    ) -> Tensor:
        """Search the patches at (N, 2) in the previous frame: (N,) cells from the old positions to where they fit."""
        c, patch, centre = self.config, frame.patches(clip, xy), nearest_cell(points.xy, frame.cells)
        scores, origin = self.matcher.search(patch, previous, clip, centre, c.back_radius)
        error = (origin + soft_argmax(scores / c.temperature) - points.xy).norm(dim=1)
        return torch.where(points.added, 0.0, error.clamp(max=MAX_BACK))

    # ---- 4. remember ------------------------------------------------------------------------------------------------

    def _remember(self, points: PointStates, token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the token (N, D) after looking at the past, and the past (N, M, D) and (N, M) with it as newest."""
        if self.recall is None:
            return token, points.past, points.filled
        past = torch.cat([token[:, None], points.past[:, :-1]], dim=1)
        filled = F.pad(points.filled[:, :-1], (1, 0), value=True)
        return self.recall(token, points.past, points.filled), past, filled

    # ---- 5. judge ---------------------------------------------------------------------------------------------------

    def _judge(self, points: PointStates, template: Templates, back: Tensor, token: Tensor) -> Verdict:
        """Logits of "visible" and "position right": the matcher's fits and what was learned; and what follows."""
        c = self.config
        score = self.matcher.agreement(template.coarse[:, 0], points.templates.coarse[:, FIRST]).detach()
        evidence = torch.stack([score, torch.ones_like(score), back], dim=1)
        visible, confident = (F.linear(evidence, self.fit) + self.heads(token)).unbind(1)
        probability = visible.detach().sigmoid()
        if c.learned_renewal:
            renew = (probability > c.renew_visible) & (confident.detach().sigmoid() > c.renew_confident)
        else:
            renew = (score > c.update_score) & (back < c.update_back)
        # The more a point went its own way while it was seen, the surer it must be that it is hidden.
        seen = points.added | (probability * (1 + points.own_motion / c.own_motion) >= c.carry)
        sure = points.added | ((probability >= c.threshold) & (confident.detach().sigmoid() >= c.sure))
        return Verdict(visible, confident, renew, seen, sure)

    # ---- whole clips ------------------------------------------------------------------------------------------------

    def forward(self, video: Tensor, queries: Tensor, reduce: Callable[[int, NanoOutputs], R]) -> list[R]:
        """Track clips from their first frame to their last; what training and its validation call.

        Args:
            video: (B, T, H, W, 3).
            queries: (B, N, 3) rows (t, x, y), pixels of the video.
            reduce: called with the frame's number and its outputs, all clips' points in one row.

        Returns:
            What ``reduce`` returned, one per frame.
        """
        b, t, n = video.shape[0], video.shape[1], queries.shape[1]
        clip = torch.arange(b, device=queries.device).repeat_interleave(n)
        start, xy = queries[..., 0].flatten(), queries[..., 1:].flatten(0, 1)
        cells = self._to_cells(xy, (video.shape[2], video.shape[3]))
        state: NanoState | None = None
        results = []
        for i in range(t):
            frame = self.features(video[:, i])
            new = self._new_points(frame, clip, cells)
            points = new if state is None else state.points.replaced(new, start == i)
            state, out = self.track(
                NanoState(points, *(() if state is None else (state.previous, state.grey))), frame, clip
            )
            results.append(reduce(i, out))
        return results


def balanced_points(pixels: int, iterations: int) -> range:
    """Return with how many points a step takes ``BALANCE`` times as long as encoding ``pixels`` of input."""
    per_point = STEP_POINT + STEP_ITERATION * iterations
    first, end = (int((share * ENCODE_PIXEL * pixels - STEP) / per_point) for share in BALANCE)
    return range(max(first, 1), max(end, 1))


def _one_clip(xy: Tensor) -> Tensor:
    """Return the clip of (N, 2) points of a single one: (N,) zeros."""
    return torch.zeros(xy.shape[0], dtype=torch.long, device=xy.device)

"""nano: a small online tracker that starts as a patch matcher and learns what to add.

Read from the top: :meth:`Nano.encode` a frame, :meth:`Nano.add` points, then per frame :meth:`Nano.step`: search a
window around the last position with two 3x3 templates of frozen ImageNet features (first and last confident one),
mixed as the point's past suggests, refine the best place with patches of stride 2 and 4, remember. Every learned part
starts at zero, so that the untrained network gives the positions of ``ptrack.models.matching``.

Patch-against-patch comparison follows region-to-region correlation (LocoTrack, arXiv 2407.15420; CoTracker3,
arXiv 2410.11831), the memory of past tokens Track-On2 (arXiv 2509.19115, section 3). Streaming, whole clips and
training run the same step.

Letters: B clips, N points of all clips together, H W pixels of a frame as given, h w cells of stride 4, C channels,
S = 9 cells of a patch, K = 2 templates, D channels of a token, M remembered frames, V side of the search window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptrack import geometry
from ptrack.models.backbones.lite0 import FINE, TAPS, Lite0, joined, stretched
from ptrack.models.base import StepOutput
from ptrack.models.graph import GraphReplay
from ptrack.models.layers.windows import (
    PATCH,
    bilinear_window,
    constant,
    inside,
    patch_ncc,
    patch_scores,
    patches,
    peak,
    soft_argmax,
    window,
)
from ptrack.models.nano import drift
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.drift import Drift
from ptrack.models.nano.parts import Recall, Refiner, Steer

STRIDE = 4  # model pixels per cell
LEVEL_WEIGHTS = (0.7, 1.0, 1.0)  # of the L2-normalised maps at strides 4, 8, 16
MAX_BACK = 6.0  # larger backward errors say no more; in cells
RECENT = 0.9  # share of what was, in running means
LONG = 12.0  # frames: not seen for longer says no more
NEAR_BORDER = 8.0  # cells; farther from the border of the picture, its distance says no more
FINE_PATCH = 2  # half side of the stride-2 templates
CHUNK = 64  # points worked on at a time on a CPU when no gradient is needed: bounds the windows to 9 MB
WIDE_CHUNK = 12  # of the wide windows: 6 MB, and they stay in the cache
GPU_CHUNK = 2048  # on a GPU: bounds the largest windows to 1 GB

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Features:
    """All that the tracker needs of B frames."""

    map: Tensor  # (B, h, w, C) unit length per cell
    fine: Tensor  # (B, 2h, 2w, 16)
    size: tuple[int, int]  # (H, W) of the frame as given

    def __getitem__(self, i: int) -> Features:
        return Features(self.map[i : i + 1], self.fine[i : i + 1], self.size)


@dataclass(frozen=True)
class State:
    """All that the tracker remembers."""

    xy: Tensor  # (N, 2) last positions in cells, cell centres at whole numbers
    velocity: Tensor  # (N, 2) cells per frame
    first: Tensor  # (N, S, C) patch of the query frame
    last: Tensor  # (N, S, C) patch of the last confident frame
    first_fine: Tensor  # (N, P, P, 16) stride-2 patch of the query frame
    last_fine: Tensor  # (N, P, P, 16)
    token: Tensor  # (N, D) of the last frame, after attention
    past: Tensor  # (N, M, D) tokens, newest first
    known: Tensor  # (N, M) bool
    unseen: Tensor  # (N,) frames since it was last called visible
    apart: Tensor  # (N,) cells per frame by which its motion differed from that around it while it was seen
    fresh: Tensor  # (N,) bool, added on the current frame and not yet stepped
    previous: Tensor | None = None  # (B, h, w, C) features of the previous frame


@dataclass(frozen=True, slots=True)
class Steering:
    """How the points are searched for in one frame."""

    template: Tensor  # (N, S, C)
    sharpness: Tensor  # (N,)
    strength: Tensor  # (N,) of the prior
    expected: Tensor  # (N, 2) its centre, in cells


@dataclass(frozen=True, slots=True)
class FrameOutputs:
    """What the model says about one frame; positions in cells of stride 4."""

    logits: Tensor  # (N, V, V) of the search
    origin: Tensor  # (N, 2) int64 upper-left cell of the window
    xy: Tensor  # (I + 1, N, 2) coarse position and after every iteration
    visibility_logit: Tensor  # (N,)
    confidence_logit: Tensor  # (N,)
    kept: Tensor  # (N, 2) the last of ``xy``, or where the picture carried a point that is not seen


class Nano(nn.Module):
    """The tracker. Implements ``ptrack.models.base.OnlineModel``.

    Args:
        config: the architecture.
        backbone: tensors of EfficientNet-Lite0, see ``ptrack.models.backbones.lite0``.
        projection: (C, 176) that turns the normalised taps into the map; random if None.
    """

    name = "nano"
    support_grid = 0
    patch_weights: Tensor  # (S,)
    fine_place: Tensor  # (2 fine_reach + 1,)

    def __init__(self, config: NanoConfig, backbone: dict[str, Tensor], projection: Tensor | None = None) -> None:
        super().__init__()
        c = self.config = config
        self.threshold = c.threshold
        self.iterations = c.iterations
        self.backbone = Lite0(backbone, fine=True)
        taps = sum(TAPS.values())
        start = torch.linalg.qr(torch.randn(taps, c.dim))[0].T if projection is None else projection
        self.projection = nn.Parameter(start.clone(), requires_grad=c.tune)
        offsets = torch.tensor(PATCH, dtype=torch.float32)
        gauss = torch.exp(-offsets.square().sum(1) / (2 * c.patch_sigma**2))
        self.register_buffer("patch_weights", gauss / gauss.sum(), persistent=False)
        self.steer = Steer(c.token, len(PATCH))
        side, fine = 2 * c.reach + 1, 2 * c.fine_reach + 1
        inputs = 2 * 9 * side**2 + 2 * fine**2 + 4 + c.token + 14 + (5 if c.carry else 0)
        self.refiner = Refiner(inputs, c.hidden, c.token)
        self.recall = Recall(c.token, c.memory) if c.memory else None
        fits = [[1 / scale, -at / scale, -slope / scale] for at, slope, scale in (c.visible_fit, c.confident_fit)]
        self.fit = nn.Parameter(torch.tensor(fits))  # of score, 1 and backward error
        self.heads = nn.Linear(c.token, 2)
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)
        place = torch.arange(-c.fine_reach, c.fine_reach + 1, dtype=torch.float32)
        self.register_buffer("fine_place", place, persistent=False)
        self._replay = GraphReplay(self._one_step)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.projection.device

    @property
    def encode_batch(self) -> int:
        """A batch keeps a GPU busy; on a CPU one frame already does, and bits do not depend on the batch."""
        return 1 if self.device.type == "cpu" else 8

    # ---- frame -> features ------------------------------------------------------------------------------------------

    def features(self, frames: Tensor) -> Features:
        """Encode (B, H, W, 3) RGB frames, uint8 or floating point in 0..255."""
        size = (frames.shape[1], frames.shape[2])
        fine, *taps = self.backbone(stretched(frames.to(self.device), self.config.input_size))
        y = F.linear(joined(taps, LEVEL_WEIGHTS), self.projection)
        if self.config.centre:
            y = y - y.mean((1, 2), keepdim=True)  # what all cells share says nothing about which is which
        y = F.normalize(y, dim=-1)
        return Features(y.contiguous(), fine.permute(0, 2, 3, 1).contiguous(), size)

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Sequence[Features]:
        """Turn (B, H, W, 3) uint8 RGB frames into B per-frame features."""
        batch = self.features(frames)
        return [batch[i] for i in range(len(frames))]

    # ---- state ------------------------------------------------------------------------------------------------------

    def init_state(self) -> State:
        """Return a state without points."""
        c = self.config

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(0, *shape, device=self.device, dtype=dtype)

        side = 2 * FINE_PATCH + 1
        patch, fine = (len(PATCH), c.dim), (side, side, FINE)
        return State(
            xy=empty(2), velocity=empty(2), first=empty(*patch), last=empty(*patch), first_fine=empty(*fine),
            last_fine=empty(*fine), token=empty(c.token), past=empty(c.memory, c.token),
            known=empty(c.memory, dtype=torch.bool), unseen=empty(), apart=empty(),
            fresh=empty(dtype=torch.bool),
        )  # fmt: skip

    def new_points(self, frame: Features, clip: Tensor, cells: Tensor) -> State:
        """Return the state of points at (N, 2) cells of their clip's frame."""
        c, n = self.config, len(cells)
        patch = patches(frame.map, clip, cells)
        fine = bilinear_window(frame.fine, clip, 2 * cells + 0.5, FINE_PATCH)
        zeros = patch.new_zeros
        return State(
            xy=cells, velocity=zeros(n, 2), first=patch, last=patch, first_fine=fine, last_fine=fine,
            token=zeros(n, c.token), past=zeros(n, c.memory, c.token),
            known=torch.zeros(n, c.memory, dtype=torch.bool, device=cells.device), unseen=zeros(n),
            apart=zeros(n),
            fresh=torch.ones(n, dtype=torch.bool, device=cells.device),
        )  # fmt: skip

    def add(self, state: State, features: Features, xy: Tensor) -> State:
        """Append (N, 2) points given in pixels of this frame."""
        cells = self._to_cells(xy.to(self.device, torch.float32), features.size)
        clip = torch.zeros(len(cells), dtype=torch.long, device=self.device)
        new = self.new_points(features, clip, cells)
        return merge(state, new, lambda old, more: torch.cat([old, more]))

    def keep(self, state: State, index: Tensor) -> State:
        """Keep the points of ``index``."""
        return points(state, index.to(self.device))

    # ---- one frame of tracking --------------------------------------------------------------------------------------

    def step(self, state: State, features: Features) -> tuple[State, StepOutput]:
        """Find every point in this frame."""
        n = len(state.xy)
        if self.device.type == "cuda" and n and state.previous is not None and not torch.is_grad_enabled():
            kept, visible, confident, *values = self._replay([features.map, features.fine, *_values(state)])
            state = State(*values)
        else:
            state, out = self.track(state, features, torch.zeros(n, dtype=torch.long, device=self.device))
            kept, visible, confident = out.kept, out.visibility_logit, out.confidence_logit
        xy = self._to_pixels(kept, features.size)
        return state, StepOutput(xy, visible.sigmoid(), confident.sigmoid())

    def _one_step(self, inputs: list[Tensor]) -> list[Tensor]:
        """Track the points of one clip; features and state as plain tensors, so that a graph can be captured."""
        map, fine, *values = inputs
        state = State(*values)
        clip = torch.zeros(len(state.xy), dtype=torch.long, device=map.device)
        state, out = self.track(state, Features(map, fine, (0, 0)), clip)
        return [out.kept, out.visibility_logit, out.confidence_logit, *_values(state)]

    def track(self, state: State, frame: Features, clip: Tensor) -> tuple[State, FrameOutputs]:
        """Find the points of B clips in their frames.

        Args:
            state: of all points.
            frame: features of the B frames.
            clip: (N,) int64, the clip of every point.
        """
        previous = frame.map if state.previous is None else state.previous
        drifted, believed = torch.zeros_like(state.xy), torch.zeros_like(state.unseen)
        if self.config.carry and len(clip):
            drifted, believed = self._drift(previous, frame.map).at(clip, state.xy)
        ahead = torch.where(state.unseen[:, None] > 0, state.xy + drifted, state.xy)
        logits, origin = self._search(state, frame, clip, ahead)
        coarse = origin + soft_argmax(logits)
        positions, token = [torch.where(state.fresh[:, None], state.xy, coarse)], state.token
        xy = positions[0].detach()
        back = self._back(previous, patches(frame.map, clip, xy), clip, state)
        told = _certainty(logits.detach(), self.config.temperature)
        if self.config.carry:
            scalars = [believed, state.unseen / LONG, state.apart.clamp(max=MAX_BACK) / 4]
            told = torch.cat([told, drifted / 4, torch.stack(scalars, dim=1)], dim=1)
        for i in range(self.iterations):
            move, token = self._refine(state, frame, clip, xy, back, told, i).split([2, token.shape[1]], dim=1)
            positions.append(xy + torch.where(state.fresh[:, None], 0.0, move))
            xy = positions[-1].detach()
        past, known = state.past, state.known
        if self.recall is not None:
            now = token
            token = self.recall(token, past, known)
            past = torch.cat([now[:, None], past[:, :-1]], dim=1)
            known = F.pad(known[:, :-1], (1, 0), value=True)
        patch = patches(frame.map, clip, xy)
        score = torch.einsum("nsc,nsc,s->n", patch, state.first, self.patch_weights).detach()
        visible, confident = self._judge(score, back, token)
        sure = self._sure(score, back, visible, confident)
        fine = bilinear_window(frame.fine, clip, 2 * xy + 0.5, FINE_PATCH)
        new = replace(
            self._carried(state, xy, drifted, visible),
            last=torch.where(sure[:, None, None], patch.detach(), state.last),
            last_fine=torch.where(sure[:, None, None, None], fine, state.last_fine),
            token=token,
            past=past,
            known=known,
            fresh=torch.zeros_like(state.fresh),
            previous=frame.map.detach(),
        )
        return new, FrameOutputs(logits, origin, torch.stack(positions), visible, confident, new.xy)

    def _carried(self, state: State, found: Tensor, drifted: Tensor, visible: Tensor) -> State:
        """Move points to where they were found, or, where they are not seen, with the picture."""
        c = self.config
        seen = state.fresh | (visible.detach().sigmoid() * (1 + state.apart / c.carry_apart) >= c.carry)
        xy = torch.where(seen[:, None], found, state.xy + drifted)
        apart = torch.lerp((found - state.xy - drifted).norm(dim=1), state.apart, RECENT)
        return replace(
            state,
            xy=xy,
            velocity=torch.where(state.fresh[:, None], 0.0, xy - state.xy),
            unseen=torch.where(seen, 0.0, (state.unseen + 1).clamp(max=LONG)),
            apart=torch.where(seen & ~state.fresh, apart, state.apart),
        )

    def _search(self, state: State, frame: Features, clip: Tensor, ahead: Tensor) -> tuple[Tensor, Tensor]:
        """Compare the template with every cell of the window: (N, V, V) logits, (N, 2) its upper-left cell."""
        c = self.config
        how = self._steered(state, ahead)
        centre = _nearest_cell(ahead, frame.map)
        if c.wide_radius:
            centre = self._look_around(how.template, state, frame, clip, centre)
        origin = centre - c.radius
        side = 2 * c.radius + 1
        place = torch.arange(side, device=origin.device)

        def some(part: slice) -> Tensor:
            scores = self._compare(how.template[part], frame.map, clip[part], centre[part], c.radius)
            logits = scores * (how.sharpness[part] / c.temperature)[:, None, None]
            x, y = (origin[part, :, None] + place - how.expected[part, :, None]).square().unbind(1)
            logits = logits + how.strength[part, None, None] * self.steer.prior(y[:, :, None] + x[:, None, :])
            # Masked last: a score of -inf times the sharpness would have a gradient of NaN.
            return logits.masked_fill(~inside(origin[part], side, _size(frame.map)), float("-inf"))

        return self._chunked(some, len(origin)), origin

    def _steered(self, state: State, ahead: Tensor) -> Steering:
        """Mix the templates. Scores are linear in them: one mixed template costs half of what two do."""
        agreement = (state.first * state.last).sum(-1)
        speed = state.velocity.norm(dim=1, keepdim=True) / 4
        seen = torch.cat([state.token, agreement, speed, _age(state)], dim=1)
        share, gain, sharpness, strength, lead = self.steer(seen)
        template = torch.lerp(state.last, state.first, share[..., None])
        gain = gain / (gain * self.patch_weights).sum(1, keepdim=True)
        expected = torch.where(state.unseen[:, None] > 0, ahead, ahead + lead * state.velocity)
        return Steering(template * gain[..., None], sharpness, strength, expected)

    def _compare(self, template: Tensor, map: Tensor, clip: Tensor, centre: Tensor, radius: int) -> Tensor:
        """Return the (n, V, V) scores of (n, S, C) templates around the (n, 2) ``centre`` of their clip's map."""
        cells = window(map, clip, centre - radius - 1, 2 * radius + 3)
        return patch_scores(cells, template[:, None], self.patch_weights)[:, 0]

    @torch.no_grad()
    def _look_around(self, template: Tensor, state: State, frame: Features, clip: Tensor, centre: Tensor) -> Tensor:
        """Centre the window of points that moved fast on the best place of a larger one: (N, 2) int64 cells."""
        c = self.config
        fast = state.velocity.norm(dim=1) > c.wide_speed
        side = 2 * c.wide_radius + 1

        def found(part: Tensor | slice) -> Tensor:
            scores, origin = self._around(template[part], frame.map, clip[part], centre[part], c.wide_radius)
            best = scores.flatten(1).argmax(1)
            return origin + torch.stack([best % side, best // side], dim=1)

        if centre.device.type != "cpu":  # looking for all is cheaper there than asking which are fast
            return torch.where(fast[:, None], found(slice(None)), centre)
        moved = centre.clone()
        for part in torch.nonzero(fast)[:, 0].split(WIDE_CHUNK):
            moved[part] = found(part)
        return moved

    @torch.no_grad()
    def _back(self, previous: Tensor, patch: Tensor, clip: Tensor, state: State) -> Tensor:
        """Search the new patches in the previous frame: (N,) distance from the old positions, in cells."""
        scores, origin = self._around(patch, previous, clip, _nearest_cell(state.xy, previous), self.config.back_radius)
        error = (origin + soft_argmax(scores / self.config.temperature) - state.xy).norm(dim=1)
        return torch.where(state.fresh, 0.0, error.clamp(max=MAX_BACK))

    @torch.no_grad()
    def _drift(self, previous: Tensor, map: Tensor) -> Drift:
        """Follow a grid of places from the previous frames (B, h, w, C) to these, and back."""
        b, size = len(map), _size(map)
        place = drift.grid(size, map.device)
        clip = torch.arange(b, device=map.device).repeat_interleave(len(place))
        start = place.repeat(b, 1)
        cells = start.long()
        scores, origin = self._around(patches(previous, clip, start), map, clip, cells, self.config.radius)
        there = origin + peak(scores)
        back_scores, origin = self._around(patches(map, clip, there), previous, clip, cells, self.config.back_radius)
        back = origin + peak(back_scores)
        say = drift.say(scores.flatten(1).amax(1), (back - start).norm(dim=1))
        move = ((there - start) + (there - back)) / 2  # both ways: what still pictures seem to move cancels out
        return Drift(place, move.view(b, -1, 2), say.view(b, -1), size)

    def _around(self, patch: Tensor, map: Tensor, clip: Tensor, centre: Tensor, radius: int) -> tuple[Tensor, Tensor]:
        """Compare (N, S, C) patches with the cells around (N, 2) int64: (N, V, V) scores, (N, 2) the first cell."""
        origin, side = centre - radius, 2 * radius + 1

        def some(part: slice) -> Tensor:
            score = self._compare(patch[part], map, clip[part], centre[part], radius)
            return score.masked_fill(~inside(origin[part], side, _size(map)), float("-inf"))

        return self._chunked(some, len(origin)), origin

    def _chunked(self, some: Callable[[slice], Tensor], n: int) -> Tensor:
        chunk = CHUNK if self.device.type == "cpu" else GPU_CHUNK
        if torch.is_grad_enabled() or n <= chunk:
            return some(slice(None))
        return torch.cat([some(slice(i, i + chunk)) for i in range(0, n, chunk)])

    def _refine(
        self, state: State, frame: Features, clip: Tensor, xy: Tensor, back: Tensor, told: Tensor, iteration: int
    ) -> Tensor:
        """Look at a position and move it: (N, 2 + D) the move in cells and the token."""

        def some(part: slice) -> Tensor:
            these = points(state, part)
            seen = self._look(these, frame, clip[part], xy[part], back[part], iteration)
            return torch.cat(self.refiner(torch.cat([seen, told[part]], dim=1)), dim=1)

        return self._chunked(some, len(xy))

    def _look(self, state: State, frame: Features, clip: Tensor, xy: Tensor, back: Tensor, iteration: int) -> Tensor:
        """What the refiner is told about a position: (N, inputs - 2)."""
        c = self.config
        cells = F.normalize(bilinear_window(frame.map, clip, xy, c.reach), dim=-1).flatten(1, 2)
        templates = torch.stack([state.first, state.last], dim=1).flatten(1, 2)
        near = torch.bmm(cells, templates.transpose(1, 2)).flatten(1)
        fine = bilinear_window(frame.fine, clip, 2 * xy + 0.5, c.fine_reach + FINE_PATCH)
        match = patch_ncc(fine, torch.stack([state.first_fine, state.last_fine], dim=1), c.fine_reach)
        moved = (xy - state.xy) / 4
        h, w = _size(frame.map)
        border = torch.cat([xy + 0.5, constant((w, h), xy.device) - (xy + 0.5)], dim=1).clamp(-NEAR_BORDER, NEAR_BORDER)
        scalars = [
            border / NEAR_BORDER,
            moved,
            state.velocity / 4,
            back[:, None] / 4,
            state.fresh[:, None].float(),
            torch.full_like(back[:, None], float(iteration)),
            _age(state),
        ]
        return torch.cat([near, match.flatten(1), self._peak(match), state.token, *scalars], dim=1)

    def _peak(self, match: Tensor) -> Tensor:
        """(N, K, V, V) -> (N, 2 K) soft-argmax of the fine comparison, in cells of stride 4."""
        p = (match * 20).flatten(2).softmax(-1).view_as(match)
        x, y = (p.sum(2) * self.fine_place).sum(-1), (p.sum(3) * self.fine_place).sum(-1)
        return torch.cat([x, y], dim=1) / 2

    def _judge(self, score: Tensor, back: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of "visible" and "position right": the matcher's fits and what was learned."""
        seen = torch.stack([score, torch.ones_like(score), back], dim=1)
        visible, confident = (F.linear(seen, self.fit) + self.heads(token)).unbind(1)
        return visible, confident

    def _sure(self, score: Tensor, back: Tensor, visible: Tensor, confident: Tensor) -> Tensor:
        """Return where the last template may be renewed: (N,) bool."""
        c = self.config
        if not c.judged:
            return (score > c.update_score) & (back < c.update_back)
        return (visible.sigmoid() > c.renew_visible) & (confident.sigmoid() > c.renew_confident)

    # ---- whole clips ------------------------------------------------------------------------------------------------

    def forward(self, video: Tensor, queries: Tensor, reduce: Callable[[int, FrameOutputs], R]) -> list[R]:
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
        start, cells = (
            queries[..., 0].flatten(),
            self._to_cells(queries[..., 1:].flatten(0, 1), (video.shape[2], video.shape[3])),
        )
        state: State | None = None
        results = []
        for i in range(t):
            frame = self.features(video[:, i])
            new = self.new_points(frame, clip, cells)
            here = start == i
            state = new if state is None else merge(state, new, lambda old, more, here=here: _choose(here, more, old))
            state, out = self.track(state, frame, clip)
            results.append(reduce(i, out))
        return results

    def _to_cells(self, xy: Tensor, size: geometry.Size) -> Tensor:
        return geometry.rescale(xy, size, self.config.input_size) / STRIDE - 0.5

    def _to_pixels(self, cells: Tensor, size: geometry.Size) -> Tensor:
        return geometry.rescale((cells + 0.5) * STRIDE, self.config.input_size, size)


def _age(state: State) -> Tensor:
    """Return how much of its memory is full (N, 1), 0..1: how long a point has been tracked. 0 without a memory."""
    return state.known.float().sum(1, keepdim=True) / max(1, state.known.shape[1])


def _size(map: Tensor) -> tuple[int, int]:
    return map.shape[1], map.shape[2]


def _nearest_cell(xy: Tensor, map: Tensor) -> Tensor:
    """Return (N, 2) int64, the cells of the map nearest to ``xy``: a window around one never misses the map."""
    h, w = _size(map)
    return torch.minimum(xy.round().clamp(min=0), constant((w - 1, h - 1), xy.device)).long()


def _certainty(logits: Tensor, temperature: float) -> Tensor:
    """Return how good and how clear the best place of (N, V, V) logits is: (N, 2) its score, the entropy in 0..1."""
    flat = logits.flatten(1)
    entropy = torch.special.entr(flat.softmax(1)).sum(1) / math.log(flat.shape[1])
    return torch.stack([flat.amax(1) * temperature, entropy], dim=1)


def merge(state: State, more: State, how: Callable[[Tensor, Tensor], Tensor]) -> State:
    """Combine every per-point tensor of two states; the previous frame is the first one's."""
    return State(
        **{
            name: how(getattr(state, name), getattr(more, name))
            for name in State.__dataclass_fields__
            if name != "previous"
        },
        previous=state.previous,
    )


def _values(state: State) -> list[Tensor]:
    """Return all tensors of a state that has seen a frame, in the order of its fields."""
    return [getattr(state, name) for name in State.__dataclass_fields__]


def points(state: State, index: Tensor | slice) -> State:
    """Return the state of some points, in that order."""
    return merge(state, state, lambda old, _: old[index])


def _choose(here: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(here.view(-1, *[1] * (new.ndim - 1)), new, old)

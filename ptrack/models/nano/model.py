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

import math
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
from ptrack.models.layers.windows import PATCH, bilinear_window, constant, inside, patch_ncc, patches, soft_argmax
from ptrack.models.nano.alignment import align
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.matcher import PatchMatcher, by_points, nearest_cell
from ptrack.models.nano.motion import PictureMotion, PointMotion, picture_motion
from ptrack.models.nano.parts import Recall, Refiner, RefinerInputs, Steer, Steering
from ptrack.models.nano.state import (
    FINE_PATCH,
    FIRST,
    LAST,
    STRIDE,
    NanoFeatures,
    NanoState,
    PointStates,
    Templates,
)

LEVEL_WEIGHTS = (0.7, 1.0, 1.0)  # of the L2-normalised maps at strides 4, 8, 16
MAX_BACK = 6.0  # larger backward errors tell no more; in cells
RECENT = 0.9  # share of what was, in running means
LONG = 12.0  # frames: not seen for longer tells no more
NEAR_BORDER = 8.0  # cells; farther from the border of the picture, its distance tells no more
LENGTH = 4.0  # cells: lengths are divided by it before a layer reads them
MATCH_SHARPNESS = 20.0  # of the soft-argmax over the comparison of stride-2 patches
ANCHOR_DISTANCE = 2.0  # cells from the expected place from which the anchor is another place
ANCHOR_LEAD = 0.02  # by which the first template must fit better there
VISIBLE_PER_RIGHT = 5.0  # "visible" is at most so many times as likely as "position right"
LEFT_BEHIND = 0.05  # widths of the picture between a point and its anchor outside from which the point may have left
FINER_LOOK = 0.3  # probability of "visible" from which positions are aligned, in both frames
FINER_PIXELS = 2  # frames with fewer pixels than the network's input by more than this hold nothing finer
FINER_REACH = 0.8  # cells by which the finer look may correct the network
FINER_SHARE = 0.9  # of the position it finds; the network's rest keeps alignments from drifting
WIDE_CHUNK = 12  # points whose wide windows are searched at a time on a CPU: 6 MB, and they stay in the cache

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What the search of a window found."""

    logits: Tensor  # (N, V, V)
    origin: Tensor  # (N, 2) int64 upper-left cell of the window
    xy: Tensor  # (N, 2) cells, soft-argmax around the best one


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is thought of the positions that were found."""

    visibility_logit: Tensor  # (N,)
    confidence_logit: Tensor  # (N,)
    renew: Tensor  # (N,) bool, the last template may be renewed
    seen: Tensor  # (N,) bool, the point is where it was found; else the picture carries it
    sure: Tensor  # (N,) bool, there is no doubt that it is there


@dataclass(frozen=True, slots=True)
class NanoOutputs:
    """What the model says about one frame; positions in cells of stride 4."""

    logits: Tensor  # (N, V, V) of the search
    origin: Tensor  # (N, 2) int64 upper-left cell of the window
    xy: Tensor  # (I + 1, N, 2) coarse position and after every iteration
    visibility_logit: Tensor  # (N,)
    confidence_logit: Tensor  # (N,)
    shown: Tensor  # (N, 2) the last of ``xy`` after the finer look, or where the picture carried an unseen point
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
    fine_place: Tensor  # (U,) cells of the stride-2 window

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
        self.matcher = PatchMatcher(c.patch_sigma)
        self.steer = Steer(c.token, len(PATCH))
        self.refiner = Refiner(sum(RefinerInputs.widths(c).values()), c.hidden, c.token)
        self.recall = Recall(c.token, c.memory) if c.memory else None
        fits = [[1 / scale, -at / scale, -slope / scale] for at, slope, scale in (c.visible_fit, c.confident_fit)]
        self.fit = nn.Parameter(torch.tensor(fits))  # of score, 1 and backward error
        self.heads = nn.Linear(c.token, 2)
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)
        place = torch.arange(-c.fine_reach, c.fine_reach + 1, dtype=torch.float32)
        self.register_buffer("fine_place", place, persistent=False)
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
    def patch_weights(self) -> Tensor:
        """(S,) of a patch's cells, sum 1."""
        return self.matcher.weights

    # ---- frame -> features ------------------------------------------------------------------------------------------

    def features(self, frames: Tensor) -> NanoFeatures:
        """Encode (B, H, W, 3) RGB frames, uint8 or floating point in 0..255."""
        frames = frames.to(self.device, copy=True)  # kept until the next frame, while callers may fill theirs anew
        fine, *taps = self.backbone(stretched(frames, self.config.input_size))
        y = joined(taps, LEVEL_WEIGHTS)
        if self.projection is not None:
            y = F.linear(y, self.projection)
        if self.config.centre:
            y = y - y.mean((1, 2), keepdim=True)  # what all cells share says nothing about which is which
        if self.projection is not None or self.config.centre:
            y = F.normalize(y, dim=-1)
        return NanoFeatures(y.contiguous(), fine.permute(0, 2, 3, 1).contiguous(), frames)

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
        new = PointStates.at(features, _one_clip(cells), cells, self.config)
        return replace(state, points=state.points.extended(new))

    def keep(self, state: NanoState, index: Tensor) -> NanoState:
        """Keep the points of ``index``."""
        return replace(state, points=state.points.select(index.to(self.device)))

    def _to_cells(self, xy: Tensor, size: geometry.Size) -> Tensor:
        return geometry.rescale(xy, size, self.config.input_size) / STRIDE - 0.5

    def _to_pixels(self, cells: Tensor, size: geometry.Size) -> Tensor:
        return geometry.rescale((cells + 0.5) * STRIDE, self.config.input_size, size)

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
        found = self._search(points, frame, clip, expected, anchor)
        coarse = torch.where(points.added[:, None], points.xy, found.xy)
        back = self._backward_error(points, previous, frame, clip, coarse.detach())

        # 3. Refine: look closely at the place, in all templates at strides 4 and 2, and move.
        positions, token = self._refine(points, frame, clip, found, coarse, back, motion)
        xy = positions[-1].detach()

        # 4. Remember: the token looks at the point's own past and joins it.
        token, past, filled = self._remember(points, token)

        # 5. Judge: is it visible, is it right, may the last template be renewed, or does the picture carry the point?
        template = Templates.cut(frame, clip, xy)
        verdict = self._judge(points, template, back, token)

        moved = self._finer(self._moved(points, xy, motion, anchor, verdict), points, state, frame, clip, verdict)
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
            visible=self._visible(moved, frame, verdict),
        )
        return NanoState(after, frame.map.detach(), frame.pixels), outputs

    # ---- 1. motion --------------------------------------------------------------------------------------------------

    def _motion(self, previous: Tensor, frame: NanoFeatures, clip: Tensor) -> PictureMotion | None:
        c = self.config
        if not c.carry or not len(clip):
            return None
        return picture_motion(self.matcher, previous, frame.map, c.radius, c.back_radius)

    # ---- 2. search --------------------------------------------------------------------------------------------------

    def _search(
        self, points: PointStates, frame: NanoFeatures, clip: Tensor, expected: Tensor, anchor: Tensor
    ) -> SearchResult:
        """Compare the mixed template with the windows around the (N, 2) expected cells, or around the anchors."""
        c = self.config
        steering = self._steering(points)
        template = self._mixed(points.templates, steering)
        centre = nearest_cell(expected, frame.map)
        if c.wide_radius:
            centre = self._wide_search(points, template, frame, clip, centre)
        ahead = torch.where(points.unseen[:, None] > 0, expected, expected + steering.lead * points.velocity)
        found = self._window(template, steering, frame, clip, centre, ahead)
        if not (c.sure and c.carry):
            return found
        return self._second_search(points, template, steering, frame, clip, expected, anchor, found)

    def _window(
        self, template: Tensor, steering: Steering, frame: NanoFeatures, clip: Tensor, centre: Tensor, ahead: Tensor
    ) -> SearchResult:
        """Search the windows around (N, 2) int64 ``centre``, preferring places near (N, 2) ``ahead``."""
        c = self.config
        origin, side = centre - c.radius, 2 * c.radius + 1
        place = torch.arange(side, device=origin.device)

        def logits(part: slice) -> Tensor:
            scores = self.matcher.scores(template[part], frame.map, clip[part], centre[part], c.radius)
            scores = scores * (steering.sharpness[part] / c.temperature)[:, None, None]
            x, y = (origin[part, :, None] + place - ahead[part, :, None]).square().unbind(1)
            scores = scores + steering.strength[part, None, None] * self.steer.prior(y[:, :, None] + x[:, None, :])
            # Masked last: a score of -inf times the sharpness would have a gradient of NaN.
            return scores.masked_fill(~inside(origin[part], side, frame.cells), float("-inf"))

        found = by_points(logits, len(origin), self.device)
        return SearchResult(found, origin, origin + soft_argmax(found))

    def _second_search(
        self,
        points: PointStates,
        template: Tensor,
        steering: Steering,
        frame: NanoFeatures,
        clip: Tensor,
        expected: Tensor,
        anchor: Tensor,
        found: SearchResult,
    ) -> SearchResult:
        """Search for doubted points around their anchors, too, and keep what looks more like the first template.

        What covered a point may have taken it along: on a real clip in which a car passes, 44 % of the points of the
        road went with it, and 9 % do so.
        """
        other = points.doubted & ((anchor - expected).norm(dim=1) > ANCHOR_DISTANCE)
        # Searching for all is cheaper on a GPU than asking for which.
        which = (
            torch.nonzero(other)[:, 0] if other.device.type == "cpu" else torch.arange(len(other), device=other.device)
        )
        if not len(which):
            return found
        place = anchor[which]
        second = self._window(
            template[which], steering.select(which), frame, clip[which], nearest_cell(place, frame.map), place
        )
        first = points.templates.coarse[which, FIRST]
        fits = [
            self.matcher.agreement(patches(frame.map, clip[which], xy.detach()), first)
            for xy in (found.xy[which], second.xy)
        ]
        better = other[which] & (fits[1] - fits[0] > ANCHOR_LEAD)

        def put(old: Tensor, new: Tensor) -> Tensor:
            chosen = torch.where(better.view(-1, *[1] * (old.ndim - 1)), new, old[which])
            return old.index_copy(0, which, chosen)

        return SearchResult(
            put(found.logits, second.logits), put(found.origin, second.origin), put(found.xy, second.xy)
        )

    def _steering(self, points: PointStates) -> Steering:
        coarse = points.templates.coarse
        agreement = (coarse[:, FIRST] * coarse[:, LAST]).sum(-1)
        speed = points.velocity.norm(dim=1, keepdim=True) / LENGTH
        return self.steer(points.token, agreement, speed, points.age)

    def _mixed(self, templates: Templates, steering: Steering) -> Tensor:
        """Mix the templates: (N, S, C). Scores are linear in them: one mixed template costs half of what two do."""
        mixed = torch.lerp(templates.coarse[:, LAST], templates.coarse[:, FIRST], steering.share[..., None])
        gain = steering.gain / (steering.gain * self.patch_weights).sum(1, keepdim=True)
        return mixed * gain[..., None]

    @torch.no_grad()
    def _wide_search(
        self, points: PointStates, template: Tensor, frame: NanoFeatures, clip: Tensor, centre: Tensor
    ) -> Tensor:
        """Centre the window of points that moved fast on the best place of a larger one: (N, 2) int64 cells."""
        c = self.config
        fast = points.velocity.norm(dim=1) > c.wide_speed
        side = 2 * c.wide_radius + 1

        def best(part: Tensor | slice) -> Tensor:
            scores, origin = self.matcher.search(template[part], frame.map, clip[part], centre[part], c.wide_radius)
            place = scores.flatten(1).argmax(1)
            return origin + torch.stack([place % side, place // side], dim=1)

        if centre.device.type != "cpu":  # searching for all is cheaper there than asking which are fast
            return torch.where(fast[:, None], best(slice(None)), centre)
        moved = centre.clone()
        for part in torch.nonzero(fast)[:, 0].split(WIDE_CHUNK):
            moved[part] = best(part)
        return moved

    @torch.no_grad()
    def _backward_error(
        self, points: PointStates, previous: Tensor, frame: NanoFeatures, clip: Tensor, xy: Tensor
    ) -> Tensor:
        """Search the patches at (N, 2) in the previous frame: (N,) cells from the old positions to where they fit."""
        c, patch, centre = self.config, patches(frame.map, clip, xy), nearest_cell(points.xy, previous)
        scores, origin = self.matcher.search(patch, previous, clip, centre, c.back_radius)
        error = (origin + soft_argmax(scores / c.temperature) - points.xy).norm(dim=1)
        return torch.where(points.added, 0.0, error.clamp(max=MAX_BACK))

    # ---- 3. refine --------------------------------------------------------------------------------------------------

    def _refine(
        self,
        points: PointStates,
        frame: NanoFeatures,
        clip: Tensor,
        found: SearchResult,
        coarse: Tensor,
        back: Tensor,
        motion: PointMotion,
    ) -> tuple[list[Tensor], Tensor]:
        """Return I + 1 positions (N, 2), the coarse one first, and the tokens (N, D)."""
        positions, token, xy = [coarse], points.token, coarse.detach()
        if not self.iterations:
            return positions, token
        score, entropy = _clearness(found.logits.detach(), self.config.temperature)
        for iteration in range(self.iterations):

            def refined(part: slice, xy: Tensor = xy, iteration: int = iteration) -> Tensor:
                seen = self._surroundings(points.select(part), frame, clip[part], xy[part], back[part], iteration)
                inputs = RefinerInputs(
                    **seen,
                    score=score[part],
                    entropy=entropy[part],
                    shift=motion.shift[part] / LENGTH,
                    trust=motion.trust[part, None],
                )
                return torch.cat(self.refiner(inputs.joined()), dim=1)

            move, token = by_points(refined, len(xy), self.device).split([2, points.token.shape[1]], dim=1)
            positions.append(xy + torch.where(points.added[:, None], 0.0, move))
            xy = positions[-1].detach()
        return positions, token

    def _surroundings(
        self, points: PointStates, frame: NanoFeatures, clip: Tensor, xy: Tensor, back: Tensor, iteration: int
    ) -> dict[str, Tensor]:
        """Return what is seen around (N, 2) positions, and the points' own numbers: parts of ``RefinerInputs``."""
        c = self.config
        cells = F.normalize(bilinear_window(frame.map, clip, xy, c.reach), dim=-1).flatten(1, 2)
        templates = points.templates.coarse.flatten(1, 2)
        fine = bilinear_window(frame.fine, clip, 2 * xy + 0.5, c.fine_reach + FINE_PATCH)
        match = patch_ncc(fine, points.templates.fine, c.fine_reach)
        h, w = frame.cells
        border = torch.cat([xy + 0.5, constant((w, h), xy.device) - (xy + 0.5)], dim=1)
        return {
            "near": torch.bmm(cells, templates.transpose(1, 2)).flatten(1),
            "match": match.flatten(1),
            "match_peak": self._match_peak(match),
            "token": points.token,
            "border": border.clamp(-NEAR_BORDER, NEAR_BORDER) / NEAR_BORDER,
            "moved": (xy - points.xy) / LENGTH,
            "velocity": points.velocity / LENGTH,
            "back": back[:, None] / LENGTH,
            "added": points.added[:, None].float(),
            "iteration": torch.full_like(back[:, None], float(iteration)),
            "age": points.age,
            "unseen": points.unseen[:, None] / LONG,
            "own_motion": points.own_motion[:, None].clamp(max=MAX_BACK) / LENGTH,
        }

    def _match_peak(self, match: Tensor) -> Tensor:
        """(N, K, U, U) -> (N, 2 K) soft-argmax of the comparison of stride-2 patches, in cells of stride 4."""
        p = (match * MATCH_SHARPNESS).flatten(2).softmax(-1).view_as(match)
        x, y = (p.sum(2) * self.fine_place).sum(-1), (p.sum(3) * self.fine_place).sum(-1)
        return torch.cat([x, y], dim=1) / 2

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

    def _visible(self, points: PointStates, frame: NanoFeatures, verdict: Verdict) -> Tensor:
        """Return the probability of "visible" (N,) that is told the user: bounded by that of "position right".

        A place that is hardly right is not where the point is seen. Of a point that the picture seems to have left,
        because it carried the anchor out of itself while something else was found far from it, "visible" is at most as
        likely as "right": on seven panning clips 17 % of the points that had left were called visible without this.
        """
        visible, right = verdict.visibility_logit.sigmoid(), verdict.confidence_logit.sigmoid()
        if not self.config.sure:
            return visible
        h, w = frame.cells
        outside = ((points.anchor < -0.5) | (points.anchor > constant((w - 0.5, h - 0.5), points.xy.device))).any(1)
        left = points.doubted & outside & ((points.xy - points.anchor).norm(dim=1) > LEFT_BEHIND * w)
        return torch.minimum(visible, torch.where(left, right, VISIBLE_PER_RIGHT * right))

    def _moved(
        self, points: PointStates, found: Tensor, motion: PointMotion, anchor: Tensor, verdict: Verdict
    ) -> PointStates:
        """Move points to where they were found, or, where they are not seen, with the picture."""
        seen, started = verdict.seen, ~points.added
        xy = torch.where(seen[:, None], found, points.xy + motion.shift)
        own = torch.lerp((found - points.xy - motion.shift).norm(dim=1), points.own_motion, RECENT)
        return replace(
            points,
            xy=xy,
            velocity=torch.where(points.added[:, None], 0.0, xy - points.xy),
            unseen=torch.where(seen, 0.0, (points.unseen + 1).clamp(max=LONG)),
            own_motion=torch.where(seen & started, own, points.own_motion),
            anchor=torch.where(verdict.sure[:, None], xy, anchor),
            doubted=~verdict.sure,
        )

    @torch.no_grad()
    def _finer(
        self,
        moved: PointStates,
        points: PointStates,
        state: NanoState,
        frame: NanoFeatures,
        clip: Tensor,
        verdict: Verdict,
    ) -> PointStates:
        """Align what is likely visible with the previous frame; the rest is shown where the network has it."""
        visible = verdict.visibility_logit.sigmoid() >= FINER_LOOK
        moved = replace(moved, shown=moved.xy, shown_visible=visible)
        if not self._has_finer(state, frame) or not len(clip):
            return moved
        assert state.pixels is not None
        guess = points.shown + moved.xy - points.xy
        near = (guess - moved.xy).norm(dim=1, keepdim=True) < FINER_REACH
        guess = torch.where(near, guess, moved.xy)
        pixels = [self._to_pixels(xy, frame.size) for xy in (points.shown, guess)]
        aligned = align(state.pixels, frame.pixels, clip, *pixels)
        xy = self._to_cells(aligned.xy, frame.size)
        taken = aligned.textured & visible & points.shown_visible & verdict.seen & ~points.added
        taken &= (xy - moved.xy).norm(dim=1) < FINER_REACH
        return replace(moved, shown=torch.where(taken[:, None], torch.lerp(moved.xy, xy, FINER_SHARE), moved.xy))

    def _has_finer(self, state: NanoState, frame: NanoFeatures) -> bool:
        """Return whether the frames are not much smaller than the network's input, and nothing is trained."""
        h, w = self.config.input_size
        same = state.pixels is not None and state.pixels.shape == frame.pixels.shape
        finer = FINER_PIXELS * frame.size[0] * frame.size[1] >= h * w
        return self.config.closer and same and finer and not torch.is_grad_enabled()

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
            new = PointStates.at(frame, clip, cells, self.config)
            points = new if state is None else state.points.replaced(new, start == i)
            state, out = self.track(
                NanoState(points, *(() if state is None else (state.previous, state.pixels))), frame, clip
            )
            results.append(reduce(i, out))
        return results


def _one_clip(xy: Tensor) -> Tensor:
    """Return the clip of (N, 2) points of a single one: (N,) zeros."""
    return torch.zeros(len(xy), dtype=torch.long, device=xy.device)


def _clearness(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return how good and how clear the best place of (N, V, V) logits is: (N, 1) its score and (N, 1) the entropy."""
    flat = logits.flatten(1)
    entropy = torch.special.entr(flat.softmax(1)).sum(1, keepdim=True) / math.log(flat.shape[1])
    return flat.amax(1, keepdim=True) * temperature, entropy

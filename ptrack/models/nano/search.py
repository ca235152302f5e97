"""Stage 2 of nano, the search: the mixed template against every cell of a window, steered by the point's token.

Letters: B clips, N points of all clips together, h w cells of stride 4, C channels, S = 9 cells of a patch, D channels
of a token, V side of the search window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptrack.models.layers.windows import inside, soft_argmax
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.layers import LENGTH, zeroed
from ptrack.models.nano.matcher import PatchMatcher, by_points, nearest_cell, nobody
from ptrack.models.nano.plain import undecided
from ptrack.models.nano.state import FIRST, LAST, NanoFeatures, PointStates, Templates

ANCHOR_DISTANCE = 2.0  # cells from the expected place from which the anchor is another place
ANCHOR_LEAD = 0.02  # by which the first template must fit better there
PLAIN_STRENGTH = 0.3  # of the prior, added for points on plain surfaces: fewer jumps to places that look alike
WIDE_CHUNK = 32  # points whose wide windows are searched at a time on a CPU: their nine cosines take 1.4 MB


@dataclass(frozen=True, slots=True)
class Steering:
    """How points are searched for in one frame."""

    share: Tensor  # (N, 1) of the first template against the last one, 0.5 untrained
    gain: Tensor  # (N, S) of the patch's cells, 1 untrained
    sharpness: Tensor  # (N,) of the scores, 1 untrained
    strength: Tensor  # (N,) of the prior, 0 untrained
    lead: Tensor  # (N, 1) frames of motion ahead at which the point is expected, 0.5 untrained

    def select(self, index: Tensor) -> Steering:
        """Return that of the points of ``index``."""
        return Steering(*(getattr(self, f.name)[index] for f in fields(self)))


class Steer(nn.Module):
    """Decides how a point is searched for: few numbers, so that it cannot learn what rendered pictures look like.

    Args:
        token: D.
        cells: S.
    """

    HIDDEN = 32
    PRIOR = 8.0  # logits at strength 1
    REACH = 4.0  # cells from the expected place at which the prior costs half

    def __init__(self, token: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.enter = nn.Linear(token + cells + 2, self.HIDDEN)
        self.out = zeroed(nn.Linear(self.HIDDEN, cells + 4))

    def forward(self, token: Tensor, agreement: Tensor, speed: Tensor, age: Tensor) -> Steering:
        """Steer by the last frame: (N, D), (N, S) cosines of the two templates, (N, 1) cells / 4, (N, 1)."""
        x = self.out(F.gelu(self.enter(torch.cat([token, agreement, speed, age], dim=1))))
        share, gain = x[:, :1].sigmoid(), 2 * x[:, 1 : 1 + self.cells].sigmoid()
        sharpness, strength, lead = x[:, 1 + self.cells :].unbind(1)
        return Steering(share, gain, sharpness.exp(), strength, 0.5 + lead[:, None])

    def prior(self, squared: Tensor) -> Tensor:
        """Logits at strength 1 for squared distances, in cells, from the expected place; they level off."""
        return -self.PRIOR * squared / (squared + self.REACH**2)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What the search of a window found."""

    logits: Tensor  # (N, V, V)
    origin: Tensor  # (N, 2) int64 upper-left cell of the window
    xy: Tensor  # (N, 2) cells, soft-argmax around the best one

    def clearness(self, temperature: float) -> tuple[Tensor, Tensor]:
        """Return how good and how clear the best place is: (N, 1) its score and (N, 1) the entropy, 0 to 1."""
        flat = self.logits.detach().flatten(1)
        entropy = torch.special.entr(flat.softmax(1)).sum(1, keepdim=True) / math.log(flat.shape[1])
        return flat.amax(1, keepdim=True) * temperature, entropy


@dataclass(frozen=True, slots=True)
class Search:
    """The search of B frames for their clips' points."""

    config: NanoConfig
    matcher: PatchMatcher
    steer: Steer
    frame: NanoFeatures
    clip: Tensor  # (N,) int64, the clip of every point

    def find(self, points: PointStates, expected: Tensor, anchor: Tensor) -> SearchResult:
        """Compare the mixed template with the windows around the (N, 2) expected cells, or around the anchors."""
        c = self.config
        steering = self._steering(points)
        template = self._mixed(points.templates, steering)
        centre = nearest_cell(expected, self.frame.cells)
        if c.wide_radius:
            centre = self._wide(points, template, centre)
        ahead = torch.where(points.unseen[:, None] > 0, expected, expected + steering.lead * points.velocity)
        found = self._window(template, steering, self.clip, centre, ahead)
        if not (c.sure and c.carry):
            return found
        return self._around_anchors(points, template, steering, expected, anchor, found)

    def _steering(self, points: PointStates) -> Steering:
        coarse = points.templates.coarse
        agreement = (coarse[:, FIRST] * coarse[:, LAST]).sum(-1)
        speed = points.velocity.norm(dim=1, keepdim=True) / LENGTH
        steering = self.steer(points.token, agreement, speed, points.age)
        if not self.frame.has_grey:  # then none are plain
            return steering
        return replace(steering, strength=steering.strength + PLAIN_STRENGTH * undecided(points))

    def _mixed(self, templates: Templates, steering: Steering) -> Tensor:
        """Mix the templates: (N, S, C). Scores are linear in them: one mixed template costs half of what two do."""
        mixed = torch.lerp(templates.coarse[:, LAST], templates.coarse[:, FIRST], steering.share[..., None])
        gain = steering.gain / (steering.gain * self.matcher.weights).sum(1, keepdim=True)
        return mixed * gain[..., None]

    @torch.no_grad()
    def _wide(self, points: PointStates, template: Tensor, centre: Tensor) -> Tensor:
        """Centre the window of points that moved fast on the best place of a larger one: (N, 2) int64 cells."""
        fast = points.velocity.norm(dim=1) > self.config.wide_speed
        map, radius = self.frame.map, self.config.wide_radius
        side = 2 * radius + 1

        def best(part: Tensor | slice) -> Tensor:
            scores, origin = self.matcher.search(template[part], map, self.clip[part], centre[part], radius)
            place = scores.flatten(1).argmax(1)
            return origin + torch.stack([place % side, place // side], dim=1)

        if centre.device.type != "cpu":  # searching for all is cheaper there than asking which are fast
            return torch.where(fast[:, None], best(slice(None)), centre)
        which = torch.nonzero(fast)[:, 0]
        if torch.compiler.is_exporting():
            return centre.index_copy(0, which, best(which))
        moved = centre.clone()
        for part in which.split(WIDE_CHUNK):
            moved[part] = best(part)
        return moved

    def _window(
        self, template: Tensor, steering: Steering, clip: Tensor, centre: Tensor, ahead: Tensor
    ) -> SearchResult:
        """Search the windows around (N, 2) int64 ``centre``, preferring places near (N, 2) ``ahead``."""
        c, frame = self.config, self.frame
        origin, side = centre - c.radius, 2 * c.radius + 1
        place = torch.arange(side, device=origin.device)

        def logits(part: slice) -> Tensor:
            scores = self.matcher.scores(template[part], frame.map, clip[part], centre[part], c.radius)
            scores = scores * (steering.sharpness[part] / c.temperature)[:, None, None]
            x, y = (origin[part, :, None] + place - ahead[part, :, None]).square().unbind(1)
            scores = scores + steering.strength[part, None, None] * self.steer.prior(y[:, :, None] + x[:, None, :])
            # Masked last: a score of -inf times the sharpness would have a gradient of NaN.
            return scores.masked_fill(~inside(origin[part], side, frame.cells), float("-inf"))

        found = by_points(logits, origin.shape[0], origin.device)
        return SearchResult(found, origin, origin + soft_argmax(found))

    def _around_anchors(
        self,
        points: PointStates,
        template: Tensor,
        steering: Steering,
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
        if nobody(which):
            return found
        place, clip, frame = anchor[which], self.clip[which], self.frame
        second = self._window(template[which], steering.select(which), clip, nearest_cell(place, frame.cells), place)
        first = points.templates.coarse[which, FIRST]
        fits = [self.matcher.agreement(frame.patches(clip, xy.detach()), first) for xy in (found.xy[which], second.xy)]
        better = other[which] & (fits[1] - fits[0] > ANCHOR_LEAD)

        def put(old: Tensor, new: Tensor) -> Tensor:
            chosen = torch.where(better.view(-1, *[1] * (old.ndim - 1)), new, old[which])
            return old.index_copy(0, which, chosen)

        return SearchResult(
            put(found.logits, second.logits), put(found.origin, second.origin), put(found.xy, second.xy)
        )

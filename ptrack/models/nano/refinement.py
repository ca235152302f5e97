"""Stage 3 of nano, the refinement: look closely at a place, in all templates at strides 4 and 2, and move.

Letters: N points, S = 9 cells of a patch, C channels, D channels of a token, K templates, V side of the local window, U
of the stride-2 window, I iterations.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from ptrack.models.layers.linear import Linear
from ptrack.models.layers.windows import PATCH, bilinear_window, constant, patch_ncc
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.layers import LENGTH, LONG, MAX_BACK, zeroed
from ptrack.models.nano.matcher import by_points
from ptrack.models.nano.motion import PointMotion
from ptrack.models.nano.search import SearchResult
from ptrack.models.nano.state import FINE_PATCH, TEMPLATES, NanoFeatures, PointStates

NEAR_BORDER = 8.0  # cells; farther from the border of the picture, its distance means no more
MATCH_SHARPNESS = 20.0  # of the soft-argmax over the comparison of stride-2 patches


@dataclass(frozen=True, slots=True)
class RefinerInputs:
    """What the refiner looks at, in the order of its first layer's columns; lengths in cells."""

    near: Tensor  # (N, V² K S) cosines of the cells around the position with those of the templates
    match: Tensor  # (N, K U²) comparison of stride-2 patches
    match_peak: Tensor  # (N, 2 K) where that is best, from the position
    token: Tensor  # (N, D)
    border: Tensor  # (N, 4) distances to the picture's borders / 8
    moved: Tensor  # (N, 2) since the last frame / 4
    velocity: Tensor  # (N, 2) of the last frame / 4
    back: Tensor  # (N, 1) error of the search back / 4
    added: Tensor  # (N, 1) 1 on the query's own frame
    iteration: Tensor  # (N, 1) 0, 1, ...
    age: Tensor  # (N, 1) share of the memory that is filled
    score: Tensor  # (N, 1) best score of the search
    entropy: Tensor  # (N, 1) of the search's window, 0 (one clear place) to 1
    shift: Tensor  # (N, 2) motion of the picture around the point / 4
    trust: Tensor  # (N, 1) in that motion
    unseen: Tensor  # (N, 1) frames since it was last called visible / 12
    own_motion: Tensor  # (N, 1) / 4

    @staticmethod
    def widths(config: NanoConfig) -> dict[str, int]:
        """Return the columns of every part; the refiner is as wide as their sum."""
        side, fine = 2 * config.reach + 1, 2 * config.fine_reach + 1
        wide = {
            "near": side**2 * TEMPLATES * len(PATCH),
            "match": TEMPLATES * fine**2,
            "match_peak": 2 * TEMPLATES,
            "token": config.token,
            "border": 4,
            "moved": 2,
            "velocity": 2,
            "shift": 2,
        }
        return {field.name: wide.get(field.name, 1) for field in fields(RefinerInputs)}

    def joined(self) -> Tensor:
        """Return all of them side by side, (N, inputs)."""
        return torch.cat([getattr(self, field.name) for field in fields(self)], dim=1)


class Refiner(nn.Module):
    """Turns what is seen around a position into a move and a token."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        c = self.config = config
        # oneDNN's products have the same bits with every number of threads.
        self.enter = Linear(sum(RefinerInputs.widths(c).values()), c.hidden)
        self.middle = Linear(c.hidden, c.hidden)
        self.move = zeroed(nn.Linear(c.hidden, 2))
        self.token = nn.Linear(c.hidden, c.token)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, inputs) -> (N, 2) move in cells of stride 4, (N, D) token."""
        x = self.enter(x, "gelu")
        x = x + self.middle(x, "gelu")
        return self.move(x), self.token(x)

    def refine(
        self,
        points: PointStates,
        frame: NanoFeatures,
        clip: Tensor,
        found: SearchResult,
        coarse: Tensor,
        back: Tensor,
        motion: PointMotion,
        iterations: int,
    ) -> tuple[list[Tensor], Tensor]:
        """Move points from where the search found them.

        Args:
            points: as they were on the previous frame.
            frame: features of the B frames.
            clip: (N,) int64, the clip of every point.
            found: by the search.
            coarse: (N, 2) cells to begin at.
            back: (N,) backward error there, in cells.
            motion: of the picture around the points.
            iterations: I, at least 0.

        Returns:
            I + 1 positions (N, 2), the coarse one first, and the tokens (N, D).
        """
        if not iterations:
            return [coarse], points.token
        score, entropy = found.clearness(self.config.temperature)

        def refined(part: slice) -> Tensor:
            """All iterations of the points of ``part``, whose templates stay in the cache: (n, 2 I + D)."""
            chosen, xy, positions = points.select(part), coarse[part].detach(), []
            token = chosen.token
            for iteration in range(iterations):
                seen = self._surroundings(chosen, frame, clip[part], xy, back[part], iteration)
                inputs = RefinerInputs(
                    **seen,
                    score=score[part],
                    entropy=entropy[part],
                    shift=motion.shift[part] / LENGTH,
                    trust=motion.trust[part, None],
                )
                move, token = self(inputs.joined())
                positions.append(xy + torch.where(chosen.added[:, None], 0.0, move))
                xy = positions[-1].detach()
            return torch.cat([*positions, token], dim=1)

        *positions, token = by_points(refined, coarse.shape[0], coarse.device).split(
            [*[2] * iterations, points.token.shape[1]], dim=1
        )
        return [coarse, *positions], token

    def _surroundings(
        self, points: PointStates, frame: NanoFeatures, clip: Tensor, xy: Tensor, back: Tensor, iteration: int
    ) -> dict[str, Tensor]:
        """Return what is seen around (N, 2) positions, and the points' own numbers: parts of ``RefinerInputs``."""
        c = self.config
        cells = bilinear_window(frame.map, clip, xy, c.reach, frame.border).flatten(1, 2)
        lengths = cells.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        templates = points.templates.coarse.flatten(1, 2)
        fine = bilinear_window(frame.fine, clip, 2 * xy + 0.5, c.fine_reach + FINE_PATCH)
        match = patch_ncc(fine, points.templates.fine, c.fine_reach)
        h, w = frame.cells
        border = torch.cat([xy + 0.5, constant((w, h), xy.device) - (xy + 0.5)], dim=1)
        return {
            "near": (torch.bmm(cells, templates.transpose(1, 2)) / lengths).flatten(1),
            "match": match.flatten(1),
            "match_peak": _match_peak(match),
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


def _match_peak(match: Tensor) -> Tensor:
    """(N, K, U, U) -> (N, 2 K) soft-argmax of the comparison of stride-2 patches, in cells of stride 4."""
    p = (match * MATCH_SHARPNESS).flatten(2).softmax(-1).view_as(match)
    reach = match.shape[-1] // 2
    place = constant(tuple(map(float, range(-reach, reach + 1))), match.device)  # (U,) cells of stride 2
    x, y = (p.sum(2) * place).sum(-1), (p.sum(3) * place).sum(-1)
    return torch.cat([x, y], dim=1) / 2

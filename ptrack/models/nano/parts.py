"""The learned parts of nano. Each begins by adding nothing: the untrained network is the patch matcher.

Letters: N points, S = 9 cells of a patch, D channels of a token, M memory, K templates, V side of the local window, U
of the stride-2 window.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptrack.models.layers.attention import join_heads, split_heads
from ptrack.models.layers.dropout import attend
from ptrack.models.layers.windows import PATCH
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.state import TEMPLATES


def _silent(layer: nn.Linear) -> nn.Linear:
    """Make a layer answer zero until it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


@dataclass(frozen=True, slots=True)
class Steering:
    """How points are searched for in one frame."""

    share: Tensor  # (N, 1) of the first template against the last one, 0.5 untrained
    gain: Tensor  # (N, S) of the patch's cells, 1 untrained
    sharpness: Tensor  # (N,) of the scores, 1 untrained
    strength: Tensor  # (N,) of the prior, 0 untrained
    lead: Tensor  # (N, 1) frames of motion ahead at which the point is expected, 0.5 untrained

    def select(self, index: Tensor) -> Steering:
        """Return that of some points."""
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
        self.out = _silent(nn.Linear(self.HIDDEN, cells + 4))

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

    def __init__(self, inputs: int, hidden: int, token: int) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.move = _silent(nn.Linear(hidden, 2))
        self.token = nn.Linear(hidden, token)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, inputs) -> (N, 2) move in cells of stride 4, (N, D) token."""
        x = F.gelu(self.enter(x))
        x = x + F.gelu(self.middle(x))
        return self.move(x), self.token(x)


class Recall(nn.Module):
    """One token looks at the point's own past."""

    HEADS = 4

    def __init__(self, token: int, memory: int) -> None:
        super().__init__()
        self.age = nn.Parameter(torch.randn(memory, token) * 0.02)
        self.query = nn.Linear(token, token)
        self.key = nn.Linear(token, token)
        self.value = nn.Linear(token, token)
        self.out = nn.Linear(token, token)
        self.norm = nn.LayerNorm(token)

    def forward(self, token: Tensor, past: Tensor, filled: Tensor) -> Tensor:
        """(N, D), (N, M, D) newest first, (N, M) bool -> (N, D)."""
        keyed = past + self.age
        # A zero key and value are always there, so a point without a past attends to nothing.
        keys, values = (F.pad(x, (0, 0, 0, 1)) for x in (self.key(keyed), self.value(keyed)))
        seen = F.pad(filled, (0, 1), value=True)[:, None, None]
        q, k, v = (split_heads(x, self.HEADS) for x in (self.query(token)[:, None], keys, values))
        y = join_heads(attend(q, k, v, seen, 0.0))
        return self.norm(token + self.out(y[:, 0]))

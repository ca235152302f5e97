"""The learned parts of nano. Each begins by adding nothing: the untrained network is the patch matcher.

Letters: B maps, N points, C channels, D channels of a token, M memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _quiet(layer: nn.Linear) -> nn.Linear:
    """Make a layer answer zero until it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Steer(nn.Module):
    """Says how a point is searched for: few numbers, so that it cannot learn what rendered pictures look like.

    Args:
        token: D.
        cells: of a patch.
    """

    HIDDEN = 32
    PRIOR = 8.0  # logits at strength 1
    REACH = 4.0  # cells from the expected place at which the prior costs half

    def __init__(self, token: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.enter = nn.Linear(token + cells + 2, self.HIDDEN)
        self.out = _quiet(nn.Linear(self.HIDDEN, cells + 4))

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(N, D + cells + 2) of the last frame -> what the search is done with.

        Returns:
            share (N, 1) of the first template, 0.5 untrained; gain (N, cells) of the patch's cells, 1 untrained;
            sharpness (N,) of the scores, 1 untrained; strength (N,) of the prior, 0 untrained; and lead (N, 1), how
            many frames of motion ahead it expects the point, 0.5 untrained.
        """
        x = self.out(F.gelu(self.enter(seen)))
        share, gain = x[:, :1].sigmoid(), 2 * x[:, 1 : 1 + self.cells].sigmoid()
        sharpness, strength, lead = x[:, 1 + self.cells :].unbind(1)
        return share, gain, sharpness.exp(), strength, 0.5 + lead[:, None]

    def prior(self, squared: Tensor) -> Tensor:
        """Logits at strength 1 for squared distances, in cells, from the expected place; they level off."""
        return -self.PRIOR * squared / (squared + self.REACH**2)


class Refiner(nn.Module):
    """Turns what is seen around a position into a move and a token."""

    def __init__(self, inputs: int, hidden: int, token: int) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.move = _quiet(nn.Linear(hidden, 2))
        self.token = nn.Linear(hidden, token)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, inputs) -> (N, 2) move in cells of stride 4, (N, D) token."""
        x = F.gelu(self.enter(x))
        x = x + F.gelu(self.middle(x))
        return self.move(x), self.token(x)


class Recall(nn.Module):
    """One token looks at the point's own past: (N, D), (N, M, D) -> (N, D)."""

    def __init__(self, token: int, memory: int) -> None:
        super().__init__()
        self.age = nn.Parameter(torch.randn(memory, token) * 0.02)
        self.query = nn.Linear(token, token)
        self.key = nn.Linear(token, token)
        self.value = nn.Linear(token, token)
        self.out = nn.Linear(token, token)
        self.norm = nn.LayerNorm(token)

    def forward(self, token: Tensor, past: Tensor, known: Tensor) -> Tensor:
        """``past`` has the newest first; ``known`` (N, M) bool."""
        n, m, d = past.shape
        heads = 4
        keyed = past + self.age
        q = self.query(token).view(n, heads, 1, d // heads)
        k = self.key(keyed).view(n, m, heads, d // heads).transpose(1, 2)
        v = self.value(keyed).view(n, m, heads, d // heads).transpose(1, 2)
        # A zero key and value are always there, so a point without a past attends to nothing.
        nothing = k.new_zeros(n, heads, 1, d // heads)
        score = (q @ torch.cat([k, nothing], 2).transpose(2, 3)) * (d // heads) ** -0.5
        seen = F.pad(known, (0, 1), value=True)[:, None, None]
        p = score.masked_fill(~seen, float("-inf")).softmax(-1)
        y = (p @ torch.cat([v, nothing], 2)).transpose(1, 2).reshape(n, d)
        return self.norm(token + self.out(y))

"""What the learned parts of nano share. Each begins by adding nothing: the untrained network is the patch matcher.

Letters: N points, D channels of a token, M memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptrack.models.layers.attention import join_heads, split_heads
from ptrack.models.layers.dropout import attend

LENGTH = 4.0  # cells: lengths are divided by it before a layer reads them
MAX_BACK = 6.0  # cells: larger backward errors mean no more
LONG = 12.0  # frames: not seen for longer means no more


def zeroed(layer: nn.Linear) -> nn.Linear:
    """Make a layer answer zero until it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


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

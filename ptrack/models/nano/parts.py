"""The learned parts of nano. Each begins by adding nothing: the untrained network is the patch matcher.

Letters: B maps, N points, C channels, D channels of a token, K templates, V side of the search window, M memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _quiet(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Make a layer answer zero until it is trained."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Adapter(nn.Module):
    """Refines the frozen features: (B, h, w, C) taps -> (B, h, w, D) to be added to their projection."""

    def __init__(self, channels: int, width: int, dim: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, width)
        self.spread = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.mix = nn.Linear(width, width)
        self.out = _quiet(nn.Linear(width, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual."""
        x = F.relu(self.squeeze(x))
        y = F.relu(self.spread(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        return self.out(x + F.relu(self.mix(y)))


class Context(nn.Module):
    """Looks at the whole score window: (N, K, V, V) scores and (N, D) tokens -> (N, V, V) logits to be added."""

    def __init__(self, templates: int, width: int, token: int, radius: int) -> None:
        super().__init__()
        axis = torch.arange(-radius, radius + 1) / 8.0  # cells; the same scale whatever the radius
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("place", torch.stack([x, y, (x * x + y * y).sqrt()]), persistent=False)
        self.first = nn.Conv2d(templates + 3, width, 3, padding=1)
        self.steer = _quiet(nn.Linear(token, 2 * width))
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.third = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.out = _quiet(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, scores: Tensor, token: Tensor) -> Tensor:
        """Return the residual logits."""
        place: Tensor = self.place  # type: ignore[assignment]
        x = torch.cat([4 * scores, place.expand(len(scores), -1, -1, -1)], dim=1)
        gain, shift = self.steer(token)[..., None, None].chunk(2, dim=1)
        x = F.relu(self.first(x) * (1 + gain) + shift)
        x = x + F.relu(self.second(x))
        x = x + F.relu(self.third(x))
        return self.out(x)[:, 0]


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


class Interact(nn.Module):
    """Points of one clip look at each other; near ones more easily. (B, N, D), (B, N, 2) cells -> (B, N, D)."""

    def __init__(self, token: int) -> None:
        super().__init__()
        self.query = nn.Linear(token, token)
        self.key = nn.Linear(token, token)
        self.value = nn.Linear(token + 4, token)
        self.out = _quiet(nn.Linear(token, token))
        self.slope = nn.Parameter(torch.tensor([0.5, 1.0, 2.0, 4.0]).log())

    def forward(self, token: Tensor, xy: Tensor, motion: Tensor, active: Tensor) -> Tensor:
        """``motion`` (B, N, 4), ``active`` (B, N) bool."""
        b, n, d = token.shape

        def split(x: Tensor) -> Tensor:
            return x.view(b, n, 4, d // 4).transpose(1, 2)

        apart = torch.cdist(xy, xy)[:, None] / 16
        score = split(self.query(token)) @ split(self.key(token)).transpose(2, 3) * (d // 4) ** -0.5
        score = score - self.slope.exp()[None, :, None, None] * apart
        score = score.masked_fill(~active[:, None, None, :], -1e4)
        y = score.softmax(-1) @ split(self.value(torch.cat([token, motion], -1)))
        return token + self.out(y.transpose(1, 2).reshape(b, n, d))

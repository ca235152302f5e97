"""Small stand-ins shared by the tests."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ptrack.models.base import StepOutput

SPEED = torch.tensor([1.0, 0.5])  # pixels per frame at the frame's own scale


@dataclass(frozen=True)
class DriftState:
    xy: Tensor
    age: Tensor
    total: float = 0.0  # of all frames seen, so that the state depends on the past


class DriftModel:
    """Moves every point by a fixed step per frame; visibility falls with age; counts its calls."""

    name = "drift"
    threshold = 0.5
    support_grid = 0
    memory = None

    def __init__(self, batch: int = 1) -> None:
        self.batch, self.encoded, self.stepped = batch, [], 0

    @property
    def encode_batch(self) -> int:
        return self.batch

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def encode(self, frames: Tensor) -> list[float]:
        self.encoded.append(len(frames))
        return [float(f.float().mean()) for f in frames]

    def init_state(self) -> DriftState:
        return DriftState(torch.zeros(0, 2), torch.zeros(0))

    def add(self, state: DriftState, features: float, xy: Tensor) -> DriftState:
        return replace(state, xy=torch.cat([state.xy, xy - SPEED]), age=torch.cat([state.age, torch.zeros(len(xy))]))

    def keep(self, state: DriftState, index: Tensor) -> DriftState:
        return replace(state, xy=state.xy[index], age=state.age[index])

    def step(self, state: DriftState, features: float) -> tuple[DriftState, StepOutput]:
        self.stepped += 1
        state = DriftState(state.xy + SPEED, state.age + 1, state.total + features)
        return state, StepOutput(state.xy.clone(), 1 / (1 + state.age / 8), torch.full_like(state.age, 0.25))


def moving_frames(count: int, size: tuple[int, int] = (48, 64), seed: int = 0) -> np.ndarray:
    """(T, H, W, 3) uint8: one smooth random texture that moves by (1, 0.5) pixels per frame."""
    rng = np.random.default_rng(seed)
    h, w = size
    big = rng.random((h // 4 + count, w // 4 + count, 3)).astype(np.float32)
    texture = torch.nn.functional.interpolate(
        torch.from_numpy(big).permute(2, 0, 1)[None], scale_factor=4, mode="bicubic"
    )[0].clamp(0, 1)
    frames = []
    for t in range(count):
        theta = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]])
        grid = torch.nn.functional.affine_grid(theta, [1, 3, h, w], align_corners=False)
        x = (grid[..., 0] + 1) * w / 2 - t + count
        y = (grid[..., 1] + 1) * h / 2 - t / 2 + count
        big_h, big_w = texture.shape[-2:]
        where = torch.stack([x / big_w * 2 - 1, y / big_h * 2 - 1], -1)
        frames.append(torch.nn.functional.grid_sample(texture[None], where, align_corners=False)[0])
    return (torch.stack(frames).permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()

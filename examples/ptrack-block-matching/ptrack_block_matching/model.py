"""The tracker: N points, blocks of B pixels a side, a window of V places a side."""

import torch
from torch import Tensor

from ptrack.models.base import StepOutput
from ptrack.models.entry import LoadedModel, LoadRequest

HALF = 4  # of a block's side, in pixels


class BlockMatching:
    """An ``OnlineModel``. Its state is a dictionary of tensors, so that ``ptrack track --resume`` can save it."""

    name = "block-matching"
    threshold = 0.5  # a correlation of that and more counts as visible
    support_grid = 0  # no extra points
    memory = None
    encode_batch = 1
    device = torch.device("cpu")

    def __init__(self, radius: int) -> None:
        self.radius = radius

    def encode(self, frames: Tensor) -> list[Tensor]:
        return list(frames.float().mean(-1))  # B grey pictures (H, W)

    def init_state(self) -> dict[str, Tensor]:
        return {"xy": torch.zeros(0, 2), "block": torch.zeros(0, (2 * HALF + 1) ** 2)}

    def add(self, state: dict[str, Tensor], features: Tensor, xy: Tensor) -> dict[str, Tensor]:
        new = {"xy": xy.float(), "block": standardised(crop(features, xy, HALF).flatten(1))}
        return {name: torch.cat([state[name], new[name]]) for name in state}

    def keep(self, state: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
        return {name: value[index] for name, value in state.items()}

    def step(self, state: dict[str, Tensor], features: Tensor) -> tuple[dict[str, Tensor], StepOutput]:
        side, size = 2 * self.radius + 1, 2 * HALF + 1
        window = crop(features, state["xy"], self.radius + HALF)
        blocks = window.unfold(1, size, 1).unfold(2, size, 1).reshape(len(window), side * side, size * size)
        score, place = (standardised(blocks) @ state["block"][..., None])[..., 0].max(dim=1)
        move = torch.stack([place % side, place // side], dim=1) - self.radius
        xy, sure = state["xy"] + move, score.clamp(0, 1)
        return {**state, "xy": xy}, StepOutput(xy, visibility=sure, confidence=sure)


def crop(picture: Tensor, xy: Tensor, half: int) -> Tensor:
    """Return the pixels around (N, 2) points: (N, 2 half + 1, 2 half + 1); those of the border are repeated."""
    steps = torch.arange(-half, half + 1)
    x = (xy[:, :1].floor().long() + steps).clamp(0, picture.shape[1] - 1)
    y = (xy[:, 1:].floor().long() + steps).clamp(0, picture.shape[0] - 1)
    return picture[y[:, :, None], x[:, None, :]]


def standardised(blocks: Tensor) -> Tensor:
    """Take the mean off (..., B * B) and divide by the length: products of blocks become correlations."""
    blocks = blocks - blocks.mean(-1, keepdim=True)
    return blocks / blocks.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def build(request: LoadRequest) -> LoadedModel:
    return LoadedModel(model=BlockMatching(int(request.options.get("radius", 12))))

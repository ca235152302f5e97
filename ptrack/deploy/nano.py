"""nano and ``matching`` as graphs. Features and state are what the model's dataclasses hold: nothing is named twice.

Letters: N points of the state, M points that join, H W pixels of a frame.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import GetAttrKey, tree_flatten, tree_flatten_with_path, tree_unflatten

from ptrack.deploy.graphs import Axes, Graphs, GraphTensor
from ptrack.errors import ModelError
from ptrack.models.nano.consensus import Consensus
from ptrack.models.nano.model import Nano
from ptrack.models.nano.state import NanoFeatures, NanoState

START = {"previous": "map", "grey": "grey"}  # of the state that belongs to no point: the feature it starts as
LARGER = (21, 5)  # the frames that are traced are larger than the input by so much: their size is equal to nothing else


def _named(tree: Any) -> dict[str, Tensor]:
    """Return the tensors of a registered dataclass by their dotted names."""
    paths, _ = tree_flatten_with_path(tree)
    return {
        ".".join(cast(GetAttrKey, key).name for key in path): leaf for path, leaf in paths if isinstance(leaf, Tensor)
    }


class NanoEncoder(nn.Module):
    """A frame to its features."""

    def __init__(self, model: Nano) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """(1, H, W, 3) uint8 -> features."""
        return tuple(_named(self.model.features(frame)).values())


class NanoStep(nn.Module):
    """One frame of tracking; points that join are found where they are given."""

    def __init__(self, model: Nano, features: tuple[str, ...], layout: Any) -> None:
        super().__init__()
        self.model, self.features, self.layout = model, features, layout

    def forward(self, frame: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Frame, features, (M, 2) pixels of points that join, state -> positions, probabilities, state."""
        count = len(self.features)
        seen = dict(zip(self.features, tensors[:count], strict=True))
        features = NanoFeatures(**seen, size=(frame.shape[1], frame.shape[2]))
        state: NanoState = tree_unflatten(list(tensors[count + 1 :]), self.layout)
        state, out = self.model.step(self.model.add(state, features, tensors[count]), features)
        # Copied: an output that is an input would take its name.
        return out.xy, out.visibility, out.confidence, *(x.clone() for x in tree_flatten(state)[0])


def graphs(model: Nano | Consensus) -> Graphs:
    """Take nano apart. It tracks two frames, so that nothing is made for the first time while it is traced.

    Raises:
        ModelError: several sizes at once, of which no adapter exists.
    """
    if not isinstance(model, Nano):
        raise ModelError("nano at --quality best is several sizes at once and cannot be exported; use default or fast.")
    size = [n + more for n, more in zip(model.config.input_size, LARGER, strict=True)]
    frames = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    points = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.6, 0.6], [0.9, 0.9], [0.5, 0.1]]) * torch.tensor(size[::-1])
    features = [model.features(frame[None]) for frame in frames]
    state = model.add(model.init_state(), features[0], points)
    for each in features:
        state, _ = model.step(state, each)
    seen = _named(features[0])
    held = {name: x.clone() for name, x in _named(state).items()}  # a tensor that stands for two would be one input
    return Graphs(
        encoder=NanoEncoder(model),
        step=NanoStep(model, tuple(seen), tree_flatten(state)[1]),
        frame=frames[:1],
        features=tuple(GraphTensor(name=name, axes=_axes(name, x), example=x) for name, x in seen.items()),
        state=tuple(_state(name, x) for name, x in held.items()),
    )


def _axes(name: str, x: Tensor) -> Axes:
    """Return the axes of what belongs to a frame, not to its points."""
    return (1, "H", "W") if name == "grey" and x.numel() else tuple(x.shape)


def _state(name: str, x: Tensor) -> GraphTensor:
    if name.startswith("points."):
        return GraphTensor(name=name.removeprefix("points."), axes=("N", *x.shape[1:]), example=x)
    return GraphTensor(name=name, axes=_axes(name, x), example=x, first=START[name])

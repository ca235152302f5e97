"""Track-On2 as graphs. Its ring of remembered tokens becomes a list, newest last, that grows up to M frames.

Letters: N points of the state, M points that join, H W pixels of a frame, S remembered frames, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptrack import geometry
from ptrack.deploy.graphs import Graphs, GraphTensor
from ptrack.models.online.model import OnlineFeatures, TrackOn2

SIZE = (245, 331)  # (H, W) of the frames that are traced: equal to nothing else
POINTS, REMEMBERED = 5, 3  # N and S of the state that is traced


class OnlineEncoder(nn.Module):
    """A frame to its features."""

    def __init__(self, model: TrackOn2) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """(1, H, W, 3) uint8 -> fused map, tokens and correlation volume."""
        features = self.model.features(frame)
        return features.fused, features.tokens, features.volume


class OnlineStep(nn.Module):
    """One frame of tracking."""

    def __init__(self, model: TrackOn2) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        frame: Tensor,
        fused: Tensor,
        tokens: Tensor,
        volume: Tensor,
        new: Tensor,
        init: Tensor,
        remembered: Tensor,
        filled: Tensor,
    ) -> tuple[Tensor, ...]:
        """Frame, features, (M, 2) pixels of points that join, (N, D), (N, S, D), (N,) int64 -> all of them, renewed."""
        model, joined = self.model, new.shape[0]
        features = OnlineFeatures(fused, tokens, volume, (frame.shape[1], frame.shape[2]))
        init = torch.cat([init, model.sample(features, new[None])[0]])
        past = torch.cat([remembered, remembered.new_zeros(joined, remembered.shape[1], remembered.shape[2])])
        filled = torch.cat([filled, filled.new_zeros(joined)])
        age = torch.arange(past.shape[1], device=past.device).flip(0)  # 0: the previous frame
        times = model.t_embedding[0]
        time = torch.cat([times[model.memory - 1 - age], times[-1:]])
        out = model.arithmetic(features, init[None], past[None], time, age >= filled[None, :, None])
        xy = geometry.rescale(out.xy[0], model.config.input_size, features.size)
        visibility, confidence = out.visibility_logit[0].sigmoid(), (-out.uncertainty_logit[0]).sigmoid()
        past = torch.cat([past, out.query[0][:, None]], dim=1)
        return xy, visibility, confidence, init, past, (filled + 1).clamp(max=model.memory)


def graphs(model: TrackOn2) -> Graphs:
    """Take Track-On2 apart."""
    frame = torch.randint(0, 256, (1, *SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = model.features(frame)
    dim = model.config.dim
    init, past = torch.randn(POINTS, dim), torch.randn(POINTS, REMEMBERED, dim)
    filled = torch.full((POINTS,), REMEMBERED)
    step = OnlineStep(model)
    seen = {"fused": features.fused, "tokens": features.tokens, "volume": features.volume}
    step(
        frame, *seen.values(), torch.rand(2, 2) * 200, init, past, filled
    )  # what is cached is made before it is traced
    return Graphs(
        encoder=OnlineEncoder(model),
        step=step,
        frame=frame,
        features=tuple(GraphTensor(name=name, axes=tuple(x.shape), example=x) for name, x in seen.items()),
        state=(
            GraphTensor(name="init", axes=("N", dim), example=init),
            GraphTensor(name="remembered", axes=("N", "S", dim), example=past, most=model.memory),
            GraphTensor(name="filled", axes=("N",), example=filled),
        ),
    )

"""A model together with its losses, behind one face, so that the loop knows neither.

Letters: B clips, T frames, N points, H W pixels of the batch's frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ptrack import geometry
from ptrack.data.samples import TrainingBatch
from ptrack.errors import ConfigError
from ptrack.training import losses
from ptrack.training.config import TrainConfig, arch_of
from ptrack.training.losses import Counts, Targets, Terms

if TYPE_CHECKING:
    from ptrack.models.offline.model import WindowOutputs


@dataclass(frozen=True)
class Prediction:
    """What a model says about a batch, in pixels of its frames."""

    xy: Tensor  # (B, T, N, 2)
    visibility: Tensor  # (B, T, N) probability


class System(nn.Module):
    """What the loop trains: forward gives loss terms, ``predict`` gives tracks."""

    model: nn.Module
    size: tuple[int, int]  # (H, W) of the model's input

    def targets(self, batch: TrainingBatch) -> Targets:
        """Return the truth in pixels of the model's input."""
        given = (batch.frames.shape[2], batch.frames.shape[3])
        xy = geometry.rescale(batch.tracks, given, self.size)
        return Targets(xy, batch.visibility, batch.valid, batch.query_time)

    def forward(self, batch: TrainingBatch, targets: Targets, counts: Counts, seed: int) -> Terms:
        """Return the loss terms of a batch, each a scalar that sums to the loss.

        Args:
            batch: the clips.
            targets: of :meth:`targets`.
            counts: what the terms are averaged over (all parts of the step together).
            seed: decides random choices that must be the same on every process.
        """
        raise NotImplementedError

    def predict(self, batch: TrainingBatch) -> Prediction:
        """Track the batch's queries as inference does."""
        raise NotImplementedError

    def attention(self, batch: TrainingBatch) -> WindowOutputs | None:
        """Return the first window with its attention maps, or None for a model that has none to show."""
        return None


class TransformerSystem(System):
    """The offline transformer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.size = model.config.input_size  # type: ignore[union-attr, assignment]

    def forward(self, batch: TrainingBatch, targets: Targets, counts: Counts, seed: int) -> Terms:
        """Half of the steps use the plan of inference, half a random one (see ``random_windows``)."""
        from ptrack.models.offline.model import plan_windows, random_windows

        T, window = batch.frames.shape[1], self.model.config.window  # type: ignore[union-attr]
        generator = torch.Generator().manual_seed(seed)
        plain = bool(torch.rand((), generator=generator) < 0.5)
        plan = plan_windows(T, window) if plain else random_windows(T, window, generator)  # type: ignore[arg-type]
        out = self.model(batch.frames, batch.queries, windows=plan)
        total: Terms = {}
        for part in out.windows:
            total = losses.add_terms(total, losses.transformer_window(part, targets, counts, self.size))
        total = {name: value / len(plan) for name, value in total.items()}
        own = [t[:, :, t.shape[2] // 2] for t in out.points.templates]  # the cell of the query itself
        total["matching"] = losses.transformer_matching(out.maps, own, targets, counts, self.size)
        return total

    @torch.no_grad()
    def predict(self, batch: TrainingBatch) -> Prediction:
        """Track with overlapping windows."""
        out = self.model(batch.frames, batch.queries)
        return Prediction(out.xy.float(), out.visibility.float())

    @torch.no_grad()
    def attention(self, batch: TrainingBatch) -> WindowOutputs:
        """Return the first window with its attention maps."""
        out = self.model(batch.frames, batch.queries, attention=True)
        return out.windows[0]


class OnlineSystem(System):
    """Track-On2.

    Args:
        model: the network.
        checkpoint: recompute every frame in the backward pass; the correlation maps of a clip never exist at once.
    """

    def __init__(self, model: nn.Module, checkpoint: bool = True) -> None:
        super().__init__()
        self.model = model
        self.size = model.config.input_size  # type: ignore[union-attr, assignment]
        self.checkpoint = checkpoint

    def forward(self, batch: TrainingBatch, targets: Targets, counts: Counts, seed: int) -> Terms:
        """All seven losses, frame by frame."""
        stride = self.model.config.strides[0]  # type: ignore[union-attr, index]

        def reduce(t: int, out: losses.FrameOutputs) -> Terms:
            return losses.track_on2_frame(out, targets, t, counts, self.size, stride)  # type: ignore[arg-type]

        total: Terms = {}
        for terms in self.model(batch.frames, batch.queries, reduce, checkpoint=self.checkpoint):
            total = losses.add_terms(total, terms)
        return total

    @torch.no_grad()
    def predict(self, batch: TrainingBatch) -> Prediction:
        """Track frame by frame, as in a stream, without a support grid."""

        def reduce(_: int, out: Any) -> tuple[Tensor, Tensor]:
            return out.xy, out.visibility_logit.sigmoid()

        frames = self.model(batch.frames, batch.queries, reduce)
        xy = torch.stack([f[0] for f in frames], dim=1)
        given = (batch.frames.shape[2], batch.frames.shape[3])
        return Prediction(geometry.rescale(xy.float(), self.size, given), torch.stack([f[1] for f in frames], dim=1))


def build_transformer(config: TrainConfig) -> System:
    """Return the offline transformer, its backbone filled with ImageNet weights if ``pretrained``.

    Raises:
        ConfigError: no ``pretrained``, but a backbone that is never trained.
        CheckpointError: the weights are not there and cannot be fetched.
    """
    from ptrack.models.backbones.encoders import LITE
    from ptrack.models.offline.model import PointTransformer

    model = PointTransformer(arch_of(config))
    if model.config.backbone == LITE and not config.pretrained:
        raise ConfigError(f"The backbone {LITE} always has its packaged ImageNet weights; leave out --no-pretrained.")
    if config.pretrained and config.init_from is None:
        model.pyramid.load_imagenet()
    return TransformerSystem(model)


def build_online(config: TrainConfig) -> System:
    """Return Track-On2, its backbone filled with published weights if ``pretrained``."""
    from ptrack.models.online.model import TrackOn2

    model = TrackOn2(arch_of(config), checkpoint=config.checkpoint)
    if config.pretrained and config.init_from is None:
        from ptrack.training.weights import fill_backbone

        fill_backbone(model)
    return OnlineSystem(model, checkpoint=config.checkpoint)


def build_nano(config: TrainConfig) -> System:
    """Return nano as it is before training: the patch matcher."""
    from ptrack.models.nano.weights import untrained
    from ptrack.training.nano import NanoSystem

    return NanoSystem(untrained(arch_of(config)))


BUILDERS: dict[str, Callable[[TrainConfig], System]] = {
    "transformer": build_transformer,
    "online": build_online,
    "nano": build_nano,
}


def build(config: TrainConfig) -> System:
    """Return the untrained system of a configuration (its initialisation uses torch's global generator)."""
    return BUILDERS[config.model](config)

"""A model together with its losses: what the training loop works on without knowing which model it is.

Letters: B clips, T frames, N points, H W pixels of the batch's frames.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from ptrack import geometry
from ptrack.data.samples import TrainingBatch
from ptrack.errors import CheckpointError
from ptrack.training.losses import Counts, Targets, Terms

if TYPE_CHECKING:
    from ptrack.models.base import OnlineModel
    from ptrack.models.offline.model import WindowOutputs

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class PredictedTracks:
    """Tracks of a batch, in pixels of its frames."""

    xy: Tensor  # (B, T, N, 2)
    visibility: Tensor  # (B, T, N) probability


class System(nn.Module, Generic[M]):
    """What the loop trains: forward gives loss terms, ``predict`` gives tracks.

    Args:
        model: the network.
        size: (H, W) of its input.
        threshold: visibility probability from which a point counts as visible.
    """

    model: M
    capturable: ClassVar[bool] = False  # forward and backward may be replayed as one CUDA graph

    def __init__(self, model: M, size: tuple[int, int], threshold: float) -> None:
        super().__init__()
        self.model, self.size, self.threshold = model, size, threshold

    def targets(self, batch: TrainingBatch) -> Targets:
        """Return the truth in pixels of the model's input."""
        xy = geometry.rescale(batch.tracks, batch.size, self.size)
        return Targets(xy, batch.visibility, batch.valid, batch.query_time)

    @abstractmethod
    def forward(self, batch: TrainingBatch, targets: Targets, counts: Counts, seed: int) -> Terms:
        """Return the loss terms of a batch, each a scalar that sums to the loss.

        Args:
            batch: the clips.
            targets: of :meth:`targets`.
            counts: what the terms are averaged over (all parts of the step together).
            seed: decides random choices that must be the same on every process.
        """

    @abstractmethod
    def predict(self, batch: TrainingBatch) -> PredictedTracks:
        """Track the batch's queries as inference does."""

    @abstractmethod
    def tracker(self) -> OnlineModel:
        """Return the model as inference uses it, sharing its weights."""

    @abstractmethod
    def export(self, path: Path) -> None:
        """Write the weights for inference; the file appears when whole.

        Raises:
            OutputError: it cannot be written.
        """

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Be in evaluation mode inside; the mode is restored."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def attention(self, batch: TrainingBatch) -> WindowOutputs | None:
        """Return the first window with its attention maps, or None for a model that has none to show."""
        return None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what is trained: groups of ``params`` and their ``share`` of the learning rate."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "share": 1.0}]

    def renewed(self) -> Mapping[str, Tensor]:
        """Return tensors that another run has renewed since the last call, by their names in the model."""
        return {}

    def start_from(self, state: Mapping[str, Tensor], where: str) -> None:
        """Load weights to start from.

        Raises:
            CheckpointError: of another architecture; names and shapes that differ are listed.
        """
        own = self.model.state_dict()
        wrong = [
            f"{k} is {tuple(v.shape)} not {tuple(own[k].shape)}"
            for k, v in state.items()
            if k in own and own[k].shape != v.shape
        ]
        missing = [f"missing {k}" for k in own if k not in state]
        extra = [f"unexpected {k}" for k in state if k not in own]
        problems = missing + extra + wrong
        if problems:
            more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise CheckpointError(
                f"The weights of {where} are of another architecture: {'; '.join(problems[:5])}{more}. Train the same "
                "one (--config or --set arch.KEY=VALUE), or start without --init-from."
            )
        self.model.load_state_dict(dict(state))

"""What is evaluated: models that track, and folders of tracks that others made.

Letters: T frames, Q queries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from typing import Protocol as Interface

import numpy as np

from ptrack import geometry
from ptrack._version import __version__
from ptrack.config import to_mapping
from ptrack.data.clips import Clip
from ptrack.errors import ConfigError, DataError, Interrupted, ModelError
from ptrack.evaluation.clips import ClipSource
from ptrack.evaluation.predictions import Prediction, load_prediction
from ptrack.evaluation.protocols import RASTER, Case, Protocol
from ptrack.processes import Group
from ptrack.signals import StopRequest
from ptrack.tracks import Queries

if TYPE_CHECKING:
    import torch

    from ptrack.tracking.tracker import Tracker

T = TypeVar("T")
RESULT_VERSION = 3  # of the per-video results; another number makes older ones be computed again


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """What to evaluate."""

    benchmark: str  # name of a protocol
    data: str | Path  # original files or a clip store; empty: see ``open_clips``
    models: tuple[str, ...] = ()  # names as in ``ptrack models``
    checkpoints: tuple[Path, ...] = ()  # for the models that take one, in their order
    predictions: tuple[Path, ...] = ()  # folders of predicted tracks, evaluated beside the models
    mode: str = "first"  # query mode
    videos: tuple[str, ...] = ()  # names or patterns; all by default
    limit: int | None = None  # only the first so many videos
    batch: int | None = None  # frames per encoder call; the model's choice by default, results do not depend on it
    quality: str | None = None  # fast, default or best, for the models that have it
    memory: int | None = None  # memory slots; the protocol's by default
    support_grid: int | None = None  # the model's by default
    options: dict[str, Any] = field(default_factory=dict)  # further options of the models
    device: str = "auto"
    dtype: str = "auto"
    threshold: float | None = None  # visibility probability; the model's by default
    workers: int | None = None  # processes, each with its own model; None: this one
    retries: int = 1  # further tries of a video after its worker died or took too long
    timeout: float | None = None  # seconds for one video
    run_dir: Path | None = None  # folder of the per-video results; None: nothing is kept
    recompute: bool = False  # ignore results of earlier runs
    save: Path | None = None  # folder for predicted tracks

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers {self.workers}: give 1 or more.")


class Subject(Interface):
    """Something that predicts tracks for a case."""

    name: str
    settings: dict[str, Any]

    @property
    def device(self) -> torch.device | None:
        """Where it tracks; None: it reads stored tracks, and the time that takes is no speed."""
        ...

    def predict(self, clip: Clip, case: Case, file: str) -> Prediction:
        """Return the prediction; raises a PTrackError if there is none."""
        ...


@dataclass
class TrackerSubject:
    """A model from the zoo."""

    name: str
    tracker: Tracker
    settings: dict[str, Any]
    protocol: Protocol
    mode: str
    batch: int | None
    threshold: float
    stop: StopRequest | None = None  # looked at between frames

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.tracker.model.device

    def predict(self, clip: Clip, case: Case, file: str) -> Prediction:
        """Track the queries of the case; backwards too where the query mode scores frames before the query."""
        size = self._size(case)
        source = ClipSource(clip, size, case.frames, self.protocol.resampling)
        xy = geometry.rescale(case.queries[:, 1:], case.size, size)
        queries = np.column_stack([case.queries[:, 0], xy])
        tracks, visibility = run_tracker(self.tracker, source, queries, self.mode == "strided", self.batch, self.stop)
        return Prediction(geometry.rescale(tracks, size, case.size), visibility, self.threshold)

    def _size(self, case: Case) -> tuple[int, int]:
        """(H, W) of the frames: the protocol's, except where a model was published with others than TAP-Vid's."""
        from ptrack.models.base import OwnFrameSize

        model = self.tracker.model
        return model.frame_size if isinstance(model, OwnFrameSize) and self.protocol.size == RASTER else case.size


@dataclass
class FolderSubject:
    """Predicted tracks in a folder."""

    name: str
    folder: Path
    settings: dict[str, Any]
    threshold: float
    device: torch.device | None = None

    def predict(self, clip: Clip, case: Case, file: str) -> Prediction:
        """Read the prediction of a video."""
        return load_prediction(self.folder / f"{file}.npz", case, self.threshold)


def run_tracker(
    tracker: Tracker,
    source: ClipSource,
    queries: np.ndarray,
    backward: bool,
    batch: int | None = None,
    stop: StopRequest | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Track (Q, 3) queries through a source: (T, Q, 2) positions and (T, Q) visibility probabilities.

    Queries may lie outside the frame, as some protocols want. Before its query a point is NaN, unless ``backward``.

    Raises:
        Interrupted: a signal came to ``stop``.
    """
    from ptrack.tracking.stream import backward_rows, stream_rows
    from ptrack.video.prefetch import PrefetchedFrames

    points = Queries(queries)
    tracker.reset((source.info.height, source.info.width))
    tracker.add(points, check_inside=False)
    rows = [row.result for row in _until(stop, stream_rows(tracker, PrefetchedFrames(source), batch))]
    xy = np.stack([row.positions for row in rows])
    visibility = np.stack([row.visibility for row in rows])
    if backward:
        for at, chosen, result in _until(stop, backward_rows(tracker, source, points, len(rows))):
            xy[at, chosen], visibility[at, chosen] = result.positions[chosen], result.visibility[chosen]
    return xy, visibility


def _until(stop: StopRequest | None, rows: Iterable[T]) -> Iterator[T]:
    for row in rows:
        if stop is not None and stop.signum:
            raise Interrupted("Stopped.", stop.signum)
        yield row


# --- from a request --------------------------------------------------------------------------------------------------


def open_subjects(request: EvalRequest, protocol: Protocol, group: Group) -> list[Callable[[], Subject]]:
    """Return one function per model that loads it; names and files are checked now, before anything is tracked."""
    from ptrack.models.zoo import find

    waiting = list(request.checkpoints)
    made: list[Callable[[], Subject]] = []
    for name in request.models:
        takes = find(name).takes_checkpoint
        checkpoint = waiting.pop(0) if takes and waiting else None
        made.append(lambda n=name, c=checkpoint: _load(request, protocol, group, n, c))
    if waiting:
        raise ModelError(f"There are more checkpoints than models that take one; {waiting[0]} is left over.")
    for folder in request.predictions:
        if not folder.is_dir():
            raise DataError(f"There is no folder of predictions {folder}.")
        made.append(lambda f=folder: _from_folder(request, protocol, f))
    return made


def _load(request: EvalRequest, protocol: Protocol, group: Group, name: str, checkpoint: Path | None) -> TrackerSubject:
    from ptrack.models.zoo import find
    from ptrack.tracking.load import load

    memory = protocol.memory if request.memory is None else request.memory
    asked = {"memory": memory, "quality": request.quality}
    options = dict(request.options) | {k: v for k, v in asked.items() if k in find(name).options and v is not None}
    tracker = load(
        name,
        checkpoint=checkpoint,
        device=group.device(request.device),
        dtype=request.dtype,
        support_grid=request.support_grid,
        **options,
    )
    threshold = tracker.model.threshold if request.threshold is None else request.threshold
    settings = _settings(protocol, request.mode) | {
        "model": name,
        "weights_sha256": tracker.weights_sha256,
        "options": options,
        "support_grid": tracker.support_grid,
        "dtype": request.dtype,
        "device": tracker.model.device.type,
        "threshold": threshold,
    }
    label = name if request.models.count(name) == 1 or checkpoint is None else f"{name} ({checkpoint.stem})"
    return TrackerSubject(label, tracker, settings, protocol, request.mode, request.batch, threshold)


def _from_folder(request: EvalRequest, protocol: Protocol, folder: Path) -> FolderSubject:
    threshold = 0.5 if request.threshold is None else request.threshold
    stamps = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.glob("*.npz"))
    settings = _settings(protocol, request.mode) | {
        "predictions": str(folder.resolve()),
        "content": hashlib.sha256(repr(stamps).encode()).hexdigest(),
        "threshold": threshold,
    }
    return FolderSubject(f"predictions {folder.name}", folder, settings, threshold)


def _settings(protocol: Protocol, mode: str) -> dict[str, Any]:
    return {"version": RESULT_VERSION, "ptrack": __version__, "protocol": to_mapping(protocol), "mode": mode}

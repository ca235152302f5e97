"""The evaluation itself: load a video, pose it, track it, score it, remember the result, go on.

Letters: T frames, Q queries.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

import numpy as np

from ptrack import geometry
from ptrack._version import __version__
from ptrack.config import to_mapping
from ptrack.data.clips import Clip
from ptrack.errors import DataError, Interrupted, ModelError, OutputError, PTrackError
from ptrack.evaluation import metrics, results
from ptrack.evaluation.clips import ClipRow, ClipSource, choose, content_key, file_names, open_clips
from ptrack.evaluation.predictions import Prediction, load_prediction, save_prediction
from ptrack.evaluation.protocols import RASTER, Case, Protocol, Skip, check_mode, find_protocol
from ptrack.evaluation.results import ModelResult, Report, VideoResult
from ptrack.fileio import atomic_path
from ptrack.memory import MemoryMeter
from ptrack.processes import Group, joined
from ptrack.tracks import Queries

if TYPE_CHECKING:
    from ptrack.tracking.tracker import Tracker

PATIENCE = timedelta(days=2)  # processes may differ by hours; torch's 30 minutes would end the faster ones
RESULT_VERSION = 2  # of the per-video files; another number makes older ones be computed again


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
    run: Path | None = None  # folder of the per-video results; None: nothing is kept
    fresh: bool = False  # ignore results of earlier runs
    save: Path | None = None  # folder for predicted tracks


@dataclass(frozen=True)
class Step:
    """One finished video, for progress."""

    model: str
    done: int  # of this process
    total: int
    result: VideoResult
    mean: dict[str, float]  # of the finished videos


class Subject(Interface):
    """Something that predicts tracks for a case."""

    name: str
    settings: dict[str, Any]
    tracks: bool  # predicting means tracking, and the time it takes is the tracker's speed

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
    tracks: bool = True

    def predict(self, clip: Clip, case: Case, file: str) -> Prediction:
        """Track the queries of the case; backwards too where the query mode scores frames before the query."""
        size = self._size(case)
        source = ClipSource(clip, size, case.frames, self.protocol.resampling)
        xy = geometry.rescale(case.queries[:, 1:], case.size, size)
        queries = np.column_stack([case.queries[:, 0], xy])
        tracks, visibility = run_tracker(self.tracker, source, queries, self.mode == "strided", self.batch)
        return Prediction(geometry.rescale(tracks, size, case.size), visibility, self.threshold)

    def _size(self, case: Case) -> tuple[int, int]:
        """(H, W) of the frames: the protocol's, except where a model was published with others than TAP-Vid's."""
        own = getattr(self.tracker.model, "frame_size", None)
        return own if own is not None and self.protocol.size == RASTER else case.size


@dataclass
class FolderSubject:
    """Predicted tracks in a folder."""

    name: str
    folder: Path
    settings: dict[str, Any]
    threshold: float
    tracks: bool = False

    def predict(self, clip: Clip, case: Case, file: str) -> Prediction:
        """Read the prediction of a video."""
        return load_prediction(self.folder / f"{file}.npz", case, self.threshold)


def run_tracker(
    tracker: Tracker, source: ClipSource, queries: np.ndarray, backward: bool, batch: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Track (Q, 3) queries through a source: (T, Q, 2) positions and (T, Q) visibility probabilities.

    Queries may lie outside the frame, as some protocols want. Before its query a point is NaN, unless ``backward``.
    """
    from ptrack.tracking.stream import backward_rows, stream_rows
    from ptrack.video.prefetch import PrefetchedFrames

    points = Queries(queries)
    tracker.reset((source.info.height, source.info.width))
    tracker.add(points, check_inside=False)
    rows = [row.result for row in stream_rows(tracker, PrefetchedFrames(source), batch)]
    xy = np.stack([row.positions for row in rows])
    visibility = np.stack([row.visibility for row in rows])
    if backward:
        for at, chosen, result in backward_rows(tracker, source, points, len(rows)):
            xy[at, chosen], visibility[at, chosen] = result.positions[chosen], result.visibility[chosen]
    return xy, visibility


# --- one video -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Scored:
    """A video's result and what it was made from."""

    result: VideoResult
    case: Case
    prediction: Prediction


def evaluate_clip(subject: Subject, protocol: Protocol, mode: str, clip: Clip, row: ClipRow, file: str) -> Scored:
    """Evaluate one loaded clip.

    Raises:
        Skip: the protocol leaves it out.
        PTrackError: it cannot be tracked or scored.
    """
    case = protocol.case(clip, mode)
    began = time.perf_counter()
    prediction = subject.predict(clip, case, file)
    seconds = time.perf_counter() - began if subject.tracks else 0.0
    scores = results.plain_scores(protocol.score(case, prediction.tracks, prediction.visible, mode))
    scored = metrics.scored_frames(case.queries[:, 0], case.frames, mode)
    if "labelled" in case.labels:
        scored &= case.labels["labelled"][:, None]
    error = metrics.errors(prediction.tracks, case.tracks, protocol.error_scale(case))
    result = VideoResult(
        id=row.id, name=row.name, frames=case.frames, points=len(case.queries), seconds=seconds, scores=scores,
        visibility_counts=results.count_visibility(case.visible, prediction.visibility, scored),
        error_counts=results.count_errors(error[scored & case.visible]),
    )  # fmt: skip
    return Scored(result, case, prediction)


class RunFolder:
    """The per-video results of one model, each a file of its own under a name that says what it depends on.

    Args:
        root: the run folder, or None to keep nothing.
        subject: its settings are part of the names.
        fresh: do not read results of earlier runs.
    """

    def __init__(self, root: Path | None, subject: Subject, fresh: bool) -> None:
        text = json.dumps(subject.settings, sort_keys=True, default=str)
        self.fresh = fresh
        self.folder: Path | None = None
        if root is not None:
            name = "".join(c if c.isalnum() or c in "._-" else "_" for c in subject.name)
            self.folder = root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"Cannot write into the run folder {root}: {error.strerror or error}.") from error
            with atomic_path(self.folder / "settings.json") as temporary:
                temporary.write_text(json.dumps(subject.settings, indent=1, sort_keys=True, default=str))

    def path(self, file: str, key: str, suffix: str) -> Path | None:
        """Return where a video's result or prediction belongs."""
        return None if self.folder is None else self.folder / f"{file}-{key}{suffix}"

    def load(self, file: str, key: str) -> VideoResult | None:
        """Return the result of an earlier run for the same content and settings."""
        path = self.path(file, key, ".json")
        if path is None or self.fresh or not path.is_file():
            return None
        try:
            return VideoResult(**json.loads(path.read_text(encoding="utf-8")) | {"reused": True})
        except (ValueError, TypeError):
            return None  # damaged or of another version: computed again

    def save(self, file: str, key: str, scored: Scored) -> VideoResult:
        """Keep a prediction and then its result; the result's file appears only when both are whole."""
        where, path = self.path(file, key, ".npz"), self.path(file, key, ".json")
        result = scored.result
        if where is None or path is None:
            return result
        save_prediction(where, scored.prediction, scored.case)
        result = replace(result, files={"predictions": str(where)})
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(result), allow_nan=False), encoding="utf-8")
        return result


# --- all videos ------------------------------------------------------------------------------------------------------


def evaluate(request: EvalRequest, progress: Callable[[Step], None] | None = None) -> Report:
    """Evaluate models and stored predictions on a benchmark.

    Under torchrun the videos are shared between the processes and every process returns the same report.

    Raises:
        DataError: the data hold nothing of the benchmark, or no video can be scored.
        ModelError, CheckpointError, DeviceError: from loading a model.
        OutputError: the run folder cannot be written.
    """
    protocol = find_protocol(request.benchmark)
    mode = check_mode(protocol, request.mode)
    if not request.models and not request.predictions:
        raise ModelError("Name at least one model with --model, or a folder of tracks with --from-predictions.")
    rows = choose(open_clips(protocol, request.data), request.videos, request.limit)
    with joined("cpu", PATIENCE) as group:  # results travel as objects, for which no accelerator is needed
        found = []
        for subject in _subjects(request, protocol, group):
            done = _evaluate_subject(subject(), request, protocol, rows, group, progress)
            found.append(done)
    report = Report(
        protocol=protocol, mode=mode, data=str(request.data) or "held-out clips, made on the spot", models=found
    )
    _need_scores(report)
    return report


def _need_scores(report: Report) -> None:
    """Raise DataError if a model has no scored video and nothing failed: then the data are to blame."""
    for model in report.models:
        skipped = model.having(results.SKIPPED)
        if not model.having(results.OK) and not model.having(results.FAILED):
            raise DataError(
                f"{report.data} has no video that {report.protocol.title} scores: "
                f"{skipped[0].name}: {skipped[0].reason}" + (f" (and {len(skipped) - 1} more)." if skipped[1:] else ".")
            )


def _subjects(request: EvalRequest, protocol: Protocol, group: Group) -> list[Callable[[], Subject]]:
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
    from ptrack.models.zoo import find, load

    memory = protocol.memory if request.memory is None else request.memory
    asked = {"memory": memory, "quality": request.quality}
    options = dict(request.options) | {k: v for k, v in asked.items() if k in find(name).options and v is not None}
    tracker = load(
        name, checkpoint=checkpoint, device=group.device(request.device), dtype=request.dtype,
        support_grid=request.support_grid, **options,
    )  # fmt: skip
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


def _evaluate_subject(
    subject: Subject, request: EvalRequest, protocol: Protocol, rows: Sequence[ClipRow], group: Group,
    progress: Callable[[Step], None] | None,
) -> ModelResult:  # fmt: skip
    files, folder = file_names(rows), RunFolder(request.run, subject, request.fresh)
    meter = MemoryMeter(subject.tracker.model.device if isinstance(subject, TrackerSubject) else None)
    mine = group.part(rows)
    partial = ModelResult(model=subject.name, settings=subject.settings, videos=[])
    for row in mine:
        result = _evaluate_row(subject, request, protocol, row, files[row.id], folder)
        partial.videos.append(result)
        if progress is not None:
            progress(Step(subject.name, len(partial.videos), len(mine), result, partial.mean))
    peak = meter.peak()
    parts = group.gather((partial.videos, peak.process, peak.gpu))
    return replace(
        partial,
        videos=[video for videos, _, _ in parts for video in videos],
        peak_memory=max(p for _, p, _ in parts),
        gpu_memory=max(g for _, _, g in parts),
    )


def _evaluate_row(
    subject: Subject, request: EvalRequest, protocol: Protocol, row: ClipRow, file: str, folder: RunFolder
) -> VideoResult:
    """Evaluate one video; whatever is wrong with it becomes its result, so that the others go on."""
    try:
        clip = row.load()
        key = content_key(clip)
        result = folder.load(file, key)
        if result is None or not _saved(result, request.save):
            scored = evaluate_clip(subject, protocol, request.mode, clip, row, file)
            result = folder.save(file, key, scored)
            if request.save is not None:
                target = _save_path(request, subject, file)
                target.parent.mkdir(parents=True, exist_ok=True)
                save_prediction(target, scored.prediction, scored.case)
        elif request.save is not None:
            _copy(Path(result.files["predictions"]), _save_path(request, subject, file))
        return result
    except Skip as reason:
        return VideoResult(id=row.id, name=row.name, status=results.SKIPPED, reason=str(reason))
    except (Interrupted, OutputError):
        raise
    except (PTrackError, OSError) as error:
        return VideoResult(id=row.id, name=row.name, status=results.FAILED, reason=str(error))


def _saved(result: VideoResult, save: Path | None) -> bool:
    """Return whether an earlier result is enough: its tracks still exist if they are asked for."""
    return save is None or Path(result.files.get("predictions", "")).is_file()


def _save_path(request: EvalRequest, subject: Subject, file: str) -> Path:
    """Return where a prediction is saved: a folder per model when there are several."""
    root = request.save or Path()
    several = len(request.models) + len(request.predictions) > 1
    return root / subject.name / f"{file}.npz" if several else root / f"{file}.npz"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        temporary.write_bytes(source.read_bytes())


def running(step: Step, metric: str, percent: bool) -> str:
    """Return one line of progress: the video's score and the mean so far."""
    where = f"{step.model} {step.done}/{step.total} {step.result.name}"
    if step.result.status != results.OK:
        return f"{where}: {step.result.status}: {step.result.reason}"
    scale = 1 if percent else 100
    value, mean = step.result.scores.get(metric), step.mean.get(metric, math.nan)
    shown = "undefined" if value is None else f"{value * scale:.1f}"
    label = results.LABELS.get(metric, metric)
    speed = f", {step.result.frames / step.result.seconds:.1f} frames/s" if step.result.seconds else ""
    if step.result.reused:
        speed = ", kept"
    return f"{where}: {label} {shown} (mean {mean * scale:.1f}){speed}"

"""The evaluation itself: load a video, make its queries, track it, score it, keep the result, go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from ptrack.data.clips import Clip
from ptrack.errors import DataError, Interrupted, ModelError, OutputError, PTrackError
from ptrack.evaluation import metrics, results
from ptrack.evaluation.cache import ResultCache, ScoredVideo
from ptrack.evaluation.clips import ClipRow, choose, content_key, file_names, open_clips
from ptrack.evaluation.predictions import save_prediction
from ptrack.evaluation.protocols import Protocol, Skip, check_mode, find_protocol
from ptrack.evaluation.results import EvaluationReport, ModelResult, VideoResult
from ptrack.evaluation.subjects import EvalRequest, Subject, open_subjects
from ptrack.fileio import atomic_path
from ptrack.memory import MemoryMeter
from ptrack.processes import Group, joined

PATIENCE = timedelta(days=2)  # processes may differ by hours; torch's 30 minutes would end the faster ones


@dataclass(frozen=True)
class EvalProgress:
    """One finished video, for progress."""

    model: str
    done: int  # of this process
    total: int
    result: VideoResult
    mean: dict[str, float]  # of the finished videos


# --- all videos ------------------------------------------------------------------------------------------------------


def evaluate(request: EvalRequest, progress: Callable[[EvalProgress], None] | None = None) -> EvaluationReport:
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
        for subject in open_subjects(request, protocol, group):
            done = _evaluate_subject(subject(), request, protocol, rows, group, progress)
            found.append(done)
    report = EvaluationReport(
        protocol=protocol, mode=mode, data=str(request.data) or "held-out clips, made on the spot", models=found
    )
    _need_scores(report)
    return report


def _need_scores(report: EvaluationReport) -> None:
    """Raise DataError if a model has no scored video and nothing failed: then the data are to blame."""
    for model in report.models:
        skipped = model.having(results.SKIPPED)
        if not model.having(results.OK) and not model.having(results.FAILED):
            raise DataError(
                f"{report.data} has no video that {report.protocol.title} scores: "
                f"{skipped[0].name}: {skipped[0].reason}" + (f" (and {len(skipped) - 1} more)." if skipped[1:] else ".")
            )


def _evaluate_subject(
    subject: Subject, request: EvalRequest, protocol: Protocol, rows: Sequence[ClipRow], group: Group,
    progress: Callable[[EvalProgress], None] | None,
) -> ModelResult:  # fmt: skip
    files, cache = file_names(rows), ResultCache(request.run_dir, subject.name, subject.settings, request.recompute)
    meter = MemoryMeter(subject.device)
    mine = group.part(rows)
    partial = ModelResult(model=subject.name, settings=subject.settings, videos=[])
    for row in mine:
        result = _evaluate_row(subject, request, protocol, row, files[row.id], cache)
        partial.videos.append(result)
        if progress is not None:
            progress(EvalProgress(subject.name, len(partial.videos), len(mine), result, partial.mean))
    peak = meter.peak()
    parts = group.gather((partial.videos, peak.process, peak.gpu))
    return replace(
        partial,
        videos=[video for videos, _, _ in parts for video in videos],
        peak_memory=max(p for _, p, _ in parts),
        gpu_memory=max(g for _, _, g in parts),
    )


def _evaluate_row(
    subject: Subject, request: EvalRequest, protocol: Protocol, row: ClipRow, file: str, cache: ResultCache
) -> VideoResult:
    """Evaluate one video; whatever is wrong with it becomes its result, so that the others go on."""
    try:
        clip = row.load()
        key = content_key(clip)
        result = cache.load(file, key)
        if result is None or not _saved(result, request.save):
            scored = evaluate_clip(subject, protocol, request.mode, clip, row, file)
            result = cache.save(file, key, scored)
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


# --- one video -------------------------------------------------------------------------------------------------------


def evaluate_clip(subject: Subject, protocol: Protocol, mode: str, clip: Clip, row: ClipRow, file: str) -> ScoredVideo:
    """Evaluate one loaded clip.

    Raises:
        Skip: the protocol leaves it out.
        PTrackError: it cannot be tracked or scored.
    """
    case = protocol.case(clip, mode)
    began = time.perf_counter()
    prediction = subject.predict(clip, case, file)
    seconds = time.perf_counter() - began if subject.device is not None else 0.0
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
    return ScoredVideo(result, case, prediction)


def running(step: EvalProgress, metric: str, percent: bool) -> str:
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

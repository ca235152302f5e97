"""What an evaluation found: per video, averaged, and written as JSON, CSV or a Markdown table."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.errors import OutputError
from ptrack.evaluation.protocols import Protocol
from ptrack.evaluation.published import published
from ptrack.fileio import atomic_path

BINS = 50  # of the predicted visibility
EDGES = tuple(float(2.0 ** (k / 2)) for k in range(-8, 17))  # pixels at 256x256: 1/16 .. 256, two per octave
OK, SKIPPED, FAILED = "ok", "skipped", "failed"
FORMATS = (".json", ".csv", ".md")
LABELS = {
    "average_pts_within_thresh": "δavg", "occlusion_accuracy": "OA", "average_jaccard": "AJ", "d_avg": "δavg",
    "d_vis_avg": "δavg visible", "survival": "survival", "median_l2": "MTE px", "accuracy_vis": "δavg visible",
    "accuracy_occ": "δavg occluded", "accuracy": "δavg all", "visibility_accuracy": "OA", "reid": "re-id",
    "pck": "PCK", "below_3": "< 3 px",
}  # fmt: skip


@dataclass(kw_only=True)
class VideoResult:
    """One video under one model."""

    id: str
    name: str
    status: str = OK  # "ok", "skipped" by the protocol, or "failed"
    reason: str = ""  # why it was skipped or failed
    frames: int = 0
    points: int = 0
    seconds: float = 0.0  # of decoding and tracking; 0 for stored tracks
    scores: dict[str, float | None] = field(default_factory=dict)  # None: undefined
    visibility_counts: list[list[int]] = field(default_factory=list)  # [visible, hidden] x BINS of the prediction
    error_counts: list[int] = field(default_factory=list)  # len(EDGES) + 1 bins of errors of visible points
    files: dict[str, str] = field(default_factory=dict)  # "predictions": where they are in the run folder
    reused: bool = False  # taken from an earlier run
    peak_memory: int = 0  # bytes, of the process that evaluated it, until it was done
    gpu_memory: int = 0  # bytes


@dataclass(kw_only=True)
class ModelResult:
    """All videos under one model. Means are plain means over the videos that have the score."""

    model: str
    settings: dict[str, Any]  # what the numbers depend on
    videos: list[VideoResult]
    peak_memory: int = 0  # bytes, largest of all processes
    gpu_memory: int = 0  # bytes

    def having(self, status: str) -> list[VideoResult]:
        """Return the videos of a status, sorted by id."""
        return sorted((v for v in self.videos if v.status == status), key=lambda v: v.id)

    @property
    def mean(self) -> dict[str, float]:
        """Score -> mean. Exactly rounded sums, so the order and the number of processes do not matter."""
        values: dict[str, list[float]] = {}
        for video in self.having(OK):
            for key, value in video.scores.items():
                if value is not None:
                    values.setdefault(key, []).append(value)
        return {key: math.fsum(v) / len(v) for key, v in values.items()}

    @property
    def left_out(self) -> dict[str, int]:
        """Score -> number of scored videos for which it is undefined; only scores that some video has."""
        scored = self.having(OK)
        return {key: n for key in self.mean if (n := sum(v.scores.get(key) is None for v in scored))}

    @property
    def frames_per_second(self) -> float:
        """Frames per second of decoding and tracking, over all scored videos."""
        seconds = math.fsum(v.seconds for v in self.having(OK))
        return sum(v.frames for v in self.having(OK)) / seconds if seconds else 0.0


@dataclass(kw_only=True)
class EvaluationReport:
    """An evaluation of one or several models."""

    protocol: Protocol
    mode: str
    data: str
    models: list[ModelResult]

    @property
    def failed(self) -> int:
        """Number of videos that could not be evaluated, over all models."""
        return sum(len(m.having(FAILED)) for m in self.models)

    def percent(self, metric: str, value: float) -> float:
        """Return a score in percent; errors in pixels stay as they are."""
        return value if self.protocol.percent else 100 * value

    def to_mapping(self) -> dict[str, Any]:
        """Return everything as plain data for JSON."""
        return {
            "benchmark": self.protocol.name,
            "query_mode": self.mode,
            "data": self.data,
            "unit": "percent" if self.protocol.percent else "fraction",
            "models": [
                {
                    "model": m.model,
                    "settings": m.settings,
                    "mean": m.mean,
                    "left_out": m.left_out,
                    "videos_scored": len(m.having(OK)),
                    "videos_skipped": len(m.having(SKIPPED)),
                    "videos_failed": len(m.having(FAILED)),
                    "frames_per_second": m.frames_per_second,
                    "peak_memory_bytes": m.peak_memory,
                    "gpu_memory_bytes": m.gpu_memory,
                    "videos": [_video(v) for v in sorted(m.videos, key=lambda v: v.id)],
                }
                for m in self.models
            ],
            "published": [
                {"model": model, "source": source, "percent": values}
                for (model, source), values in published(self.protocol.name, self.mode).items()
            ],
        }


def _video(video: VideoResult) -> dict[str, Any]:
    hidden = ("visibility_counts", "error_counts", "files", "peak_memory", "gpu_memory")
    return {k: v for k, v in asdict(video).items() if k not in hidden}


def plain_scores(scores: dict[str, float]) -> dict[str, float | None]:
    """Return scores with None for NaN, as JSON needs."""
    return {key: None if math.isnan(value) else float(value) for key, value in scores.items()}


def count_visibility(visible: np.ndarray, probability: np.ndarray, mask: np.ndarray) -> list[list[int]]:
    """Count predicted probabilities in ``BINS`` equal bins, of visible and of hidden points where ``mask``."""
    bins = np.clip((probability * BINS).astype(np.int64), 0, BINS - 1)
    return [np.bincount(bins[mask & side], minlength=BINS).tolist() for side in (visible, ~visible)]


def count_errors(errors: np.ndarray) -> list[int]:
    """Count errors (pixels at 256x256) in the bins between ``EDGES``; the outer bins are open."""
    return np.bincount(np.searchsorted(EDGES, errors, side="right"), minlength=len(EDGES) + 1).tolist()


def table(report: EvaluationReport) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of the summary: measured models, then published numbers, marked as such."""
    keys = [k for k in report.protocol.headline if any(k in m.mean for m in report.models)]
    columns = ["model", *(LABELS.get(k, k) for k in keys), "videos", "frames/s", "memory MB"]
    rows = []
    for m in report.models:
        cells = [f"{report.percent(k, m.mean[k]):.2f}" if k in m.mean else "-" for k in keys]
        rate = f"{m.frames_per_second:.1f}" if m.frames_per_second else "-"
        memory = f"{(m.gpu_memory or m.peak_memory) / 1e6:.0f}" if m.peak_memory else "-"
        rows.append([m.model, *cells, str(len(m.having(OK))), rate, memory])
    for (model, source), values in published(report.protocol.name, report.mode).items():
        if any(k in values for k in keys):
            cells = [f"{values[k]:.1f}" if k in values else "-" for k in keys]
            rows.append([f"{model} (published: {source})", *cells, "", "", ""])
    return columns, rows


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join(" --- " for _ in columns) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def per_video_rows(report: EvaluationReport) -> tuple[list[str], list[list[Any]]]:
    """Return one row per model and video, and one "mean" row per model; scores unrounded."""
    keys = list(dict.fromkeys(k for m in report.models for v in m.having(OK) for k in v.scores))
    columns = ["model", "video", "status", "reason", "frames", "points", "seconds", *keys]
    rows: list[list[Any]] = []
    for m in report.models:
        for v in sorted(m.videos, key=lambda v: v.id):
            scores = ["" if v.scores.get(k) is None else repr(v.scores[k]) for k in keys]
            rows.append([m.model, v.id, v.status, v.reason, v.frames, v.points, f"{v.seconds:.3f}", *scores])
        rows.append([m.model, "mean", "", "", "", "", "", *(repr(m.mean[k]) if k in m.mean else "" for k in keys)])
    return columns, rows


def check_format(path: Path) -> Path:
    """Raise OutputError unless the file's ending is one that ``write`` knows."""
    if path.suffix not in FORMATS:
        raise OutputError(f"Results are written as {', '.join(FORMATS)}; {path.name} ends in none of them.")
    return path


def write(report: EvaluationReport, path: Path) -> None:
    """Write the report as ``.json`` (everything), ``.csv`` (per video) or ``.md`` (the summary).

    Raises:
        OutputError: another ending, or the file cannot be written.
    """
    check_format(path)
    if path.suffix == ".json":
        text = json.dumps(report.to_mapping(), indent=1, ensure_ascii=False, allow_nan=False)
    elif path.suffix == ".csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        columns, rows = per_video_rows(report)
        writer.writerows([columns, *rows])
        text = buffer.getvalue()
    else:
        text = markdown(*table(report))
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

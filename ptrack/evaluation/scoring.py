"""One video under one model: its queries are made, tracked and scored."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ptrack.data.clips import Clip
from ptrack.evaluation import metrics, results
from ptrack.evaluation.clips import ClipRow
from ptrack.evaluation.predictions import Prediction
from ptrack.evaluation.protocols import Case, Protocol
from ptrack.evaluation.results import VideoResult
from ptrack.evaluation.subjects import Subject


@dataclass(frozen=True, eq=False)
class ScoredVideo:
    """A video's result and what it was made from."""

    result: VideoResult
    case: Case
    prediction: Prediction


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
        id=row.id,
        name=row.name,
        frames=case.frames,
        points=len(case.queries),
        seconds=seconds,
        scores=scores,
        visibility_counts=results.count_visibility(case.visible, prediction.visibility, scored),
        error_counts=results.count_errors(error[scored & case.visible]),
    )
    return ScoredVideo(result, case, prediction)

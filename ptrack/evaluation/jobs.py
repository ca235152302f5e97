"""Evaluation as jobs of the batch engine: one video under one model, and what is kept of it in the run folder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptrack.batch.jobs import Job
from ptrack.batch.places import LocalPlace, Place
from ptrack.batch.work import Order, UnusableWorkerError
from ptrack.data.clips import Clip
from ptrack.errors import OutputError, PTrackError
from ptrack.evaluation import results
from ptrack.evaluation.clips import ClipRow, choose, content_key, file_names, open_clips
from ptrack.evaluation.predictions import save_prediction
from ptrack.evaluation.protocols import Skip, find_protocol
from ptrack.evaluation.results import VideoResult
from ptrack.evaluation.scoring import evaluate_clip
from ptrack.evaluation.subjects import EvalRequest, Subject, TrackerSubject, open_subjects
from ptrack.fileio import atomic_path, plain_name
from ptrack.memory import MemoryMeter
from ptrack.processes import Group
from ptrack.signals import StopRequest

if TYPE_CHECKING:
    from ptrack.evaluation.scoring import ScoredVideo


def subject_folder(root: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """Make and return the folder of one model's results; its name states what the numbers depend on.

    Raises:
        OutputError: it cannot be made.
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    folder = root / f"{plain_name(name)}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write into the run folder {root}: {error.strerror or error}.") from error
    with atomic_path(folder / "settings.json") as temporary:
        temporary.write_text(json.dumps(settings, indent=1, sort_keys=True, default=str))
    return folder


class Videos:
    """The videos of a benchmark by the names of their jobs; one is loaded at a time, as readers of datasets expect."""

    def __init__(self, rows: Sequence[ClipRow]) -> None:
        names = file_names(rows)
        self.rows = {names[row.id]: row for row in rows}
        self._lock = threading.Lock()

    def jobs(self, rows: Sequence[ClipRow]) -> list[Job]:
        """Return the jobs of some of the videos."""
        names = {row.id: name for name, row in self.rows.items()}
        return [Job(name=names[row.id], source=row.name, path=row.id) for row in rows]

    def load(self, name: str) -> Clip:
        """Load a video; raises what its reader raises."""
        with self._lock:
            return self.rows[name].load()


class EvalTask:
    """What the driver must know about evaluating."""

    private = True  # the run folder is ptrack's own

    def __init__(self, settings: Mapping[str, Any], videos: Videos, place: Place) -> None:
        # As a status file gives it back.
        self.settings: Mapping[str, Any] = json.loads(json.dumps(settings, default=str))
        self._videos, self._place = videos, place

    def outputs(self, job: str) -> list[str]:
        """Return the name of the file with the scores."""
        return [f"{job}.json"]

    def changed(self, job: Job, content: Mapping[str, Any]) -> bool:
        """Return whether a video is another one than before, or its tracks are gone."""
        predictions = content.get("predictions")
        if predictions and self._place.size(predictions) is None:
            return True
        try:
            return content.get("key") != content_key(self._videos.load(job.name))
        except OSError:
            return True  # the job itself fails with the sentence


class EvalWork:
    """One model and the videos that it is evaluated on."""

    def __init__(
        self,
        request: EvalRequest,
        number: int,
        subject: Subject | None = None,
        videos: Videos | None = None,
        *,
        index: int,
        workers: int,
    ) -> None:
        self._request, self._number = request, number
        self._protocol = find_protocol(request.benchmark)
        rows = () if videos else choose(open_clips(self._protocol, request.data), request.videos, request.limit)
        self._videos = videos or Videos(rows)
        self._group = Group(index, workers, index)
        self._subject = subject
        self._meter: MemoryMeter | None = None

    def _loaded(self, progress: Callable[[dict[str, Any]], None]) -> Subject:
        """Return the model; the first call builds it, and starts the measurement of memory."""
        if self._subject is None:
            try:
                self._subject = open_subjects(self._request, self._protocol, self._group)[self._number]()
            except PTrackError as error:
                raise UnusableWorkerError from error
            progress({"loaded": True})
        if self._meter is None:
            self._meter = MemoryMeter(self._subject.device)
        return self._subject

    def run(self, order: Order, place: Place, progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Evaluate one video and leave its scores and tracks in ``place``; returns the fields of its status.

        Raises:
            PTrackError: it cannot be read, tracked or scored.
        """
        subject, name = self._loaded(progress), order["job"]
        row, predictions = self._videos.rows[name], ""
        try:
            clip = self._videos.load(name)
            with place.staged() as folder:
                try:
                    scored = self._scored(subject, clip, row, name)
                    predictions = f"{name}.npz"
                    save_prediction(folder / predictions, scored.prediction, scored.case)
                    result = self._measured(scored.result)
                except Skip as reason:
                    result = VideoResult(id=row.id, name=row.name, status=results.SKIPPED, reason=str(reason))
                with atomic_path(folder / f"{name}.json") as temporary:
                    temporary.write_text(json.dumps(asdict(result), allow_nan=False), encoding="utf-8")
        except OSError as error:
            raise PTrackError(str(error)) from error
        made = [f"{name}.json", *([predictions] if predictions else [])]
        return {
            "content": {"key": content_key(clip), "predictions": predictions},
            "outputs": {output: place.size(output) or 0 for output in made},
            "frames": result.frames,
            "points": result.points,
        }

    def _scored(self, subject: Subject, clip: Clip, row: ClipRow, name: str) -> ScoredVideo:
        """Evaluate a clip; a signal ends that between two frames."""
        with StopRequest() as stop:
            watched = replace(subject, stop=stop) if isinstance(subject, TrackerSubject) else subject
            return evaluate_clip(watched, self._protocol, self._request.mode, clip, row, name)

    def _measured(self, result: VideoResult) -> VideoResult:
        assert self._meter is not None
        peak = self._meter.peak()
        return replace(result, peak_memory=peak.process, gpu_memory=peak.gpu)


def read_result(place: LocalPlace, name: str, reused: bool, keep: bool) -> VideoResult:
    """Return what ``EvalWork`` left of a video.

    Args:
        place: the run folder.
        name: of the job.
        reused: it was there before this run.
        keep: the folder stays, so that the result may name files in it.
    """
    values = json.loads(place.read(f"{name}.json") or b"")
    predictions = place.folder / f"{name}.npz"
    files = {"predictions": str(predictions)} if keep and values["status"] == results.OK else {}
    return VideoResult(**values | {"reused": reused, "files": files})

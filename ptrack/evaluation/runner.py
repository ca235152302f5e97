"""The evaluation itself: every video under every model is a job of the batch engine; what is done is not done again."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ptrack.batch.driver import BatchOptions, JobResult
from ptrack.batch.executors import Executor, InProcess
from ptrack.batch.jobs import Shard
from ptrack.batch.places import LocalPlace
from ptrack.batch.run import driving, local_processes
from ptrack.batch.work import WorkSpec
from ptrack.errors import ConfigError, DataError, Interrupted, ModelError, OutputError
from ptrack.evaluation import results
from ptrack.evaluation.clips import ClipRow, choose, open_clips
from ptrack.evaluation.jobs import EvalTask, EvalWork, Videos, read_result, subject_folder
from ptrack.evaluation.protocols import Protocol, check_mode, find_protocol
from ptrack.evaluation.results import EvaluationReport, ModelResult, VideoResult
from ptrack.evaluation.subjects import EvalRequest, Subject, open_subjects
from ptrack.fileio import atomic_path, temporary_folder
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

    Under torchrun the videos are shared between the processes and every process returns the same report. Alone, the
    request's ``workers`` are processes that this one starts; a video that kills its worker costs only itself.

    Raises:
        DataError: the data hold nothing of the benchmark, or no video can be scored.
        ModelError, CheckpointError, DeviceError: from loading a model.
        OutputError: the run folder cannot be written, the disk is full, or another run is at work there.
        Interrupted: a signal came; the results so far are kept.
    """
    protocol = find_protocol(request.benchmark)
    mode = check_mode(protocol, request.mode)
    if not request.models and not request.predictions:
        raise ModelError("Name at least one model with --model, or a folder of tracks with --from-predictions.")
    rows = choose(open_clips(protocol, request.data), request.videos, request.limit)
    with joined("cpu", PATIENCE) as group:  # results travel as objects, for which no accelerator is needed
        if group.world > 1 and (request.workers or request.timeout):
            raise ConfigError("Under torchrun its processes share the videos; leave out --workers and --timeout.")
        found = []
        for number, load in enumerate(open_subjects(request, protocol, group)):
            run = _Run(request, protocol, group, rows, number, progress)
            found.append(run.evaluate(load()))
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


@dataclass(frozen=True)
class _Run:
    """All videos under one model."""

    request: EvalRequest
    protocol: Protocol
    group: Group
    rows: Sequence[ClipRow]
    number: int  # of the model in the request
    progress: Callable[[EvalProgress], None] | None

    def evaluate(self, subject: Subject) -> ModelResult:
        """Evaluate this process's share and join it with those of the others."""
        name, settings = subject.name, subject.settings
        own = None if self.request.workers or self.request.timeout else subject  # the workers build their own
        del subject
        with self._folder(name, settings) as folder:
            found = self._videos(name, settings, LocalPlace(folder), own)
        parts = self.group.gather(found)
        videos = [video for part in parts for video in part]
        return ModelResult(
            model=name,
            settings=settings,
            videos=videos,
            peak_memory=max((v.peak_memory for v in videos), default=0),
            gpu_memory=max((v.gpu_memory for v in videos), default=0),
        )

    @contextmanager
    def _folder(self, name: str, settings: dict[str, object]) -> Iterator[Path]:
        """Yield the folder of the model's results; without a run folder one that is removed afterwards."""
        if self.request.run_dir is not None:
            yield subject_folder(self.request.run_dir, name, settings)
            return
        with temporary_folder() as folder:
            yield folder

    def _videos(
        self, name: str, settings: dict[str, object], place: LocalPlace, subject: Subject | None
    ) -> list[VideoResult]:
        """Evaluate the videos of this process; ``subject`` is None where workers do it."""
        request, videos, mine = self.request, Videos(self.rows), self.group.part(self.rows)
        jobs = videos.jobs(mine)
        options = BatchOptions(retries=request.retries, timeout=request.timeout, overwrite=request.recompute)
        shard = Shard(self.group.rank, self.group.world)

        def executor() -> Executor:
            work = functools.partial(EvalWork, request, self.number)
            if subject is not None:
                return InProcess(WorkSpec(make=functools.partial(work, subject, videos), place=place.name))
            return local_processes(work, place.name, request.workers)

        partial = ModelResult(model=name, settings=settings, videos=[])
        with driving(jobs, place, EvalTask(settings, videos, place), executor, options, shard=shard) as driver:
            for ended in driver.results():
                if driver.halted or ended.state == "interrupted":
                    break
                result = self._result(ended, videos, place, name)
                partial.videos.append(result)
                if self.progress is not None:
                    self.progress(EvalProgress(name, len(partial.videos), len(jobs), result, partial.mean))
        summary = driver.summary()
        if summary.halted:
            raise OutputError(f"{summary.halted} Run the same command again to go on.")
        if summary.signum:
            kept = (
                f" Its results are in {place.folder}; run the same command again to go on." if request.run_dir else ""
            )
            raise Interrupted(f"Stopped after {len(partial.videos)} of {len(jobs)} videos.{kept}", summary.signum)
        order = {row.id: position for position, row in enumerate(mine)}
        return sorted(partial.videos, key=lambda v: order[v.id])

    def _result(self, ended: JobResult, videos: Videos, place: LocalPlace, name: str) -> VideoResult:
        """Return what became of a video; whatever is wrong with it becomes its result, so that the others go on."""
        job = ended.job
        if not ended.good:
            row = videos.rows[job.name]
            return VideoResult(id=row.id, name=row.name, status=results.FAILED, reason=ended.status.error)
        result = read_result(place, job.name, ended.state == "unchanged", self.request.run_dir is not None)
        if self.request.save is not None and result.status == results.OK:
            several = len(self.request.models) + len(self.request.predictions) > 1
            folder = self.request.save / name if several else self.request.save
            _copy(place.folder / f"{job.name}.npz", folder / f"{job.name}.npz")
        return result


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        temporary.write_bytes(source.read_bytes())


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

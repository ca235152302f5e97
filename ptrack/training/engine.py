"""The training loop: epochs, steps, validation, saving and stopping. It knows no model, no data set and no screen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ptrack import config as configs
from ptrack.data.samples import SampleKey, TrainingBatch
from ptrack.errors import Interrupted, PTrackError
from ptrack.fileio import check_writable
from ptrack.processes import Group
from ptrack.signals import StopRequest
from ptrack.training import order, state, validation
from ptrack.training.config import TrainConfig
from ptrack.training.schedules import Average, learning_rate
from ptrack.training.state import RunState
from ptrack.training.step import Stepper, StepResult, choose_precision
from ptrack.training.systems import System


class TrainingFailed(PTrackError):
    """Training cannot go on; the state before the failure is saved."""


@dataclass(frozen=True)
class StepRecord:
    """What the listeners hear after each step."""

    step: int  # optimisation steps done, counted from 1
    epoch: int  # from 1
    epoch_step: int  # steps done in this epoch
    epoch_steps: int  # steps of an epoch
    total_steps: int
    result: StepResult
    rate: float  # learning rate
    clips_per_second: float  # over all processes, loading included
    memory: float  # peak MiB of the device (GPU) or of this process (CPU)


@dataclass(frozen=True)
class ValidationRecord:
    """Scores after some step."""

    step: int
    epoch: int  # epochs begun
    scores: dict[str, float]  # see ``validation.scores``; other data sets as "NAME/score"
    best: bool  # the best so far


class Listener(Protocol):
    """Someone who wants to know how training goes: a progress display, a log, a painter of pictures."""

    def on_step(self, record: StepRecord) -> None:
        """A step is done."""
        ...

    def on_validation(self, record: ValidationRecord, system: System) -> None:
        """A validation is done; ``system`` holds the validated (averaged) weights."""
        ...

    def on_note(self, text: str) -> None:
        """Something worth a sentence happened."""
        ...


@dataclass(frozen=True)
class RunData:
    """The clips of a run."""

    train: order.Clips
    valid: order.Clips | None = None


@dataclass(frozen=True)
class TrainResult:
    """What a run achieved and where it is."""

    steps: int
    epochs: int
    best: dict[str, float]  # "score" and "step", empty without validation
    latest: Path
    losses: list[float] = field(default_factory=list)  # of the steps of this call
    start: float | None = None  # validation score before the first step, if that was validated


Evaluate = Callable[[System], dict[str, float]]  # scores of a further data set
Export = Callable[[System, Path], None]  # writes best.safetensors


@dataclass
class Trainer:
    """One run on one process. :meth:`run` does it all.

    Args:
        config: the resolved configuration.
        system: model and losses, on its device.
        data: training and validation clips.
        group: this process among all.
        listeners: hear of every step and validation (on the first process alone).
        export: writes the weights for inference.
        evaluate: scores a further data set at each validation.
    """

    config: TrainConfig
    system: System
    data: RunData
    group: Group = field(default_factory=Group)
    listeners: Sequence[Listener] = ()
    export: Export | None = None
    evaluate: Evaluate | None = None

    def __post_init__(self) -> None:
        c = self.config
        length = len(self.data.train)
        self.batch = order.fit_batch(length, c.batch_size, self.group, c.grad_accum)
        self.epoch_steps = max(1, length // (self.batch * self.group.world * c.grad_accum))
        self.total_steps = c.max_steps or c.epochs * self.epoch_steps
        self.device = next(self.system.parameters()).device
        trainable = [p for p in self.system.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trainable, lr=c.lr, weight_decay=c.weight_decay)
        self.precision = choose_precision(c.amp, self.device)
        self.average = Average(self.system.model, c.ema) if c.ema else None
        self.step = self.epoch = self.epoch_step = 0
        self.best: dict[str, float] = {}
        self.history: list[dict[str, Any]] = []
        self.folder = Path(c.save_dir)
        self.has_clips_to_validate = self.data.valid is not None and len(self.data.valid) > 0
        self.validates = self.has_clips_to_validate or self.evaluate is not None
        self._saved_at = time.monotonic()
        self._failures = 0

    # ---- state ------------------------------------------------------------------------------------------------------

    def capture(self) -> RunState:
        """Return the whole state as plain values."""
        return RunState(
            config=configs.to_mapping(self.config),
            step=self.step,
            epoch=self.epoch,
            epoch_step=self.epoch_step,
            model=self.system.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            ema=dict(self.average.values) if self.average else None,
            scaler=self.precision.scaler.state_dict() if self.precision.scaler.is_enabled() else None,
            rng={"seed": self.config.seed, "torch": torch.get_rng_state()},
            best=dict(self.best),
            history=list(self.history),
        )

    def restore(self, saved: RunState) -> None:
        """Go on from a saved state."""
        self.system.model.load_state_dict(saved.model)
        self.optimizer.load_state_dict(saved.optimizer)
        if self.average:
            self.average.load(saved.ema or saved.model)
        if saved.scaler and self.precision.scaler.is_enabled():
            self.precision.scaler.load_state_dict(saved.scaler)
        self.step, self.epoch, self.epoch_step = saved.step, saved.epoch, saved.epoch_step
        self.best, self.history = dict(saved.best), list(saved.history)

    def save(self) -> Path:
        """Write ``latest.pth``, and the weights for inference if no validation chooses them (first process only)."""
        self._saved_at = time.monotonic()
        if not self.group.first:
            return self.folder / state.LATEST
        if not self.validates and self.export is not None:
            with self._averaged():
                self.export(self.system, self.folder / state.BEST_WEIGHTS)
        return state.save_latest(self.folder, self.capture(), self.config.keep)

    # ---- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> TrainResult:
        """Train to the end.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the step was finished and the state saved.
            TrainingFailed: the loss was not finite for ``nan_limit`` steps in a row; the state is saved.
            OutputError: a checkpoint could not be written.
        """
        if self.batch < self.config.batch_size:
            self._note(
                f"The data set has {len(self.data.train)} clips, too few for batches of {self.config.batch_size} on "
                f"{self.group.world} process(es) with {self.config.grad_accum} pass(es) per step: using batches of "
                f"{self.batch}."
            )
        stepper = Stepper(
            self.system, self._wrapped(), self.optimizer, self.precision, self.group, self.config.clip_norm,
            self.config.seed,
        )  # fmt: skip
        losses: list[float] = []
        if self.group.first:
            check_writable(self.folder / state.LATEST, overwrite=True)
        if not self.validates:
            self._note(f"There is nothing to validate on: {state.BEST_WEIGHTS} holds the last weights, not the best.")
        self.system.train()
        with _quiet_generator(), StopRequest() as stop:
            if self.step == 0 and self.config.init_from is not None and not self.history:
                self._validate()  # what training starts from may be better than what it makes of it
            while self.step < self.total_steps:
                self._epoch(stepper, stop, losses)
            latest = self.save()
        return TrainResult(self.step, self.epoch, dict(self.best), latest, losses, self._start_score())

    def _wrapped(self) -> nn.Module:
        wrapped: nn.Module = self.system
        if self.config.compile:
            self.system.model.compile()
        if self.group.world > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            wrapped = nn.parallel.DistributedDataParallel(wrapped, device_ids=ids)
        return wrapped

    def _epoch(self, stepper: Stepper, stop: StopRequest, losses: list[float]) -> None:
        """Do what is left of the current epoch."""
        started = time.monotonic()
        for parts in self._steps():
            rate = learning_rate(
                self.step, self.total_steps, self.config.lr, warmup=self.config.warmup, schedule=self.config.schedule
            )
            result = stepper(parts, self.step, rate, stop.signum)
            if self.average and result.done:
                self.average.update(self.system.model, self.step)
            self.step, self.epoch_step = self.step + 1, self.epoch_step + 1
            losses.append(result.loss)
            started = self._report(result, rate, sum(len(p.clip_ids) for p in parts), started)
            self._check(result)
            self._pause(result.stop)
            if self.step >= self.total_steps:
                break
        else:
            self.epoch, self.epoch_step = self.epoch + 1, 0
        every = self.config.eval_every
        due = self.step >= self.total_steps or (self.epoch_step == 0 and not every)
        if due and not (every and self.step % every == 0):
            self._validate()

    def _steps(self) -> Iterator[list[TrainingBatch]]:
        """Yield the micro-batches of the steps that are left in the current epoch."""
        c = self.config
        batches = order.step_batches(len(self.data.train), self.batch, self.group, c.grad_accum, c.seed, self.epoch)
        todo = batches[self.epoch_step * c.grad_accum :]
        todo = todo[: (self.total_steps - self.step) * c.grad_accum]
        stream = order.loader(self.data.train, todo, c.num_workers, pin=self.device.type == "cuda", seed=c.seed)
        return order.micro_batches(stream, c.grad_accum, lambda batch: batch.to(self.device))

    def _report(self, result: StepResult, rate: float, clips: int, started: float) -> float:
        now = time.monotonic()
        speed = clips * self.group.world / max(1e-9, now - started)
        record = StepRecord(
            self.step, self.epoch + 1, self.epoch_step, self.epoch_steps, self.total_steps, result, rate, speed,
            peak_memory(self.device),
        )  # fmt: skip
        for listener in self._heard():
            listener.on_step(record)
        return now

    def _check(self, result: StepResult) -> None:
        """Count steps without a finite loss; stop at the limit."""
        if result.done:
            self._failures = 0
            return
        self._failures += 1
        names = ", ".join(result.bad_clips[:5]) + (" …" if len(result.bad_clips) > 5 else "")
        what = "loss" if not _finite(result.loss) else "gradient"
        self._note(f"Step {self.step}: the {what} is not finite ({result.loss}); skipped. Clips: {names}.")
        if self._failures >= self.config.nan_limit:
            path = self.save()
            raise TrainingFailed(
                f"The {what} was not finite in {self._failures} steps in a row, last with the clips {names}. The state "
                f"before that is saved in {path}; look at these clips, or resume with a smaller --lr or --amp off."
            )

    def _pause(self, signum: int) -> None:
        """Save when it is time; validate between epochs; stop if a signal came."""
        if signum:
            path = self.save()
            raise Interrupted(
                f"Stopped after step {self.step} of {self.total_steps}; everything is saved in {path}. Go on with: "
                f"ptrack train --resume {path}",
                signum,
            )
        if self.config.eval_every and self.step % self.config.eval_every == 0:
            self._validate()
        if time.monotonic() - self._saved_at >= self.config.save_every:
            self.save()

    # ---- validation -------------------------------------------------------------------------------------------------

    def _validate(self) -> None:
        """Score the averaged weights, keep the best, tell the listeners, save."""
        if self.validates:
            with self._averaged():
                clips = self.has_clips_to_validate
                scores = validation.scores(self.group.sum(self._validation_sums())) if clips else {}
                if self.evaluate is not None:
                    scores |= self.evaluate(self.system)
                better = self._is_best(scores)
                self._publish(scores, better)
            if better and self.group.first:
                state.save_best(self.folder, self.capture())
        self.save()

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        """Have the averaged weights in the model, if they are averaged."""
        return self.average.applied(self.system.model) if self.average else contextlib.nullcontext()

    def _validation_sums(self) -> Tensor:
        valid = self.data.valid
        assert valid is not None
        mine = [SampleKey(i) for i in range(self.group.rank, len(valid), self.group.world)]
        batches = [mine[i : i + self.config.batch_size] for i in range(0, len(mine), self.config.batch_size)]
        threshold = getattr(getattr(self.system.model, "config", None), "threshold", 0.5)
        stream = order.loader(valid, batches, self.config.num_workers, seed=self.config.seed) if batches else iter(())
        return validation.validate(self.system, stream, threshold)

    def _start_score(self) -> float | None:
        """Return the validation score before the first step, None if that was not validated."""
        first = next((record for record in self.history if record["step"] == 0), None)
        return None if first is None else _position_score({k: v for k, v in first.items() if k not in _PLACE})

    def _is_best(self, scores: dict[str, float]) -> bool:
        """Remember the scores; return whether the position score is the best so far."""
        self.history.append({"step": self.step, "epoch": self.epoch, **scores})
        score = _position_score(scores)
        better = not self.best or score > self.best["score"]
        if better:
            self.best = {"score": score, "step": float(self.step)}
        return better

    def _publish(self, scores: dict[str, float], better: bool) -> None:
        """Write the weights for inference if they are the best, and tell the listeners."""
        if not self.group.first:
            return
        if better and self.export is not None:
            self.export(self.system, self.folder / state.BEST_WEIGHTS)
        record = ValidationRecord(self.step, self.epoch, scores, better)
        for listener in self.listeners:
            listener.on_validation(record, self.system)

    def _heard(self) -> Sequence[Listener]:
        return self.listeners if self.group.first else ()

    def _note(self, text: str) -> None:
        for listener in self._heard():
            listener.on_note(text)


_PLACE = ("step", "epoch")  # keys of a validation record that are no scores


def _position_score(scores: Mapping[str, float]) -> float:
    """Return the score that decides what is best: of the run's own clips, else the further set's first."""
    return scores.get("delta_avg", next(iter(scores.values())))


@contextlib.contextmanager
def _quiet_generator() -> Iterator[None]:
    """Leave the process's random state as it was: each step seeds the global generator for dropout."""
    from ptrack.training.schedules import preserved_random_state

    with preserved_random_state():
        yield


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def peak_memory(device: torch.device) -> float:
    """Return the peak memory in MiB: allocated on a GPU, resident for a CPU process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024

"""The training loop: epochs, steps, validation, saving and stopping. It knows no model, no data set and no screen.

Batches come from a stream (``order.Batches``), the model with its losses is a ``System``, whoever displays or logs is a
``Listener``.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ptrack import config as configs
from ptrack.data.samples import SampleKey
from ptrack.errors import Interrupted, PTrackError
from ptrack.fileio import check_writable
from ptrack.memory import resident_peak
from ptrack.processes import Group
from ptrack.signals import StopRequest
from ptrack.training import order, state, validation
from ptrack.training.config import TrainConfig
from ptrack.training.schedules import Average, learning_rate, preserved_random_state
from ptrack.training.state import RunState
from ptrack.training.step import StepOutcome, Stepper, choose_precision, make_stepper
from ptrack.training.systems import System


class TrainingFailed(PTrackError):
    """Training cannot go on; the state before the failure is saved."""


@dataclass(frozen=True)
class StepRecord:
    """What listeners get after each step."""

    step: int  # optimisation steps done, counted from 1
    epoch: int  # from 1
    epoch_step: int  # steps done in this epoch
    epoch_steps: int  # steps of an epoch
    total_steps: int
    result: StepOutcome
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
    """What is called while training goes on: a progress display, a log, a painter of pictures. Here nothing is done."""

    def on_step(self, record: StepRecord) -> None:
        """A step is done."""

    def on_validation(self, record: ValidationRecord, system: System) -> None:
        """A validation is done; ``system`` holds the validated (averaged) weights."""

    def on_note(self, text: str) -> None:
        """Something worth a sentence happened."""


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


@dataclass
class Trainer:
    """One run on one process. :meth:`run` does it all.

    Args:
        config: the resolved configuration.
        system: model and losses, on its device.
        batches: to train on, on the same device.
        valid: clips that are validated on, if there are any.
        group: this process among all.
        listeners: called after every step and validation (on the first process alone).
        evaluate: scores a further data set at each validation.
    """

    config: TrainConfig
    system: System
    batches: order.Batches
    valid: order.SampleSource | None = None
    group: Group = field(default_factory=Group)
    listeners: Sequence[Listener] = ()
    evaluate: Evaluate | None = None

    def __post_init__(self) -> None:
        c = self.config
        self.total_steps = c.max_steps or c.epochs * self.batches.epoch_steps
        self.device = next(self.system.parameters()).device
        self.optimizer = torch.optim.AdamW(self.system.parameter_groups(), lr=c.lr, weight_decay=c.weight_decay)
        self.precision = choose_precision(c.amp, self.device)
        self.average = Average(self.system.model, c.ema) if c.ema else None
        self.step = self.epoch = self.epoch_step = 0
        self.best: dict[str, float] = {}
        self.history: list[dict[str, Any]] = []
        self.folder = Path(c.save_dir)
        self.has_clips_to_validate = self.valid is not None and len(self.valid) > 0
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
        if not self.validates:
            with self._averaged():
                self.system.export(self.folder / state.BEST_WEIGHTS)
        return state.save_latest(self.folder, self.capture(), self.config.keep)

    # ---- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> TrainResult:
        """Train to the end.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the step was finished and the state saved.
            TrainingFailed: the loss was not finite for ``nan_limit`` steps in a row; the state is saved.
            OutputError: a checkpoint could not be written.
        """
        if self.batches.batch_size < self.config.batch_size:
            self._note(
                f"The data set is too small for batches of {self.config.batch_size} ({self.group.world} process(es), "
                f"{self.config.grad_accum} pass(es) per step): using batches of {self.batches.batch_size}."
            )
        stepper = make_stepper(self.config, self.system, self._wrapped(), self.optimizer, self.precision, self.group)
        losses: list[float] = []
        if self.group.first:
            check_writable(self.folder / state.LATEST, overwrite=True)
        if not self.validates:
            self._note(f"There is nothing to validate on: {state.BEST_WEIGHTS} holds the last weights, not the best.")
        self.system.train()
        with preserved_random_state(), StopRequest() as stop:  # each step seeds the global generator
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
        left = min(self.batches.epoch_steps - self.epoch_step, self.total_steps - self.step)
        for parts in self.batches.steps(self.epoch, self.epoch_step, left):
            self._renew()
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

    def _renew(self) -> None:
        """Take over what another run has renewed, in the weights and in their average."""
        renewed = self.system.renewed()
        if renewed:
            held = [self.system.model.state_dict(), *([self.average.values] if self.average else [])]
            for name, value in renewed.items():
                for values in held:
                    values[name].copy_(value)

    def _report(self, result: StepOutcome, rate: float, clips: int, started: float) -> float:
        now = time.monotonic()
        speed = clips * self.group.world / max(1e-9, now - started)
        place = (self.step, self.epoch + 1, self.epoch_step, self.batches.epoch_steps, self.total_steps)
        record = StepRecord(*place, result, rate, speed, peak_memory(self.device))
        for listener in self._present():
            listener.on_step(record)
        return now

    def _check(self, result: StepOutcome) -> None:
        """Count steps without a finite loss; stop at the limit."""
        if result.done:
            self._failures = 0
            return
        self._failures += 1
        names = ", ".join(result.bad_clips[:5]) + (" …" if len(result.bad_clips) > 5 else "")
        what = "gradient" if math.isfinite(result.loss) else "loss"
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
        """Score the averaged weights, keep the best, call the listeners, save."""
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
        assert self.valid is not None
        mine = [SampleKey(i) for i in range(self.group.rank, len(self.valid), self.group.world)]
        batches = [mine[i : i + self.config.batch_size] for i in range(0, len(mine), self.config.batch_size)]
        workers = self.config.num_workers
        stream = order.loader(self.valid, batches, workers, seed=self.config.seed) if batches else iter(())
        return validation.validate(self.system, stream)

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
        """Write the weights for inference if they are the best, and call the listeners."""
        if not self.group.first:
            return
        if better:
            self.system.export(self.folder / state.BEST_WEIGHTS)
        record = ValidationRecord(self.step, self.epoch, scores, better)
        for listener in self.listeners:
            listener.on_validation(record, self.system)

    def _present(self) -> Sequence[Listener]:
        return self.listeners if self.group.first else ()

    def _note(self, text: str) -> None:
        for listener in self._present():
            listener.on_note(text)


_PLACE = ("step", "epoch")  # keys of a validation record that are no scores


def _position_score(scores: Mapping[str, float]) -> float:
    """Return the score that decides what is best: of the run's own clips, else the further set's first."""
    return scores.get("delta_avg", next(iter(scores.values())))


def peak_memory(device: torch.device) -> float:
    """Return the peak memory in MiB: allocated on a GPU, resident for a CPU process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resident_peak() / 2**20

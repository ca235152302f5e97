"""One optimisation step: exact loss over micro-batches and processes, mixed precision, clipping, and bad numbers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ptrack.data.samples import TrainingBatch
from ptrack.errors import ConfigError
from ptrack.models.graph import GraphReplay
from ptrack.models.layers.dropout import by_clip
from ptrack.processes import Group
from ptrack.signals import SIGNALS
from ptrack.training import losses
from ptrack.training.config import TrainConfig
from ptrack.training.order import one_clip
from ptrack.training.schedules import derive_seed
from ptrack.training.systems import System


@dataclass(frozen=True)
class StepOutcome:
    """What a step did; the numbers are those of all processes together."""

    terms: dict[str, float]  # loss terms
    loss: float  # their sum
    grad_norm: float  # before clipping
    done: bool  # False: the loss or the gradient was not finite, and the weights were left alone
    bad_clips: tuple[str, ...] = ()  # clips that made it so, as far as they are known
    stop: int = 0  # signal that some process received


@dataclass(frozen=True)
class Precision:
    """Number types of a run."""

    dtype: torch.dtype | None  # of autocast, None for none
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler(enabled=False))


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """Return autocast type and loss scaler for ``auto``, ``off``, ``bf16`` or ``fp16``.

    ``auto`` is bfloat16 on GPUs that have it, float16 on others, and off on the CPU.

    Raises:
        ConfigError: float16 was asked for on the CPU.
    """
    if wanted == "auto":
        if device.type != "cuda":
            return Precision(None)
        wanted = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if wanted == "off":
        return Precision(None)
    if wanted == "bf16":
        return Precision(torch.bfloat16)
    if device.type == "cpu":
        raise ConfigError("--amp fp16 needs a GPU; on the CPU use off or bf16.")
    return Precision(torch.float16, torch.amp.GradScaler(device.type))


def make_stepper(
    config: TrainConfig,
    system: System,
    wrapped: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    group: Group,
) -> Stepper:
    """Return the stepper of a run.

    Raises:
        ConfigError: a CUDA graph is asked for where there can be none.
    """
    stepper = Stepper(system, wrapped, optimizer, precision, group, config.clip_norm, config.seed)
    if not config.graph:
        return stepper
    device = next(system.parameters()).device
    if not system.capturable or device.type != "cuda" or group.world > 1 or config.grad_accum > 1:
        raise ConfigError(
            "graph: true replays the steps of nano on one GPU, with grad_accum 1 and in one process; leave it out."
        )
    return replace(stepper, replay=GraphReplay(stepper.captured_pass, gradients=True))


@dataclass(frozen=True)
class Stepper:
    """Everything a step needs that stays the same from step to step."""

    system: System
    wrapped: nn.Module  # the system itself, compiled or inside DistributedDataParallel
    optimizer: torch.optim.Optimizer
    precision: Precision
    group: Group
    clip_norm: float
    seed: int
    replay: GraphReplay[losses.Terms] | None = None  # forward and backward as one CUDA graph

    def __call__(self, parts: Sequence[TrainingBatch], step: int, rate: float, stop: int = 0) -> StepOutcome:
        """Do optimisation step ``step`` on the micro-batches ``parts`` with learning rate ``rate``.

        Random numbers of the model depend on (seed, step, number of the clip in the step): they are the same in a
        resumed run and for every number of processes and passes.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)  # checkpoints of earlier versions have no share
        buffers = [b for n, b in self.system.named_buffers() if b.is_floating_point() and "running_" in n]
        before = [b.clone() for b in buffers]
        names, values = self._gradients(parts, step)
        asked = values.new_tensor([float(stop == number) for number in SIGNALS])  # any process may have been asked
        summary = self.group.sum(torch.cat([values, asked])).tolist()
        terms = dict(zip(names, summary, strict=False))
        self.precision.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_([p for p in self.system.parameters() if p.requires_grad], self.clip_norm))
        loss = sum(terms.values())
        scaled = self.precision.scaler.is_enabled()
        good = math.isfinite(loss) and (math.isfinite(norm) or scaled)  # the scaler skips infinite gradients itself
        if good:
            self.precision.scaler.step(self.optimizer)
            self.precision.scaler.update()
        bad = () if good else self._blame(parts, step)
        if not good:
            self._undo(buffers, before)
        if self.replay is None:  # which clears its gradients itself
            self.optimizer.zero_grad(set_to_none=True)
        signals = [number for number, times in zip(SIGNALS, summary[len(names) :], strict=True) if times]
        return StepOutcome(terms, loss, norm, good, bad, int(signals[-1]) if signals else 0)

    def _gradients(self, parts: Sequence[TrainingBatch], step: int) -> tuple[list[str], Tensor]:
        """Run forward and backward over all parts; return the terms' names and this process's share of their values."""
        targets = [self.system.targets(part) for part in parts]
        counts = self._counts(targets)
        seed = derive_seed(self.seed, "plan", step)
        total: losses.Terms = {}
        for i, (part, target) in enumerate(zip(parts, targets, strict=True)):
            torch.manual_seed(derive_seed(self.seed, "step", step))
            first = (i * self.group.world + self.group.rank) * len(part.clip_ids)
            with by_clip(range(first, first + len(part.clip_ids))), self._unsynchronised(i < len(parts) - 1):
                if self.replay is None:
                    terms = self._one_pass(part, target, counts, seed)
                else:
                    terms = self.replay(_tensors(part, target, counts))
            total = losses.add_terms(total, terms)
        return list(total), torch.stack(list(total.values()))

    def _one_pass(self, part: TrainingBatch, target: losses.Targets, counts: losses.Counts, seed: int) -> losses.Terms:
        """Add the gradients of one part to the parameters' and return its terms."""
        with self._autocast(part.frames.device):
            terms = self.wrapped(part, target, counts, seed)
        # DistributedDataParallel averages gradients over processes; the terms are shares of one sum.
        loss = torch.stack(list(terms.values())).sum() * self.group.world
        self.precision.scaler.scale(loss).backward()
        return {k: v.detach().float() for k, v in terms.items()}

    def captured_pass(self, tensors: dict[str, Tensor]) -> losses.Terms:
        """Put the gradients of a batch into the parameters: what is captured as a graph.

        Args:
            tensors: of :func:`_tensors`. The model must draw no random numbers.
        """
        t = tensors
        self.optimizer.zero_grad(set_to_none=True)
        batch = TrainingBatch(
            t["frames"], t["xy"], t["visible"], t["valid"], t["query_time"], t["query_xy"], (), t["query_time"], ()
        )
        target = losses.Targets(t["xy"], t["visible"], t["valid"], t["query_time"])
        return self._one_pass(batch, target, losses.Counts(t["time"], t["point"]), 0)

    def _unsynchronised(self, more: bool) -> contextlib.AbstractContextManager[None]:
        """Keep gradients to this process while ``more`` parts follow."""
        if more and isinstance(self.wrapped, nn.parallel.DistributedDataParallel):
            return self.wrapped.no_sync()
        return contextlib.nullcontext()

    def _counts(self, targets: Sequence[losses.Targets]) -> losses.Counts:
        """Return what the terms of the whole step, over all parts and processes, are averaged over."""
        counted = [losses.count(t) for t in targets]
        both = self.group.sum(torch.stack([torch.stack([c.time, c.point]) for c in counted]).sum(0))
        return losses.Counts(both[0], both[1])

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        if self.precision.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, self.precision.dtype)

    def _undo(self, buffers: list[Tensor], before: list[Tensor]) -> None:
        """Put running statistics back: a bad clip may have poisoned them."""
        for buffer, old in zip(buffers, before, strict=True):
            buffer.copy_(old)
        if self.precision.scaler.is_enabled():
            self.precision.scaler.update()

    @torch.no_grad()
    def _blame(self, parts: Sequence[TrainingBatch], step: int) -> tuple[str, ...]:
        """Return the clips whose loss alone is not finite; all of the step's clips if none is."""
        seed = derive_seed(self.seed, "plan", step)
        bad: list[str] = []
        for part in parts:
            for b in range(len(part.clip_ids)):
                one = one_clip(part, b)
                target = self.system.targets(one)
                with self._autocast(one.frames.device):
                    terms = self.system(one, target, losses.count(target), seed)
                if not math.isfinite(float(torch.stack(list(terms.values())).sum())):
                    bad.append(one.clip_ids[0])
        here = bad or [name for part in parts for name in part.clip_ids]
        everyone = self.group.gather(bad), self.group.gather(here)
        found = [name for names in everyone[0] for name in names] or [n for names in everyone[1] for n in names]
        return tuple(dict.fromkeys(found))


def _tensors(part: TrainingBatch, target: losses.Targets, counts: losses.Counts) -> dict[str, Tensor]:
    """Return all that a step depends on."""
    return {
        "frames": part.frames,
        "query_time": part.query_time,
        "query_xy": part.query_xy,
        "xy": target.xy,
        "visible": target.visible,
        "valid": target.valid,
        "time": counts.time,
        "point": counts.point,
    }

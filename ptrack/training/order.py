"""Batches of a data set: which clips make up which step is a pure function of seed, epoch, step and process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ptrack.data.samples import SampleKey, TrainingBatch, collate
from ptrack.errors import DataError
from ptrack.processes import Group
from ptrack.training.schedules import derive_seed, preserved_random_state


class SampleSource(Protocol):
    """A data set of training samples whose random choices depend on (seed, epoch, index) alone."""

    def __len__(self) -> int:
        """Return the number of samples of an epoch."""
        ...

    def __getitem__(self, key: SampleKey, /) -> Any:
        """Return the TrainingSample of a position in an epoch."""
        ...


class Batches(Protocol):
    """Where the loop takes its batches from."""

    batch_size: int  # clips per pass and process
    epoch_steps: int  # optimisation steps of an epoch

    def steps(self, epoch: int, done: int, count: int) -> Iterator[list[TrainingBatch]]:
        """Yield the passes of ``count`` steps of an epoch, after ``done`` of its steps."""
        ...


class OrderedBatches:
    """Batches of a data set, shuffled in each epoch and shared out over the processes.

    Args:
        samples: the data set.
        batch_size: clips per pass and process, at most; fewer if the data set is smaller.
        grad_accum: passes per step.
        seed: random seed of the run.
        workers: processes that read ahead.
        group: this process among all.
        device: where the batches go.

    Raises:
        DataError: an epoch would have no step.
    """

    def __init__(
        self,
        samples: SampleSource,
        batch_size: int,
        *,
        grad_accum: int = 1,
        seed: int = 0,
        workers: int = 0,
        group: Group | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.samples, self.grad_accum, self.seed, self.workers = samples, grad_accum, seed, workers
        self.group, self.device = group or Group(), torch.device(device)
        self.batch_size = fit_batch(len(samples), batch_size, self.group, grad_accum)
        self.epoch_steps = len(samples) // (self.batch_size * self.group.world * grad_accum)

    def steps(self, epoch: int, done: int, count: int) -> Iterator[list[TrainingBatch]]:
        """Yield the passes of ``count`` steps of an epoch, after ``done`` of its steps."""
        batches = step_batches(len(self.samples), self.batch_size, self.group, self.grad_accum, self.seed, epoch)
        todo = batches[done * self.grad_accum : (done + count) * self.grad_accum]
        stream = loader(self.samples, todo, self.workers, pin=self.device.type == "cuda", seed=self.seed)
        step: list[TrainingBatch] = []
        for batch in stream:
            step.append(batch.to(self.device))
            if len(step) == self.grad_accum:
                yield step
                step = []


def epoch_order(length: int, seed: int, epoch: int) -> list[int]:
    """Return the shuffled sample numbers of an epoch."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(length, generator=generator).tolist()


def fit_batch(length: int, batch: int, group: Group, grad_accum: int) -> int:
    """Return the largest batch size up to ``batch`` with which an epoch has at least one step.

    Raises:
        DataError: even one clip per pass is too many.
    """
    passes = group.world * grad_accum
    if length < passes:
        raise DataError(
            f"The data set has {length} clips, fewer than the {passes} that one step takes at least "
            f"({group.world} processes times {grad_accum} passes); use fewer of either, or more data."
        )
    return min(batch, length // passes)


def step_batches(
    length: int, batch: int, group: Group, grad_accum: int, seed: int, epoch: int
) -> list[list[SampleKey]]:
    """Return this process's samples, ``grad_accum`` lists of ``batch`` per step.

    All processes' lists of one pass together are consecutive clips of the epoch's order, so that two processes with
    batch b see in each step what one process with batch 2b sees. What is left over after the last whole step is not
    used in this epoch.
    """
    order = epoch_order(length, seed, epoch)
    wide = batch * group.world
    passes = length // (wide * grad_accum) * grad_accum
    starts = (i * wide + group.rank * batch for i in range(passes))
    return [[SampleKey(i, epoch) for i in order[s : s + batch]] for s in starts]


def _prepare_worker(_: int) -> None:
    """Leave Ctrl-C to the main process, and share the processor."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def loader(
    samples: SampleSource, batches: Sequence[Sequence[SampleKey]], workers: int, *, pin: bool = False, seed: int = 0
) -> Iterator[TrainingBatch]:
    """Yield the batches in order, read ahead by ``workers`` processes (0: by this one)."""
    with preserved_random_state():  # DataLoader draws a base seed
        torch.manual_seed(derive_seed(seed, "loader"))
        data: Any = samples  # any object with length and items will do, which DataLoader's types do not express
        keys: Any = batches
        batch_iterator = iter(
            DataLoader(
                data,
                batch_sampler=keys,
                num_workers=min(workers, len(batches)),
                collate_fn=collate,
                pin_memory=pin,
                worker_init_fn=_prepare_worker,
            )
        )
    yield from batch_iterator


def one_clip(batch: TrainingBatch, index: int) -> TrainingBatch:
    """Return the batch of one of a batch's clips."""
    part = slice(index, index + 1)
    cut = {f.name: v[part] for f in fields(batch) if isinstance(v := getattr(batch, f.name), Tensor | tuple)}
    return replace(batch, **cut)

"""Which clips make up which step: a pure function of seed, epoch, step, and the process's place among all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ptrack.data.samples import SampleKey, TrainingBatch, collate
from ptrack.errors import DataError
from ptrack.processes import Group
from ptrack.training.schedules import derive_seed, preserved_random_state


class Clips(Protocol):
    """A data set of training samples whose random choices depend on (seed, epoch, index) alone."""

    def __len__(self) -> int:
        """Return the number of samples of an epoch."""
        ...

    def __getitem__(self, key: SampleKey, /) -> Any:
        """Return the TrainingSample of a position in an epoch."""
        ...


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
    clips: Dataset | Clips, batches: Sequence[Sequence[SampleKey]], workers: int, *, pin: bool = False, seed: int = 0
) -> Iterator[TrainingBatch]:
    """Yield the batches in order, read ahead by ``workers`` processes (0: by this one)."""
    with preserved_random_state():  # DataLoader draws a base seed
        torch.manual_seed(derive_seed(seed, "loader"))
        batch_iterator = iter(
            DataLoader(
                clips,  # type: ignore[arg-type]
                batch_sampler=batches,  # type: ignore[arg-type]
                num_workers=min(workers, len(batches)),
                collate_fn=collate,
                pin_memory=pin,
                worker_init_fn=_prepare_worker,
            )
        )
    yield from batch_iterator


def micro_batches(
    stream: Iterator[TrainingBatch], grad_accum: int, move: Callable[[TrainingBatch], TrainingBatch]
) -> Iterator[list[TrainingBatch]]:
    """Group a stream of batches into the passes of one optimisation step."""
    step: list[TrainingBatch] = []
    for batch in stream:
        step.append(move(batch))
        if len(step) == grad_accum:
            yield step
            step = []


def one_clip(batch: TrainingBatch, index: int) -> TrainingBatch:
    """Return the batch of one of a batch's clips."""
    part = slice(index, index + 1)
    cut = {f.name: v[part] for f in fields(batch) if isinstance(v := getattr(batch, f.name), Tensor | tuple)}
    return replace(batch, **cut)

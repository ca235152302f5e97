"""The processes of a run: one, or several under ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """This process writes files and talks."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over all processes; a new tensor."""
        total = value.detach().clone()
        if self.world > 1:
            dist.all_reduce(total)
        return total

    def gather(self, value: Any) -> list[Any]:
        """Return the objects of all processes, in order of rank."""
        if self.world == 1:
            return [value]
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, value)
        return everyone

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined(device: str = "auto") -> Iterator[Group]:
    """Join the processes that ``torchrun`` started, for the time of the block; alone, do nothing.

    NCCL between GPUs, gloo between CPU processes.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or dist.is_initialized():
        yield Group(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Group()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    gpu = torch.cuda.is_available() and device != "cpu"
    if gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield Group(dist.get_rank(), world, local)
    finally:
        dist.destroy_process_group()

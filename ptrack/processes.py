"""The processes of a run: one, or several under ``torchrun``. Training and evaluation share work out with it."""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """This process among those of the run; a process alone is 0 of 1."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """This process writes files and talks."""
        return self.rank == 0

    def part(self, items: Sequence[T]) -> list[T]:
        """Return this process's share; items are dealt out in turn."""
        return list(items[self.rank :: self.world])

    def device(self, wanted: str) -> str:
        """Return the device for this process: "auto" and "cuda" become its own GPU where there are several."""
        if self.world == 1 or wanted not in ("auto", "cuda"):
            return wanted
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return f"cuda:{self.local_rank % count}" if count else wanted

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over all processes; a new tensor."""
        total = value.detach().clone()
        if self.world > 1:
            import torch.distributed as dist

            dist.all_reduce(total)
        return total

    def gather(self, value: Any) -> list[Any]:
        """Return the objects of all processes, in order of rank, to every one of them."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, value)
        return everyone

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            import torch.distributed as dist

            dist.barrier()


@contextmanager
def joined(device: str = "auto", timeout: timedelta | None = None) -> Iterator[Group]:
    """Join the processes that ``torchrun`` started, for the time of the block; alone, do nothing.

    NCCL between GPUs, gloo between CPU processes. After the block the group's threads have ended, unless something
    outside the block still refers to the group. A group that the caller has made already is used and left as it is.

    Args:
        device: "cpu" for gloo even where there are GPUs.
        timeout: how long processes wait for each other; torch's own by default.
    """
    import torch.distributed as dist

    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if dist.is_available() and dist.is_initialized():
        yield Group(dist.get_rank(), dist.get_world_size(), local)
    elif world == 1:
        yield Group()
    else:
        _enter(device, local, timeout)
        try:
            group = Group(dist.get_rank(), world, local)
            yield group
            gc.collect()  # DistributedDataParallel refers to the group and is part of reference cycles
            group.wait()  # who leaves early closes connections on which others still talk
        except BaseException as error:
            _forget_locals(error)
            gc.collect()
            raise
        finally:
            dist.destroy_process_group()


def _enter(device: str, local_rank: int, timeout: timedelta | None) -> None:
    """Make the default group.

    Gloo's worker threads end with the last reference to the group. One that outlives the interpreter aborts the
    process, so nothing may keep the group. The functions of ``torch.distributed.nn`` do: the default group of the
    moment of import is the default value of their arguments, and DistributedDataParallel imports them. Imported
    before there is a group, they hold none.
    """
    import torch
    import torch.distributed as dist
    import torch.distributed.nn.functional

    gpu = torch.cuda.is_available() and device != "cpu"
    if gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if gpu else "gloo", timeout=timeout)


def _forget_locals(error: BaseException | None) -> None:
    """Let go of what the functions that an error came through held: its traceback would keep the group alive."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__

"""Several processes, started by torchrun, share the videos of an evaluation and collect each other's results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")


class Shard:
    """This process's place among all of them; a process alone is 0 of 1.

    Videos are dealt out in turn. Results travel as objects over gloo, so no accelerator is needed for it.
    """

    def __init__(self) -> None:
        self.rank, self.world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self._own = False
        if self.world > 1:
            import torch.distributed as dist

            if not dist.is_initialized():
                # Shards may differ by hours; the default timeout of 30 minutes would end the faster ones.
                dist.init_process_group("gloo", timeout=timedelta(days=2))
                self._own = True

    @property
    def first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def part(self, items: Sequence[T]) -> list[T]:
        """Return this process's share."""
        return list(items[self.rank :: self.world])

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of their ranks, to every one of them."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def device(self, wanted: str) -> str:
        """Return the device for this process: "auto" and "cuda" become its own GPU where there are several."""
        if self.world == 1 or wanted not in ("auto", "cuda"):
            return wanted
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % count}" if count else wanted

    def close(self) -> None:
        """Leave the group, if this object made it."""
        if self._own:
            import torch.distributed as dist

            dist.destroy_process_group()
            self._own = False

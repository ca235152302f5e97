"""The synthetic world as a dataset: clips are made when they are loaded."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptrack.data.clips import Clip
from ptrack.data.source import ClipRef, Source

if TYPE_CHECKING:
    from ptrack.data.synthetic.config import SyntheticConfig


class Synthetic(Source):
    """Rendered moving meshes with exact tracks; clip ``start + i`` is the same whenever and wherever it is made.

    Args:
        config: the world, its default if None.
        count: number of clips.
        start: number of the first.
        device: where they are rendered; on a GPU ``batch`` at once.
        batch: clips that are made together.
    """

    name = "synthetic"
    title = "rendered scenes, made on the spot"
    layout = "nothing: ptrack convert synthetic OUT.h5 --clips N"
    convention = "raster"
    default_codec = "png"  # lossless, and about half of raw

    def __init__(
        self,
        config: SyntheticConfig | None = None,
        count: int = 16,
        start: int = 0,
        device: str = "cpu",
        batch: int = 1,
    ) -> None:
        from ptrack.data.synthetic.config import SyntheticConfig

        super().__init__(Path())
        self.config = config or SyntheticConfig()
        self.count, self.start = count, start
        self.device, self.batch = device, batch
        self.parallel = device == "cpu"  # a GPU is shared badly by several processes
        self._made: dict[int, Clip] = {}

    def settings(self) -> dict[str, Any]:
        """Return the configuration of the world."""
        from ptrack.config import to_mapping

        return {"config": to_mapping(self.config)}

    def listed(self) -> list[ClipRef]:
        """List the clips by number; a clip's id is known only to the world that makes it."""
        split, seed = self.config.split, self.config.seed
        numbers = range(self.start, self.start + self.count)
        return [self.ref(split, f"seed{seed}_{n:07d}", str(n)) for n in numbers]

    def load(self, ref: ClipRef) -> Clip:
        """Make a clip, together with those of its batch."""
        import torch

        from ptrack.data.synthetic.source import clip_of, generate_checked

        number = int(ref.key[0])
        if number not in self._made:
            if multiprocessing.parent_process() is not None:
                torch.set_num_threads(1)  # in a worker: the processes share the CPUs
            block = range(number, min(number + self.batch, self.start + self.count))
            made = generate_checked(self.config, list(block), self.device)
            self._made = {n: clip_of(self.config, made, b) for b, n in enumerate(block)}
        return self._made.pop(number)


SOURCE = Synthetic

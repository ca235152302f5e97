"""A step as one captured CUDA graph: on a GPU, launching its many small kernels takes longer than running them.

The kernels are the same, and so are the tracks. A graph has fixed shapes: it is captured when some steps of the same
number of points followed each other, and dropped when another is captured.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM = 3  # steps of the same shapes before they are captured: libraries set themselves up in the first ones

Run = Callable[[list[Tensor]], list[Tensor]]


class Replay:
    """Calls a function of tensors, and replays it as a graph once its inputs keep their shapes.

    Args:
        run: takes and returns tensors on one CUDA device; reads nothing back to the host. What it returns may depend
            on nothing but its inputs and weights that stay where they are.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.shapes: list[tuple[torch.Size, torch.device]] = []
        self.seen = 0
        self.graph: Any = None
        self.given: list[Tensor] = []
        self.made: list[Tensor] = []
        self.works = True

    @torch.inference_mode()
    def __call__(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return what ``run`` returns, in tensors of the caller's own."""
        shapes = [(x.shape, x.device) for x in inputs]
        if shapes != self.shapes:
            self.shapes, self.seen, self.graph = shapes, 0, None
            self.given, self.made = [], []
        self.seen += 1
        if self.graph is None and self.works and self.seen > WARM:
            self._capture(inputs)
        if self.graph is None:
            return self.run(inputs)
        for mine, theirs in zip(self.given, inputs, strict=True):
            mine.copy_(theirs)
        self.graph.replay()
        return [x.clone() for x in self.made]

    def _capture(self, inputs: list[Tensor]) -> None:
        self.given = [x.clone() for x in inputs]
        graph = torch.cuda.CUDAGraph()
        try:
            torch.cuda.synchronize()
            # Other threads may use the GPU meanwhile: frames are read ahead.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.made = self.run(self.given)
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(f"The step could not be captured as a CUDA graph ({reason}); it runs without.", stacklevel=2)
            self.works, self.given = False, []
            return
        self.graph = graph

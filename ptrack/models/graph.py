"""A function of tensors as one captured CUDA graph: launching its many small kernels takes longer than running them.

The kernels are the same, and so are the results. A graph has fixed shapes: it is captured after some calls with inputs
of the same shapes, and dropped as soon as others come. Inference captures a step of a tracker, training a whole batch
with its backward pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

WARM = 3  # calls with the same shapes before they are captured: libraries set themselves up in the first ones

R = TypeVar("R")


class CompiledCall(Generic[R]):
    """Calls a function through ``torch.compile``, which captures CUDA graphs of its own.

    Whatever keeps the compiler from working (no C compiler, an unsupported GPU) costs one warning, and the function
    runs uncompiled with the same results.

    Args:
        run: the function.
        **options: of ``torch.compile``.
    """

    def __init__(self, run: Callable[..., R], **options: Any) -> None:
        self.run = run
        self._compiled: Callable[..., R] | None = torch.compile(run, dynamic=False, **options)

    def __call__(self, *inputs: Any, **named: Any) -> R:
        """Return what ``run`` returns."""
        if self._compiled is None:
            return self.run(*inputs, **named)
        try:
            torch.compiler.cudagraph_mark_step_begin()
            return self._compiled(*inputs, **named)
        except Exception as error:
            warnings.warn(f"Compiling the tracker failed ({_reason(error)}); it runs uncompiled.", stacklevel=2)
            self._compiled = None
            return self.run(*inputs, **named)


class GraphReplay(Generic[R]):
    """Calls a function, and replays it as a CUDA graph once its inputs keep their shapes.

    Inputs and results are pytrees: tensors in lists, tuples, dictionaries and registered dataclasses. Everything in
    the inputs that is no tensor is a constant of the graph.

    Args:
        run: works on one CUDA device and reads nothing back to the host. What it returns may depend on nothing but its
            inputs and on weights that stay where they are.
        gradients: ``run`` also calls ``backward``. It must clear its gradients itself, by setting them to None, and
            nobody else may: a replay writes into the tensors that it made while it was captured.
        warm: calls with the same shapes before they are captured, at least 1.
    """

    def __init__(self, run: Callable[..., R], *, gradients: bool = False, warm: int = WARM) -> None:
        self.run, self.gradients, self.warm = run, gradients, warm
        self.works = True  # False once capturing has failed
        self._stream: Any = None  # where gradients are computed before they are captured
        self._forget(())

    def __call__(self, *inputs: Any) -> R:
        """Return what ``run`` returns, in tensors of the caller's own."""
        with torch.inference_mode(not self.gradients):
            leaves, layout = tree_flatten(inputs)
            tensors = [x for x in leaves if isinstance(x, Tensor)]
            shapes = (layout, *(_shape(x) for x in leaves))
            if shapes != self._shapes:
                self._forget(shapes)
            self._seen += 1
            if self._graph is None and self.works and self._seen > self.warm:
                self._capture([x.clone() if isinstance(x, Tensor) else x for x in leaves], layout)
            if self._graph is None:
                return self._plain(*inputs)
            for held, given in zip(self._inputs, tensors, strict=True):
                held.copy_(given)
            self._graph.replay()
            return tree_map_only(Tensor, torch.clone, self._result)

    @property
    def captured(self) -> bool:
        """Whether the last call's shapes are replayed from now on."""
        return self._graph is not None

    def _forget(self, shapes: Hashable) -> None:
        self._shapes, self._seen = shapes, 0
        self._graph: Any = None
        self._inputs: list[Tensor] = []
        self._result: Any = None

    def _plain(self, *inputs: Any) -> R:
        if not (self.gradients and self.works):
            return self.run(*inputs)
        # Autograd remembers streams: before it is captured it must have run outside the default one.
        if self._stream is None:
            self._stream = torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self.run(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _capture(self, leaves: list[Any], layout: Any) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            torch.cuda.synchronize()
            if self.gradients:
                torch.cuda.empty_cache()  # the graph has memory of its own; what plain calls held is not reused
            # Other threads may use the GPU meanwhile: frames are read ahead.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = self.run(*tree_unflatten(leaves, layout))
        except RuntimeError as error:
            self.works = False
            warnings.warn(f"Capturing a CUDA graph failed ({_reason(error)}); it runs without.", stacklevel=3)
            return
        self._graph, self._result = graph, result
        self._inputs = [x for x in leaves if isinstance(x, Tensor)]


def _shape(leaf: Any) -> Hashable:
    return (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""Replaying a function: when it is captured, what it returns, and what happens where capturing fails.

CUDA graphs need a GPU; a recorder that runs the function again into the same tensors stands in for one.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from ptrack.models.graph import WARM, GraphReplay


class FakeGraph:
    """Runs what was captured again, into the tensors that capturing gave."""

    recorded: Any = None  # (run, inputs, result) of the last capture

    def __init__(self) -> None:
        self.mine: Any = None

    def replay(self) -> None:
        run, inputs, result = self.mine
        for old, new in zip(result, run(*inputs), strict=True):
            if old is not new:
                old.copy_(new)


class FakeStream:
    def wait_stream(self, other: object) -> None:
        pass


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[FakeGraph]:
    made: list[FakeGraph] = []

    @contextlib.contextmanager
    def capturing(graph: FakeGraph, **_: object) -> Iterator[None]:
        yield
        graph.mine = FakeGraph.recorded
        made.append(graph)

    @contextlib.contextmanager
    def on_stream(_: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    monkeypatch.setattr(torch.cuda, "current_stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return made


def replay_of(run: Any, **options: Any) -> GraphReplay:
    def recorded(*inputs: Any) -> Any:
        result = run(*inputs)
        FakeGraph.recorded = (run, inputs, result)
        return result

    return GraphReplay(recorded, **options)


def test_replayed_results_are_those_of_the_function_and_stay(captures: list[FakeGraph]) -> None:
    replay = replay_of(lambda pair, factor: (pair["a"] + pair["b"], pair["a"] * factor))
    results = []
    for i in range(WARM + 4):
        results.append(replay({"a": torch.full((3,), float(i)), "b": torch.ones(3)}, 2))
        assert len(captures) == (i >= WARM)
    for i, (total, double) in enumerate(results):
        assert torch.equal(total, torch.full((3,), i + 1.0))
        assert torch.equal(double, torch.full((3,), 2.0 * i))
    assert torch.equal(
        replay({"a": torch.ones(3), "b": torch.ones(3)}, 3)[1], torch.full((3,), 3.0)
    )  # another constant
    assert len(captures) == 1


def test_another_number_of_points_is_captured_anew_after_some_steps(captures: list[FakeGraph]) -> None:
    replay = replay_of(lambda x: [x + 1])
    for points in (5, 6):
        for _ in range(WARM + 2):
            assert torch.equal(replay(torch.zeros(points))[0], torch.ones(points))
    assert len(captures) == 2
    for points in (5, 6, 5, 6):  # changing all the time, it is never captured
        assert torch.equal(replay(torch.zeros(points))[0], torch.ones(points))
    assert len(captures) == 2


def test_gradients_of_every_batch_reach_the_parameters(captures: list[FakeGraph]) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    held: list[Tensor] = []

    def run(x: Tensor) -> tuple[Tensor]:
        weight.grad = None
        loss = (weight * x).sum()
        loss.backward()
        if captures and held:  # a replay writes into the tensor of the captured run
            held[0].copy_(weight.grad)
            weight.grad = held[0]
        held[:] = [weight.grad]
        return (loss.detach(),)

    replay = replay_of(run, gradients=True, warm=1)
    for i in range(1, 5):
        (loss,) = replay(torch.full((2,), float(i)))
        assert float(loss) == 2.0 * i
        assert weight.grad is not None
        assert weight.grad.tolist() == [float(i)] * 2
    assert len(captures) == 1


def test_what_cannot_be_captured_runs_all_the_same(captures: list[FakeGraph], monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def failing(*_: object, **__: object) -> Iterator[None]:
        yield
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "graph", failing)
    replay = replay_of(lambda x: [x + 1])

    def step(i: int) -> Tensor:
        return replay(torch.full((2,), float(i)))[0]

    with pytest.warns(UserWarning, match="not permitted"):
        assert [float(step(i)[0]) for i in range(WARM + 1)] == [i + 1.0 for i in range(WARM + 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(step(9)[0]) == 10.0

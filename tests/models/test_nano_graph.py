"""Replaying a step: when it is captured, what it returns, and what happens where capturing fails.

CUDA graphs need a GPU; a recorder that runs the function again into the same tensors stands in for one.
"""

import contextlib
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ptrack.models.nano.graph import WARM, Replay


class FakeGraph:
    """Runs what was captured again, into the tensors that capturing gave."""

    replay_of: Replay

    def replay(self) -> None:
        again = self.replay_of.run(self.replay_of.given)
        for old, new in zip(self.replay_of.made, again, strict=True):
            old.copy_(new)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[FakeGraph]:
    made: list[FakeGraph] = []

    def graph() -> FakeGraph:
        made.append(FakeGraph())
        return made[-1]

    @contextlib.contextmanager
    def capturing(*_: object, **__: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return made


def replay_of(run: object, captures: list[FakeGraph]) -> Replay:
    replay = Replay(run)  # type: ignore[arg-type]
    FakeGraph.replay_of = replay
    return replay


def test_replayed_results_are_those_of_the_function_and_stay(captures: list[FakeGraph]) -> None:
    replay = replay_of(lambda x: [x[0] + x[1], x[0] * 2], captures)
    results = []
    for i in range(WARM + 4):
        results.append(replay([torch.full((3,), float(i)), torch.ones(3)]))
        assert len(captures) == (i >= WARM)
    for i, (total, double) in enumerate(results):
        assert torch.equal(total, torch.full((3,), i + 1.0))
        assert torch.equal(double, torch.full((3,), 2.0 * i))


def test_another_number_of_points_is_captured_anew_after_some_steps(captures: list[FakeGraph]) -> None:
    replay = replay_of(lambda x: [x[0] + 1], captures)
    for points in (5, 6):
        for _ in range(WARM + 2):
            assert torch.equal(replay([torch.zeros(points)])[0], torch.ones(points))
    assert len(captures) == 2
    for points in (5, 6, 5, 6):  # changing all the time, it is never captured
        assert torch.equal(replay([torch.zeros(points)])[0], torch.ones(points))
    assert len(captures) == 2


def test_what_cannot_be_captured_runs_all_the_same(captures: list[FakeGraph], monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def failing(*_: object, **__: object) -> Iterator[None]:
        yield
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "graph", failing)
    replay = replay_of(lambda x: [x[0] + 1], captures)

    def step(i: int) -> Tensor:
        return replay([torch.full((2,), float(i))])[0]

    with pytest.warns(UserWarning, match="not permitted"):
        assert [float(step(i)[0]) for i in range(WARM + 1)] == [i + 1.0 for i in range(WARM + 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(step(9)[0]) == 10.0

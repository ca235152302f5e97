"""Clips shared by the tests of viewer, picking and styles; written once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.viz.scenes import textured_frame, write_clip


@pytest.fixture(scope="session")
def moving_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames of smooth texture that moves by (1.5, 0.5) pixels a frame."""
    path = tmp_path_factory.mktemp("moving") / "moving.mp4"
    write_clip(path, [textured_frame(t) for t in range(24)])
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run torch on one thread: these models are so small that threads wait for each other on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

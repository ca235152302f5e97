"""Clips shared by the tests of viewer, picking and styles; written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.viz.scenes import textured_frame, write_clip


@pytest.fixture(scope="session")
def moving_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames of smooth texture that moves by (1.5, 0.5) pixels a frame."""
    path = tmp_path_factory.mktemp("moving") / "moving.mp4"
    write_clip(path, [textured_frame(t) for t in range(24)])
    return path

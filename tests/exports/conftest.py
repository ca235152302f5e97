"""The readers of other programs are no dependency: their tests are collected where the libraries are installed."""

from __future__ import annotations

import importlib.util

import pytest

from ptrack.tracks import Tracks
from tests.exports.make import example

CONSUMERS = {
    "test_with_pandas.py": ("pandas", "tables"),
    "test_with_sleap_io.py": ("sleap_io",),
    "test_with_rerun.py": ("rerun",),
    "test_with_pycocotools.py": ("pycocotools",),
}
MISSING = {
    file: [name for name in names if importlib.util.find_spec(name) is None] for file, names in CONSUMERS.items()
}
collect_ignore = [file for file, names in MISSING.items() if names]


def pytest_report_header() -> list[str]:
    return [f"not collected: tests/exports/{f} (needs {', '.join(n)})" for f, n in MISSING.items() if n]


@pytest.fixture
def tracks() -> Tracks:
    return example()

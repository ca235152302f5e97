"""The notebooks in examples/ run from top to bottom, and are stored with what they show."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FOLDER = Path(__file__).parents[2] / "examples"
NAMES = ["fine_tuning", "measuring_an_animal", "quick_start"]
MOST = 1_000_000  # bytes


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook: Any) -> list[set[str]]:
    """Return what each cell shows: text, results, pictures. A text may come in several parts."""
    return [{output.output_type for output in cell.outputs} for cell in code_cells(notebook)]


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_they_are_stored_as_they_were_run(name):
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < MOST
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    pictures = [data for output in outputs for data in output.get("data", {}) if data.startswith("image/")]
    assert len(pictures) >= 2, "a reader without Python sees no result"
    text = path.read_text(encoding="utf-8")
    assert "/home/" not in text
    assert str(FOLDER.parent) not in text, "the writer's folders"


def test_they_run(tmp_path, monkeypatch):
    """All at the same time: each spends seconds on importing torch."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(name: str) -> Any:
        folder = tmp_path / name
        folder.mkdir()
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        resources = {"metadata": {"path": str(folder)}}
        return nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3", resources=resources).execute()

    with ThreadPoolExecutor() as pool:
        ran = dict(zip(NAMES, pool.map(run, NAMES), strict=True))
    for name, notebook in ran.items():
        stored = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        assert kinds(notebook) == kinds(stored), name

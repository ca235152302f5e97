"""The rules of docs/architecture.md that imports can show: floors, no circles, nothing imports the command line."""

import ast
import graphlib
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the top. Files outside a folder belong to the floor of their name; those not listed are at the bottom.
FLOORS = (
    *(
        "__main__",
        "cli",
        "integrations",
        "bench",
        "training",
        "evaluation",
        "viz",
        "batch",
        "live",
        "analysis",
        "deploy",
        "exports",
        "tracking",
    ),
    *("data", "models", "tracks_io", "tracks_h5", "queries_io", "video", "config", "untrusted", "tracks"),
)


def modules():
    """Return the files of the package by module name."""
    found = {}
    for path in sorted((ROOT / "ptrack").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imports():
    """Return the modules of ptrack that each one imports, anywhere in it."""
    files, arrows = modules(), {}
    for name, path in files.items():
        arrows[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                used = [module if module in files else node.module for module in inner]
            else:
                continue
            arrows[name] |= {module for module in used if module in files and module not in (name, "ptrack")}
    return arrows


ARROWS = imports()


def floor(module):
    room = f"{module}.ptrack".split(".")[1]
    return FLOORS.index(room) if room in FLOORS else len(FLOORS)


def test_no_files_import_each_other_in_a_circle():
    try:
        graphlib.TopologicalSorter(ARROWS).prepare()
    except graphlib.CycleError as error:
        circle = " imports ".join(a for a, _ in pairwise([*error.args[1][::-1], ""]))
        raise AssertionError(circle) from None


def test_imports_point_down():
    up = [f"{a} imports {b}" for a, used in ARROWS.items() if a != "ptrack" for b in used if floor(b) < floor(a)]
    rule = "which stands above it; a new room gets a place in FLOORS here and in the table of docs/architecture.md"
    assert not up, f"{'; '.join(up)}, {rule}"

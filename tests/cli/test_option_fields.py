"""Every option is read by its name or becomes a dataclass's field of its name, and every field is given."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from ptrack.cli import app as cli
from ptrack.cli import options
from ptrack.queries_io import QueryOptions
from tests.cli.test_options import leaves

COMMANDS = dict(leaves(typer.main.get_command(cli.app)))
# Fields that no option has: filled in later, for Python, or in recipes and with --set.
OTHERWISE = {
    "track": {"extra"},
    "eval": {"options"},
    "bench speed": {"floor"},
    "convert synthetic": {
        *("limit", "strict", "blur", "cameras", "compression", "defocus", "exposure", "fog", "frame_rate_change"),
        *("light_change", "max_faces", "motion_blur", "noise", "occluders", "pace", "procedural_share"),
        *("repeated_texture", "shadows", "specular"),
    },
    "train": {
        *("backbone_share", "checkpoint", "clip_norm", "encoder_from", "graph", "nan_limit", "schedule", "warmup"),
        "weight_decay",
    },
}


def unlinked(command: Callable[..., None]) -> tuple[set[str], set[str]]:
    """Return options that nothing reads, and fields of the dataclasses they are for that nothing gives."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(command))).body
    assert isinstance(function, ast.FunctionDef)
    nodes = [node for line in function.body for node in ast.walk(line)]
    space = dict(command.__globals__)
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), space)
    asked = set(inspect.signature(command).parameters)
    read = {node.id for node in nodes if isinstance(node, ast.Name)}
    tables: dict[str, ast.Dict] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            tables[ast.unparse(node.targets[0])] = node.value
    missing: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "fields_of":
            fields = {f.name for f in dataclasses.fields(eval(ast.unparse(node.args[0]), space))}
            read |= fields
            missing |= fields - asked - set(keywords(node, tables))
    return asked - read, missing


def keywords(call: ast.Call, tables: dict[str, ast.Dict]) -> Iterator[str]:
    """Yield a call's keywords, also those in dictionaries of names that are put in by ``**``."""
    inner = [ast.unparse(word.value) for word in call.keywords if word.arg is None]
    yield from (word.arg for word in call.keywords if word.arg)
    for name in inner:
        for key, value in zip(tables[name].keys, tables[name].values, strict=True):
            if isinstance(key, ast.Constant):
                yield str(key.value)
            else:
                inner.append(ast.unparse(value))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_read_and_every_field_is_given(name):
    unread, missing = unlinked(inspect.unwrap(COMMANDS[name].callback))
    assert unread <= {"threads"}, "neither read nor a field of a dataclass (threads acts in its callback)"
    assert missing == OTHERWISE.get(name, set()), "fields without an option of their name"


def renamed(point: list[str], grids: int | None = None, *, mask: Any, num: int, max_points: int, file: Any) -> None:
    given = locals()
    texts = {"points": tuple(point)}
    other = {"file": file, **texts}
    print(QueryOptions(**options.fields_of(QueryOptions, given, **other)))


def test_a_renamed_option_is_found():
    assert unlinked(renamed) == ({"grids"}, {"grid", "grid_frame"})

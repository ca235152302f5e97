"""Every command in the documentation and in the examples of ``--help`` is one that the program takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ptrack.cli.app import app
from ptrack.data.sources import names
from ptrack.exports import FORMATS, export
from ptrack.models.zoo import BUILT_IN
from ptrack.tracks_io import save_tracks
from tests.exports.make import example

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND: Any = typer.main.get_command(app)


def in_pages() -> Iterator[tuple[str, str]]:
    """Yield page and command line of every ``ptrack ...`` in a fenced block."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            if language not in ("", "bash", "sh", "console"):
                continue
            for line in block.replace("\\\n", " ").splitlines():
                found = re.search(r"(?:^|[ /])ptrack (.*)", line.removeprefix("$ "))
                if found and not line.startswith("#"):
                    yield page.name, found[1].split(" && ")[0]


def in_help() -> Iterator[tuple[str, str]]:
    """Yield command and example of every epilog."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, str]]:
        for line in (command.epilog or "").splitlines():
            if line.strip().startswith("ptrack "):
                yield f"{name} --help", line.strip().removeprefix("ptrack ")
        for child, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{name} {child}")

    return walk(COMMAND, "ptrack")


CASES = sorted({*in_pages(), *in_help()})


@pytest.mark.parametrize(("where", "line"), CASES, ids=[f"{where}: {line[:60]}" for where, line in CASES])
def test_the_program_takes_the_command(where, line):
    command, words = COMMAND, shlex.split(line, comments=True)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command '{words[0]}'"
        command = command.commands[words.pop(0)]
    with suppress(typer.Exit):  # of --help and --version
        command.make_context("ptrack", words)


def test_there_are_commands_to_check():
    assert len(CASES) > 60
    assert {where for where, _ in CASES} >= {"README.md", "exports.md", "ptrack track --help"}


@pytest.mark.parametrize("line", [line for _, line in CASES if line.startswith(("convert tracks", "models"))])
def test_quick_commands_do_what_they_say(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line, comments=True)
    if len(words) > 3:
        tracks = example(("a", "b", "c", "d"))  # four points: the corners of a plane
        if "dlc" in words[2]:
            export(tracks, tmp_path / words[2], "dlc-csv")
        else:
            path = tmp_path / words[2]
            if words[2].endswith("/"):
                path.mkdir()
                path /= "walk.tracks.h5"
            save_tracks(tracks, path)
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    if "--list" not in words and words[0] == "convert":
        assert Path(next(word for word in words[3:] if not word.startswith("-"))).exists()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"], ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name) if name else page
        assert there.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, target


@pytest.mark.parametrize(
    ("page", "what", "listed"),
    [
        ("README.md", "models", BUILT_IN),
        ("docs/datasets.md", "datasets", names()),
        ("docs/exports.md", "formats", FORMATS),
    ],
)
def test_tables_name_all_there_is(page, what, listed):
    rows = [line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    missing = [name for name in listed if not any(f"`{name}`" in row for row in rows)]
    assert not missing, f"{', '.join(missing)}: add a row to the table of {what} in {page}"

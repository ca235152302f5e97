"""Options that commands share: they stand once, and reach what they are for."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ptrack.cli import app as cli
from ptrack.cli.options import fields_of, names
from ptrack.viz.overlay import asked_overlay
from ptrack.viz.style import OverlayStyle, overlay_style


@pytest.mark.parametrize("name", ["occluded", "trail"])
def test_track_draws_with_the_switches_of_visualize(name):
    commands = typer.main.get_command(cli.app).commands
    one, two = (next(p for p in commands[c].params if p.name == name) for c in ("track", "visualize"))
    assert (one.opts, one.secondary_opts, one.default, one.help) == (
        two.opts,
        two.secondary_opts,
        two.default,
        two.help,
    )


@pytest.mark.parametrize("asked", [{}, {"trail": 3}, {"occluded": True}, {"occluded": False, "trail": 0}])
def test_the_overlay_of_track_has_the_style_asked_for(asked):
    assert asked_overlay(**asked).style == overlay_style(asked.get("trail"), asked.get("occluded"))


def test_options_become_the_fields_of_their_names():
    given = {"trail": 3, "occluded": None, "json": True}
    made = OverlayStyle(**fields_of(OverlayStyle, given, occluded="never"))
    assert made == OverlayStyle(trail=3, occluded="never")


@pytest.mark.parametrize(("text", "listed"), [(None, ()), ("", ()), ("a, b/c,,d ", ("a", "b/c", "d"))])
def test_a_text_with_commas_is_a_list(text, listed):
    assert names(text) == listed


def test_the_options_of_train_reach_its_configuration(monkeypatch):
    asked = []
    monkeypatch.setattr("ptrack.cli.train.run", lambda request, output: asked.append(request))
    line = ["train", "--data-root", "a.h5", "--video-dirs", "x/y/,z", "--image-size", "64", "--save-every", "5m"]
    done = CliRunner().invoke(cli.app, [*line, "--no-compile", "--iterations", "2", "--lr", "0.5", "--set", "keep=3"])
    assert done.exit_code == 0, done.output
    data = {"root": "a.h5", "videos": ["y", "z"], "image_size": [64, 64]}
    arch = {"iterations": 2}
    assert asked[0].values == {"lr": 0.5, "save_every": 300.0, "compile": False, "data": data, "arch": arch}
    assert asked[0].sets == ("keep=3",)


# -- every command line that is promised ----------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
FROZEN = Path(__file__).with_name("options.json")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, by its whole name."""
    for word, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, f"{name} {word}".strip())
    if not hasattr(command, "commands"):
        yield name, command


def options_now() -> dict[str, list[str]]:
    tree = typer.main.get_command(cli.app)
    return {name: sorted(o for p in c.params for o in (*p.opts, *p.secondary_opts)) for name, c in leaves(tree)}


def test_no_option_is_lost_or_renamed_by_accident():
    """Write the file anew with ``python -m tests.cli.test_options`` when options come, or go on purpose."""
    now = options_now()
    lost = [
        f"{c} {o}" for c, options in json.loads(FROZEN.read_text()).items() for o in options if o not in now.get(c, ())
    ]
    assert not lost, "meant? then run: python -m tests.cli.test_options"


def test_shared_options_stand_once():
    shared = ("json", "quiet", "overwrite", "threads", "checkpoint", "dtype")
    tree = typer.main.get_command(cli.app)
    for name in shared:
        helps = {p.help for c, inner in leaves(tree) for p in inner.params if p.name == name and c != "visualize"}
        assert len(helps) == (2 if name in ("checkpoint", "dtype") else 1), (name, helps)  # one model, or several


def examples() -> list[tuple[str, str]]:
    """Return (place, command line) of the help texts and of the pages."""
    found = []
    for name, command in leaves(typer.main.get_command(cli.app)):
        for text in (command.help or "", command.epilog or ""):
            found += [(f"{name} --help", m[0]) for m in re.finditer(r"(?:(?<=: )|(?<=\n)|^)ptrack [a-z][^\n]*", text)]
    for page in PAGES:
        fence = ""
        for line in page.read_text().replace("\\\n", " ").splitlines():
            if line.lstrip().startswith("```"):
                fence = "" if fence else line.strip()
            elif fence in ("```bash", "```sh", "```console", "```"):
                found += [(page.name, m[0]) for m in re.finditer(r"(?<![\w.-])ptrack [a-z][^|&>]*", line)]
    return found


def test_every_promised_command_line_is_understood():
    """Commands of help texts and pages are parsed, not run: a name that has gone is an error here."""
    tree = typer.main.get_command(cli.app)
    for _, command in leaves(tree):
        command.callback = lambda **_: None
    promised = examples()
    assert len(promised) > 60
    wrong = []
    for place, line in promised:
        try:
            words = shlex.split(re.sub(r"\s+\(.*\)$|[.,;:]$", "", line), comments=True)[1:]
            tree(words, standalone_mode=False)
        except Exception as error:  # of the parser
            wrong.append(f"{place}: {line}\n    {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


# -- threads ----------------------------------------------------------------------------------------------------------


def test_threads_are_set_for_this_process_and_its_children(monkeypatch):
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    try:
        CliRunner().invoke(cli.app, ["track", "", "--threads", "3"])
        assert os.environ["OMP_NUM_THREADS"] == "3"
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert CliRunner().invoke(cli.app, ["track", "a.mp4", "--threads", "0"]).exit_code == 2


@pytest.mark.parametrize(
    "given", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "9"}, {"KMP_BLOCKTIME": "200"}]
)
def test_idle_threads_sleep_soon_unless_the_user_has_set_it(monkeypatch, given):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_USE_YIELD")
    for name in names:
        monkeypatch.setenv(name, "")  # so that the test's end takes back what is set
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    cli._wait_briefly()
    found = {name: os.environ[name] for name in names if name in os.environ}
    assert found == (given or {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1", "KMP_USE_YIELD": "2"})


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(options_now(), indent=1) + "\n")

"""Options that commands share: they stand once, and reach what they are for."""

from __future__ import annotations

import types

import pytest
import typer

from ptrack.cli import app as cli
from ptrack.tracking.overlay import OverlaySink
from ptrack.viz.style import overlay_style


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
def test_the_overlay_of_track_has_the_style_asked_for(asked, tmp_path):
    source = types.SimpleNamespace(info=types.SimpleNamespace(fps=25.0, height=48, width=64))
    sink = OverlaySink(tmp_path / "o.mp4", source, 0.5, **asked)
    assert sink._overlay.style == overlay_style(asked.get("trail"), asked.get("occluded"))
    sink.abort()

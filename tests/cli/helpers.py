"""Running the command as a user does: another process, its words and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PTRACK = [sys.executable, "-c", "import sys; sys.argv[0] = 'ptrack'; from ptrack.cli.app import command; command()"]


def environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def ptrack(*arguments: object, cwd: Path | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    """Run ``ptrack`` to its end."""
    return subprocess.run(
        [*PTRACK, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, env=environment(), **options
    )


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """Start ``ptrack`` and return while it runs."""
    return subprocess.Popen(
        [*PTRACK, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )

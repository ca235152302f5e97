"""The one output sink of the command line: results on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Any


def say(text: str) -> None:
    """Print a line on stdout at once. A reader that has gone away (``| head``) is no error: the rest is dropped."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True)
class Output:
    """Where a command's words go.

    ``json_mode`` makes stdout one machine-readable document; ``quiet`` silences everything but errors.
    """

    json_mode: bool = False
    quiet: bool = False

    def result(self, text: str) -> None:
        """Print a line of the result on stdout."""
        if not self.json_mode and not self.quiet:
            say(text)

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Print a table on stdout; plain tab-separated lines when stdout is no terminal."""
        if self.json_mode or self.quiet:
            return
        if not sys.stdout.isatty():
            say("\n".join("\t".join(row) for row in [columns, *rows]))
            return
        from rich.console import Console
        from rich.table import Table

        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        Console().print(table)

    def document(self, data: Any) -> None:
        """Print the machine-readable result, if asked for."""
        if self.json_mode:
            say(json.dumps(data, ensure_ascii=False, allow_nan=False))

    def note(self, text: str) -> None:
        """Print a remark on stderr."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def warning(self, text: str) -> None:
        """Print a warning on stderr, also when quiet."""
        print(f"warning: {text}", file=sys.stderr)

"""The one output sink of the command line: results on stdout, progress and remarks on stderr.

Nothing here ends a command: a stream that is closed, full or cannot show a letter only loses what it was given.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from ptrack.errors import PTrackError


class Redrawn(Protocol):
    """Lines that are drawn anew again and again."""

    def clear(self) -> None:
        """Take the lines off the screen."""
        ...


WARNING, ERROR = "33", "1;31"  # SGR numbers: yellow, bold red
displays: list[Redrawn] = []  # the live display while there is one; it makes room for other lines
_asked: list[Output] = []  # the output that owes a JSON document


def emit(text: str) -> None:
    """Print a line on stdout at once. A reader that has gone away (``| head``) is no error: the rest is dropped."""
    _make_room()
    try:
        print(_encodable(text, sys.stdout), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def remark(text: str, label: str = "", colour: str = "") -> None:
    """Print a line on stderr, if that is open; ``label`` comes first, in a colour where the terminal has some."""
    stream = sys.stderr
    if stream is None:
        return
    _make_room()
    with suppress(OSError, ValueError):  # the terminal has gone, or the stream is closed
        start = f"{label}: " if label else ""
        if start and colour and stream.isatty() and colours_wanted():
            start = f"\x1b[{colour}m{start}\x1b[0m"
        print(f"{start}{text}", file=stream, flush=True)


def last_part(source: str) -> str:
    """Return the file's or folder's own name, which is what distinguishes sources; addresses stay whole."""
    return source if "://" in source else source.rstrip("/").rpartition("/")[2] or source


def colours_wanted() -> bool:
    """Return whether colours may be used, as https://no-color.org and TERM ask."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in ("dumb", "unknown")


def terminal_columns(stream: Any) -> int:
    """Return the width of the terminal behind ``stream``: what COLUMNS states, else its own, else 80."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def _make_room() -> None:
    for display in displays:
        display.clear()


def _encodable(text: str, stream: TextIO) -> str:
    """Return ``text`` with what the stream's encoding lacks as escapes: file names may hold any bytes."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def failed(error: PTrackError) -> None:
    """Print an error on stderr, and as the JSON document where one was asked for and has not been printed."""
    for output in _asked[:]:
        output.document({"ok": False, "error": str(error)})
    remark(str(error), "error", ERROR)


@dataclass(frozen=True)
class Output:
    """Where a command's words go.

    ``json_mode`` makes stdout one machine-readable document; ``quiet`` silences everything but errors.
    """

    json_mode: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.json_mode:
            _asked[:] = [self]

    def result(self, *lines: str) -> None:
        """Print lines of the result on stdout."""
        for text in () if self.json_mode or self.quiet else lines:
            emit(text)

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Print a table on stdout; plain tab-separated lines when stdout is no terminal."""
        if self.json_mode or self.quiet:
            return
        if not sys.stdout.isatty():
            emit("\n".join("\t".join(row) for row in [columns, *rows]))
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        _make_room()
        table = Table(
            *columns, title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False
        )
        for row in rows:
            table.add_row(*(Text(_encodable(cell, sys.stdout)) for cell in row))  # plain: a name may hold [brackets]
        Console(width=terminal_columns(sys.stdout)).print(table)

    def document(self, data: Any) -> None:
        """Print the machine-readable result, if asked for."""
        if not self.json_mode:
            return
        _asked.clear()
        text = json.dumps(data, ensure_ascii=False, allow_nan=False)
        emit(text if _encodable(text, sys.stdout) == text else json.dumps(data, allow_nan=False))

    def note(self, *lines: str) -> None:
        """Print remarks on stderr."""
        for text in () if self.quiet else lines:
            remark(text)

    def warning(self, *lines: str) -> None:
        """Print warnings on stderr, also when quiet."""
        for text in lines:
            remark(text, "warning", WARNING)

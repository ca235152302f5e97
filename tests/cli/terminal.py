"""A pseudo-terminal in the tests' own process: what a command draws on it, and the screen that a person would see."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

ROWS = 30


@dataclass
class Seen:
    """What became of a command run in a terminal."""

    code: int
    raw: str  # all that was written, control codes included
    screen: list[str]  # the lines at the end, scrolled ones included, blank ones at the end left out

    @property
    def text(self) -> str:
        return "\n".join(self.screen)


def screen_of(raw: str, columns: int) -> list[str]:
    """Return the lines that a terminal of ``columns`` shows, with the few control codes that ptrack uses."""
    lines, x, y = [""], 0, 0
    for code, letter, character in re.findall(r"\x1b\[([\d;?]*)([A-Za-z])|([^\x1b])", raw):
        if letter == "A":
            y = max(y - int(code or 1), 0)
        elif letter == "B":
            y += int(code or 1)
        elif letter == "K":
            lines[y] = "" if code == "2" else lines[y][:x]
        elif letter:
            assert letter in "m", f"unknown control code {code}{letter}"
        elif character == "\r":
            x = 0
        elif character == "\n":
            x, y = 0, y + 1
        else:
            if x == columns:
                x, y = 0, y + 1
            lines += [""] * (y + 1 - len(lines))
            lines[y] = lines[y][:x].ljust(x) + character + lines[y][x + 1 :]
            x += 1
        lines += [""] * (y + 1 - len(lines))
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def in_terminal(arguments: Sequence[object], monkeypatch: pytest.MonkeyPatch, columns: int = 100) -> Seen:
    """Run ``ptrack ARGUMENTS`` with stdout and stderr a real terminal of ``columns``; it must be a quick command."""
    from ptrack.cli.app import main

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    pieces: list[bytes] = []

    def read() -> None:
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the other end is closed
                return
            pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    code = 0
    with monkeypatch.context() as patch, os.fdopen(follower, "w", buffering=1) as stream:
        for name in ("COLUMNS", "LINES", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm-256color")
        patch.setattr("sys.argv", ["ptrack", *map(str, arguments)])
        patch.setattr("sys.stdout", stream)
        patch.setattr("sys.stderr", stream)
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    reader.join(timeout=10)
    os.close(leader)
    raw = b"".join(pieces).decode("utf-8").replace("\r\n", "\n")
    return Seen(code, raw, screen_of(raw, columns))

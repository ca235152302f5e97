"""Progress of tracking on stderr: a live line in a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from ptrack.cli.console import Output

if TYPE_CHECKING:
    from ptrack.tracking.run import Progress

PLAIN_SECONDS = 10.0  # between two plain lines
LIVE_SECONDS = 0.1  # between two redraws


class TrackProgress:
    """Shows frames done and total, frames/s, time left and points visible for one source after the other."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._shown: tuple[str, str] | None = None  # source and phase on display
        self._began = self._last = 0.0
        self._first = 0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if not self._output.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            self._bar = Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[visible]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, source: str, progress: Progress) -> None:
        """Show the progress of a source."""
        now = time.monotonic()
        if self._shown != (source, progress.phase):
            self._shown, self._began, self._last, self._first = (source, progress.phase), now, now, progress.done - 1
            if self._bar is not None:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                name = f"{source} ({progress.phase})"
                self._task = self._bar.add_task(name, total=progress.expected, speed="", visible="")
        if now - self._last < (LIVE_SECONDS if self._bar is not None else PLAIN_SECONDS):
            return
        self._last = now
        speed = f"{(progress.done - self._first) / max(now - self._began, 1e-9):.1f} frames/s"
        visible = f"{progress.visible}/{progress.points} visible"
        if self._bar is not None:
            total = max(progress.expected, progress.done) if progress.expected else None
            self._bar.update(self._task, completed=progress.done, total=total, speed=speed, visible=visible)
        else:
            of = f"/{progress.expected}" if progress.expected else ""
            self._output.note(f"{source}: {progress.phase}, frame {progress.done}{of}, {speed}, {visible}")

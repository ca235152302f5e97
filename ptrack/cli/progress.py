"""Progress on stderr: live lines in a terminal, plain lines now and then elsewhere. It never makes a command fail.

Lines are drawn by the thread that reports progress, never by one of their own, and whatever goes wrong in drawing
switches the display off.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from ptrack.cli import console
from ptrack.cli.console import Output

if TYPE_CHECKING:
    from rich.text import Text

    from ptrack.tracking.run import Progress
    from ptrack.training.engine import StepRecord, ValidationRecord
    from ptrack.training.systems import System

PLAIN_SECONDS = 10.0  # between two plain lines
LIVE_SECONDS = 0.1  # between two redraws
PACE_SECONDS = 0.5  # before a speed is shown
BAR_CELLS = (8, 40)  # width of a bar, at least and at most
NAME_SHARE = 4  # a name takes at most a 4th of the line
NARROW = 60  # columns below which parts of a line are separated by one space, not two


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What one line shows."""

    name: str
    done: int
    total: int | None = None  # None: unknown, no bar is drawn
    unit: str = ""  # what is counted, for the speed; "" leaves it out
    details: tuple[str, ...] = ()  # most important first; a line has as many as fit


@dataclass
class _Pace:
    """When a bar was first shown and at which count: what was done before is not part of the speed."""

    began: float
    first: int

    def speed(self, bar: Bar, now: float) -> float | None:
        """Return the number per second, None while it would be a guess."""
        if now - self.began < PACE_SECONDS or bar.done <= self.first:
            return None
        return (bar.done - self.first) / (now - self.began)


class Display:
    """Shows bars while it is entered. Drawing errors switch it off with one line and are never raised.

    Args:
        output: quiet outputs show nothing; others get plain lines where stderr is no terminal.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._off = output.quiet
        self._console: Any = None  # rich's, while lines can be redrawn
        self._drawn = 0  # lines on the screen that the next drawing replaces
        self._names: tuple[str, ...] = ()
        self._paces: dict[str, _Pace] = {}
        self._last = 0.0

    def __enter__(self) -> Self:
        console.displays.append(self)
        self._guarded(self._open)
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        console.displays.remove(self)

    @property
    def live(self) -> bool:
        """Whether lines are redrawn in a terminal."""
        return self._console is not None and not self._off

    def show(self, *bars: Bar) -> None:
        """Show these bars, one a line, unless the last drawing was a moment ago."""
        self._guarded(lambda: self._show(bars))

    def clear(self) -> None:
        """Take the lines off the screen, so that others can be printed; the next ``show`` draws them again."""
        self._guarded(self._clear)

    def _guarded(self, work: Callable[[], None]) -> None:
        if self._off:
            return
        try:
            work()
        except Exception as error:  # a display is never a reason to lose the work
            self._off, self._drawn = True, 0
            console.remark(f"The progress display is switched off ({type(error).__name__}: {error}); the work goes on.")

    def _open(self) -> None:
        if sys.stderr is None or not sys.stderr.isatty():
            return
        from rich.console import Console

        made = Console(file=sys.stderr, highlight=False)
        if made.is_terminal and not made.is_dumb_terminal:
            self._console = made

    def _show(self, bars: tuple[Bar, ...]) -> None:
        now = time.monotonic()
        names = tuple(bar.name for bar in bars)
        if names != self._names:
            self._paces = {bar.name: self._paces.get(bar.name) or _Pace(now, bar.done) for bar in bars}
            self._last = 0.0 if self._console else now  # what takes less than one interval needs no plain line
            self._names = names
        ended = all(bar.done == bar.total for bar in bars)
        if now - self._last < (LIVE_SECONDS if self._console else PLAIN_SECONDS) and not (self._console and ended):
            return
        self._last = now
        if self._console is None:
            for bar in bars:
                self._output.note(f"{bar.name}: {', '.join(self._parts(bar, now))}")
            return
        self._draw(bars, now)

    def _parts(self, bar: Bar, now: float) -> list[str]:
        """Return the texts of a line, most important first."""
        speed = self._paces[bar.name].speed(bar, now)
        parts = [f"{bar.done:{len(str(bar.total))}d}/{bar.total}"] if bar.total else [str(bar.done)] if bar.done else []
        if speed and bar.total:
            parts.append(f"{duration(max(bar.total - bar.done, 0) / speed)} left")
        if speed and bar.unit:
            parts.append(f"{speed:.1f} {bar.unit}/s")
        return [*parts, *(detail for detail in bar.details if detail)]

    def _draw(self, bars: tuple[Bar, ...], now: float) -> None:
        self._clear()
        width = console.terminal_columns(self._console.file) - 1  # a full last column makes terminals wrap
        for bar in bars:
            line = compose(bar.name, bar.done, bar.total, self._parts(bar, now), width, plain=not self._unicode())
            self._console.print(line, no_wrap=True, overflow="crop", crop=True, width=width)
            self._drawn += 1

    def _unicode(self) -> bool:
        return str(self._console.encoding).lower().startswith("utf")

    def _clear(self) -> None:
        if self._console is None or not self._drawn:
            return
        from rich.control import Control
        from rich.segment import ControlType

        line_up = (ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)
        self._console.control(Control(ControlType.CARRIAGE_RETURN, *line_up * self._drawn))
        self._drawn = 0


def duration(seconds: float) -> str:
    """Return seconds as ``0:07`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def compose(name: str, done: int, total: int | None, parts: list[str], width: int, *, plain: bool = False) -> Text:
    """Return one line of at most ``width`` cells: name, bar, and as many parts as fit.

    Args:
        name: shortened to a quarter of the line where it is longer.
        done: of ``total``.
        total: None draws no bar.
        parts: most important first.
        width: cells.
        plain: use ASCII letters only.
    """
    from rich.cells import cell_len
    from rich.text import Text

    gap = " " if width < NARROW else "  "
    shown = shorten(name, max(width // NAME_SHARE, 8), "..." if plain else "…")
    bar_room = BAR_CELLS[0] + len(gap) if total else 0
    room = width - cell_len(shown) - bar_room
    kept: list[str] = []
    for part in parts:
        if cell_len(part) + len(gap) > room:
            break
        kept.append(part)
        room -= cell_len(part) + len(gap)
    line = Text().append(shown, "bold")
    if total:
        cells = min(BAR_CELLS[0] + max(room, 0), BAR_CELLS[1])
        full = round(cells * min(done / total, 1.0))
        line.append(gap).append(("#" if plain else "━") * full, "green").append(
            ("-" if plain else "─") * (cells - full), "dim"
        )
    for part in kept:
        line.append(gap + part)
    return line


def shorten(name: str, cells: int, ellipsis: str = "…") -> str:
    """Return a name in at most ``cells`` cells, its middle left out where it is longer; control characters as ?."""
    from rich.cells import cell_len, set_cell_size

    name = "".join(c if c.isprintable() else "?" for c in name)
    if cell_len(name) <= cells:
        return name
    left = (cells - cell_len(ellipsis) + 1) // 2
    head = set_cell_size(name, left).rstrip()
    tail = name[::-1]
    return head + ellipsis + set_cell_size(tail, cells - left - cell_len(ellipsis)).strip()[::-1]


class TrackProgress(Display):
    """Frames done, time left, frames/s and points visible of one source after the other."""

    def update(self, source: str, progress: Progress) -> None:
        """Show the progress of a source."""
        total = max(progress.expected, progress.done) if progress.expected else None
        phase = "" if progress.phase == "tracking" else f"{progress.phase} "
        visible = f"{progress.visible}/{progress.points} visible"
        name = phase + console.last_part(source)
        self.show(Bar(name=name, done=progress.done, total=total, unit="frames", details=(visible,)))


class TrainDisplay(Display):
    """Bars for the run and the epoch with time left, the loss terms, speed and memory; scores as lines above."""

    def on_step(self, record: StepRecord) -> None:
        """Move the bars."""
        speed = f"{record.clips_per_second:.1f} clips/s"
        details = (f"loss {record.result.loss:.4g}", speed, f"{record.memory:.0f} MiB")
        terms = tuple(f"{name} {value:.3g}" for name, value in record.result.terms.items())
        self.show(
            Bar(name="steps", done=record.step, total=record.total_steps, details=details),
            Bar(name=f"epoch {record.epoch}", done=record.epoch_step, total=record.epoch_steps, details=terms),
        )

    def on_validation(self, record: ValidationRecord, system: System) -> None:
        """Print the scores above the bars."""
        from ptrack.training.logging import describe_scores

        self._output.note(describe_scores(record))

    def on_note(self, text: str) -> None:
        """Print the remark above the bars."""
        self._output.note(text)

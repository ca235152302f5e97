"""--start, --end and --stride: which frames of a source are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from ptrack.errors import InputError
from ptrack.video.frames import Frame, ReadOptions

P = TypeVar("P")

NOMINAL_FPS = 25.0  # for sources without times (folders, arrays) when ReadOptions.fps is not given; ffmpeg's habit
_SLACK = 1e-6  # seconds; times are multiples of 1/90000 s or coarser


class Shown(NamedTuple, Generic[P]):
    """One step of a source's timeline, before selection and conversion to RGB."""

    pts: float  # seconds
    picture: P  # decoder's picture; for a placeholder the last good one (the next, at the very start)
    ok: bool  # False: a placeholder


def check_options(options: ReadOptions) -> None:
    """Raise InputError for options that can select nothing."""
    if options.stride < 1:
        raise InputError(f"The stride must be 1 or more, not {options.stride}.")
    if options.max_size is not None and options.max_size < 1:
        raise InputError(f"The largest side must be 1 pixel or more, not {options.max_size}.")
    if options.fps is not None and not 0 < options.fps < 1e6:
        raise InputError(f"The frame rate must be above 0, not {options.fps:g}.")
    if options.range is not None and not -np.inf < options.range[0] < options.range[1] < np.inf:
        low, high = options.range
        raise InputError(f"The range must be two numbers, the lower one first, not {low:g} and {high:g}.")
    if options.max_pixels < 1:
        raise InputError(f"The most pixels of a picture must be 1 or more, not {options.max_pixels}.")
    for name, value in (("start", options.start), ("end", options.end)):
        if value is not None and not value >= 0:
            raise InputError(f"The {name} must be a frame number or a time from 0 upwards, not {value}.")
    start, end = options.start or type(options.end or 0)(0), options.end
    if end is not None and type(start) is type(end) and start >= end:
        raise InputError(f"The end ({end}) must come after the start ({start}); the end itself is not included.")


def _reached(bound: int | float, index: int, seconds: float) -> bool:
    """Return whether frame ``index``, at ``seconds`` on the source's clock, lies at or after a bound."""
    return seconds >= bound - _SLACK if isinstance(bound, float) else index >= bound


def selected(
    timeline: Iterable[Shown[P]], options: ReadOptions, convert: Callable[[P], np.ndarray], skip: int = 0
) -> Iterator[Frame]:
    """Yield the selected frames of a timeline as RGB, without the first ``skip`` of them.

    Pictures that are not used are not converted. A placeholder shares the array of the picture it repeats.
    """
    first: int | None = None  # number of the first frame used
    last: tuple[P, np.ndarray] | None = None
    for index, (pts, picture, ok) in enumerate(timeline):
        if options.end is not None and _reached(options.end, index, pts):
            return
        if first is None and (options.start is None or _reached(options.start, index, pts)):
            first = index
        if first is None or (index - first) % options.stride or (index - first) // options.stride < skip:
            continue
        if last is None or last[0] is not picture:
            last = picture, convert(picture)
        yield Frame(last[1], index, pts, ok)


def with_pictures(timeline: Iterable[tuple[float, P | None]]) -> Iterator[Shown[P]]:
    """Give every undecodable step (picture None) the last good picture; at the very start, the first good one."""
    last: P | None = None
    early: list[float] = []
    for pts, picture in timeline:
        if picture is None and last is None:
            early.append(pts)
            continue
        if last is None and picture is not None:
            for time in early:
                yield Shown(time, picture, False)
        if picture is not None:
            last = picture
        assert last is not None
        yield Shown(pts, last, picture is not None)


class Span:
    """Remembers from when to when the frames of a timeline lie.

    Attributes:
        first, last: seconds of the first and the last frame so far; NaN before.
    """

    def __init__(self) -> None:
        self.first = self.last = float("nan")

    def watch(self, timeline: Iterable[tuple[float, P | None]]) -> Iterator[tuple[float, P | None]]:
        """Yield the steps of a timeline unchanged."""
        for number, (seconds, picture) in enumerate(timeline):
            self.first = self.first if number else seconds
            self.last = seconds
            yield seconds, picture


def expected_count(total: int | None, rate: float | None, options: ReadOptions, begin: float = 0.0) -> int | None:
    """Return the approximate number of frames that ``options`` select, if it can be known.

    Args:
        total: frames of the source.
        rate: its frames per second.
        options: the selection.
        begin: seconds of its first frame.
    """

    def number(bound: int | float | None, default: int | None) -> int | None:
        if isinstance(bound, float):
            return max(0, round((bound - begin) * rate)) if rate else default
        return default if bound is None else bound

    start, end = number(options.start, 0), number(options.end, total)
    if total is not None:
        end = total if end is None else min(end, total)
    if end is None or start is None:
        return None
    return max(0, -(-(end - start) // options.stride))


def nothing_selected(name: str, options: ReadOptions, span: Span | None = None) -> InputError:
    """Return the error for a selection that no frame of the source lies in."""
    where = ""
    if span is not None and np.isfinite(span.first):
        where = f"; its frames are from {span.first:.2f} to {span.last:.2f} s"
        if isinstance(options.end, float) and options.end <= span.first:
            return InputError(f"{name}: no frame before {options.end:g} s; the first is at {span.first:.2f} s.")
    unit = " s" if isinstance(options.start, float) else ""
    return InputError(
        f"{name}: no frame from {options.start or 0:g}{unit} on; the source ends before{where}. Choose a smaller start."
    )

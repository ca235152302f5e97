"""What is wrong with a stream, found while reading it, as sentences for the user; with ``strict`` an error instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ptrack.errors import InputError
from ptrack.video.decode import Timeline, TimelineStep
from ptrack.video.select import NOMINAL_FPS

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


def counted(number: int, noun: str) -> str:
    """Return "1 frame", "2 frames"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def untimed_warning(name: str) -> str:
    """Return the sentence for a source without times whose rate nobody gave."""
    return f"{name}: it carries no times; {NOMINAL_FPS:g} frames per second are assumed. Give fps to change that."


class Findings:
    """Sentences about one source by topic; a longer pass over it replaces what a shorter one found.

    Args:
        name: the source, as the user named it.
        strict: raise InputError at the first thing that is wrong.
        warnings: the source's list; it is kept up to date in place.
    """

    def __init__(self, name: str, strict: bool, warnings: list[str]) -> None:
        self.name, self.strict = name, strict
        self._warnings = warnings
        self._by_topic: dict[str, str] = {}
        self._judged = 0  # frames of the longest pass that is described

    def note(self, topic: str, text: str) -> None:
        """Add a sentence, or replace the one about the same topic."""
        self._by_topic[topic] = text
        self._warnings[:] = self._by_topic.values()

    def refuse(self, text: str) -> None:
        """Raise the sentence as an error if the source is read strictly."""
        if self.strict:
            raise InputError(f"{self.name}: {text}")

    def watched(
        self, timeline: Timeline, steps: Iterable[TimelineStep], seconds: Callable[[int], float]
    ) -> Iterator[tuple[float, VideoFrame | None]]:
        """Yield (seconds, picture or None) of each step of a timeline; note what was wrong when it ends or is left.

        Args:
            timeline: where the steps come from.
            steps: all of them, or what is left of them.
            seconds: turns ticks into seconds.

        Raises:
            InputError: strict, and a frame is lost or the clock jumps.
        """
        lost: list[float] = []
        count = 0
        try:
            for ticks, frame in steps:
                at = seconds(ticks)
                count += 1
                if frame is None:
                    lost.append(at)
                    self.refuse(f"frame {count - 1} ({at:.2f} s) cannot be decoded.")
                if timeline.clock.mended or timeline.held_back:
                    self.refuse(f"the time stamps are not in order near {at:.2f} s, frame {count - 1}.")
                yield at, frame
        finally:
            if count > self._judged:  # a shorter pass over the same file finds nothing new
                self._judged = count
                self._judge_losses(lost, count)
                self._judge_times(timeline, seconds)

    def _judge_losses(self, lost: list[float], count: int) -> None:
        if lost:
            text = f"{len(lost)} of {counted(count, 'frame')}, the first at {lost[0]:.2f} s, cannot be decoded"
            self.note("lost", f"{self.name}: {text}; placeholders keep the time aligned.")

    def _judge_times(self, timeline: Timeline, seconds: Callable[[int], float]) -> None:
        clock = timeline.clock
        if clock.jumps:
            often = counted(clock.jumps, "time")
            self.note(
                "clock",
                f"{self.name}: its clock jumps {often}, first at {seconds(clock.first_jump):.2f} s; "
                "the parts are joined, so times after that are not the stored ones.",
            )
        if clock.wrong:
            stamps = "frame carries an impossible time" if clock.wrong == 1 else "frames carry impossible times"
            self.note(
                "stamps",
                f"{self.name}: {clock.wrong} {stamps}, first near {seconds(clock.first_wrong):.2f} s; "
                "times between the neighbours' are used.",
            )
        if timeline.held_back:
            frames = counted(timeline.held_back, "frame")
            self.note("back", f"{self.name}: {frames} with a time before the last frame's; the last one's is used.")

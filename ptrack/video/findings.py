"""What is wrong with a stream, found while reading it, as sentences for the user; with ``strict`` an error instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ptrack import errors
from ptrack.errors import InputError
from ptrack.video.decode import Timeline, TimelineStep
from ptrack.video.select import NOMINAL_FPS

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


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
        """Add a sentence after the source's name, or replace the one about the same topic."""
        self.sentence(topic, f"{self.name}: {text}")

    def sentence(self, topic: str, text: str) -> None:
        """Do the same with a sentence that names the source itself."""
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
                if lost:
                    text = f"{len(lost)} of {errors.count(count, 'frame')}, the first at {lost[0]:.2f} s"
                    self.note("lost", f"{text}, cannot be decoded; placeholders keep the time aligned.")
                self._judge_times(timeline, seconds)

    def _judge_times(self, timeline: Timeline, seconds: Callable[[int], float]) -> None:
        clock = timeline.clock
        if clock.jumps:
            often = errors.count(clock.jumps, "time")
            text = f"its clock jumps {often}, first at {seconds(clock.first_jump):.2f} s; the parts are joined"
            self.note("clock", f"{text}, so times after that are not the stored ones.")
        if clock.wrong:
            stamps = "frame carries an impossible time" if clock.wrong == 1 else "frames carry impossible times"
            text = f"{clock.wrong} {stamps}, first near {seconds(clock.first_wrong):.2f} s"
            self.note("stamps", f"{text}; times between the neighbours' are used.")
        if timeline.held_back:
            frames = errors.count(timeline.held_back, "frame")
            self.note("back", f"{frames} with a time before the last frame's; the last one's is used.")

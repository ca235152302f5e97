"""Where to look: frames to label, suggested in a thread, and places of the tracks that may be wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ptrack.analysis.jumps import JumpConfig, find_jumps
from ptrack.analysis.suggesting import SuggestConfig, SuggestReport, suggest_frames
from ptrack.data.images import jpeg
from ptrack.errors import PTrackError, QueryError, count
from ptrack.tracks import Tracks
from ptrack.viz.pick.points import Correction

UNSURE = 0.3  # confidence below which a visible point is worth a look
MOST_PLACES = 200  # listed on the page


class Suggester:
    """Suggests frames to label, in a thread.

    Args:
        video: path of the video.
        changed: called whenever ``state`` has changed.
    """

    def __init__(self, video: str, changed: Callable[[], None]) -> None:
        self._video, self._changed = video, changed
        self._thread: threading.Thread | None = None
        self._report: SuggestReport | None = None
        self._pictures: dict[int, bytes] = {}  # JPEG of each suggested frame
        self._looked, self._error, self._running, self._stop = 0, "", False, False

    def start(self, frames: Any) -> None:
        """Suggest so many frames; raises ConfigError or QueryError for no number, or if it is being done already."""
        if isinstance(frames, bool) or not isinstance(frames, int):
            raise QueryError("The number of frames to suggest must be a whole number.")
        config = SuggestConfig(frames=frames, sample=max(300, frames))
        if self._running:
            raise QueryError("Frames are being suggested already.")
        self._looked, self._error, self._running = 0, "", True
        self._thread = threading.Thread(target=self._work, args=(config,), name="ptrack-pick-suggest", daemon=True)
        self._thread.start()

    def state(self) -> dict[str, Any]:
        """Return what the page shows: whether it goes on, an error, the frames and what was looked at."""
        report = self._report
        frames = [] if report is None else [[s.frame, round(s.share, 4)] for s in report.frames]
        return {
            **{"running": self._running, "error": self._error, "looked": self._looked, "frames": frames},
            **{"note": "" if report is None else " ".join(report.sentences)},
        }

    def picture(self, index: int) -> bytes | None:
        """Return a small JPEG of a suggested frame, None of another."""
        return self._pictures.get(index)

    def close(self) -> None:
        """Stop and wait for it."""
        self._stop = True
        if self._thread is not None:
            self._thread.join()

    def _watch(self, looked: int) -> bool:
        self._looked = looked
        if looked % 50 == 0:
            self._changed()
        return self._stop

    def _work(self, config: SuggestConfig) -> None:
        try:
            report = suggest_frames(self._video, config, self._watch)
            self._pictures = {s.frame: jpeg(s.picture) for s in report.frames}
            self._report = report
        except PTrackError as error:
            self._error = str(error)
        except Exception as error:  # the page must hear of it, whatever it is
            self._error = f"No frames could be suggested: {type(error).__name__}: {error}."
        finally:
            self._running = False
            self._changed()


def places(tracks: Tracks, corrections: Sequence[Correction] = ()) -> list[dict[str, Any]]:
    """Return frames and points worth a look: jumps, the largest first, then runs of frames of unsure visible points.

    Each is ``{"frame", "id", "what"}``. A jump into a correction made by hand is none.
    """
    report = find_jumps(tracks, JumpConfig(below_confidence=UNSURE))
    made = {(c.id, c.t) for c in corrections}
    found = [
        {"frame": jump.frame, "id": jump.id, "what": f"jumps by {jump.px:.0f} px"}
        for jump in report.jumps
        if (jump.id, jump.frame) not in made
    ]
    column = {str(name): n for n, name in enumerate(tracks.ids)}
    runs = []
    for part in report.low:
        rows = (tracks.frame_index >= part.first) & (tracks.frame_index <= part.last)
        seen = int(tracks.visible[rows, column[part.id]].sum())
        if seen:
            what = f"unsure in {count(seen, 'frame')} ({part.mean:.0%})"
            runs.append((-seen, {"frame": part.first, "id": part.id, "what": what}))
    return found + [place for _, place in sorted(runs, key=lambda run: (run[0], run[1]["frame"]))]

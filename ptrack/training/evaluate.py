"""``--eval-data``: the field's protocols on the weights as they are, during training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ptrack.errors import ConfigError, PTrackError
from ptrack.evaluation.clips import ClipRow, file_names, open_clips
from ptrack.evaluation.protocols import PROTOCOLS, Protocol, Skip, find_protocol
from ptrack.evaluation.results import FAILED, SKIPPED, ModelResult, VideoResult
from ptrack.evaluation.scoring import evaluate_clip
from ptrack.evaluation.subjects import TrackerSubject
from ptrack.processes import Group
from ptrack.tracking.tracker import Tracker
from ptrack.training.systems import System


def parse(text: str) -> tuple[Protocol, str]:
    """Return protocol and data of ``NAME:PATH``, of a TAP-Vid DAVIS pickle, or of any converted store.

    Raises:
        ConfigError: the name is no protocol, or a path has no protocol of its own.
    """
    name, colon, path = text.partition(":")
    if colon and name.replace("-", "_") in PROTOCOLS:
        return find_protocol(name), path
    if text == "synthetic":
        return find_protocol("synthetic"), ""
    if Path(text).suffix == ".pkl":
        return find_protocol("davis"), text
    if Path(text).suffix in (".h5", ".hdf5") or Path(text).is_dir():
        return find_protocol("custom"), text
    raise ConfigError(
        f"--eval-data {text}: write NAME:PATH with one of {', '.join(PROTOCOLS)}, or give a DAVIS .pkl or a "
        "converted .h5."
    )


@dataclass
class Scorer:
    """Scores a system on a data set, the videos shared out over the processes.

    Args:
        text: the value of ``--eval-data``.
        group: this process among all.

    Raises:
        ConfigError: no protocol fits.
        DataError: the data are not there.
    """

    text: str
    group: Group = field(default_factory=Group)

    def __post_init__(self) -> None:
        self.protocol, data = parse(self.text)
        self.rows = open_clips(self.protocol, data)
        self.name = self.protocol.name

    def __call__(self, system: System) -> dict[str, float]:
        """Return "NAME/score" -> mean over the videos, percent; the system's mode is restored.

        Raises:
            PTrackError: not one video could be scored.
        """
        with system.evaluating():
            model = system.tracker()
            tracker = Tracker(model)  # with the support grid that the model wants: Track-On2 400 points, nano none
            subject = TrackerSubject("training", tracker, {}, self.protocol, "first", None, model.threshold)
            files = file_names(self.rows)
            videos = [self._score(subject, row, files[row.id]) for row in self.group.part(self.rows)]
        together = [video for part in self.group.gather(videos) for video in part]
        result = ModelResult(model="training", settings={}, videos=together)
        if not result.mean:
            reasons = "; ".join(f"{v.name}: {v.reason}" for v in together[:3])
            raise PTrackError(f"--eval-data {self.text}: no video could be scored ({reasons}).")
        percent = 1.0 if self.protocol.percent else 100.0
        return {f"{self.name}/{k}": percent * result.mean[k] for k in self.protocol.headline if k in result.mean}

    def _score(self, subject: TrackerSubject, row: ClipRow, file: str) -> VideoResult:
        try:
            return evaluate_clip(subject, self.protocol, "first", row.load(), row, file).result
        except Skip as reason:
            return VideoResult(id=row.id, name=row.name, status=SKIPPED, reason=str(reason))
        except (PTrackError, OSError) as error:
            return VideoResult(id=row.id, name=row.name, status=FAILED, reason=str(error))

"""Results of earlier runs: what was computed for the same video and settings is not computed again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ptrack.errors import OutputError
from ptrack.evaluation.predictions import Prediction, save_prediction
from ptrack.evaluation.protocols import Case
from ptrack.evaluation.results import VideoResult
from ptrack.fileio import atomic_path


@dataclass(frozen=True, eq=False)
class ScoredVideo:
    """A video's result and what it was made from."""

    result: VideoResult
    case: Case
    prediction: Prediction


class ResultCache:
    """The per-video results of one model, each a file of its own under a name that says what it depends on.

    Args:
        root: the run folder, or None to keep nothing.
        name: of the model.
        settings: what its numbers depend on; they are part of the names.
        recompute: do not read results of earlier runs.
    """

    def __init__(self, root: Path | None, name: str, settings: dict[str, Any], recompute: bool) -> None:
        text = json.dumps(settings, sort_keys=True, default=str)
        self.recompute = recompute
        self.folder: Path | None = None
        if root is not None:
            safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
            self.folder = root / f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"Cannot write into the run folder {root}: {error.strerror or error}.") from error
            with atomic_path(self.folder / "settings.json") as temporary:
                temporary.write_text(json.dumps(settings, indent=1, sort_keys=True, default=str))

    def path(self, file: str, key: str, suffix: str) -> Path | None:
        """Return where a video's result or prediction belongs."""
        return None if self.folder is None else self.folder / f"{file}-{key}{suffix}"

    def load(self, file: str, key: str) -> VideoResult | None:
        """Return the result of an earlier run for the same content and settings."""
        path = self.path(file, key, ".json")
        if path is None or self.recompute or not path.is_file():
            return None
        try:
            return VideoResult(**json.loads(path.read_text(encoding="utf-8")) | {"reused": True})
        except (ValueError, TypeError):
            return None  # damaged or of another version: computed again

    def save(self, file: str, key: str, scored: ScoredVideo) -> VideoResult:
        """Keep a prediction and then its result; the result's file appears only when both are whole."""
        where, path = self.path(file, key, ".npz"), self.path(file, key, ".json")
        result = scored.result
        if where is None or path is None:
            return result
        save_prediction(where, scored.prediction, scored.case)
        result = replace(result, files={"predictions": str(where)})
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(result), allow_nan=False), encoding="utf-8")
        return result

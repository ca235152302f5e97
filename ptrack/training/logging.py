"""Listeners of a run: plain lines, a JSONL file and TensorBoard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from ptrack.errors import OutputError
from ptrack.fileio import atomic_path
from ptrack.training.engine import Listener, StepRecord, ValidationRecord
from ptrack.training.systems import System

JSONL = "training.jsonl"
LINE_SECONDS = 5.0  # between plain progress lines


def _number(value: float) -> float | None:
    """Return a number that JSON can hold."""
    return value if math.isfinite(value) else None


def step_values(record: StepRecord) -> dict[str, float]:
    """Return what is logged of a step, by name."""
    return {
        "loss": record.result.loss,
        **{f"loss/{name}": value for name, value in record.result.terms.items()},
        "learning_rate": record.rate,
        "gradient_norm": record.result.grad_norm,
        "clips_per_second": record.clips_per_second,
        "memory_mib": record.memory,
    }


class JsonLog(Listener):
    """One line of JSON per step and per validation in ``training.jsonl``.

    Args:
        folder: of the log.
        step: steps that were done when the run goes on; lines of later steps (of a killed run) are dropped.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.path = folder / JSONL
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept = [line for line in self._lines() if step and json.loads(line).get("step", 0) <= step]
            with atomic_path(self.path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            self._file: TextIO = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise OutputError(f"Cannot write the log {self.path}: {error.strerror or error}.") from error

    def _lines(self) -> list[str]:
        """Return the whole lines of an earlier log; a last line that a kill cut short is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.startswith("{") and line.endswith("}")]

    def _write(self, values: dict[str, Any]) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def on_step(self, record: StepRecord) -> None:
        """Write the step's numbers."""
        values = {k: _number(v) for k, v in step_values(record).items()}
        self._write({"kind": "step", "step": record.step, "epoch": record.epoch, **values})

    def on_validation(self, record: ValidationRecord, system: System) -> None:
        """Write the scores."""
        scores = {k: _number(v) for k, v in record.scores.items()}
        self._write({"kind": "validation", "step": record.step, "epoch": record.epoch, "best": record.best, **scores})

    def on_note(self, text: str) -> None:
        """Write the remark."""
        self._write({"kind": "note", "text": text})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardLog(Listener):
    """Event files that TensorBoard reads; events of a killed run after ``step`` are purged from the display.

    Remarks are in the JSONL file alone.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        try:
            self.writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        except OSError as error:
            raise OutputError(f"Cannot write the log in {folder}: {error.strerror or error}.") from error

    def on_step(self, record: StepRecord) -> None:
        """Write the step's numbers."""
        for name, value in step_values(record).items():
            self.writer.add_scalar(f"train/{name}", value, record.step)

    def on_validation(self, record: ValidationRecord, system: System) -> None:
        """Write the scores."""
        for name, value in record.scores.items():
            self.writer.add_scalar(f"validation/{name}", value, record.step)
        self.writer.flush()

    def picture(self, name: str, image: Any, step: int) -> None:
        """Write an (H, W, 3) uint8 picture."""
        self.writer.add_image(name, image, step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


def describe_step(record: StepRecord) -> str:
    """Return a step as one line."""
    terms = "  ".join(f"{name} {value:.4g}" for name, value in record.result.terms.items())
    return (
        f"step {record.step}/{record.total_steps}  epoch {record.epoch}  loss {record.result.loss:.4g}  ({terms})  "
        f"rate {record.rate:.3g}  {record.clips_per_second:.2f} clips/s  {record.memory:.0f} MiB"
    )


def describe_scores(record: ValidationRecord) -> str:
    """Return a validation as one line."""
    scores = "  ".join(f"{name} {value:.2f}" for name, value in record.scores.items())
    return f"validation after step {record.step}: {scores}{'  (best so far)' if record.best else ''}"


class PlainLines(Listener):
    """Progress as lines, at most one every few seconds (and the first and last step): for logs and pipes."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note
        self._last = -math.inf

    def on_step(self, record: StepRecord) -> None:
        """Print how far training is."""
        now = time.monotonic()
        if now - self._last >= LINE_SECONDS or record.step == record.total_steps:
            self._last = now
            self.note(describe_step(record))

    def on_validation(self, record: ValidationRecord, system: System) -> None:
        """Print the scores."""
        self.note(describe_scores(record))

    def on_note(self, text: str) -> None:
        """Print the remark."""
        self.note(text)

    def close(self) -> None:
        """Nothing to close."""

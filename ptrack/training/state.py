"""A run on disk: ``latest.pth`` and its predecessors, ``best.pth``, and ``best.safetensors`` for inference.

A checkpoint holds tensors and plain containers alone, so ``torch.load(weights_only=True)`` accepts it::

    format        "ptrack-training"      version   1
    config        the whole resolved configuration
    step, epoch, epoch_step              where to go on: optimisation steps done, in all and in the epoch
    model, ema, optimizer, scaler        state dicts; ema and scaler may be None
    rng           seed of the run, and torch's own generator state; the order of the clips, their augmentation (in
                  every loader process) and dropout are functions of seed, epoch and position, so these three numbers
                  are the random state of all workers
    best          best validation score so far and its step
    history       validation records
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ptrack.errors import CheckpointError
from ptrack.fileio import atomic_path
from ptrack.models import saved

FORMAT, VERSION = saved.TRAINING, 1
LATEST, BEST, BEST_WEIGHTS = "latest.pth", "best.pth", "best.safetensors"
REQUIRED = ("config", "step", "epoch", "epoch_step", "model", "optimizer", "best", "rng")


@dataclass
class RunState:
    """Everything that changes while training, as plain values."""

    config: dict[str, Any]
    step: int  # optimisation steps done
    epoch: int  # epochs done
    epoch_step: int  # optimisation steps done in the current epoch
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    ema: dict[str, torch.Tensor] | None = None
    scaler: dict[str, Any] | None = None
    rng: dict[str, Any] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def generations(folder: Path, keep: int) -> list[Path]:
    """Return the names of ``latest.pth`` and its predecessors, newest first; they need not exist."""
    return [folder / LATEST, *(folder / f"previous-{i}.pth" for i in range(1, keep))]


def save_latest(folder: Path, state: RunState, keep: int) -> Path:
    """Write ``latest.pth`` after moving the older ones back by one; ``keep`` generations stay.

    Killed at any point, the folder holds at least one whole checkpoint once there was one: the new file is complete
    before anything is moved.

    Raises:
        OutputError: the disk is full or read-only; the older checkpoints are untouched.
    """
    names = generations(folder, keep)
    with atomic_path(names[0]) as temporary:
        _write(temporary, state)
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if newer.exists():
                os.replace(newer, older)
    return names[0]


def save_best(folder: Path, state: RunState) -> Path:
    """Write ``best.pth``."""
    path = folder / BEST
    with atomic_path(path) as temporary:
        _write(temporary, state)
    return path


def _write(path: Path, state: RunState) -> None:
    """Write a checkpoint. Into an open file: given a path, torch does not give the reason why writing failed.

    Raises:
        OSError: the disk is full.
    """
    with open(path, "wb") as file:
        try:
            torch.save({"format": FORMAT, "version": VERSION, **vars(state)}, file)
        except RuntimeError as error:  # about the position in the archive, on top of why it could not be written
            raise _reason(error) from error
        file.flush()
        os.fsync(file.fileno())


def _reason(error: BaseException) -> OSError:
    """Return the operating system's error behind another one."""
    found = error.__context__
    while found is not None and not isinstance(found, OSError):
        found = found.__context__
    return found or OSError(str(error).splitlines()[0])


def read(path: Path) -> RunState:
    """Read a checkpoint without executing anything in it.

    Raises:
        CheckpointError: missing, damaged, holding more than weights, or not a training checkpoint.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.")
    values = saved.load_pickle(path)
    if not saved.is_training(values):
        raise CheckpointError(
            f"{path} holds no training state. To start from its weights, pass it as --init-from instead of --resume."
        )
    if values.get("version") != VERSION or any(name not in values for name in REQUIRED):
        raise CheckpointError(f"{path} was written by another version of ptrack and cannot be resumed.")
    return RunState(**{name: values[name] for name in RunState.__dataclass_fields__ if name in values})


def find(path: Path) -> Iterator[Path]:
    """Yield what ``--resume PATH`` may mean, best first: the file itself, then its older neighbours."""
    folder = path if path.is_dir() else path.parent
    if not path.is_dir():
        yield path
    names = [folder / LATEST, *sorted(folder.glob("previous-*.pth"), key=_age)]
    yield from (p for p in names if p.exists() and p != path)


def _age(path: Path) -> int:
    number = path.stem.partition("-")[2]
    return int(number) if number.isdecimal() else 1 << 30


def resume(path: Path) -> tuple[RunState, Path, list[str]]:
    """Return the newest whole checkpoint that ``--resume PATH`` can mean, its path, and remarks for the user.

    Raises:
        CheckpointError: none can be used; the first one's reason is given.
    """
    remarks: list[str] = []
    first: CheckpointError | None = None
    for candidate in find(path):
        try:
            return read(candidate), candidate, remarks
        except CheckpointError as error:
            first = first or error
            remarks.append(f"{error} It is skipped.")
    raise first or CheckpointError(
        f"There is no checkpoint in {path}; train without --resume to start from the beginning."
    )


def check_same_architecture(saved: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    """Refuse to resume with another network.

    Raises:
        CheckpointError: names every difference.
    """
    before = {"model": saved.get("model"), **dict(saved.get("arch", {}))}
    after = {"model": wanted.get("model"), **dict(wanted.get("arch", {}))}
    differ = [f"{k} {before.get(k)} → {after.get(k)}" for k in {**before, **after} if before.get(k) != after.get(k)]
    if differ:
        raise CheckpointError(
            f"{path} was trained with another architecture ({'; '.join(differ)}). Resume without these options, or "
            "start a new run from its weights with --init-from."
        )

"""``ptrack bench speed --against DIR``: this ptrack and another checkout of it, in turns, in processes of their own.

Machines differ from minute to minute, by more than most changes gain: a ratio of neighbours in time says more than two
numbers. Every round runs both, the order alternating, and what is reported is the spread of the rounds' ratios.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ptrack
from ptrack.errors import ConfigError

if TYPE_CHECKING:
    from ptrack.bench.speed import SpeedOptions

HERE = Path(ptrack.__file__).resolve().parents[1]
MOST = 3600.0  # seconds of one run
Run = Callable[[Path], list[dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as fast as the other checkout this one is, for one combination; over the rounds."""

    name: str
    median: float
    lowest: float
    highest: float
    encode: float  # medians of the stages alone
    step: float

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.median:.3f} times as fast as the other checkout ({self.lowest:.3f} to "
            f"{self.highest:.3f}); encoding {self.encode:.3f}, step {self.step:.3f}"
        )


def checkout(folder: Path) -> Path:
    """Return the folder to put in front of Python's path.

    Raises:
        ConfigError: there is no ptrack in it, or it is the one that runs.
    """
    folder = folder.resolve()
    if not (folder / "ptrack" / "__init__.py").is_file():
        raise ConfigError(f"--against {folder}: there is no ptrack in it; give the folder of a checkout.")
    if folder == HERE:
        raise ConfigError(f"--against {folder}: that is the ptrack that runs; give another checkout.")
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Return the environment in which Python finds the ptrack of a checkout first."""
    path = os.pathsep.join(p for p in (str(folder), os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path}


def compare(
    other: Path, arguments: Sequence[str], rounds: int, note: Callable[[str], None] = lambda _: None
) -> list[Ratio]:
    """Run ``ptrack bench speed ARGUMENTS`` of both in turns and return a ratio per combination."""
    other = checkout(other)
    return in_turns(lambda folder: _run(folder, arguments), other, rounds, note)


def in_turns(run: Run, other: Path, rounds: int, note: Callable[[str], None]) -> list[Ratio]:
    """Let ``run`` measure both checkouts, the order alternating."""
    results: dict[Path, list[list[dict[str, Any]]]] = {HERE: [], other: []}
    for number in range(rounds):
        for folder in (HERE, other) if number % 2 else (other, HERE):
            note(f"round {number + 1} of {rounds}: {folder}")
            results[folder].append(run(folder))
    cases = range(min(len(rows) for each in results.values() for rows in each))
    return [_ratio([r[i] for r in results[HERE]], [r[i] for r in results[other]]) for i in cases]


def _ratio(mine: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> Ratio:
    def ratios(value: Callable[[dict[str, Any]], float]) -> list[float]:
        return [value(b) / value(a) if value(a) > 0 else 1.0 for a, b in zip(mine, others, strict=True)]

    whole = ratios(lambda row: row["latency_median"])
    row = mine[0]
    memory = f", M = {row['memory']}" if row.get("memory") else ""
    return Ratio(
        name=f"{row['model']} ({row['dtype']}), N = {row['points']}{memory}",
        median=statistics.median(whole),
        lowest=min(whole),
        highest=max(whole),
        encode=statistics.median(ratios(lambda row: row["median"]["encode"])),
        step=statistics.median(ratios(lambda row: row["median"]["step"])),
    )


def arguments(options: SpeedOptions) -> list[str]:
    """Return the command line that measures the same; only options that older checkouts know.

    Raises:
        ConfigError: something that processes of their own cannot be given.
    """
    words: list[str] = []
    for name, values in (
        ("--model", options.models),
        ("--points", options.points),
        ("--memory", [m for m in options.memories if m is not None]),
        ("--device", options.devices),
        ("--dtype", options.dtypes),
        ("--size", [f"{s[1]}x{s[0]}" for s in options.sizes if s is not None]),
        ("--checkpoint", [p.resolve() for p in options.checkpoints]),
        ("--frames", [options.frames]),
        ("--warmup", [options.warmup]),
        ("--seconds", [options.seconds]),
        ("--batch", [options.batch]),
        ("--support-grid", [options.support_grid]),
        ("--quality", [options.quality] if options.quality else []),
        ("--video", [options.video.resolve()] if options.video else []),
        ("--davis", [options.davis.resolve()] if options.davis else []),
    ):
        for value in values:
            words += [name, str(value)]
    return [*words, *(["--random-weights"] if options.random_weights else []), "--no-vit-unit", "--quiet"]


def _run(folder: Path, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Return the results of one checkout."""
    with tempfile.TemporaryDirectory(prefix="ptrack-against-") as place:
        out = Path(place) / "result.json"
        command = [sys.executable, "-m", "ptrack", "bench", "speed", *arguments, "--out", str(out)]
        done = subprocess.run(command, cwd=place, env=environment(folder), capture_output=True, text=True, timeout=MOST)
        if done.returncode != 0 or not out.is_file():
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConfigError(f"--against: 'ptrack bench speed' of {folder} failed: {reason}")
        return json.loads(out.read_text(encoding="utf-8"))["results"]

"""Cases one after another into a worker process, which is killed and replaced when it hangs or dies."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz import mutate, seeds, structured

ROOT = Path(__file__).parents[2]
SECONDS = 10.0  # of computing that one case may take
WAIT = 90.0  # of waiting, on a machine that is busy with other things
FAULTS = ("traceback", "words", "hang", "killed", "memory", "code")


@dataclass(frozen=True)
class Fault:
    """A case that ended in anything but a result or one sentence."""

    kind: str
    outcome: str  # one of FAULTS
    words: str
    case: str  # number and seed, by which it can be made again
    path: Path  # the file, kept


@dataclass
class Report:
    """What a campaign found."""

    tried: Counter[str] = field(default_factory=Counter)  # cases by kind
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    slowest: float = 0.0  # seconds of computing
    memory: int = 0  # bytes at most


class Worker:
    """The reading process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, kind: str, path: Path) -> dict:
        """Return the worker's answer about a file."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        process = self._process
        assert process.stdin is not None
        process.stdin.write(json.dumps({"kind": kind, "path": str(path)}) + "\n")
        process.stdin.flush()
        begun, cpu = time.monotonic(), _computing(process.pid)
        while not (line := self._line(0.5)):
            if process.poll() is not None:
                return {"outcome": "killed", "words": f"the process ended with {process.returncode}"}
            if _computing(process.pid) - cpu > SECONDS or time.monotonic() - begun > WAIT:
                self.close()
                return {"outcome": "hang", "words": f"no answer after {time.monotonic() - begun:.0f} s"}
        return json.loads(line)

    def _start(self) -> subprocess.Popen[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker"],
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if not self._line(300.0):
            assert self._process.stderr is not None
            raise RuntimeError(f"the worker does not start: {self._process.stderr.read()[-2000:]}")
        return self._process

    def _line(self, wait: float) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], wait)
        return self._process.stdout.readline() if ready else ""

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()
            self._process = None


def _computing(pid: int) -> float:
    """Return the seconds that a process has computed; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cases(sound: dict[str, list[Path]], seed: int, folder: Path, marker: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield kind, name and file of case after case, the same for the same seed and kinds."""
    for number in range(sys.maxsize):
        for kind, paths in sound.items():
            rng = random.Random(f"{seed} {kind} {number}")
            path = rng.choice(paths)
            data = structured.damaged(path, rng, marker) if rng.random() < 0.4 else None
            if data is None:
                data = mutate.damaged(path.read_bytes(), rng, rng.choice(paths).read_bytes())
            target = folder / f"case{path.suffix}"
            target.write_bytes(data)
            yield kind, f"{kind} {number} of seed {seed} from {path.name}", target


def run(
    folder: Path, *, seed: int, seconds: float | None = None, rounds: int | None = None, kinds: tuple[str, ...] = ()
) -> Report:
    """Try cases for some seconds, or some rounds of one case of every kind.

    Args:
        folder: an empty folder; files of faults are kept in it.
        seed: of all random choices.
        seconds: of wall-clock time.
        rounds: cases of each kind.
        kinds: which; all if empty.
    """
    kinds = kinds or tuple(seeds.MAKERS)
    sound = seeds.make(folder / "sound", kinds)
    (folder / "now").mkdir()
    marker, report, worker, end = folder / "code-ran", Report(), Worker(), time.monotonic() + (seconds or 1e9)
    try:
        for kind, paths in sound.items():  # the sound files first: none may be a fault
            for path in paths:
                _try(worker, report, kind, f"sound {path.name}", path, folder, marker)
        for kind, name, path in cases(sound, seed, folder / "now", marker):
            if time.monotonic() > end or (rounds is not None and report.tried[kind] - len(sound[kind]) >= rounds):
                break
            _try(worker, report, kind, name, path, folder, marker)
    finally:
        worker.close()
    return report


def _try(worker: Worker, report: Report, kind: str, name: str, path: Path, folder: Path, marker: Path) -> None:
    answer = worker.ask(kind, path)
    if answer["outcome"] == "memory":
        worker.close()  # what it holds may not be given back, and would count against the cases after it
    if marker.exists():
        marker.unlink()
        answer = {"outcome": "code", "words": "the file named in the case was made"}
    report.tried[kind] += 1
    report.outcomes[answer["outcome"]] += 1
    report.slowest = max(report.slowest, answer.get("seconds", 0.0))
    report.memory = max(report.memory, answer.get("memory", 0))
    if answer["outcome"] in FAULTS:
        kept = folder / f"fault{len(report.faults)}-{kind}{path.suffix}"
        shutil.copy(path, kept)
        report.faults.append(Fault(kind, answer["outcome"], answer["words"], name, kept))

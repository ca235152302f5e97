"""From what the user names to a list of jobs: folders, patterns and lists are expanded, shards taken."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ptrack.batch.stores import VIDEOS, expand_remote, is_remote
from ptrack.errors import ConfigError, InputError, OutputError
from ptrack.tracking.request import resolve, source_stem
from ptrack.video.listing import SUFFIXES as IMAGES
from ptrack.video.listing import is_pattern, natural_order


@dataclass(frozen=True, kw_only=True)
class Job:
    """One video."""

    name: str  # unique in the run; the names of its outputs begin with it
    source: str  # as the user gave it
    path: str  # what any process on any machine opens: an absolute path, a pattern or a URL


@dataclass(frozen=True)
class Entry:
    """A source as named, and the name that a list gives its outputs, if it does."""

    source: str
    name: str = ""


def read_list(path: str) -> list[Entry]:
    """Read a list of sources: one a line, with a tab and a name for its outputs behind it where wanted.

    Empty lines and lines that begin with ``#`` are left out. ``-`` is standard input. Relative paths are those of the
    present folder.

    Raises:
        InputError: there is no such list, it is no text, or it names nothing.
    """
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(
            f"--list {path} cannot be read: {reason}. Give a text file with one source per line."
        ) from error
    entries = []
    for line in text.splitlines():
        source, _, name = (part.strip() for part in line.partition("\t"))
        if source and not source.startswith("#"):
            entries.append(Entry(source, name))
    if not entries:
        raise InputError(f"--list {path} names no source. Write one video per line.")
    return entries


def expand(sources: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """Return the videos that sources stand for, and remarks for the user.

    A folder of videos gives its videos, a folder of images itself; a pattern of videos gives those it finds.
    """
    entries: list[Entry] = []
    notes: list[str] = []
    for source in sources:
        found, note = _expanded(source)
        entries += [Entry(s) for s in found]
        notes += [note] if note else []
    return entries, notes


def _expanded(source: str) -> tuple[list[str], str]:
    path = Path(source)
    if is_remote(source):
        return expand_remote(source), ""
    if path.is_dir():
        return _in_folder(source, path)
    if is_pattern(source):
        found = [p for p in glob.glob(source, recursive=True) if Path(p).suffix.lower() in VIDEOS and os.path.isfile(p)]
        return (natural_order(found) or [source]), ""
    return [source], ""


def _in_folder(source: str, path: Path) -> tuple[list[str], str]:
    """Return the videos of a folder, or the folder itself where it is one sequence of images."""
    try:
        names = [n for n in os.listdir(path) if not n.startswith(".")]
    except OSError:
        return [source], ""  # the sentence comes when it is opened
    videos = natural_order(n for n in names if Path(n).suffix.lower() in VIDEOS)
    if any(Path(n).suffix.lower() in IMAGES for n in names):
        return [source], f"{source} holds images and videos; it is read as one sequence of images." if videos else ""
    return [os.path.join(source, n) for n in videos] or [source], ""


def make_jobs(entries: Sequence[Entry]) -> tuple[list[Job], list[str]]:
    """Return one job per source, and remarks. A source that is named twice is one job.

    Raises:
        OutputError: the outputs of two sources would share a name.
        InputError: a list gives a name that is no plain file name.
    """
    jobs: dict[str, Job] = {}
    seen: dict[str, Entry] = {}
    repeated = 0
    for entry in entries:
        path = entry.source if "://" in entry.source else os.path.abspath(resolve(entry.source))
        if path in seen and seen[path].name == entry.name:
            repeated += 1
            continue
        seen[path] = entry
        name = _checked_name(entry) or job_name(entry.source)
        if name in jobs:
            raise OutputError(
                f"{jobs[name].source} and {entry.source} would both be written to {name}.*; give them two names in a "
                "--list FILE (SOURCE, a tab, NAME), or track them into two folders."
            )
        jobs[name] = Job(name=name, source=entry.source, path=path)
    notes = [f"Sources named more than once are tracked once ({repeated} left out)."] if repeated else []
    return list(jobs.values()), notes


def job_name(source: str) -> str:
    """Return what the names of a source's outputs begin with."""
    return Path(urlsplit(source).path).stem if is_remote(source) else source_stem(source)


def _checked_name(entry: Entry) -> str:
    if entry.name and (entry.name != os.path.basename(entry.name) or entry.name.startswith(".")):
        raise InputError(
            f"The list names the outputs of {entry.source} '{entry.name}'; give a plain name without folders."
        )
    return entry.name


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count``, both as in ``--shard 0/3``."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def takes(self, name: str) -> bool:
        """Return whether a job belongs to this part: the sha256 of its name modulo ``count`` decides."""
        return int(hashlib.sha256(name.encode()).hexdigest(), 16) % self.count == self.index


def parse_shard(text: str) -> Shard:
    """Return the shard of "i/n", i from 0 to n - 1; raises ConfigError."""
    found = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text)
    if not found or not 0 <= int(found[1]) < int(found[2]):
        raise ConfigError(f"--shard {text}: write I/N with I from 0 to N - 1, for example --shard 0/3.")
    return Shard(int(found[1]), int(found[2]))


def slurm_shard(environment: Mapping[str, str]) -> Shard | None:
    """Return the shard of this task of a Slurm job array, None outside of one.

    Arrays may begin at any number and go in steps (``--array=1-10``, ``--array=0-90:10``).
    """
    try:
        task, count = int(environment["SLURM_ARRAY_TASK_ID"]), int(environment["SLURM_ARRAY_TASK_COUNT"])
        first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0"))
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
    except (KeyError, ValueError):
        return None
    index, rest = divmod(task - first, max(1, step))
    if rest or not 0 <= index < count:
        raise ConfigError(
            f"Task {task} of the Slurm array is not one of {count} in steps of {step} from {first} on; "
            "number the array evenly (--array=0-9), or give --shard I/N."
        )
    return Shard(index, count)

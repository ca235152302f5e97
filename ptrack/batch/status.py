"""The status file of a job: one small JSON beside its outputs, replaced as a whole at every change of state."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from ptrack._version import __version__
from ptrack.batch.places import Place
from ptrack.fileio import fitting

SUFFIX = ".status.json"
VERSION = 1  # of the file; another number counts as no status
STATES = ("queued", "running", "done", "failed", "interrupted")


@dataclass(frozen=True, kw_only=True)
class Status:
    """What is known about a job."""

    job: str  # name of the job: what its outputs' names begin with
    source: str  # as the user gave it
    state: str = "queued"  # one of STATES
    settings: dict[str, Any] = field(default_factory=dict)  # all that decides the result, besides the content
    content: dict[str, Any] = field(default_factory=dict)  # what the source was: its sha256, or its size and time
    outputs: dict[str, int] = field(default_factory=dict)  # names of its files and their sizes in bytes when done
    run: str = ""  # the run that wrote this
    host: str = ""  # where the job runs or ran
    pid: int = 0
    started: str = ""  # UTC, when the last try began
    tries: int = 0  # in that run
    seconds: float = 0.0  # of the last try
    frames: int = 0
    points: int = 0
    frames_per_second: float = 0.0
    error: str = ""  # the sentence of a failed job
    warnings: tuple[str, ...] = ()
    ptrack: str = __version__
    version: int = VERSION

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        return (json.dumps(asdict(self), indent=1, ensure_ascii=False, default=str) + "\n").encode()


def file_name(job: str) -> str:
    """Return the name of a job's status file; that of a very long name is cut."""
    return f"{fitting(job, SUFFIX)}{SUFFIX}"


def parse_status(data: bytes) -> Status | None:
    """Return the status, or None for anything that is none: half a file after a power cut, a later version."""
    try:
        values = json.loads(data)
    except ValueError:
        return None
    if not isinstance(values, dict) or values.get("version") != VERSION or values.get("state") not in STATES:
        return None
    known = {f.name: type(f.default) for f in fields(Status)}
    values = {key: value for key, value in values.items() if key in known}
    try:
        return Status(**{**values, "warnings": tuple(values.get("warnings", ()))})
    except TypeError:
        return None


def read_status(place: Place, job: str) -> Status | None:
    """Return a job's status, None if there is none that can be read."""
    data = place.read(file_name(job))
    return None if data is None else parse_status(data)


def write_status(place: Place, status: Status) -> None:
    """Write or replace a job's status file; raises OutputError."""
    place.write(file_name(status.job), status.to_json())


def begun(status: Status) -> Status:
    """Return the status of a job that begins now, in this process."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(status, state="running", host=socket.gethostname(), pid=os.getpid(), started=now, error="")


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the first setting that differs, as "grid: 16 before, 8 now"; "" if none does."""
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            return difference(old, new)
        return f"{key}: {_short(old)} before, {_short(new)} now"
    return ""


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."

"""One run at a time per output folder, without file locks: a small file names its owner, and dead owners do not count.

On the owner's own machine a look at its process decides. From another machine nobody can see processes, and clocks may
differ, so the file carries a number that the owner raises every few seconds: if it stands still, the owner is dead.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from ptrack.batch.jobs import Shard
from ptrack.batch.places import Place
from ptrack.errors import OutputError

PREFIX = ".ptrack-run"
BEAT_SECONDS = 5.0  # between two beats
WATCH_SECONDS = 12.5  # how long an owner on another machine is watched for a beat
SETTLE_SECONDS = 0.05  # until the file of a run that took over at the same moment would be seen


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who writes to a folder."""

    run: str
    host: str
    boot: str  # of the machine since it was switched on: process numbers begin anew
    pid: int
    born: str  # when the process began, by the machine's own count: numbers are given again
    shard: str = "0/1"
    beat: int = 0

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        return json.dumps(asdict(self)).encode()


def this_process(run: str, shard: Shard) -> Owner:
    """Return this process as an owner."""
    pid = os.getpid()
    return Owner(run=run, host=socket.gethostname(), boot=boot_id(), pid=pid, born=birth(pid) or "", shard=str(shard))


def boot_id() -> str:
    """Return a text that differs after every start of the machine, "" where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def birth(pid: int) -> str | None:
    """Return when a process of this machine began ("" where the system does not report it), None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]  # a zombie has ended; field 22 of proc(5) is the start time
    except OSError:
        if os.path.isdir("/proc/self"):
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return ""  # it exists and is somebody else's
    return ""


def parse_owner(data: bytes | None) -> Owner | None:
    """Return the owner that a file names, None for half a file or none."""
    try:
        return Owner(**json.loads(data or b""))
    except (ValueError, TypeError):
        return None


def owners(place: Place) -> dict[str, Owner]:
    """Return the owner files of a folder, dead owners included."""
    names = [n for n in place.sizes() if n.startswith(PREFIX)]
    found = {name: parse_owner(place.read(name)) for name in names}
    return {name: owner for name, owner in found.items() if owner is not None}


def living(place: Place, found: Mapping[str, Owner], watch: float = WATCH_SECONDS) -> dict[str, Owner]:
    """Return those of the owners by their files that still run; those on other machines are watched all at once."""
    here = {name: o for name, o in found.items() if o.host == socket.gethostname() and o.boot == boot_id()}
    alive = {name: o for name, o in here.items() if _runs_here(o)}
    elsewhere = {name: o for name, o in found.items() if name not in here}
    end = time.monotonic() + watch
    while elsewhere and time.monotonic() < end:
        time.sleep(min(0.5, watch / 10))
        for name, owner in list(elsewhere.items()):
            data = place.read(name)
            if data is None:  # its run has ended
                del elsewhere[name]
            elif parse_owner(data) not in (owner, None):
                alive[name] = elsewhere.pop(name)
    return alive


def _runs_here(owner: Owner) -> bool:
    born = birth(owner.pid)
    return born is not None and (not owner.born or born in ("", owner.born))


def _excludes(one: str, other: str) -> bool:
    """Return whether two shards must not run at once: only different parts of the same division may."""
    return one == other or one.partition("/")[2] != other.partition("/")[2]


class RunOwner:
    """Holds a folder for this run while in the ``with`` block.

    Args:
        place: the folder.
        shard: the part of the jobs that this run does; other parts of the same division may run beside it.
        watch: how long owners on other machines are watched.
        lost: called once, from another thread, if somebody else took the folder.

    Raises:
        OutputError: another run is at work there.
    """

    def __init__(
        self,
        place: Place,
        shard: Shard,
        *,
        watch: float = WATCH_SECONDS,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.place, self.lost = place, lost
        self.owner = this_process(secrets.token_hex(8), shard)
        self.file = f"{PREFIX}-{shard.index}-of-{shard.count}.json"
        self._watch = watch
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="ptrack-run-owner", daemon=True)

    @property
    def run(self) -> str:
        """A name for this run."""
        return self.owner.run

    def __enter__(self) -> Self:
        self._refuse_others()
        if not self.place.create(self.file, self.owner.to_json()):
            self.place.write(self.file, self.owner.to_json())  # a dead owner's
            time.sleep(SETTLE_SECONDS)
        if parse_owner(self.place.read(self.file)) != self.owner:
            raise OutputError(self._refusal(parse_owner(self.place.read(self.file))))
        try:
            self._refuse_others()  # a run of other shards that came at the same moment
        except OutputError:
            self.place.remove(self.file)
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        now = parse_owner(self.place.read(self.file))
        if now is not None and now.run == self.run:
            self.place.remove(self.file)

    def _refuse_others(self) -> None:
        for name, owner in owners(self.place).items():
            if owner.run != self.run and _excludes(owner.shard, self.owner.shard):
                if living(self.place, {name: owner}, self._watch):
                    raise OutputError(self._refusal(owner))
                if name != self.file:
                    self.place.remove(name)

    def _refusal(self, owner: Owner | None) -> str:
        who = f"process {owner.pid} on {owner.host}" if owner else "another process"
        return (
            f"Another run ({who}) writes to {self.place.name or 'this folder'} at this moment; "
            "wait until it ends, or choose another folder."
        )

    def _beat(self) -> None:
        """Raise the number; stop the run when the file is no longer this run's."""
        owner = self.owner
        while not self._end.wait(BEAT_SECONDS):
            try:
                now = parse_owner(self.place.read(self.file))
                if now is not None and now.run != self.run:
                    self.lost()
                    return
                owner = replace(owner, beat=owner.beat + 1)
                self.place.write(self.file, owner.to_json())
            except (OSError, OutputError):
                continue  # a full or vanished drive: the jobs themselves will report it

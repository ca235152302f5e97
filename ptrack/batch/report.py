"""What became of a batch, as tables and files, and what the status files of a folder state together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ptrack.batch.owner import living, owners
from ptrack.batch.places import Place
from ptrack.batch.status import SUFFIX, Status, parse_status
from ptrack.errors import OutputError
from ptrack.fileio import check_writable, write_csv, write_text

COLUMNS = (
    *("job", "source", "state", "error", "tries", "frames", "points", "seconds", "frames_per_second"),
    *("host", "started", "outputs", "warnings"),
)


def row_of(status: Status, state: str = "") -> dict[str, Any]:
    """Return the row of a job in reports; ``state`` is what a run knows beyond the status file."""
    outputs = sorted(status.outputs) if status.state == "done" else []
    values = asdict(status) | {"state": state or status.state, "outputs": outputs}
    return {name: list(values[name]) if name == "warnings" else values[name] for name in COLUMNS}


def check_report(path: Path) -> None:
    """Raise OutputError unless a report can be written; an earlier report is replaced."""
    if path.suffix.lower() not in (".json", ".csv"):
        raise OutputError(f"--report {path}: the file's name must end in .json or .csv.")
    check_writable(path, overwrite=True)


def write_report(path: Path, rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> None:
    """Write the rows as JSON (with ``about`` beside them) or CSV; the file appears whole.

    Raises:
        OutputError: it cannot be written.
    """
    if path.suffix.lower() == ".json":
        write_text(path, json.dumps({**about, "jobs": list(rows)}, indent=1, ensure_ascii=False) + "\n")
        return
    joined = ({**row, "outputs": "; ".join(row["outputs"]), "warnings": "; ".join(row["warnings"])} for row in rows)
    write_csv(path, [COLUMNS, *([row[name] for name in COLUMNS] for row in joined)])


def counts_of(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return how many jobs are in each state."""
    states = [row["state"] for row in rows]
    return {state: states.count(state) for state in dict.fromkeys(sorted(states))}


@dataclass(frozen=True)
class FolderStatus:
    """What the status files of a folder state."""

    rows: list[dict[str, Any]]  # one per job, by name
    runs: list[str]  # "process 12 on host, shard 0/3" of runs that are alive

    @property
    def complete(self) -> bool:
        """Return whether every job is done."""
        return all(row["state"] == "done" for row in self.rows)


def folder_status(place: Place) -> FolderStatus:
    """Read all status files of a folder, those of all shards and machines.

    A job that "runs" although its run is no longer alive is interrupted.

    Raises:
        OutputError: the folder does not exist or holds no status files.
    """
    names = sorted(name for name in place.sizes() if name.endswith(SUFFIX))
    if not names:
        raise OutputError(
            f"{place.name or 'This folder'} holds no status files (*{SUFFIX}); name the --out folder of a run."
        )
    running = {o.run: o for o in living(place, owners(place)).values()}
    rows = []
    for name in names:
        status = parse_status(place.read(name) or b"") or Status(
            job=name.removesuffix(SUFFIX), source="", state="failed", error="its status file is damaged; run it again."
        )
        stale = status.state == "running" and status.run not in running
        rows.append(row_of(status, "interrupted" if stale else ""))
    runs = [f"process {o.pid} on {o.host}, shard {o.shard}" for o in running.values()]
    return FolderStatus(rows, runs)

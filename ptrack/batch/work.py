"""One job with its status file, and what makes a worker, in any process."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ptrack.batch.places import Place, open_place
from ptrack.batch.status import Status, begun, read_status, write_status
from ptrack.errors import Interrupted, OutputError, PTrackError, TransientError

FULL = ("No space left on device", "errno = 28", "Disk quota exceeded")
Order = dict[str, Any]  # of one job to a worker, and its answer: small dictionaries of plain values


class UnusableWorkerError(Exception):
    """No job can be done here, and none elsewhere: the model cannot be built. Its cause is the PTrackError."""


def do_job(work: Any, place: Place | str, order: Order, progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Do one job and write its status file before and after.

    Args:
        work: its ``run(order, place, progress)`` returns fields of ``Status``.
        place: of outputs and status files.
        order: with ``job``, ``source``, ``path``, ``settings``, ``outputs``, ``overwrite``, ``run`` and ``tries``.
        progress: called now and then with small dictionaries; ``{"loaded": True}`` begins the count of seconds anew.

    Raises:
        PTrackError: the worker cannot do any job; the cause of an ``UnusableWorkerError``.

    Returns:
        ``{"status": the status file's fields}`` and, where they are true, ``again``: another try may help; ``full``:
        the disk is full; ``signum``: the signal that stopped it.
    """
    place = open_place(place) if isinstance(place, str) else place
    kept = {name: order[name] for name in ("job", "source", "settings", "run", "tries")}
    status, flags = begun(Status(**kept, outputs=_owned(place, order["job"]))), {}
    began = time.perf_counter()

    def report(data: dict[str, Any]) -> None:
        nonlocal began
        if "loaded" in data:
            began = time.perf_counter()  # the model's time is not the video's
        progress(data)

    try:
        _refuse_foreign(place, order, status)
        status = replace(status, outputs={**status.outputs, **dict.fromkeys(order["outputs"], 0)})
        write_status(place, status)
        made = work.run(order, place, report)
        seconds = time.perf_counter() - began
        status = replace(status, state="done", seconds=seconds, **made)
        status = replace(status, frames_per_second=status.frames / max(seconds, 1e-9))
    except UnusableWorkerError as error:
        write_status(place, replace(status, state="queued"))
        raise error.__cause__ or error from None
    except Exception as error:
        status, flags = _failed(status, error, time.perf_counter() - began)
        status = replace(status, outputs=_existing(place, status.outputs))
    try:
        write_status(place, status)
    except PTrackError as error:
        return {"status": _plain(replace(status, state="failed", error=str(error))), "full": is_full(error)}
    return {"status": _plain(status), **flags}


def _owned(place: Place, job: str) -> dict[str, int]:
    """Return the files that earlier tries of a job wrote, or may have written before they were killed."""
    before = read_status(place, job)
    return dict(before.outputs) if before is not None else {}


def _existing(place: Place, outputs: dict[str, int]) -> dict[str, int]:
    """Return the files that exist: a job that failed has no claim to names that others may use later."""
    with contextlib.suppress(PTrackError, OSError):
        return {name: size for name in outputs if (size := place.size(name)) is not None}
    return outputs


def _refuse_foreign(place: Place, order: Order, status: Status) -> None:
    """Raise OutputError for an output that exists and is no earlier try's."""
    for name in order["outputs"]:
        if name not in status.outputs and not order["overwrite"] and place.size(name) is not None:
            raise OutputError(
                f"{name} exists in {place.name or 'this folder'} and was not written by an earlier run over several "
                "sources; move it away, or add --overwrite."
            )


def _failed(status: Status, error: Exception, seconds: float) -> tuple[Status, dict[str, Any]]:
    """Return the status of a job that ended with an error, and what the driver should know about it."""
    if isinstance(error, Interrupted):
        return replace(status, state="interrupted", seconds=seconds), {"signum": error.signum}
    flags = {"full": is_full(error), "again": isinstance(error, TransientError | MemoryError)}
    sentence = str(error)
    if not isinstance(error, PTrackError):  # one video's surprise must not end the others
        sentence = f"an unexpected {type(error).__name__}: {error}"
        if os.environ.get("PTRACK_DEBUG"):
            import traceback

            sentence += "\n" + "".join(traceback.format_exception(error))
    return replace(status, state="failed", seconds=seconds, error=sentence), {k: v for k, v in flags.items() if v}


def is_full(error: BaseException | None) -> bool:
    """Return whether an error comes from a full disk."""
    while error is not None:
        if any(text in str(error) for text in FULL) or getattr(error, "errno", None) in (28, 122):
            return True
        error = error.__cause__ or error.__context__
    return False


def _plain(status: Status) -> dict[str, Any]:
    return json.loads(status.to_json())


@dataclass(frozen=True, kw_only=True)
class WorkSpec:
    """How a worker is made, in any process."""

    make: Callable[..., Any]  # picklable; called with ``index`` and ``workers``, it returns an object with ``run``
    place: str  # folder or URL of outputs and status files
    workers: int = 1
    threads: int = 0  # of the CPU for each worker; 0 leaves it to the libraries

    def work(self, index: int = 0) -> Any:
        """Build the worker's object."""
        return self.make(index=index, workers=self.workers)

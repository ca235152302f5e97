"""What a run leaves behind: its outputs, its unfinished rows and state, and what decided them.

The settings that decide the tracks are kept in the state of an unfinished run and in the finished file, so that
``--resume`` goes on only with, and calls complete only, what the same command would make again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptrack._version import __version__
from ptrack.errors import OutputError
from ptrack.fileio import NAME_MAX, check_writable
from ptrack.models.base import Configured
from ptrack.tracking.frame_tracker import FrameTracker
from ptrack.tracking.request import NEUTRAL
from ptrack.tracks import Queries, TracksInfo
from ptrack.tracks_io import format_of, load_header
from ptrack.video.frames import FrameSource

VERSION = "ptrack version"  # may differ in a finished file
UNSTATED = "the points"  # a setting whose value is too long to be stated


def partial_path(out: Path) -> Path:
    """Return where the rows of an unfinished run are kept."""
    return out.with_name(f"{out.stem}.partial.h5")


def state_path(out: Path) -> Path:
    """Return where the state of an unfinished run is kept."""
    return partial_path(out).with_suffix(".state")


def remove_partial(out: Path) -> None:
    """Remove what an unfinished run left."""
    partial_path(out).unlink(missing_ok=True)
    state_path(out).unlink(missing_ok=True)


def check_outputs(out: Path, overlay: Path | None, *, overwrite: bool, resume: bool) -> bool:
    """Check, before any expensive step, that outputs can be written; return True if there are finished tracks.

    Raises:
        OutputError: an output exists or its place is not writable; an unfinished run is in the way.
        TracksError: unknown suffix.
    """
    format_of(out)
    if overwrite and resume:
        raise OutputError("--resume goes on with a run and --overwrite starts anew; give one of them.")
    partial = partial_path(out)
    if len(os.fsencode(state_path(out).name)) > NAME_MAX:
        most = NAME_MAX - len(os.fsencode(state_path(out).name)) + len(os.fsencode(out.name))
        raise OutputError(f"Cannot write {out}: its name is longer than {most} bytes; give a shorter one.")
    finished = resume and out.is_file() and not partial.exists()
    if overlay is not None and overlay.resolve() == out.resolve():
        raise OutputError(f"{out} cannot be both the tracks file and the overlay; give them two names.")
    if finished:
        if overlay is not None and not overlay.exists():
            check_writable(overlay, overwrite=False)
        return True
    if partial.exists() and not (resume or overwrite):
        raise OutputError(
            f"{partial} is left of an unfinished run; add --resume to go on with it or --overwrite to start anew."
        )
    check_writable(out, overwrite=overwrite or resume)
    if overlay is not None:
        check_writable(overlay, overwrite=overwrite or resume)
    return False


def deciding(
    tracker: FrameTracker, source: FrameSource, queries: Queries, info: TracksInfo, backward: bool
) -> dict[str, Any]:
    """Return all that decides the tracks, as JSON values by the names that a user knows.

    The device is left out: all give the same tracks up to rounding.
    """
    config: Any = tracker.model.config if isinstance(tracker.model, Configured) else None
    named = dataclasses.asdict(config) if dataclasses.is_dataclass(config) and not isinstance(config, type) else {}
    read = {k.replace("_", "-"): v for k, v in dataclasses.asdict(source.options).items() if k not in NEUTRAL}
    digest = hashlib.sha256(queries.points.tobytes() + "\0".join(queries.ids).encode("utf-8", "surrogatepass"))
    made = {
        "video": info.source_sha256 or info.source,
        "size": f"{info.width}x{info.height}",
        "model": info.model,
        "weights": info.weights_sha256,
        **{f"model {name}": value for name, value in named.items()},
        **{name.replace("_", "-"): value for name, value in tracker.options.items()},
        "support-grid": tracker.support_grid,
        **read,
        "backward": backward,
        "number of points": len(queries),
        UNSTATED: digest.hexdigest(),
        VERSION: __version__,
    }
    return json.loads(json.dumps(made, default=str))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in words which settings differ, "" if none does."""
    found = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if old == new or (name == UNSTATED and before.get("number of points") != now.get("number of points")):
            continue
        long = name == UNSTATED or max(len(str(old)), len(str(new))) > 40
        found.append(
            f"{name} differ" if name == UNSTATED else name if long else f"{name} {_shown(old)}, now {_shown(new)}"
        )
    return "; ".join(found)


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    return str(value) if not isinstance(value, bool) else "on" if value else "off"


def check_finished(out: Path, queries: Queries, wanted: TracksInfo) -> str:
    """Return a sentence that finished tracks are what would be made now.

    Raises:
        OutputError: they were made with other settings; the message names them.
        TracksError: the file is damaged or holds no tracks.
    """
    info, kept = load_header(out)
    now = json.loads(wanted.settings)
    if info.settings:
        before, known = json.loads(info.settings), ""
    else:
        before = _stated(info, kept)
        now = {name: now.get(name) for name in before}
        same = np.array_equal(kept.points, queries.points) and np.array_equal(kept.ids, queries.ids)
        before[UNSTATED] = now[UNSTATED] if same else ""
        known = ", as far as it tells: it does not hold the options it was made with"
    for settings in (before, now):
        settings.pop(VERSION, None)
    found = differences(before, now)
    if found:
        raise OutputError(
            f"{out} is finished, but was made with other settings ({found}); give it another name or use --overwrite."
        )
    return f"{out} is complete already{known}"


def _stated(info: TracksInfo, queries: Queries) -> dict[str, Any]:
    """Return the settings that files without them hold: CSV, and files of older versions."""
    stated = {"number of points": len(queries), UNSTATED: ""}
    if info.model:
        stated |= {"video": info.source_sha256 or info.source, "model": info.model, "weights": info.weights_sha256}
    return stated

"""What ``ptrack track`` can be asked for, and where its outputs go. Needs no torch, so that nothing waits for it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from ptrack.errors import CheckpointError, OutputError, PTrackError, QueryError
from ptrack.fileio import fitting, sha256_of
from ptrack.models.zoo import DEFAULT_MODEL, find
from ptrack.queries_io import QueryOptions
from ptrack.tracking.drawing import DrawingMaker
from ptrack.tracks import SCHEMA_VERSION
from ptrack.tracks_io import FORMATS, format_of, tracks_stem
from ptrack.video import ReadOptions

LONGEST_TAIL = ".tracks.partial.state"  # of what outputs and unfinished runs append to a source's name
NEUTRAL = ("strict", "max_pixels")  # fields of ReadOptions that refuse a source but change no track


@dataclass(frozen=True, kw_only=True)
class TrackRequest:
    """Everything ``ptrack track`` can be asked for."""

    sources: Sequence[str]
    camera: bool = False  # sources are camera numbers or addresses
    queries: QueryOptions = field(default_factory=QueryOptions)
    read: ReadOptions = field(default_factory=ReadOptions)
    model: str = DEFAULT_MODEL
    checkpoint: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    support_grid: int | None = None
    model_options: dict[str, object] = field(default_factory=dict)  # e.g. memory
    out: Path | None = None  # a file for one source, else a folder
    format: str | None = None  # "h5", "npz", "csv" or "json"; from ``out`` or h5
    overlay: bool = True
    drawing: DrawingMaker | None = None  # makes what draws the overlay; needed for one
    trail: int | None = None  # of the overlay, frames; None: the standard look
    occluded: bool | None = None  # of the overlay: occluded points always, never, or (None) for some frames
    overwrite: bool = False
    resume: bool = False
    backward: bool = False
    dry_run: bool = False  # check everything, decode the first frames, write nothing


def source_stem(source: str, camera: bool = False) -> str:
    """Return the name that outputs of a source start with."""
    if camera or "://" in source:
        return "camera-" + re.sub(r"\W+", "-", source.split("://")[-1]).strip("-")
    path = Path(source)
    plain = path.stem
    if re.search(r"[*?\[%]", plain) and not path.exists():  # a pattern: what is fixed of it, or its folder's name
        plain = re.sub(r"%\d*d|\[.*?\]|[*?\[\]%]", "", plain).strip("-_. ") or path.resolve().parent.name
    return path.resolve().name if path.is_dir() else plain


def output_paths(request: TrackRequest, source: str, stem: str = "") -> tuple[Path, Path | None]:
    """Return where the tracks and the overlay of a source go; their names begin with ``stem``, by default the source's.

    Raises:
        OutputError: one file named for several sources, or suffix and ``--format`` disagree.
        TracksError: unknown suffix.
    """
    stem, out = fitting(stem or source_stem(source, request.camera), LONGEST_TAIL), request.out
    if request.format is not None and request.format not in FORMATS:
        raise OutputError(f"--format {request.format}: choose one of {', '.join(FORMATS)}.")
    if out is not None and out.suffix and not out.is_dir():
        if len(request.sources) > 1:
            raise OutputError(f"--out {out} is one file, but there are {len(request.sources)} sources; name a folder.")
        if request.format is not None and request.format != format_of(out):
            raise OutputError(f"--out {out} and --format {request.format} disagree; leave one of them out.")
        tracks = out
    else:
        tracks = (out or Path()) / f"{stem}.tracks{FORMATS[request.format or 'h5']}"
    return tracks, tracks.with_name(f"{tracks_stem(tracks)}.overlay.mp4") if request.overlay else None


def resolve(source: str) -> str:
    """Return the packaged clip for ``demo`` (unless a file has that name), else the source itself."""
    from ptrack.video.sources import packaged

    return packaged(source)


def deciding_settings(request: TrackRequest) -> dict[str, Any]:
    """Return everything that decides the tracks of a request besides the source's content, as JSON values.

    Files count by their content, so that a renamed query file changes nothing and an edited one does. The device does
    not count: all give the same tracks up to rounding.

    Raises:
        QueryError, CheckpointError: a file that the request names is missing.
    """
    q = request.queries
    queries = {
        "grid": q.grid,
        "grid_frame": q.grid_frame,
        "points": list(q.points),
        "file": _content(q.file, QueryError),
        "mask": _content(q.mask, QueryError),
        "num": q.num,
    }
    return {
        "schema": SCHEMA_VERSION,
        "model": request.model,
        "weights": _weights(request),
        "options": {k: v for k, v in request.model_options.items() if v is not None},
        "support_grid": request.support_grid,
        "dtype": request.dtype,
        "backward": request.backward,
        "queries": queries,
        "read": {k: v for k, v in asdict(request.read).items() if k not in NEUTRAL},
    }


def _content(path: Path | None, error: type[PTrackError]) -> str | None:
    if path is None:
        return None
    if not path.is_file():
        raise error(f"There is no file {path}.")
    return sha256_of(path)


def _weights(request: TrackRequest) -> str:
    """Return the sha256 of the weights where they are files that need no download."""
    if request.checkpoint is not None:
        return _content(request.checkpoint, CheckpointError) or ""
    if not find(request.model).weights.startswith("packaged"):
        return ""
    files = sorted(Path(str(resources.files("ptrack.models") / "weights")).glob("*.safetensors"))
    return hashlib.sha256("".join(sha256_of(path) for path in files).encode()).hexdigest()

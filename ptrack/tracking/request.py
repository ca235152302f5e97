"""What ``ptrack track`` can be asked for, and where its outputs go. Needs no torch, so that nothing waits for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from ptrack.errors import OutputError
from ptrack.models.zoo import DEFAULT_MODEL
from ptrack.queries_io import QueryOptions
from ptrack.tracks_io import FORMATS, format_of
from ptrack.video import ReadOptions

DEMO = "demo"


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


def output_paths(request: TrackRequest, source: str) -> tuple[Path, Path | None]:
    """Return where the tracks and the overlay of a source go.

    Raises:
        OutputError: one file named for several sources, or suffix and ``--format`` disagree.
        TracksError: unknown suffix.
    """
    stem, out = source_stem(source, request.camera), request.out
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
    name = tracks.name.removesuffix(tracks.suffix).removesuffix(".tracks")
    return tracks, tracks.with_name(f"{name}.overlay.mp4") if request.overlay else None


def resolve(source: str) -> str:
    """Return the packaged clip for ``demo`` (unless a file has that name), else the source itself."""
    if source == DEMO and not Path(source).exists():
        return str(resources.files("ptrack") / "assets" / "demo.mp4")
    return source

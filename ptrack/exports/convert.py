"""From one tracks file to another, whatever their formats."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ptrack.errors import TracksError
from ptrack.exports.formats import FORMATS, Format, export, load_any
from ptrack.tracks import Tracks


def format_for(target: Path | str) -> str:
    """Return the name of the format that a file's ending means: the first one of the list with that ending.

    Raises:
        TracksError: no format has that ending; the message asks for ``--to``.
    """
    suffix = {".hdf5": ".h5"}.get(Path(target).suffix.lower(), Path(target).suffix.lower())
    for found in FORMATS.values():
        if found.suffix == suffix:
            return found.name
    raise TracksError(f"{target}: no format ends in '{suffix}'; choose one with --to: {', '.join(FORMATS)}.")


def parse_size(text: str) -> tuple[int, int]:
    """Return (H, W) from "854x480" (width first); raises TracksError."""
    found = re.fullmatch(r"\s*(\d+)\s*[xX×]\s*(\d+)\s*", text)
    if not found or 0 in (int(found[1]), int(found[2])):
        raise TracksError(f"--size {text}: write WIDTHxHEIGHT in pixels, for example --size 854x480.")
    return int(found[2]), int(found[1])


def with_rate(tracks: Tracks, fps: float) -> Tracks:
    """Return the tracks with times of ``fps`` frames of the source per second.

    Raises:
        TracksError: ``fps`` is not above 0, or the tracks hold measured times.
    """
    if not 0 < fps < 1e6:
        raise TracksError(f"--fps {fps:g}: give the source's frames per second, above 0.")
    if tracks.info.fps or not np.array_equal(tracks.pts_seconds, tracks.frame_index):
        raise TracksError(f"--fps {fps:g}: these tracks hold their own times; leave it out.")
    return replace(tracks, pts_seconds=tracks.frame_index / fps, info=replace(tracks.info, fps=fps))


def convert_file(
    source: Path | str,
    target: Path | str,
    *,
    to: str | None = None,
    from_: str | None = None,
    size: str | None = None,
    fps: float | None = None,
    start_frame: int | None = None,
    overwrite: bool = False,
) -> tuple[Format, Tracks]:
    """Read tracks from one file and write them to another.

    Args:
        source: any readable format.
        target: the file to write.
        to: name of the format to write; by the ending of ``target`` if None.
        from_: name of the format to read; by ending and content if None.
        size: "WIDTHxHEIGHT" for tracks that do not hold the frame size (DeepLabCut's, CSV).
        fps: frames of the source per second, for tracks that hold none (DeepLabCut's, CSV without times).
        start_frame: the number that the source's frame 0 gets (Nuke, Natron).
        overwrite: replace ``target``.

    Returns:
        The format written and the tracks.

    Raises:
        TracksError: unknown or unreadable format, damaged file, wrong size.
        OutputError: ``target`` exists or cannot be written.
    """
    name = to or format_for(target)
    height, width = parse_size(size) if size else (0, 0)
    tracks = load_any(source, from_)
    if size:
        tracks = replace(tracks, info=replace(tracks.info, width=width, height=height))
    if fps is not None:
        tracks = with_rate(tracks, fps)
    return export(tracks, target, name, start_frame=start_frame, overwrite=overwrite), tracks

"""The list of file formats, and the two functions that write and read any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ptrack.errors import TracksError, did_you_mean
from ptrack.exports import (
    aftereffects,
    arrays,
    blender,
    coco,
    deeplabcut,
    natron,
    nuke,
    pose,
    tables,
    trajectories,
)
from ptrack.fileio import check_writable, write_text
from ptrack.tracks import Tracks
from ptrack.tracks_io import load_tracks, save_tracks

CORNER = "pixels, (0, 0) is the upper-left corner of the upper-left pixel, y downwards"
CENTRE = "pixels, (0, 0) is the centre of the upper-left pixel (half a pixel less than ptrack's own), y downwards"
LOWER_LEFT = "pixels, (0, 0) is the lower-left corner of the lower-left pixel, y upwards"


@dataclass(frozen=True, kw_only=True)
class Format:
    """One file format. ``write`` and ``read`` take a path; ``read`` is None for formats that only go out."""

    name: str  # as given to ``--to``
    suffix: str  # usual file name ending, with the dot
    summary: str  # what it is, for which program
    origin: str  # unit, origin and direction of the coordinates
    write: Callable[..., object]  # (tracks, path), and the number of frame 0 where there is a ``first_frame``
    read: Callable[[Path], Tracks] | None = None
    first_frame: int | None = None  # what the source's frame 0 is by default, where ``--start-frame`` can set it


def _own(name: str, suffix: str, summary: str) -> Format:
    return Format(name=name, suffix=suffix, summary=summary, origin=CORNER, write=save_tracks, read=load_tracks)


def _as_text(text_of: Callable[..., str]) -> Callable[..., None]:
    """Return what writes the text that ``text_of(tracks)``, or ``text_of(tracks, start_frame)``, returns."""
    return lambda tracks, path, *start_frame: write_text(path, text_of(tracks, *start_frame))


_ALL = (
    _own("h5", ".h5", "ptrack's own HDF5, with everything"),
    _own("npz", ".npz", "ptrack's own NumPy archive, with everything"),
    _own("csv", ".csv", "ptrack's own table, one row per frame and point"),
    _own("json", ".json", "ptrack's own JSON, with everything"),
    Format(
        name="tapvid",
        suffix=".npz",
        summary="TAP-Vid's arrays (points, occluded, query_points) without pickle",
        origin="fractions of the width and height, (0, 0) is the upper-left corner of the image, y downwards",
        write=arrays.write_tapvid,
        read=arrays.read_tapvid,
    ),
    Format(
        name="cotracker",
        suffix=".npz",
        summary="CoTracker's arrays (pred_tracks, pred_visibility)",
        origin=CENTRE,
        write=arrays.write_cotracker,
        read=arrays.read_cotracker,
    ),
    Format(
        name="dlc-h5",
        suffix=".h5",
        summary="DeepLabCut's table as pandas reads it (key df_with_missing)",
        origin=CENTRE,
        write=pose.write_dlc_h5,
        read=deeplabcut.read_dlc_h5,
    ),
    Format(
        name="dlc-csv",
        suffix=".csv",
        summary="DeepLabCut's table with its three header rows",
        origin=CENTRE,
        write=pose.write_dlc_csv,
        read=deeplabcut.read_dlc_csv,
    ),
    Format(
        name="sleap",
        suffix=".h5",
        summary="SLEAP's analysis HDF5, one instance whose nodes are the points",
        origin=CENTRE,
        write=pose.write_sleap,
    ),
    Format(
        name="napari",
        suffix=".csv",
        summary="rows for napari's Tracks layer (track_id, t, y, x)",
        origin=CENTRE,
        write=tables.write_napari,
    ),
    Format(
        name="coco",
        suffix=".json",
        summary="COCO keypoints, one annotation per frame",
        origin=f"keypoints: {CENTRE}; boxes: from the upper-left corner of the image",
        write=coco.write_coco,
    ),
    Format(
        name="blender",
        suffix=".py",
        summary="a Python script for Blender's text editor that adds the tracks to the active movie clip",
        origin="fractions of the width and height, (0, 0) is the lower-left corner of the image, y upwards",
        write=_as_text(blender.blender_script),
    ),
    Format(
        name="aftereffects",
        suffix=".txt",
        summary="After Effects keyframe data (motion tracker points), to paste onto a layer",
        origin=CORNER,
        write=_as_text(aftereffects.aftereffects_text),
    ),
    Format(
        name="aftereffects-cornerpin",
        suffix=".txt",
        summary="After Effects keyframe data of the Corner Pin effect, from four points",
        origin=CORNER,
        write=_as_text(aftereffects.corner_pin_text),
    ),
    Format(
        name="nuke",
        suffix=".nk",
        summary="a Nuke script with one Tracker4 node that holds all points",
        origin=LOWER_LEFT,
        write=_as_text(nuke.nuke_script),
        first_frame=1,
    ),
    Format(
        name="nuke-cornerpin",
        suffix=".nk",
        summary="a Nuke script with a CornerPin2D node, from four points",
        origin=LOWER_LEFT,
        write=_as_text(nuke.corner_pin_script),
        first_frame=1,
    ),
    Format(
        name="natron",
        suffix=".py",
        summary="a Python script for Natron's Script Editor that adds a Tracker node",
        origin=LOWER_LEFT,
        write=_as_text(natron.natron_script),
        first_frame=1,
    ),
    Format(
        name="trajectories",
        suffix=".json",
        summary="JSON lists of {x, y} per point and frame, for video-generation nodes",
        origin=CORNER,
        write=trajectories.write_trajectories,
    ),
)
FORMATS: dict[str, Format] = {f.name: f for f in _ALL}


def find_format(name: str) -> Format:
    """Return a format by name. Raises TracksError that names the nearest one for an unknown name."""
    if name not in FORMATS:
        raise TracksError(f"Unknown format '{name}'.{did_you_mean(name, FORMATS)} Known: {', '.join(FORMATS)}.")
    return FORMATS[name]


def guess_format(path: Path | str) -> Format:
    """Return the format of an existing file from its ending and, where endings are shared, its content.

    Raises:
        TracksError: nothing fits; the message asks for ``--from``.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    guesses = {".csv": tables.guess_csv, ".npz": arrays.guess_npz, ".h5": pose.guess_h5, ".hdf5": pose.guess_h5}
    if suffix in guesses and path.is_file():
        return FORMATS[guesses[suffix](path)]
    if suffix == ".json":
        return FORMATS["json"]
    if not path.exists():
        raise TracksError(f"There is no file {path}.")
    written = [f.name for f in _ALL if f.suffix == suffix]  # those that are read were recognised above
    if written:
        raise TracksError(
            f"{path}: files in {suffix} ({', '.join(written)}) can be written but not read. "
            f"If it is another format, choose one with --from: {', '.join(readable())}."
        )
    raise TracksError(f"The format of {path} is not known; choose one with --from: {', '.join(readable())}.")


def readable() -> list[str]:
    """Return the names of the formats that can be read."""
    return [f.name for f in _ALL if f.read is not None]


def load_any(path: Path | str, name: str | None = None) -> Tracks:
    """Read tracks from any readable format; guessed from the file when ``name`` is None.

    Raises:
        TracksError: the file is missing, damaged, of an unknown format, or of one that only goes out.
    """
    found = guess_format(path) if name is None else find_format(name)
    if found.read is None:
        raise TracksError(f"The format '{found.name}' can only be written. Readable: {', '.join(readable())}.")
    return found.read(Path(path))


def export(
    tracks: Tracks, path: Path | str, name: str, *, start_frame: int | None = None, overwrite: bool = False
) -> Format:
    """Write ``tracks`` in the format ``name`` and return the format's description.

    Args:
        tracks: what to write.
        path: the file.
        name: of the format.
        start_frame: the number that the source's frame 0 gets, in formats with a ``first_frame``.
        overwrite: replace the file.

    Raises:
        TracksError: unknown format, tracks that lack what it needs (the frame size for normalised coordinates), or a
            start frame where frames have no such number.
        OutputError: the file exists and ``overwrite`` is false, or it cannot be written.
    """
    found = find_format(name)
    if start_frame is not None and found.first_frame is None:
        able = ", ".join(f.name for f in _ALL if f.first_frame is not None)
        raise TracksError(f"--start-frame {start_frame}: '{name}' has no number for the first frame; these do: {able}.")
    path = check_writable(path, overwrite=overwrite)
    first = found.first_frame if start_frame is None else start_frame
    found.write(tracks, path, *(() if first is None else (first,)))
    return found

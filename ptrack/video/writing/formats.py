"""From the name of an output to the writer of its format."""

from __future__ import annotations

from pathlib import Path

from ptrack import fileio
from ptrack.errors import OutputError
from ptrack.video.writing.base import VideoWriter
from ptrack.video.writing.containers import GifWriter, H264Writer
from ptrack.video.writing.png import PngWriter

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".m4v")


def open_writer(path: Path | str, *, fps: float | None = None, overwrite: bool = False, crf: int = 20) -> VideoWriter:
    """Return a writer chosen by the name: .mp4 .m4v .mov .mkv (H.264), .gif, a ``%05d.png`` pattern, or a folder.

    Args:
        path: the output; a name without a suffix, or an existing folder, takes ``000000.png`` and so on.
        fps: frames per second where frames come without times; 25 if not given.
        overwrite: replace what is there.
        crf: H.264 quality, 0 (lossless) to 51; 20 is visually near the original.

    Raises:
        OutputError: the suffix is unknown, the output exists, or its place is not writable.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return H264Writer(fileio.check_writable(path, overwrite=overwrite), fps, crf)
    if suffix == ".gif":
        return GifWriter(fileio.check_writable(path, overwrite=overwrite), fps)
    if suffix in ("", ".png") or path.is_dir():
        return PngWriter(path, overwrite=overwrite)
    raise OutputError(
        f"{path}: '{suffix}' is not a format that can be written; "
        "use .mp4, .mov, .mkv, .gif, a pattern such as frame_%05d.png, or a folder."
    )

"""From what a user names to a stream of frames: the one place that decides what a source is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.errors import InputError
from ptrack.video.frames import FrameSource, ReadOptions
from ptrack.video.listing import SUFFIXES, Listing, by_pattern, in_folder, is_pattern
from ptrack.video.select import check_options
from ptrack.video.still import check_size

DEMO = "demo"  # the packaged clip


def open_source(spec: Any, options: ReadOptions | None = None, *, camera: bool = False) -> FrameSource:
    """Open a video, GIF, image folder, glob pattern, camera, stream, array or iterator as a stream of frames.

    The first frame is decoded here, so ``info`` is true and most errors come now.

    Args:
        spec: a path; ``demo``, the packaged clip; a folder of images; a glob pattern (``frames/*.png``);
            ``/dev/videoN``; an ``rtsp://`` or ``http://`` address; ``-`` for standard input; an int, or text with
            ``camera=True``, for a camera number; an array or tensor (T, H, W, 3), (T, 3, H, W) or (T, H, W), uint8 or
            floating point from 0 to 1, with or without a batch dimension of 1 before it; a sequence, iterable or
            iterator of such frames or of PIL images; or an open FrameSource, which is returned as it is (its own
            options stay).
        options: which frames, at which size.
        camera: ``spec`` is a camera number or address, not a file.

    Raises:
        InputError: the source does not exist, is not readable or holds no frames; in one sentence.
    """
    if isinstance(spec, FrameSource):
        return spec
    options = options or ReadOptions()
    check_options(options)
    if isinstance(spec, str | os.PathLike):
        if not os.fspath(spec).strip():
            raise InputError("The name of the source is empty; give a video, an image folder or an address.")
        name = os.fspath(spec)
        path = packaged(name)
        return _named(name, options, camera) if path == name else _file(Path(path), name, options)
    if isinstance(spec, int | np.integer):
        from ptrack.video.live import LiveSource

        return LiveSource(int(spec), options)
    return _in_memory(spec, options)


def read_frames(spec: Any, **options: Any) -> FrameSource:
    """Open a source with the fields of ReadOptions as keywords: ``read_frames("a.mp4", start=2.0, stride=2)``.

    Raises:
        InputError: as ``open_source``.
        TypeError: an unknown keyword.
    """
    return open_source(spec, ReadOptions(**options))


def packaged(spec: str) -> str:
    """Return the path of the packaged clip for ``demo`` (unless something here has that name), else the name itself."""
    if spec == DEMO and not Path(spec).exists():
        return str(resources.files("ptrack") / "assets" / "demo.mp4")
    return spec


def _named(spec: str, options: ReadOptions, camera: bool) -> FrameSource:
    from ptrack.video import live

    path = Path(spec)
    if camera or (live.is_live(spec) and not (spec == "-" and path.exists())):
        return live.LiveSource(int(spec) if camera and spec.isdecimal() else spec, options)
    if path.is_dir():
        return _images(in_folder(path), spec, options)
    if is_pattern(spec):
        return _images(by_pattern(spec), spec, options)
    if not path.exists():
        raise InputError(f"There is no file or folder {spec}. Check the name{_nearby(path)}.")
    if not path.is_file():  # a named pipe or a device
        return live.LiveSource(spec, options)
    return _file(path, spec, options)


def _nearby(path: Path) -> str:
    """Return a hint at a file of nearly the same name."""
    import difflib

    try:
        names = os.listdir(path.parent)
    except OSError:
        return f"; its folder {path.parent} does not exist"
    if path.name in names:
        return ": it is a link to something that does not exist"
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _images(listing: Listing, name: str, options: ReadOptions) -> FrameSource:
    from ptrack.video.images import ImageSequence, Page

    return ImageSequence([Page(path) for path in listing.paths], name, options, listing.warnings)


def _file(path: Path, name: str, options: ReadOptions) -> FrameSource:
    from ptrack.video import files, probe

    try:
        if path.stat().st_size == 0:
            raise InputError(f"{name} is empty (0 bytes). Copy or record it again.")
        with open(path, "rb") as file:
            gif = probe.gif_size(file.read(10))
        if gif is not None:
            check_size(*gif, options.max_pixels, name)
        if path.suffix.lower() in SUFFIXES or (gif is not None and probe.gif_lacks_delays(path)):
            return _pictures(path, name, options)
        return files.VideoFile(path, name, options)
    except PermissionError as error:
        raise InputError(f"{name} may not be read (permission denied). Change its permissions.") from error


def _pictures(path: Path, name: str, options: ReadOptions) -> FrameSource:
    """Open a picture file: one picture, a stack of pages, or an animation."""
    from ptrack.video.animation import AnimatedImage
    from ptrack.video.images import ImageSequence, Page
    from ptrack.video.still import DamagedPictureError, PictureFile

    try:
        with PictureFile(path, options.max_pixels) as file:
            pages, timed = file.pages(), file.timed
    except DamagedPictureError:
        pages, timed = [0], False  # the sequence reports what is wrong with it
    if timed and len(pages) > 1:
        return AnimatedImage(path, name, options)
    return ImageSequence([Page(path, number) for number in pages], name, options)


def _in_memory(spec: Any, options: ReadOptions) -> FrameSource:
    from ptrack.video.arrays import ArraySource, IteratorSource

    if hasattr(spec, "getbands"):
        raise InputError("One PIL image is no video; give [image] for a video of one frame.")
    if not hasattr(spec, "shape") and hasattr(spec, "__array__"):
        spec = np.asarray(spec)
    if hasattr(spec, "shape") or isinstance(spec, Sequence):
        return ArraySource(spec, options)
    if isinstance(spec, Iterable) and not isinstance(spec, Mapping):
        return IteratorSource(spec, options)
    raise InputError(
        f"A {type(spec).__name__} is no source of frames; give a path, a camera number, an array or an iterator."
    )

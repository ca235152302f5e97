"""Opening a container with PyAV: which stream, within which limits, by which address."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptrack.errors import InputError
from ptrack.video.frames import ReadOptions
from ptrack.video.still import check_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Formats without time stamps, for which ffmpeg makes them up (or gives none): streams without a container, and pictures
# over HTTP.
UNSTAMPED = frozenset(
    ("h264", "hevc", "m4v", "mpegvideo", "mjpeg", "mpjpeg", "vc1", "dirac", "obu", "image2pipe", "jpeg_pipe")
)
# Formats whose files name other files or addresses, or are programs. A file that anybody may have made must not make
# ptrack open, wait for or run something else: a playlist without an end is asked for more for ever.
POINTERS = frozenset(
    ("avisynth", "concat", "dash", "ffmetadata", "hls", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "vapoursynth")
) | {"webm_dash_manifest"}
_MOST_THREADS = 4  # of the decoder


def open_container(target: Any, name: str, options: ReadOptions, **more: Any) -> tuple[InputContainer, VideoStream]:
    """Open ``target`` (URL or file object) with PyAV and return it with its default real video stream.

    Raises:
        av.FFmpegError: it cannot be opened.
        InputError: it holds no video stream, or one of too many pixels.
    """
    import av

    # The decoder's own limit holds already while it is found out what is there. Decoders count padding too.
    limit = {"max_pixels": str(2 * options.max_pixels + (1 << 20))}
    local = {} if isinstance(target, str) and not target.startswith("file:") else {"format_whitelist": _whole_files()}
    try:
        container = av.open(target, options={**limit, **local, **options.extra}, metadata_errors="replace", **more)
    except av.ArgumentError as error:
        if local and _names_others(target):
            raise InputError(
                f"{name} is a playlist or a description of streams, which names other files; give the video itself."
            ) from error
        raise
    try:
        stream = _chosen_stream(container, name)
        context = stream.codec_context
        if context is None:
            raise InputError(
                f"{name} uses a video codec that cannot be decoded here. Convert it to H.264, for example."
            )
        check_size(context.width, context.height, options.max_pixels, name)
    except BaseException:
        container.close()
        raise
    context.options = limit
    stream.thread_type = "AUTO"
    # An error in the very last packets can cost the good frames that the other threads still hold: keep them few.
    context.thread_count = min(_MOST_THREADS, os.cpu_count() or 1)
    return container, stream


@lru_cache(maxsize=1)
def _whole_files() -> str:
    """Return ffmpeg's formats whose files hold their video themselves, as its option ``format_whitelist``."""
    import av

    return ",".join(sorted(av.formats_available - POINTERS))


def _names_others(target: Any) -> bool:
    """Whether a local file begins like one that names other files."""
    path = target.removeprefix("file:") if isinstance(target, str) else target.name
    with open(path, "rb") as file:
        return file.read(32).lstrip().startswith((b"#EXTM3U", b"ffconcat", b"v=0", b"<?xml", b"<MPD", b";FFMETADATA"))


def real_streams(container: InputContainer) -> list[VideoStream]:
    """Return the video streams that are not cover pictures."""
    from av.stream import Disposition

    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def _chosen_stream(container: InputContainer, name: str) -> VideoStream:
    """Return the first stream that the container marks as its default, else the first."""
    from av.stream import Disposition

    if container.format.name == "tty":  # ffmpeg draws text files as pictures
        raise InputError(f"{name} holds text, not video. Give a video file, a folder of images or a GIF.")
    streams = real_streams(container)
    if not streams:
        what = "holds only sound" if container.streams.audio else "holds no video"
        raise InputError(f"{name} {what}; there is nothing to track. Give a file with a video stream.")
    return next((s for s in streams if s.disposition & Disposition.default), streams[0])


def address_of(path: Path) -> Any:
    """Return what to hand to ffmpeg: a URL that no colon, dash or per cent sign in the name can change."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:  # a name that is not UTF-8: let Python open it
        return open(path, "rb")
    return f"file:{path}"

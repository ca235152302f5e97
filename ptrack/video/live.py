"""Sources that arrive once, in real time: cameras, RTSP and HTTP streams, and standard input."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Any

from ptrack.errors import InputError
from ptrack.video.decode import Step, Timeline
from ptrack.video.files import open_container
from ptrack.video.frames import Frame, FrameSource, ReadOptions, SourceInfo
from ptrack.video.picture import Converter
from ptrack.video.select import nothing_selected, selected, with_pictures

_WAIT = 10.0  # seconds until a silent network stream is given up
_URL = re.compile(r"^(rtsps?|rtmps?|https?|udp|rtp|tcp|srt|mms)://", re.IGNORECASE)


def is_live(spec: str) -> bool:
    """Return whether a source name means a camera device, a network stream or standard input."""
    return spec == "-" or bool(_URL.match(spec)) or bool(re.fullmatch(r"/dev/video[0-9]+", spec))


def camera_address(number: int, platform: str = sys.platform) -> tuple[str, str]:
    """Return (address, ffmpeg format) of a camera by its number.

    Raises:
        InputError: the system's cameras have no numbers (Windows).
    """
    if platform.startswith("linux"):
        return f"/dev/video{number}", "v4l2"
    if platform == "darwin":
        return str(number), "avfoundation"
    raise InputError(f"Camera {number} cannot be opened by number on this system; give its stream address instead.")


def _target(spec: str | int) -> tuple[Any, dict[str, Any], dict[str, str], str]:
    """Return (what to open, arguments, ffmpeg options, kind) for a live source."""
    if isinstance(spec, int):
        address, kind = camera_address(spec)
        return address, {"format": kind}, {"framerate": "30"} if kind == "avfoundation" else {}, "camera"
    if spec == "-":
        return sys.stdin.buffer, {}, {}, "video"
    if spec.startswith("/dev/"):
        return spec, {"format": "v4l2"}, {}, "camera"
    if not _URL.match(spec):
        return f"file:{spec}", {}, {}, "video"
    low_delay = {"rtsp_transport": "tcp", "fflags": "nobuffer"} if spec.lower().startswith("rtsp") else {}
    return spec, {"timeout": (_WAIT, _WAIT)}, low_delay, "camera"


class LiveSource(FrameSource):
    """A camera or stream. It can be iterated once; when the connection breaks, the frames simply end with a warning."""

    def __init__(self, spec: str | int, options: ReadOptions) -> None:
        import av

        super().__init__()
        self._options = options
        self._name = f"camera {spec}" if isinstance(spec, int) else "standard input" if spec == "-" else spec
        target, arguments, extra, kind = _target(spec)
        reading = ReadOptions(extra={**extra, **options.extra})
        try:
            self._container, stream = open_container(target, self._name, reading, **arguments)
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(
                f"Cannot open {self._name}: {reason}. Check that it is connected and not in use."
            ) from error
        # Frame threads would hold back one picture per thread.
        stream.thread_type = "SLICE"
        self._timeline = Timeline(self._container, stream)
        self._steps = iter(self._timeline)
        first = next((step for step in self._steps if step.frame is not None), None)
        if first is None or first.frame is None:
            self._container.close()
            raise InputError(f"{self._name} gives no picture. Check that it is connected and sends video.")
        self._first: Step | None = first
        self._seconds = float(stream.time_base or 1)
        ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
        self._converter = Converter(first.frame, ratio, options.max_size)
        rate = stream.average_rate or stream.guessed_rate
        self.info = SourceInfo(
            name=self._name,
            kind=kind,
            width=self._converter.width,
            height=self._converter.height,
            rotation=self._converter.rotation,
            fps=float(rate) / options.stride if rate else None,
            live=kind == "camera",
            rereadable=False,
        )

    def __iter__(self) -> Iterator[Frame]:
        if self._first is None:
            raise InputError(f"{self._name} has been read already; it cannot be read again.")
        first, self._first = self._first, None
        return self._read(first)

    def _read(self, first: Step) -> Iterator[Frame]:
        empty = True
        steps = ((step.ticks * self._seconds, step.frame) for step in chain([first], self._steps))
        for frame in selected(with_pictures(steps), self._options, self._converter):
            empty = False
            yield frame
        if self._timeline.broken_off:
            self.truncated = True
            self.warnings.append(f"{self._name} broke off; the frames until then are used.")
        if empty:
            raise nothing_selected(self._name, self._options)

    def reversed(self, stop: int) -> Iterator[Frame]:
        """Refuse: what has passed cannot be read again."""
        raise InputError(f"{self._name} cannot be read backwards; backward tracking needs a file.")

    def close(self) -> None:
        """Disconnect."""
        self._container.close()

"""Sources that arrive once, in real time: cameras, RTSP and HTTP streams, and standard input."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from ptrack.errors import InputError, reason
from ptrack.video.arrivals import TICKS, ArrivingPackets
from ptrack.video.container import UNSTAMPED, open_container
from ptrack.video.decode import Timeline, TimelineStep, nominal_rate
from ptrack.video.findings import Findings, untimed_warning
from ptrack.video.frames import Frame, FrameSource, ReadOptions, SourceInfo
from ptrack.video.picture import Converter
from ptrack.video.select import Span, nothing_selected, selected, with_pictures

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

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
    """A camera or stream. It can be iterated once; when the connection breaks, the frames simply end with a warning.

    A camera's times count from its first picture; its own clock begins anywhere. Standard input keeps a file's times.
    """

    def __init__(self, spec: str | int, options: ReadOptions) -> None:

        super().__init__(options)
        self._name = f"camera {spec}" if isinstance(spec, int) else "standard input" if spec == "-" else spec
        self._findings = Findings(self._name, options.strict, self.warnings)
        self._container, stream, kind = self._opened(spec)
        # Frame threads would hold back one picture per thread.
        stream.thread_type = "SLICE"
        self._packets: ArrivingPackets | None = None
        if kind == "camera" and self._container.format.name in UNSTAMPED:
            self._packets = ArrivingPackets(self._container, stream)
            self._findings.note("times", "it sends no times; those at which pictures arrive are used.")
        self._second = TICKS if self._packets is not None else float(1 / (stream.time_base or 1))
        self._timeline = self._timeline_of(stream)
        self._steps = iter(self._timeline)
        first = next((step for step in self._steps if step.frame is not None), None)
        if first is None or first.frame is None:
            self.close()
            raise InputError(f"{self._name} gives no picture. Check that it is connected and sends video.")
        if self._timeline.clock.untimed and options.fps is None and not stream.codec_context.framerate:
            self._findings.sentence("times", untimed_warning(self._name))
        self._first: TimelineStep | None = first
        self._origin = first.ticks if kind == "camera" else 0
        ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
        self._converter = Converter(first.frame, ratio, options.max_size)
        if text := self._converter.choose_range(first.frame, options.range, self._name):
            self._findings.sentence("range", text)
        self.info = self._describe(stream, kind)

    def _opened(self, spec: str | int) -> tuple[InputContainer, VideoStream, str]:
        """Connect; return the container, its video stream and the kind of source."""
        import av

        target, arguments, extra, kind = _target(spec)
        reading = replace(self.options, extra={**extra, **self.options.extra})
        try:
            container, stream = open_container(target, self._name, reading, **arguments)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise InputError(
                f"Cannot open {self._name}: {reason(error)}. Check that it is connected and not in use."
            ) from error
        return container, stream, kind

    def _timeline_of(self, stream: VideoStream) -> Timeline:
        rate = self.options.fps or stream.codec_context.framerate
        return Timeline(
            self._container,
            stream,
            untimed=self._packets is None and self._container.format.name in UNSTAMPED,
            rate=float(rate) if rate else None,
            source=self._packets,
            second=self._second,
        )

    def _describe(self, stream: VideoStream, kind: str) -> SourceInfo:
        rate = stream.average_rate or stream.guessed_rate
        fps = float(rate) if rate else None
        if self._packets is not None:
            fps = None  # the header's rate is made up where times are
        elif self._timeline.clock.untimed:
            fps = self.options.fps or float(stream.codec_context.framerate or 0) or nominal_rate(stream)
        return SourceInfo(
            name=self._name,
            kind=kind,
            width=self._converter.width,
            height=self._converter.height,
            rotation=self._converter.rotation,
            fps=fps / self.options.stride if fps else None,
            live=kind == "camera",
            rereadable=False,
        )

    def __iter__(self) -> Iterator[Frame]:
        if self._first is None:
            raise InputError(f"{self._name} has been read already; it cannot be read again.")
        first, self._first = self._first, None
        return self._read(first)

    def _seconds(self, ticks: int) -> float:
        return (ticks - self._origin) / self._second

    def _read(self, first: TimelineStep) -> Iterator[Frame]:
        empty = True
        span = Span()
        steps = self._findings.watched(self._timeline, chain([first], self._steps), self._seconds)
        for frame in selected(with_pictures(span.watch(steps)), self.options, self._converter):
            empty = False
            yield frame
        if self._timeline.broken_off:
            self.truncated = True
            self._findings.sentence("end", f"{self._name} broke off; the frames until then are used.")
        if empty:
            raise nothing_selected(self._name, self.options, span)

    def reversed(self, stop: int) -> Iterator[Frame]:
        """Refuse: what has passed cannot be read again."""
        raise InputError(f"{self._name} cannot be read backwards; backward tracking needs a file.")

    def close(self) -> None:
        """Disconnect."""
        if self._packets is not None:
            self._packets.close()  # its thread closes the container when it no longer reads from it
        else:
            self._container.close()

"""H.264 video and animated GIF, encoded by PyAV under a temporary name and renamed when whole."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptrack import fileio
from ptrack.errors import OutputError, reason
from ptrack.video.select import NOMINAL_FPS
from ptrack.video.writing.base import OutputClock, VideoWriter, check_frame

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream


class ContainerWriter(VideoWriter):
    """What video and GIF share: a PyAV container under a temporary name, opened with the first frame."""

    def __init__(self, path: Path, clock: OutputClock) -> None:
        self.path = path
        self._clock = clock
        self._size: tuple[int, int] | None = None
        self._place: AbstractContextManager[Path] | None = None
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self.frames_written = 0

    @abstractmethod
    def _setup(self, container: OutputContainer, height: int, width: int) -> VideoStream:
        """Return the configured stream for frames of this size."""

    @abstractmethod
    def _feed(self, rgb: np.ndarray | None, ticks: int) -> list[VideoFrame | None]:
        """Turn a picture (None: the end) into what the encoder takes."""

    def _options(self) -> dict[str, str]:
        return {}

    def _begin(self, rgb: np.ndarray) -> None:
        import av

        self._size = rgb.shape[:2]
        self._place = fileio.atomic_path(self.path)
        temporary = self._place.__enter__()
        self._container = av.open(f"file:{temporary}", "w", container_options=self._options())
        self._stream = self._setup(self._container, *self._size)

    def write(self, rgb: np.ndarray, pts: float | None = None) -> None:
        """Add a frame; see VideoWriter."""
        check_frame(rgb, self._size, self.path)
        try:
            if self._stream is None:
                self._begin(rgb)
            self._encode(rgb, self._clock.ticks(pts))
        except OutputError:
            raise
        except Exception as error:
            self._discard(error)
        self.frames_written += 1

    def _encode(self, rgb: np.ndarray | None, ticks: int) -> None:
        assert self._stream is not None
        assert self._container is not None
        for frame in self._feed(rgb, ticks):
            for packet in self._stream.encode(frame):
                packet.duration = self._clock.duration  # only the last frame's is used
                self._container.mux(packet)

    def close(self) -> None:
        """Finish the file and rename it; see VideoWriter."""
        if self._container is None or self._place is None:
            return
        container, place = self._container, self._place
        try:
            self._encode(None, 0)
            container.close()
        except Exception as error:
            self._discard(error)
        self._container = self._stream = self._place = None
        place.__exit__(None, None, None)

    def _discard(self, error: Exception) -> None:
        """Remove what was written and raise the reason as an OutputError."""
        self.abort()
        raise OutputError(
            f"Cannot write {self.path}: {reason(error)}. Free space on the disk or choose another place."
        ) from error

    def abort(self) -> None:
        """Discard the file; see VideoWriter."""
        container, place = self._container, self._place
        self._container = self._stream = self._place = None
        if container is not None:
            with suppress(Exception):  # the disk is full: the file is deleted next anyway
                container.close()
        if place is not None:
            stop = KeyboardInterrupt()  # any exception makes the context manager delete
            with suppress(KeyboardInterrupt):
                place.__exit__(type(stop), stop, None)


class H264Writer(ContainerWriter):
    """H.264 in MP4, MOV or MKV: yuv420p, BT.709 limited range, times in 1/90000 s.

    Odd sizes are padded by repeating the last row or column; pictures are never rescaled.
    """

    def __init__(self, path: Path, fps: float | None, crf: int = 20) -> None:
        super().__init__(path, OutputClock(Fraction(1, 90000), fps))
        self._rate = Fraction(fps or NOMINAL_FPS).limit_denominator(1001)
        self._crf = crf
        self._reformatter: VideoReformatter | None = None  # with the first frame; it keeps its tables

    def _options(self) -> dict[str, str]:
        return {} if self.path.suffix.lower() == ".mkv" else {"movflags": "+faststart"}

    def _setup(self, container: OutputContainer, height: int, width: int) -> VideoStream:
        # No B-frames: decoding order is display order, so uneven times and the total length come out exact.
        options = {"crf": str(self._crf), "preset": "veryfast", "bf": "0"}
        stream = container.add_stream("libx264", rate=self._rate, options=options)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.time_base = context.time_base = Fraction(1, 90000)
        context.gop_size = 60
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # limited
        return stream

    def _feed(self, rgb: np.ndarray | None, ticks: int) -> list[VideoFrame | None]:
        if rgb is None:
            return [None]
        import av
        from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

        h, w = rgb.shape[:2]
        if h % 2 or w % 2:
            rgb = np.pad(rgb, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        self._reformatter = self._reformatter or VideoReformatter()
        frame = self._reformatter.reformat(
            frame, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        frame.pts, frame.time_base = ticks, Fraction(1, 90000)
        return [frame]


class GifWriter(ContainerWriter):
    """Animated GIF with a palette per frame; times in hundredths of a second, as the format has it."""

    def __init__(self, path: Path, fps: float | None) -> None:
        super().__init__(path, OutputClock(Fraction(1, 100), fps))
        self._palettes: PaletteFilter | None = None  # with the first frame

    def _setup(self, container: OutputContainer, height: int, width: int) -> VideoStream:
        stream = container.add_stream("gif", rate=100)
        stream.codec_context.width, stream.codec_context.height = width, height
        stream.codec_context.pix_fmt, stream.codec_context.time_base = "pal8", Fraction(1, 100)
        self._palettes = PaletteFilter(height, width)
        return stream

    def _feed(self, rgb: np.ndarray | None, ticks: int) -> list[VideoFrame | None]:
        assert self._palettes is not None
        ready = self._palettes(rgb, ticks)
        return [*ready, None] if rgb is None else [*ready]


class PaletteFilter:
    """ffmpeg's filters that give each frame a palette of its own: frames in, frames of 256 colours out, some later."""

    def __init__(self, height: int, width: int) -> None:
        from av.filter import Graph
        from av.video.format import VideoFormat

        self._graph = graph = Graph()
        self._entry = graph.add_buffer(
            width=width, height=height, format=VideoFormat("rgb24"), time_base=Fraction(1, 100)
        )
        split = graph.add("split")
        palette = graph.add("palettegen", "stats_mode=single")
        use = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4")
        self._exit: Any = graph.add("buffersink")
        self._entry.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(self._exit)
        graph.configure()

    def __call__(self, rgb: np.ndarray | None, ticks: int) -> list[VideoFrame]:
        """Take a picture (None: the end) and return the frames that are ready."""
        import av

        frame = None
        if rgb is not None:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts, frame.time_base = ticks, Fraction(1, 100)
        self._entry.push(frame)
        ready = []
        while True:
            try:
                ready.append(self._exit.pull())
            except (BlockingIOError, EOFError):
                return ready

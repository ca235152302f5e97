"""Frames out: H.264 video, GIF and PNG sequences, written under a temporary name and renamed when whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from ptrack import fileio
from ptrack.errors import OutputError
from ptrack.video.select import NOMINAL_FPS

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

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
        from ptrack.video.png_writer import PngWriter

        return PngWriter(path, overwrite=overwrite)
    raise OutputError(
        f"{path}: '{suffix}' is not a format that can be written; "
        "use .mp4, .mov, .mkv, .gif, a pattern such as frame_%05d.png, or a folder."
    )


class VideoWriter(ABC):
    """Takes frames one by one. Nothing appears under the final name before ``close``; nothing is left after an error.

    Use it as a context manager: an exception in the block discards the output.
    """

    path: Path
    frames_written = 0

    @abstractmethod
    def write(self, rgb: np.ndarray, pts: float | None = None) -> None:
        """Add a frame, (H, W, 3) uint8 RGB, shown from ``pts`` (seconds) until the next one's time.

        The first frame's time becomes 0. Frames must all have one size; ``pts`` must increase.

        Raises:
            OutputError: the frame does not fit, or the disk is full.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish the output and give it its final name. Without any frame nothing is written."""

    @abstractmethod
    def abort(self) -> None:
        """Discard everything."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def check_frame(rgb: np.ndarray, size: tuple[int, int] | None, path: Path) -> None:
    """Raise OutputError unless ``rgb`` is (H, W, 3) uint8 and, if given, of ``size`` (H, W)."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise OutputError(f"{path}: a frame must be (H, W, 3) uint8, not {rgb.shape} {rgb.dtype}.")
    if size is not None and rgb.shape[:2] != size:
        raise OutputError(f"{path}: the frame size changed from {size[1]}x{size[0]} to {rgb.shape[1]}x{rgb.shape[0]}.")


class Clock:
    """Turns presentation times into strictly increasing ticks that start at 0.

    Attributes:
        duration: ticks from the last frame but one to the last; how long the last one is shown.
    """

    def __init__(self, base: Fraction, fps: float | None) -> None:
        self._base, self._period = base, 1 / (fps or NOMINAL_FPS)
        self._origin: float | None = None
        self._last: int | None = None
        self._last_seconds = 0.0
        self.duration = max(1, round(self._period / float(base)))

    def ticks(self, pts: float | None) -> int:
        """Return the ticks of a frame at ``pts`` seconds; one period after the last frame if None or not a number."""
        if pts is None or not np.isfinite(pts):
            pts = self._last_seconds + self._period if self._last is not None else 0.0
        if self._origin is None:
            self._origin = pts
        ticks = round((pts - self._origin) / float(self._base))
        if self._last is not None:
            ticks = max(ticks, self._last + 1)
            self.duration = ticks - self._last
        self._last, self._last_seconds = ticks, pts
        return ticks


class _ContainerWriter(VideoWriter):
    """What video and GIF share: a PyAV container under a temporary name, opened with the first frame."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._size: tuple[int, int] | None = None
        self._place: AbstractContextManager[Path] | None = None
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None

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
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"Cannot write {self.path}: {reason}. Free some space or choose another place.") from error

    def abort(self) -> None:
        """Discard the file; see VideoWriter."""
        container, place = self._container, self._place
        self._container = self._stream = self._place = None
        if container is not None:
            with suppress(Exception):  # the disk is full: the file is deleted next anyway
                container.close()
        if place is not None:
            stop = KeyboardInterrupt()  # any exception tells the context manager to delete
            with suppress(KeyboardInterrupt):
                place.__exit__(type(stop), stop, None)


class H264Writer(_ContainerWriter):
    """H.264 in MP4, MOV or MKV: yuv420p, BT.709 limited range, times in 1/90000 s.

    Odd sizes are padded by repeating the last row or column; pictures are never rescaled.
    """

    def __init__(self, path: Path, fps: float | None, crf: int = 20) -> None:
        super().__init__(path, Clock(Fraction(1, 90000), fps))
        self._rate = Fraction(fps or NOMINAL_FPS).limit_denominator(1001)
        self._crf = crf

    def _options(self) -> dict[str, str]:
        return {} if self.path.suffix.lower() == ".mkv" else {"movflags": "+faststart"}

    def _setup(self, container: OutputContainer, height: int, width: int) -> VideoStream:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
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
        from av.video.reformatter import ColorRange, Colorspace

        h, w = rgb.shape[:2]
        if h % 2 or w % 2:
            rgb = np.pad(rgb, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame = self._reformatter.reformat(
            frame, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        frame.pts, frame.time_base = ticks, Fraction(1, 90000)
        return [frame]


class GifWriter(_ContainerWriter):
    """Animated GIF with a palette per frame; times in hundredths of a second, as the format has it."""

    def __init__(self, path: Path, fps: float | None) -> None:
        super().__init__(path, Clock(Fraction(1, 100), fps))

    def _setup(self, container: OutputContainer, height: int, width: int) -> VideoStream:
        from av.filter import Graph
        from av.video.format import VideoFormat

        base = Fraction(1, 100)
        stream = container.add_stream("gif", rate=100)
        stream.codec_context.width, stream.codec_context.height = width, height
        stream.codec_context.pix_fmt, stream.codec_context.time_base = "pal8", base
        graph = Graph()
        self._graph = graph
        self._entry = graph.add_buffer(width=width, height=height, format=VideoFormat("rgb24"), time_base=base)
        split = graph.add("split")
        palette = graph.add("palettegen", "stats_mode=single")
        use = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4")
        self._exit = graph.add("buffersink")
        self._entry.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(self._exit)
        graph.configure()
        return stream

    def _feed(self, rgb: np.ndarray | None, ticks: int) -> list[VideoFrame | None]:
        import av

        if rgb is None:
            self._entry.push(None)
        else:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts, frame.time_base = ticks, Fraction(1, 100)
            self._entry.push(frame)
        ready: list[VideoFrame | None] = []
        while True:
            try:
                ready.append(self._exit.pull())  # type: ignore[arg-type]
            except (BlockingIOError, EOFError):
                break
        return [*ready, None] if rgb is None else ready

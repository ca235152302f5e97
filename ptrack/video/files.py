"""Video files and animated GIFs, decoded by PyAV from the first packet on; nothing in the header is trusted."""

from __future__ import annotations

import os
import zlib
from array import array
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptrack import fileio
from ptrack.errors import InputError
from ptrack.video import probe
from ptrack.video.decode import Timeline
from ptrack.video.frames import Frame, FrameSource, ReadOptions, SourceInfo
from ptrack.video.picture import Converter
from ptrack.video.select import expected_count, nothing_selected, selected, with_pictures

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_MOST_THREADS = 4  # of the decoder
BLOCK_BYTES = 128 << 20  # RGB held at once when reading backwards


def open_container(target: Any, name: str, options: ReadOptions, **more: Any) -> tuple[InputContainer, VideoStream]:
    """Open ``target`` (URL or file object) with PyAV and return it with its first real video stream.

    Raises:
        av.FFmpegError: it cannot be opened.
        InputError: it holds no video stream.
    """
    import av
    from av.stream import Disposition

    container = av.open(target, options=dict(options.extra), metadata_errors="replace", **more)
    if container.format.name == "tty":  # ffmpeg draws text files as pictures
        container.close()
        raise InputError(f"{name} holds text, not video. Give a video file, a folder of images or a GIF.")
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        sound = bool(container.streams.audio)
        container.close()
        what = "holds only sound" if sound else "holds no video"
        raise InputError(f"{name} {what}; there is nothing to track. Give a file with a video stream.")
    if streams[0].codec_context is None:
        container.close()
        raise InputError(f"{name} uses a video codec that cannot be decoded here. Convert it to H.264, for example.")
    streams[0].thread_type = "AUTO"
    # An error in the very last packets can cost the good frames that the other threads still hold: keep them few.
    streams[0].codec_context.thread_count = min(_MOST_THREADS, os.cpu_count() or 1)
    return container, streams[0]


class Fingerprints:
    """Time and checksum of the frames that were read, to know them again when reading backwards.

    A 20 000-frame video needs 480 kB.
    """

    def __init__(self) -> None:
        self.ticks = array("q")
        self.index = array("q")  # frame number in the source
        self._sums = array("L")
        self.placeholders: set[int] = set()  # positions

    def __len__(self) -> int:
        return len(self.ticks)

    @staticmethod
    def _sum(rgb: np.ndarray) -> int:
        return zlib.crc32(np.ascontiguousarray(rgb[::16]).data)  # every 16th row: 20 microseconds at 854x480

    def record(self, position: int, ticks: int, frame: Frame) -> None:
        """Add the frame at ``position`` if it is the next unknown one."""
        if position == len(self):
            self.ticks.append(ticks)
            self.index.append(frame.index)
            self._sums.append(self._sum(frame.rgb))
            if not frame.ok:
                self.placeholders.add(position)

    def matches(self, position: int, rgb: np.ndarray) -> bool:
        """Return whether the picture is the one that was recorded at ``position``."""
        return self._sums[position] == self._sum(rgb)


class VideoFile(FrameSource):
    """A video file or GIF on disk, read sequentially as often as wanted."""

    def __init__(self, path: Path, name: str, options: ReadOptions) -> None:
        super().__init__()
        self._path, self._name, self._options = path, name, options
        self._missing = probe.missing_bytes(path)
        if self._missing and options.strict:
            raise InputError(f"{name} was cut off: {self._missing} bytes are missing at its end. Copy it again.")
        self._known = Fingerprints()
        self._warnings: dict[str, str] = {}  # by topic; ``warnings`` is made from it
        self._judged = 0  # frames of the longest pass that met undecodable ones
        container, stream = self._open()
        with closing(container):
            first = self._first(container, stream)
            ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
            self._converter = Converter(first, ratio, options.max_size)
            self._time_base = stream.time_base or 1
            self._promised = _promised_seconds(container)
            self.info = self._describe(container, stream)

    def _open(self) -> tuple[InputContainer, VideoStream]:
        import av

        try:
            return open_container(_address(self._path), self._name, self._options)
        except PermissionError as error:
            raise InputError(f"{self._name} may not be read (permission denied). Change its permissions.") from error
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"{self._name} {probe.why_unreadable(self._path)}.") from error

    def _first(self, container: InputContainer, stream: VideoStream) -> VideoFrame:
        for step in Timeline(container, stream):
            if step.frame is not None:
                return step.frame
        raise InputError(
            f"{self._name} has a video stream, but not one frame of it can be decoded; the file is damaged or cut off. "
            "Copy it again or convert it."
        )

    def _describe(self, container: InputContainer, stream: VideoStream) -> SourceInfo:
        rate = stream.average_rate or stream.guessed_rate
        total = stream.frames or None
        if total is None and container.duration and rate:
            total = round(container.duration / 1e6 * rate)
        return SourceInfo(
            name=self._name,
            kind="gif" if container.format.name == "gif" else "video",
            width=self._converter.width,
            height=self._converter.height,
            rotation=self._converter.rotation,
            fps=float(rate) / self._options.stride if rate else None,
            expected_frames=expected_count(total, float(rate) if rate else None, self._options),
        )

    def __iter__(self) -> Generator[Frame]:
        return self._read(0)

    def _read(self, skip: int) -> Generator[Frame]:
        """Yield the selected frames from position ``skip`` on, decoding from the start of the file."""
        container, stream = self._open()
        position = skip
        with closing(container):
            timeline = Timeline(container, stream, cut=self._missing > 0)
            steps = with_pictures(self._checked(timeline))
            for frame in selected(steps, self._options, self._converter, skip):
                self._known.record(position, self._ticks(frame.pts), frame)
                position += 1
                yield frame
        if position == 0:
            raise nothing_selected(self._name, self._options)

    def _checked(self, timeline: Timeline) -> Iterator[tuple[float, VideoFrame | None]]:
        """Yield (seconds, picture or None) and say what is wrong with the file once that is known."""
        lost: list[float] = []
        count, origin, seconds = 0, 0.0, 0.0
        try:
            for ticks, frame in timeline:
                seconds = self._seconds(ticks)
                origin = origin if count else seconds
                count += 1
                if frame is None:
                    lost.append(seconds)
                    if self._options.strict:
                        raise InputError(f"{self._name}: frame {count - 1} ({seconds:.2f} s) cannot be decoded.")
                yield seconds, frame
            self._judge_end(timeline, count, seconds - origin)
        finally:
            self._judge_pictures(lost, count)

    def _judge_pictures(self, lost: list[float], count: int) -> None:
        """Warn of undecodable frames and of changing sizes."""
        if lost and count > self._judged:  # a shorter pass over the same file has nothing new to say
            self._judged = count
            self._warnings["lost"] = (
                f"{self._name}: {len(lost)} of {count} frames, the first at {lost[0]:.2f} s, cannot be decoded; "
                "placeholders keep the time aligned."
            )
        if self._converter.resized:
            w, h = self._converter.size
            self._warnings["size"] = (
                f"{self._name}: the picture size changes midway; all frames are resized to {w}x{h}."
            )
        self.warnings[:] = self._warnings.values()

    def _judge_end(self, timeline: Timeline, count: int, seconds: float) -> None:
        """Note it if the stream ended early: after ``count`` frames, the last one ``seconds`` after the first."""
        if self._missing or timeline.broken_off:
            self.truncated = True
            text = f"{self._name} ends early: it was cut off or is damaged after {count} frames"
            if self._options.strict:
                raise InputError(f"{text}. Copy it again, or read it without strict.")
            self._warnings["end"] = f"{text}, which are all used."
        elif self._promised and self._promised - seconds > max(1.0, 0.1 * self._promised):
            self._warnings["end"] = (
                f"{self._name}: its header promises {self._promised:.1f} s, but the last frame is at {seconds:.1f} s; "
                "it may be damaged."
            )

    def _seconds(self, ticks: int) -> float:
        return float(ticks * self._time_base)

    def _ticks(self, seconds: float) -> int:
        return round(seconds / float(self._time_base))

    def reversed(self, stop: int) -> Generator[Frame]:
        """Yield the selected frames ``stop - 1 .. 0``; at most BLOCK_BYTES of them are held.

        Each block is read from the key frame before it and compared with what was read forwards; where that fails
        (damaged files, containers that cannot seek) it is decoded from the start of the file.

        Raises:
            InputError: there are fewer than ``stop`` frames.
        """
        if len(self._known) < stop:
            with closing(self._read(0)) as frames:
                for _ in islice(frames, stop):
                    pass
        if len(self._known) < stop:
            raise InputError(f"{self._name} has {len(self._known)} frames; frame {stop - 1} does not exist.")
        width, height = self._converter.size
        block = max(1, BLOCK_BYTES // (3 * width * height))
        for end in range(stop, 0, -block):
            begin = max(0, end - block)
            frames = self._seek_block(begin, end)
            if frames is None:
                with closing(self._read(begin)) as forwards:
                    frames = list(islice(forwards, end - begin))
            while frames:
                yield frames.pop()

    def _seek_block(self, begin: int, end: int) -> list[Frame] | None:
        """Return the frames ``begin .. end - 1`` read from a key frame, None if they are not those read before."""
        if not self._known.placeholders.isdisjoint(range(begin, end)):
            return None
        import av

        wanted = {self._known.ticks[i]: i for i in range(begin, end)}
        found: list[Frame] = []
        container, stream = self._open()
        with closing(container):
            try:
                container.seek(self._known.ticks[begin], stream=stream, backward=True)
            except av.FFmpegError:
                return None
            for ticks, frame in Timeline(container, stream):
                position = wanted.get(ticks)
                if position is not None and frame is not None:
                    rgb = self._converter(frame)
                    if position != begin + len(found) or not self._known.matches(position, rgb):
                        return None
                    found.append(Frame(rgb, self._known.index[position], self._seconds(ticks)))
                if len(found) == end - begin or ticks > self._known.ticks[end - 1]:
                    break
        return found if len(found) == end - begin else None

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes."""
        return fileio.sha256_of(self._path)


def _promised_seconds(container: InputContainer) -> float | None:
    """Return how long the header says the pictures last, where that can be compared with what is read.

    Not with sound (it may be longer), and not for MP4, where trimmed clips promise their untrimmed length.
    """
    alone = len(container.streams) == 1 and "mp4" not in container.format.name
    return container.duration / 1e6 if alone and container.duration else None


def _address(path: Path) -> Any:
    """Return what to hand to ffmpeg: a URL that no colon, dash or per cent sign in the name can change."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:  # a name that is not UTF-8: let Python open it
        return open(path, "rb")
    return f"file:{path}"

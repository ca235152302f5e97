"""Video files and animated GIFs, decoded by PyAV from the first packet on; nothing in the header is trusted."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ptrack import errors, fileio
from ptrack.errors import InputError
from ptrack.video import probe
from ptrack.video.container import UNSTAMPED, address_of, open_container, real_streams
from ptrack.video.crop import Crop, crop_of
from ptrack.video.decode import Timeline, nominal_rate
from ptrack.video.depth import SAMPLES, sample_of
from ptrack.video.findings import Findings, untimed_warning
from ptrack.video.frames import Frame, FrameSource, ReadOptions, SourceInfo, backwards
from ptrack.video.joined import JoinedPackets, next_part
from ptrack.video.picture import Converter
from ptrack.video.select import NOMINAL_FPS, Span, expected_count, nothing_selected, selected, with_pictures
from ptrack.video.still import check_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_NO_STAMP = -(1 << 63)
_MOST_BEYOND = 32  # pictures later than a wanted block until the search is given up; H.264 reorders up to 16


class Fingerprints:
    """Stamp, time and checksum of the frames that were read, to know them again when reading backwards.

    A 20 000-frame video needs 640 kB.
    """

    def __init__(self) -> None:
        self.stamps = array("q")  # of every frame of the file, used or not: the decoder's ticks; _NO_STAMP without
        self.pts = array("d")  # seconds, of the frames that are used
        self.index = array("q")  # frame number in the source
        self._sums = array("L")
        self.placeholders: set[int] = set()  # positions

    def __len__(self) -> int:
        return len(self.pts)

    @staticmethod
    def _sum(rgb: np.ndarray) -> int:
        return zlib.crc32(np.ascontiguousarray(rgb[::16]).data)  # every 16th row: 20 microseconds at 854x480

    def stamp(self, position: int) -> int:
        """Return the decoder's ticks of the used frame at ``position``."""
        return self.stamps[self.index[position]]

    def record(self, position: int, frame: Frame) -> None:
        """Add the frame at ``position`` if it is the next unknown one."""
        if position == len(self):
            self.pts.append(frame.pts)
            self.index.append(frame.index)
            self._sums.append(self._sum(frame.rgb))
            if not frame.ok:
                self.placeholders.add(position)

    def matches(self, position: int, rgb: np.ndarray) -> bool:
        """Return whether the picture is the one that was recorded at ``position``."""
        return self._sums[position] == self._sum(rgb)


class _First(NamedTuple):
    ticks: int  # of the first frame, which need not be decodable
    picture: VideoFrame  # the first one that is


class VideoFile(FrameSource):
    """A video file or GIF on disk, read sequentially as often as wanted."""

    def __init__(self, path: Path, name: str, options: ReadOptions) -> None:
        super().__init__(options)
        self._path, self._name = path, name
        self._missing = probe.missing_bytes(path)
        if self._missing and options.strict:
            raise InputError(f"{name} was cut off: {self._missing} bytes are missing at its end. Copy it again.")
        self._known = Fingerprints()
        self._findings = Findings(name, options.strict, self.warnings)
        self._leaps = False  # the stamps in the file are not the times of the frames: seeking by them finds others
        self._rate: float | None = None  # of a stream without stamps
        container, stream = self._open()
        with closing(container):
            first, untimed = self._first(container, stream)
            ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
            self._converter = Converter(first.picture, ratio, options.max_size, self._crop(container, stream, first))
            if text := self._converter.choose_range(first.picture, options.range, name, self._values_later):
                self._findings.sentence("range", text)
            self._time_base = stream.time_base or 1
            self._promised = _promised_seconds(container)
            if untimed:
                self._rate = self._assumed_rate(stream)
            elif options.fps is not None:
                text = f"{name} has times of its own; the given frames per second are not used."
                self._findings.sentence("fps", text)
            self._note_tracks(container, stream)
            self.info = self._describe(container, stream, self.seconds_of(first.ticks))

    def _note_tracks(self, container: InputContainer, stream: VideoStream) -> None:
        streams = real_streams(container)
        if len(streams) > 1 and not container.format.name.startswith("mpegts"):  # broadcasts have many programmes
            which = [s.index for s in streams].index(stream.index) + 1
            self._findings.note(
                "tracks", f"it holds {len(streams)} video tracks; number {which}, its default, is used."
            )

    def _crop(self, container: InputContainer, stream: VideoStream, first: _First) -> Crop | None:
        """Return the crop that the container asks for, with a note."""
        track = [s.index for s in container.streams.video].index(stream.index)
        crop = crop_of(self._path, track, first.picture.width, first.picture.height)
        if crop is not None:
            w, h = crop.leaves(first.picture.width, first.picture.height)
            text = f"the container crops its {first.picture.width}x{first.picture.height} pictures to {w}x{h}"
            self._findings.note("crop", f"{text}; coordinates refer to what is left.")
        return crop

    def _values_later(self) -> list[np.ndarray]:
        """Return the numbers of frames spread over the rest of the file; none if it cannot be searched."""
        import av

        found: list[np.ndarray] = []
        container, stream = self._open()
        with closing(container):
            begin, length = container.start_time or 0, container.duration or 0  # microseconds
            for part in range(1, SAMPLES if length else 0):
                try:
                    container.seek(begin + length * part // SAMPLES)
                    frame = next(container.decode(stream), None)
                except av.FFmpegError:
                    continue
                values = self._converter.deep_values(frame) if frame is not None else None
                if values is not None:
                    found.append(sample_of(values))
        return found

    def _open(self) -> tuple[InputContainer, VideoStream]:
        import av

        try:
            return open_container(address_of(self._path), self._name, self.options)
        except PermissionError as error:
            raise InputError(f"{self._name} may not be read (permission denied). Change its permissions.") from error
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"{self._name} {probe.why_unreadable(self._path)}.") from error

    def open_stream(self) -> tuple[InputContainer, VideoStream]:
        """Open the file anew and return its container, to be closed by the caller, and its video stream."""
        return self._open()

    def convert(self, picture: VideoFrame) -> np.ndarray:
        """Return a decoded picture as it is displayed, (H, W, 3) uint8 RGB, reduced as the options ask."""
        return self._converter(picture)

    def _first(self, container: InputContainer, stream: VideoStream) -> tuple[_First, bool]:
        """Return the first picture with the time of the first frame, and whether the stream carries no stamps."""
        timeline = Timeline(container, stream, untimed=container.format.name in UNSTAMPED)
        ticks: int | None = None
        for step in timeline:
            ticks = step.ticks if ticks is None else ticks
            if step.frame is not None:
                check_size(step.frame.width, step.frame.height, self.options.max_pixels, self._name)
                return _First(ticks, step.frame), timeline.clock.untimed
        unknown = not stream.codec_context.width
        large = f", or its pictures have over {self.options.max_pixels:,} pixels" if unknown else ""
        raise InputError(
            f"{self._name} has a video stream, but not one frame of it can be decoded; the file is damaged or cut off"
            f"{large}. Copy it again or convert it."
        )

    def _assumed_rate(self, stream: VideoStream) -> float:
        """Return the frames per second of a stream without stamps: those asked for, the codec's own, or 25."""
        written = stream.codec_context.framerate
        if self.options.fps is None and not written:
            self._findings.sentence("fps", untimed_warning(self._name))
        return self.options.fps or float(written or nominal_rate(stream) or NOMINAL_FPS)

    def _describe(self, container: InputContainer, stream: VideoStream, begin: float) -> SourceInfo:
        """Return what is known before all is read; ``begin`` is the first frame's time in seconds."""
        own = stream.average_rate or stream.codec_context.framerate or stream.guessed_rate
        rate = self._rate or (float(own) if own else None)
        total = stream.frames or None
        if total is None and container.duration and rate:
            ends = "matroska" in container.format.name  # its duration counts from zero, not from the first frame
            total = round((container.duration / 1e6 - (begin if ends else 0)) * rate)
        return SourceInfo(
            name=self._name,
            kind="gif" if container.format.name == "gif" else "video",
            width=self._converter.width,
            height=self._converter.height,
            rotation=self._converter.rotation,
            fps=rate / self.options.stride if rate else None,
            expected_frames=expected_count(total, rate, self.options, begin),
        )

    def __iter__(self) -> Generator[Frame]:
        return self._read(0)

    def _read(self, skip: int) -> Generator[Frame]:
        """Yield the selected frames from position ``skip`` on, decoding from the start of the file."""
        container, stream = self._open()
        position = skip
        span = Span()
        with closing(container):
            joined = JoinedPackets(container, stream, self._path, self._name, self.options)
            rate, cut = self._rate, self._missing > 0
            timeline = Timeline(container, stream, cut=cut, untimed=rate is not None, rate=rate, source=joined)
            steps = with_pictures(span.watch(self._checked(timeline, stream.frames)))
            try:
                for frame in selected(steps, self.options, self._converter, skip):
                    self._known.record(position, frame)
                    position += 1
                    yield frame
            finally:
                clock = timeline.clock
                self._leaps |= clock.untimed or clock.mended or joined.parts > 1
                self._note_parts(joined)
                if self._converter.resized:
                    w, h = self._converter.size
                    self._findings.note("size", f"the picture size changes midway; all frames are resized to {w}x{h}.")
        if position == 0:
            raise nothing_selected(self._name, self.options, span)

    def _checked(self, timeline: Timeline, stored: int) -> Iterator[tuple[float, VideoFrame | None]]:
        """Yield (seconds, picture or None) and note what is wrong with the file once that is known.

        ``stored`` is the container's own count of frames, 0 without one.
        """
        stamps = self._known.stamps
        count, begin, seconds = 0, 0.0, 0.0
        for seconds, frame in self._findings.watched(timeline, timeline, self.seconds_of):
            begin = begin if count else seconds
            if count == len(stamps):
                stamps.append(_NO_STAMP if frame is None or frame.pts is None else frame.pts)
            count += 1
            yield seconds, frame
        self._judge_end(timeline, count, begin, seconds)
        # The index of a trimmed or fragmented file counts other packets than those that were given.
        exact = stored == timeline.packets and not timeline.hidden
        if exact and count != stored and not self.truncated:
            frames = errors.count(stored, "frame")
            self._findings.note("count", f"the file counts {frames}, but {count} could be read.")

    def _note_parts(self, joined: JoinedPackets) -> None:
        if joined.parts > 1:
            text = f"{joined.parts} recordings are joined in it; times after the end of the first one"
            self._findings.note("parts", f"{text} are not the stored ones.")
        if joined.unread is not None:
            text = f"another recording begins at byte {joined.unread}, but cannot be read"
            self._findings.note("unread", f"{text}; what comes before is used.")

    def is_joined(self) -> bool:
        """Whether the file goes on after the recording that its first header describes."""
        container, _ = self._open()
        with closing(container):
            return next_part(self._path, container.format.name, 0) is not None

    def _judge_end(self, timeline: Timeline, count: int, begin: float, end: float) -> None:
        """Note it if the stream ended early; ``begin`` and ``end`` are the first and last frame's seconds."""
        if self._missing or timeline.broken_off:
            self.truncated = True
            text = f"{self._name} ends early: it was cut off or is damaged after {errors.count(count, 'frame')}"
            if self.options.strict:
                raise InputError(f"{text}. Copy it again, or read it without strict.")
            self._findings.sentence("end", f"{text}, which {'is' if count == 1 else 'are all'} used.")
            return
        if timeline.clock.mended:
            return  # the promise may come from the same stamps
        # A header may count from the first frame, or from zero.
        last = max(end, end - begin)
        if self._promised and self._promised - last > max(1.0, 0.1 * self._promised):
            text = f"its header promises {self._promised:.1f} s, but the last frame is at {last:.1f} s"
            self._findings.note("end", f"{text}; it may be damaged.")

    def seconds_of(self, ticks: int) -> float:
        """Return presentation ticks as seconds on the file's own clock."""
        return float(ticks * self._time_base)

    def reversed(self, stop: int) -> Generator[Frame]:
        """Yield the selected frames ``stop - 1 .. 0``; at most BLOCK_BYTES of them are held.

        Each block is read from the key frame before it and compared with what was read forwards; where that fails
        (damaged files, clocks that jump, containers that cannot seek) it is decoded from the start of the file.

        Raises:
            InputError: there are fewer than ``stop`` frames.
        """
        if len(self._known) < stop:
            with closing(self._read(0)) as frames:
                for _ in islice(frames, stop):
                    pass
        if len(self._known) < stop:
            there = errors.count(len(self._known), "frame")
            raise InputError(f"{self._name} has {there}; frame {stop - 1} does not exist.")
        yield from backwards(stop, self._converter.size, self._block)

    def _block(self, begin: int, end: int) -> list[Frame]:
        frames = self._seek_block(begin, end)
        if frames is None:
            with closing(self._read(begin)) as forwards:
                frames = list(islice(forwards, end - begin))
        return frames

    def _seek_block(self, begin: int, end: int) -> list[Frame] | None:
        """Return the frames ``begin .. end - 1`` read from a key frame, None if they are not those read before.

        Frames are known by stamp and checksum in the decoder's order; several may share a stamp.
        """
        known = self._known
        if self._leaps or not known.placeholders.isdisjoint(range(begin, end)):
            return None
        import av

        stamps = [known.stamp(position) for position in range(begin, end)]
        found: list[Frame] = []
        beyond = 0  # pictures in a row that are later than the block
        container, stream = self._open()
        with closing(container):
            try:
                container.seek(min(stamps), stream=stream, backward=True)
            except av.FFmpegError:
                return None
            for _, frame in Timeline(container, stream):
                if frame is None or frame.pts is None:
                    continue
                beyond = beyond + 1 if frame.pts > max(stamps) else 0
                position = begin + len(found)
                if frame.pts == stamps[len(found)] and known.matches(position, rgb := self._converter(frame)):
                    found.append(Frame(rgb, known.index[position], known.pts[position]))
                if len(found) == len(stamps) or beyond > _MOST_BEYOND:
                    break
        return found if len(found) == len(stamps) else None

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes."""
        return fileio.sha256_of(self._path)


def _promised_seconds(container: InputContainer) -> float | None:
    """Return the length in seconds by the header, where it can be compared with what is read.

    Not with sound (it may be longer), and not for MP4, where trimmed clips promise their untrimmed length.
    """
    alone = len(container.streams) == 1 and "mp4" not in container.format.name
    return container.duration / 1e6 if alone and container.duration else None

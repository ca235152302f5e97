"""Builds the viewer's single HTML file: template, style, script, the tracks as base64 arrays and the video.

Letters: T frames, N points.
"""

from __future__ import annotations

import base64
import html
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from ptrack.fileio import check_writable, write_text
from ptrack.tracks import Tracks
from ptrack.video import FrameSource
from ptrack.video.writing.containers import H264Writer
from ptrack.viz import palette
from ptrack.viz.pairing import paired, with_size
from ptrack.viz.recent import SURE, UNSURE, joined_steps
from ptrack.viz.style import OverlayStyle

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

GOP = 10  # frames from key frame to key frame: a seek decodes at most this many
CELL = 8  # pixels of a bit of the frame number below the picture: a whole block of the codec, so it survives coding


class SeekableWriter(H264Writer):
    """H.264 for scrubbing: a key frame every ``GOP`` frames and no frames that need later ones."""

    def _setup(self, container: OutputContainer, height: int, width: int) -> VideoStream:
        stream = super()._setup(container, height, width)
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = GOP, 0
        return stream


@dataclass(frozen=True)
class FrameCode:
    """The number of each frame as black and white cells below its picture, lowest bit first, then even parity.

    A browser may hand a playing video's picture to a script a frame late; the number identifies the picture.
    """

    width: int  # pixels of the picture
    top: int  # row of the video where the cells begin
    bits: int  # of the number, without the parity bit

    @classmethod
    def below(cls, height: int, width: int, frames: int) -> FrameCode:
        """Return the code for ``frames`` pictures of this size."""
        return cls(width, height, max(1, (frames - 1).bit_length()))

    @property
    def rows(self) -> int:
        """Rows of cells."""
        return -(-(self.bits + 1) // max(1, self.width // CELL))

    def stamped(self, rgb: np.ndarray, number: int) -> np.ndarray:
        """Return the picture (H, W, 3) with the cells of ``number`` below it."""
        columns = max(1, self.width // CELL)
        bits = (number >> np.arange(self.bits)) & 1
        cells = np.zeros(self.rows * columns, np.uint8)
        cells[: self.bits + 1] = [*bits, bits.sum() % 2]
        block = np.kron(cells.reshape(self.rows, columns), np.full((CELL, CELL), 255, np.uint8))
        strip = np.zeros((block.shape[0], self.width, 3), np.uint8)
        strip[:, : block.shape[1]] = block[:, : self.width, None]
        return np.concatenate([rgb, strip])


def asset(name: str) -> str:
    """Return the text of a packaged file of a page, such as "html/viewer.css"."""
    return resources.files("ptrack.viz").joinpath(name).read_text(encoding="utf-8")


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def frame_times(tracks: Tracks) -> np.ndarray:
    """Return (T,) float64 seconds from the first frame, strictly increasing, in the ticks (1/90000 s) of the video."""
    period = 1 / (tracks.info.fps or 25.0)
    seconds = tracks.pts_seconds - tracks.pts_seconds[0]
    if not np.isfinite(seconds).all() or (np.diff(seconds) <= 1e-4).any():
        seconds = np.arange(tracks.num_frames) * period
    return np.round(seconds * 90000) / 90000


def viewer_data(tracks: Tracks, *, scale: float = 1.0) -> dict[str, Any]:
    """Return what the page's script reads, without the video.

    Args:
        tracks: with the frame size in ``info``.
        scale: size of the video's pictures relative to the frame the coordinates refer to.
    """
    info, style = tracks.info, OverlayStyle()
    return {
        "width": info.width,
        "height": info.height,
        "scale": scale,
        "ids": tracks.ids.tolist(),
        "frames": tracks.frame_index.tolist(),
        "pts": [round(float(v), 6) if np.isfinite(v) else 0.0 for v in tracks.pts_seconds],
        "times": frame_times(tracks).tolist(),
        "step": 1 / (info.fps or 25.0),
        "threshold": info.threshold,
        "xy": _base64(tracks.tracks.astype("<f4")),
        "visibility": _base64(np.round(np.nan_to_num(tracks.visibility) * 255).astype(np.uint8)),
        "confidence": _base64(np.round(np.nan_to_num(tracks.confidence) * 255).astype(np.uint8)),
        "visible": _base64(tracks.visible.astype(np.uint8)),
        "joined": _base64(joined_steps(tracks).astype(np.uint8)),
        "colours": {
            "start": palette.hex_colours(palette.by_start(tracks)),
            "id": palette.hex_colours(palette.by_id(tracks)),
        },
        "fast": palette.fast(tracks),
        "scales": {
            "motion": palette.hex_colours(palette.amount_scale("", "", "").colours),
            "probability": palette.hex_colours(palette.probability_scale("").colours),
        },
        "style": {"unsure": UNSURE, "sure": SURE, "linger": style.linger, "reach": style.reach},
    }


def viewer_html(data: dict[str, Any], title: str) -> str:
    """Return the page for ``viewer_data``; text from outside is escaped so that it stays text."""
    document = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    script = asset("html/shared.js") + asset("html/viewer.js")
    parts = {"title": html.escape(title), "style": asset("html/viewer.css"), "script": script, "data": document}
    first, *rest = asset("html/viewer.html").split("{{")  # one pass: a title such as {{data}} stays what it is
    pieces = [first]
    for piece in rest:
        name, _, text = piece.partition("}}")
        pieces += [parts[name], text]
    return "".join(pieces)


def encode_video(
    tracks: Tracks, source: FrameSource, path: Path, progress: Callable[[int], None] | None = None
) -> tuple[int, int]:
    """Write the frames of the tracks as H.264 whose frame ``i`` is shown from ``frame_times(tracks)[i]`` on.

    A frame that the source lacks is shown as the one before it. Below each picture stands its ``FrameCode``. Returns
    the pictures' (H, W), without the code.
    """
    times = frame_times(tracks)

    def code_of(rgb: np.ndarray) -> FrameCode:
        return FrameCode.below(rgb.shape[0], rgb.shape[1], tracks.num_frames)

    with SeekableWriter(path, tracks.info.fps or 25.0, crf=21) as writer:
        size, row = (0, 0), 0
        last = np.zeros((0, 0, 3), np.uint8)
        for t, frame in paired(tracks, source):
            for missing in range(row, t):
                writer.write(code_of(frame.rgb).stamped(last if last.size else frame.rgb, missing), times[missing])
            writer.write(code_of(frame.rgb).stamped(frame.rgb, t), times[t])
            last, row, size = frame.rgb, t + 1, (frame.rgb.shape[0], frame.rgb.shape[1])
            if progress is not None:
                progress(row)
        for missing in range(row, tracks.num_frames):
            writer.write(code_of(last).stamped(last, missing), times[missing])
    return size


def write_viewer(
    tracks: Tracks,
    source: FrameSource,
    path: Path | str,
    *,
    embed: bool = True,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Write the viewer of ``tracks`` over its video.

    Args:
        tracks: what to show.
        source: the tracked video, see ``pairing.open_video_of``.
        path: the HTML file.
        embed: put the video into the page; otherwise an MP4 of the same name lies beside it.
        overwrite: replace existing files.
        progress: called with the number of encoded frames.

    Returns:
        The files written.

    Raises:
        OutputError: a file exists or cannot be written.
    """
    path = check_writable(path, overwrite=overwrite)
    beside = path.with_suffix(".mp4")
    if not embed:
        check_writable(beside, overwrite=overwrite)
    page = viewer_page(tracks, source, beside=None if embed else beside, progress=progress)
    write_text(path, page)
    return [path] if embed else [path, beside]


def viewer_page(
    tracks: Tracks,
    source: FrameSource,
    *,
    beside: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> str:
    """Return the viewer of ``tracks`` over its video, as ``write_viewer`` writes it.

    The video is part of the page, or with ``beside`` that MP4 file, which is written.
    """
    tracks = with_size(tracks, source)
    with tempfile.TemporaryDirectory() as folder:
        target = beside or Path(folder) / "video.mp4"
        size = encode_video(tracks, source, target, progress)
        data = viewer_data(tracks, scale=size[1] / tracks.info.width)
        code = FrameCode.below(*size, tracks.num_frames)
        data["code"] = {"cell": CELL, "top": code.top, "columns": max(1, code.width // CELL), "bits": code.bits}
        if beside is None:
            data["video"] = base64.b64encode(target.read_bytes()).decode("ascii")
        else:
            data["videoFile"] = quote(beside.name, safe="")  # an address: #, ?, % and : mean something there
    return viewer_html(data, Path(tracks.info.source).name or "tracks")

"""Turning a clip into the form that is stored: all frames checked by decoding them, bytes joined into one array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ptrack.data import images
from ptrack.data.clips import ArrayFrames, Clip, Frames
from ptrack.data.images import Codec
from ptrack.errors import DataError

CodecChoice = Literal["keep", "jpeg", "png", "raw"]


class PackedFrames(Frames):
    """Encoded pictures joined into one byte array; picture ``t`` is ``data[offsets[t] : offsets[t + 1]]``."""

    def __init__(self, codec: Codec, data: np.ndarray, offsets: np.ndarray) -> None:
        self.codec: Codec = codec
        self.data = data  # (total bytes,) uint8
        self.offsets = offsets  # (T + 1,) int64

    @classmethod
    def join(cls, codec: Codec, pictures: Sequence[bytes]) -> PackedFrames:
        """Join pictures of one codec."""
        offsets = np.zeros(len(pictures) + 1, np.int64)
        np.cumsum([len(p) for p in pictures], out=offsets[1:])
        return cls(codec, np.frombuffer(b"".join(pictures), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def encoded(self, t: int) -> tuple[Codec, bytes]:
        """Return the codec and the bytes of picture ``t``."""
        return self.codec, self.data[self.offsets[t] : self.offsets[t + 1]].tobytes()


@dataclass(frozen=True)
class Packed:
    """A clip ready to be written, and what was wrong with its frames."""

    clip: Clip  # frames, masks and depth are PackedFrames or ArrayFrames; frame_ok is set where a frame is damaged
    damaged: tuple[tuple[int, str], ...]  # (frame, reason)


def pack(clip: Clip, codec: CodecChoice = "keep", default: Codec = "raw", quality: int = images.JPEG_QUALITY) -> Packed:
    """Check and join the frames of a clip.

    Args:
        clip: any clip.
        codec: "keep" takes the source's own JPEG or PNG bytes as they are, and ``default`` where it has none; another
            value stores that codec (bytes that already have it are kept as they are).
        default: codec for frames that have no bytes of their own.
        quality: of JPEG encoding, 1..100.

    Returns:
        The packed clip. A frame that cannot be decoded keeps its bytes and is marked in ``frame_ok``.

    Raises:
        DataError: a frame has another size than the clip, JPEG and PNG are mixed, no frame can be decoded, or a file
            cannot be read.
    """
    if isinstance(clip.frames, ArrayFrames):
        _check_size(clip, 0, clip.frames.array.shape[1:3])
        stored, damaged = _from_array(clip.frames, default if codec == "keep" else codec, quality), []
    else:
        stored, damaged = _from_encoded(clip, codec, default, quality)
    if clip.num_frames and len(damaged) == clip.num_frames:
        raise DataError(f"{clip.id}: none of its {clip.num_frames} frames can be decoded ({damaged[0][1]})")
    ok = clip.frame_ok
    if damaged:
        ok = np.ones(clip.num_frames, np.bool_) if ok is None else ok.copy()
        ok[[t for t, _ in damaged]] = False
    sides = {name: _side(clip, name) for name in ("masks", "depth") if getattr(clip, name) is not None}
    return Packed(replace(clip, frames=stored, frame_ok=ok, **sides), tuple(damaged))


def _check_size(clip: Clip, t: int, size: tuple[int, ...]) -> None:
    if tuple(size) != tuple(clip.size):
        raise DataError(
            f"{clip.id}: frame {t} is {size[1]}x{size[0]} pixels but the clip is {clip.size[1]}x{clip.size[0]}; "
            "all frames of a clip must have one size."
        )


def _from_array(frames: ArrayFrames, codec: Codec, quality: int) -> Frames:
    if codec == "raw":
        return frames
    return PackedFrames.join(codec, [images.encode(frames.array[t], codec, quality) for t in range(len(frames))])


def _from_encoded(clip: Clip, codec: CodecChoice, default: Codec, quality: int) -> tuple[Frames, list[tuple[int, str]]]:
    damaged: list[tuple[int, str]] = []
    pictures: list[bytes] = []
    found: set[str] = set()
    target: Codec | None = None
    for t, (kind, data, rgb, reason) in enumerate(_decoded(clip)):
        if reason:
            damaged.append((t, reason))
        if rgb is not None:
            _check_size(clip, t, rgb.shape[:2])
        if target is None and (rgb is not None or codec != "keep"):
            target = (kind if kind != "raw" else default) if codec == "keep" else codec
        if kind == target or rgb is None:
            pictures.append(data)
        else:
            pictures.append(images.encode(rgb, target or kind, quality))
        if rgb is not None:
            found.add(kind)
    if codec == "keep" and len(found) > 1:
        raise DataError(f"{clip.id}: its frames mix {' and '.join(sorted(found))}; use --codec to store them as one.")
    target = target or "jpeg"
    if target == "raw":
        return ArrayFrames(_as_array(pictures, clip.size)), damaged
    return PackedFrames.join(target, pictures), damaged


def _as_array(pictures: list[bytes], size: tuple[int, int]) -> np.ndarray:
    """Join raw pictures; damaged ones (of another length) become black."""
    out = np.zeros((len(pictures), *size, 3), np.uint8)
    for t, data in enumerate(pictures):
        if len(data) == out[t].size:
            out[t] = np.frombuffer(data, np.uint8).reshape(out[t].shape)
    return out


def _decoded(clip: Clip) -> Iterator[tuple[Codec, bytes, np.ndarray | None, str]]:
    """Yield (codec, bytes, pixels or None, reason it cannot be decoded or "") of every frame."""
    for t in range(clip.num_frames):
        kind: Codec = "jpeg"
        data = b""
        try:
            kind, data = clip.frames.encoded(t)
            yield kind, data, clip.frames.rgb(t), ""
        except DataError as error:
            yield kind, data, None, str(error)


def _side(clip: Clip, name: str) -> Frames:
    """Join the masks or depth pictures of a clip; absent ones stay empty."""
    frames: Frames = getattr(clip, name)
    if isinstance(frames, ArrayFrames):
        return frames
    pictures: list[tuple[Codec, bytes]] = [frames.encoded(t) for t in range(len(frames))]
    kinds: set[Codec] = {kind for kind, data in pictures if data}
    if len(kinds) > 1:
        raise DataError(f"{clip.id}: its {name} mix {' and '.join(sorted(kinds))}.")
    return PackedFrames.join(kinds.pop() if kinds else "png", [data for _, data in pictures])

"""One picture as bytes: which codec it is, decoding it, encoding it. Pillow only; no torch.

Pillow and torchvision use the same libjpeg-turbo; Pillow is used because it is quick to import in worker processes, it
releases the GIL while decoding, and it can decode a JPEG at 1/2, 1/4 or 1/8 of its size for a fraction of the time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from ptrack.errors import DataError
from ptrack.untrusted.limits import reason_of

Codec = Literal["jpeg", "png", "raw"]
JPEG_QUALITY = 95  # Pillow's scale; with 4:4:4 chroma, so that thin coloured things keep their place

_FAILURES = (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError)


def codec_of(data: bytes) -> Codec:
    """Return "jpeg" or "png" from the first bytes of a picture.

    Raises:
        DataError: it is neither.
    """
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    raise DataError("The picture is neither JPEG nor PNG.")


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Give a picture to be read inside; what is wrong with it becomes a DataError."""
    try:
        yield Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise DataError("The picture cannot be decoded (it is of no known kind).") from error
    except _FAILURES as error:
        raise DataError(f"The picture cannot be decoded ({reason_of(error)}).") from error


def decode_rgb(data: bytes) -> np.ndarray:
    """Decode a picture to (H, W, 3) uint8 RGB; grey and palette pictures are expanded, alpha is dropped.

    Of 16-bit numbers the upper eight bits are kept.

    Raises:
        DataError: the bytes are no picture, or it is truncated or damaged.
    """
    with _opened(data) as image:
        if image.mode.startswith("I"):  # 16-bit grey: Pillow's conversion would make all above 255 white
            return np.repeat((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray(image.convert("RGB"))


def decode_values(data: bytes) -> np.ndarray:
    """Decode a picture to its stored values: (H, W) or (H, W, C), e.g. uint16 depth or palette indices.

    Raises:
        DataError: the bytes are no picture, or it is truncated or damaged.
    """
    with _opened(data) as image:
        values = np.asarray(image)
    return values.astype(np.uint16) if values.dtype == np.int32 else values


def decode_reduced(data: bytes, least: tuple[int, int]) -> Image.Image:
    """Decode a picture as a PIL RGB image, a JPEG at the smallest 1/1, 1/2, 1/4, 1/8 scale not below ``least`` (H, W).

    Raises:
        DataError: the bytes are no picture, or it is truncated or damaged.
    """
    with _opened(data) as image:
        image.draft("RGB", (least[1], least[0]))
        return image.convert("RGB")


def size_of(data: bytes) -> tuple[int, int]:
    """Return (H, W) from the header of a picture.

    Raises:
        DataError: the bytes are no picture.
    """
    with _opened(data) as image:
        return image.height, image.width


def encode(rgb: np.ndarray, codec: Codec, quality: int = JPEG_QUALITY) -> bytes:
    """Encode (H, W, 3) uint8 RGB as JPEG of ``quality`` (1..100, 4:4:4) or PNG (lossless); "raw" gives its bytes."""
    if codec == "raw":
        return np.ascontiguousarray(rgb).tobytes()
    if codec == "jpeg":
        return jpeg(rgb, quality, chroma="4:4:4")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def jpeg(rgb: np.ndarray, quality: int = 90, *, chroma: Literal["4:4:4", "4:2:0"] = "4:2:0") -> bytes:
    """Encode (H, W, 3) uint8 RGB as JPEG of ``quality`` (1..100); by default as it is enough to look at."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, "JPEG", quality=quality, subsampling=chroma)
    return buffer.getvalue()

"""One file of still pictures: its header checked before anything is decoded, then its values as they are stored."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from ptrack.errors import InputError
from ptrack.video.picture import Orientation, over_black

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow's decoders that are used, each by its own module: its other forty formats run programs or are rarely tested.
_PLUGINS = {
    "PNG": "Png",
    "JPEG": "Jpeg",
    "TIFF": "Tiff",
    "WEBP": "WebP",
    "GIF": "Gif",
    "BMP": "Bmp",
    "DIB": "Bmp",
    "PPM": "Ppm",
    "JPEG2000": "Jpeg2K",
    "AVIF": "Avif",
    "TGA": "Tga",  # has no signature: taken by the file's name
}
_PAGED = frozenset(["TIFF", "PNG", "WEBP", "AVIF", "GIF"])  # not MPO: a photo with its preview or depth map
_PLAIN = frozenset(["TIFF", "BMP", "DIB", "PPM", "TGA"])  # whose values may stand in the file as they are
_ORIENTATION = 274  # EXIF and TIFF tag
_REDUCED = 1  # NewSubfileType: the page is a smaller copy of another one


_BLOCK = 16 << 20  # pixels that are converted at once: Pillow holds three copies of them meanwhile
_LIMIT = threading.RLock()


class DamagedPictureError(ValueError):
    """The file is no picture that can be decoded."""


def check_size(width: int, height: int, most: int, name: str) -> None:
    """Raise InputError for pictures of more than ``most`` pixels: decoding them could take all memory."""
    if width * height > most:
        raise InputError(
            f"{name}: a picture of {width}x{height} has {width * height:,} pixels, more than the limit of {most:,}. "
            "Reduce it, or raise max_pixels."
        )


@contextmanager
def _own_limit() -> Iterator[None]:
    """Lift Pillow's limit on pixels, a global, while a header is read; ``check_size`` follows."""
    from PIL import Image

    with _LIMIT:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _parsed(file: BinaryIO, path: Path) -> Image:
    """Return a file's picture with only its header read, by one of the decoders in use."""
    from PIL import Image

    head = file.read(16)
    for name, module in _PLUGINS.items():
        importlib.import_module(f"PIL.{module}ImagePlugin")
        factory: Any
        factory, accepts = Image.OPEN.get(name, (None, None))
        recognised = accepts(head) is True if accepts is not None else path.suffix.lower() == f".{name.lower()}"
        if factory is None or not recognised:
            continue
        file.seek(0)
        try:
            with _own_limit():
                return factory(file, "")
        except (SyntaxError, IndexError, TypeError):
            continue
    raise DamagedPictureError("no known picture format")


class PictureFile:
    """A picture file, opened; a context manager.

    Args:
        path: the file.
        max_pixels: the most pixels a picture may have.

    Raises:
        InputError: it is larger.
        DamagedPictureError: its header cannot be read.
    """

    def __init__(self, path: Path, max_pixels: int) -> None:
        self.path, self._most = path, max_pixels
        self._file = open(path, "rb")  # noqa: SIM115 - closed by ``close``
        try:
            self._image: Any = _guarded(lambda: _parsed(self._file, path))
            width, height = self._image.size
            check_size(width, height, max_pixels, str(path))
        except BaseException:
            self._file.close()
            raise

    @property
    def timed(self) -> bool:
        """Whether its pictures have times (animations), unlike the pages of a TIFF."""
        return self._image.format != "TIFF"

    @property
    def kind(self) -> str:
        """The format's name, such as "PNG"."""
        return self._image.format or ""

    @property
    def bits(self) -> int | None:
        """The number of bits of its integers, where the header has it and they are not whole bytes."""
        bits = self._tags().get(258, (16,))[0]
        return bits if bits % 8 else None

    def _tags(self) -> dict[int, Any]:
        return dict(getattr(self._image, "tag_v2", {}))

    def several(self) -> bool:
        """Return whether there is more than one picture; quick."""
        following = getattr(getattr(self._image, "tag_v2", None), "next", 0)
        return self.kind in _PAGED and bool(following or getattr(self._image, "is_animated", False))

    def pages(self) -> list[int]:
        """Return the numbers of the pictures that make up the sequence: no reduced copies, no still substitute."""
        if not self.several():
            return [0]
        image: Any = self._image
        with _own_limit():
            count = _guarded(lambda: image.n_frames)
        if self.timed:
            return list(range(int(bool(getattr(image, "default_image", False))), count))
        pages = []
        for page in range(count):
            _guarded(partial(self._seek, page))
            if not int(self._tags().get(254, 0)) & _REDUCED:
                pages.append(page)
        return pages or [0]

    def values(self, page: int = 0) -> np.ndarray:
        """Return a picture as it is stored, upright, alpha over black.

        (H, W, 3) uint8 RGB; (H, W) uint16, int32 or float32 grey; or (H, W, 3) uint16 RGB.

        Raises:
            DamagedPictureError: it cannot be decoded.
            InputError: it has too many pixels.
        """
        _guarded(partial(self._seek, page))
        width, height = self._image.size
        check_size(width, height, self._most, str(self.path))
        self._check_stored()
        if self.kind == "TIFF":
            with _own_limit():  # this decoder looks at the limit again when it takes memory
                _guarded(self._image.load_prepare)
        return _guarded(self._decoded)

    def _check_stored(self) -> None:
        """Raise DamagedPictureError if the present picture is larger than what its file holds of it.

        Pillow leaves the rows of a TIFF black that no strip covers; it takes memory for all.
        """
        tiles = getattr(self._image, "tile", None) or ()
        width, height = self._image.size
        rows = self._tags().get(257, 0)  # as they are stored: the height may be that of the picture turned
        if self.kind == "TIFF" and tiles and max(tile[1][3] for tile in tiles) < rows:
            raise DamagedPictureError(f"not all of its {rows} rows are stored")
        least = width * height * (16 if self._image.mode.startswith("RGB") else 1) // 8  # bytes; grey can have one bit
        held = os.fstat(self._file.fileno()).st_size
        if self.kind in _PLAIN and tiles and all(tile[0] == "raw" for tile in tiles) and least > held:
            raise DamagedPictureError(f"{width}x{height} pixels are more than its {held} bytes can hold")

    def _seek(self, page: int) -> None:
        with _own_limit():
            self._image.seek(page)

    def duration(self) -> float | None:
        """Return the seconds for which the picture read last is shown; None if the file has no time for it."""
        milliseconds = self._image.info.get("duration") or 0
        return milliseconds / 1000 if milliseconds > 0 else None

    def _decoded(self) -> np.ndarray:
        if self._deep_colour():
            return self._colour16()
        image = self._image  # copied only where it must be: it may have 400 MB
        image.load()  # of a TIFF this turns it, too
        turned = image.getexif().get(_ORIENTATION, 1)
        if image.mode.startswith("I;16"):
            values = np.asarray(image).astype(np.uint16, copy=False)  # of either byte order
        elif image.mode in ("I", "F"):
            values = np.asarray(image)
        else:
            values = _eight_bits(image)
        return values if turned == 1 else upright(values, turned)

    def _deep_colour(self) -> bool:
        """Return whether it has 16 bits a colour, of which Pillow would keep eight."""
        tile = getattr(self._image, "tile", None)
        colours = self.kind in ("PNG", "TIFF") and self._image.mode in ("RGB", "RGBA", "RGBX", "LA")
        return bool(colours and not (self.kind == "PNG" and self.several()) and tile and ";16" in str(tile[0].args))

    def _colour16(self) -> np.ndarray:
        """Return (H, W, 3) uint16 RGB decoded by ffmpeg, or Pillow's eight bits in their place."""
        import av

        try:
            decoder: Any = av.CodecContext.create(self.kind.lower(), "r")
            data = self.path.read_bytes() if self.kind == "PNG" else _one_page(self._image, self._file)
            frame = [*decoder.decode(av.Packet(data)), *decoder.decode(None)][0]
            alpha = any(component.is_alpha for component in frame.format.components)
            values = frame.reformat(format="rgba64le" if alpha else "rgb48le").to_ndarray()
        except (av.FFmpegError, IndexError, KeyError):
            values = np.asarray(self._image.convert("RGBA")).astype(np.uint16) * 257
        if values.shape[2] == 4:
            values = over_black(values)
        return upright(values, self._image.getexif().get(_ORIENTATION, 1))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _eight_bits(image: Any) -> np.ndarray:
    """Return a decoded Pillow image as (H, W, 3) uint8 RGB, alpha over black, a block of rows after the other."""
    width, height = image.size
    clear = image.has_transparency_data
    rows = max(1, _BLOCK // width)
    if height <= rows:
        return _converted(image, clear)
    whole = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        below = min(top + rows, height)
        whole[top:below] = _converted(image.crop((0, top, width, below)), clear)
    return whole


def _converted(image: Any, clear: bool) -> np.ndarray:
    mode = "RGBA" if clear else "RGB"
    values = np.asarray(image if image.mode == mode else image.convert(mode))
    return over_black(values) if clear else values


def _guarded(work: Any) -> Any:
    """Call ``work``; whatever a decoder raises over a damaged file becomes DamagedPictureError."""
    try:
        return work()
    except (InputError, DamagedPictureError):
        raise
    except Exception as error:  # damaged files make Pillow raise almost anything
        raise DamagedPictureError(str(error)) from error


def _one_page(image: Any, file: BinaryIO) -> bytes:
    """Return the present page of a TIFF as a file of its own."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = image.tag_v2
    offsets, counts = (324, 325) if 324 in tags else (273, 279)
    new = ImageFileDirectory_v2(prefix=tags.prefix)
    for tag in (256, 257, 258, 259, 262, 266, 277, 278, 284, 317, 322, 323, 338, 339, counts):
        if tag in tags:
            new.tagtype[tag] = tags.tagtype[tag]
            new[tag] = tags[tag]
    new.tagtype[offsets] = 4
    strips = []
    for begin, length in zip(tags[offsets], tags[counts], strict=True):
        file.seek(begin)
        strips.append(file.read(length))
    new[offsets] = (0,) * len(strips)
    begin = 0 if offsets == 273 else 8 + len(new.tobytes(8))  # to strips' offsets Pillow adds where the pixels begin
    new[offsets] = tuple(accumulate(map(len, strips[:-1]), initial=begin))
    head = b"II*\0\x08\0\0\0" if tags.prefix == b"II" else b"MM\0*\0\0\0\x08"
    return b"".join([head, new.tobytes(8), *strips])


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Return (H, W, C) values turned and mirrored as an EXIF orientation (1..8) asks for."""
    return Orientation(orientation >= 5, orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)).apply(values)

"""PNG sequences, collected in a temporary folder beside the target and moved when complete."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np

from ptrack.errors import OutputError
from ptrack.video.writing.base import VideoWriter, check_frame

_NUMBER = re.compile(r"%0?[0-9]*d")


class PngWriter(VideoWriter):
    """Frames as PNG files named by a pattern such as ``shots/frame_%05d.png``, or ``000000.png`` ... in a folder."""

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        self._pattern = path if path.suffix.lower() == ".png" and not path.is_dir() else path / "%06d.png"
        name = self._pattern.name
        if len(_NUMBER.findall(name)) != 1 or name.count("%") != 1:
            raise OutputError(f"{path}: give a pattern with one number, such as {path.stem}_%05d.png, or a folder.")
        self._size: tuple[int, int] | None = None
        self._folder = self._pattern.parent
        old = self._old()
        if old and not overwrite:
            raise OutputError(
                f"{self._folder} already holds {old[0].name}; choose another place or add --overwrite to replace it."
            )
        self.frames_written = 0
        self._made = not self._folder.exists()
        hidden = f".{self._folder.name or 'frames'}.{os.getpid()}.tmp"
        self._temporary = self._folder.parent / hidden if self._made else self._folder / hidden
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.mkdir()
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {error.strerror or error}. Choose a writable place.") from error

    def _old(self) -> list[Path]:
        """Return the files that earlier runs wrote with this pattern."""
        before, after = (re.escape(part) for part in _NUMBER.split(self._pattern.name))
        shape = re.compile(f"{before}[0-9]+{after}")
        return sorted(p for p in self._folder.glob("*") if shape.fullmatch(p.name))

    def write(self, rgb: np.ndarray, pts: float | None = None) -> None:
        """Add a frame; ``pts`` is not kept."""
        from PIL import Image

        check_frame(rgb, self._size, self.path)
        self._size = rgb.shape[:2]
        try:
            Image.fromarray(rgb).save(self._temporary / (self._pattern.name % self.frames_written), compress_level=3)
        except OSError as error:
            self.abort()
            raise OutputError(f"Cannot write {self.path}: {error.strerror or error}. Free space there.") from error
        self.frames_written += 1

    def close(self) -> None:
        """Move the files to their place, replacing those of an earlier run."""
        try:
            if not self._temporary.exists() or not self.frames_written:
                return
            if self._made and not self._folder.exists():
                os.replace(self._temporary, self._folder)
                return
            for old in self._old():
                old.unlink()
            for new in sorted(self._temporary.iterdir()):
                os.replace(new, self._folder / new.name)
        except OSError as error:
            raise OutputError(f"Cannot write {self.path}: {error.strerror or error}.") from error
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove the temporary folder."""
        shutil.rmtree(self._temporary, ignore_errors=True)

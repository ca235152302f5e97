"""Where outputs and status files stand: a local folder, or a folder behind a URL that fsspec can open.

Nothing here needs file locks, which network drives refuse: a file appears whole under its name or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ptrack.errors import OutputError
from ptrack.fileio import temporary_name


class Place(Protocol):
    """A folder of files with plain names."""

    name: str  # for messages

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, None if there is no such file."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a whole file; raises OutputError."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file only if there is none of that name; return whether it was written."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        ...

    def sizes(self) -> dict[str, int]:
        """Return the names of all files with their sizes in bytes."""
        ...

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, None if there is no such file."""
        ...

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """Yield a local folder for results; ``commit`` brings them here."""
        ...

    def commit(self, folder: Path, name: str) -> None:
        """Bring a file of the staged folder here; it appears only when whole."""
        ...


class LocalPlace:
    """A folder of this machine, or of a network drive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(folder)

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, None if there is no such file."""
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a whole file."""
        path = self.folder / name
        temporary = temporary_name(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                file.write(data)
            os.replace(temporary, path)
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {error.strerror or error}.") from error
        finally:
            temporary.unlink(missing_ok=True)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file only if there is none of that name."""
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {error.strerror or error}.") from error
        return True

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def sizes(self) -> dict[str, int]:
        """Return the names of all files with their sizes in bytes."""
        try:
            with os.scandir(self.folder) as entries:
                return {e.name: e.stat().st_size for e in entries if e.is_file()}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, None if there is no such file."""
        try:
            return (self.folder / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """Yield the folder itself: the trackers' own files are written under temporary names and renamed."""
        yield self.folder

    def commit(self, folder: Path, name: str) -> None:
        """Do nothing: the file is in its place already."""

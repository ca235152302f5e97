"""Where outputs and status files stand: a local folder, or a folder behind a URL that fsspec can open.

Nothing here needs file locks, which network drives refuse: a file appears whole under its name or not at all. Behind a
URL outputs are uploaded whole, and the status file, which makes a job done, comes last.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from ptrack.batch import stores
from ptrack.batch.stores import OBJECT_STORES, store_errors
from ptrack.errors import OutputError
from ptrack.fileio import atomic_path, temporary_folder


class LocalPlace:
    """A folder of this machine, or of a network drive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(folder)  # for messages

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, None if there is no such file."""
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _made(self) -> Path:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"Cannot make the folder {self.folder}: {error.strerror or error}.") from error
        return self.folder

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a whole file; raises OutputError."""
        with atomic_path(self._made() / name) as temporary:
            temporary.write_bytes(data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file only if there is none of that name; return whether it was written."""
        path = self._made() / name
        try:
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


class RemotePlace:
    """A folder behind a URL."""

    def __init__(self, url: str) -> None:
        self.name = url.rstrip("/")
        self._store, self._root = stores.open_store(self.name)
        self._root = self._root.rstrip("/")
        self._whole = urlsplit(url).scheme.lower() in OBJECT_STORES

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, None if there is no such file."""
        with store_errors(f"{self.name}/{name}", OutputError):
            try:
                return self._store.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a whole file."""
        with temporary_folder() as folder:
            (folder / name).write_bytes(data)
            self.commit(folder, name)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file only if there is none of that name."""
        with store_errors(f"{self.name}/{name}", OutputError):
            if self._store.exists(self._path(name)):
                return False
        self.write(name, data)
        return True

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        with store_errors(f"{self.name}/{name}", OutputError), suppress(FileNotFoundError):
            self._store.rm_file(self._path(name))

    def sizes(self) -> dict[str, int]:
        """Return the names of all files with their sizes in bytes."""
        with store_errors(self.name, OutputError):
            try:
                found = self._store.ls(self._root, detail=True)
            except FileNotFoundError:
                return {}
        return {entry["name"].rpartition("/")[2]: entry["size"] for entry in found if entry["type"] == "file"}

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, None if there is no such file."""
        with store_errors(f"{self.name}/{name}", OutputError):
            try:
                return self._store.info(self._path(name))["size"]
            except FileNotFoundError:
                return None

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """Yield a temporary folder; what is committed from it is uploaded."""
        with temporary_folder() as folder:
            yield folder

    def commit(self, folder: Path, name: str) -> None:
        """Upload a file: at once where uploads appear whole, elsewhere under a temporary name that is then changed."""
        with store_errors(f"{self.name}/{name}", OutputError):
            if self._whole:
                self._store.put_file(str(folder / name), self._path(name))
                return
            temporary = self._path(f".{name}.{secrets.token_hex(4)}.tmp")
            self._store.makedirs(self._root, exist_ok=True)
            self._store.put_file(str(folder / name), temporary)
            self._store.mv(temporary, self._path(name))


Place = LocalPlace | RemotePlace


def open_place(where: str) -> Place:
    """Return the place of a folder name or URL.

    Raises:
        OutputError: a URL of a kind that is not installed or not known.
    """
    return RemotePlace(where) if "://" in where else LocalPlace(Path(where))


def from_anywhere(where: str) -> str:
    """Return a folder name or URL as a process in any folder opens it."""
    return where if "://" in where else os.path.abspath(where)

"""Places behind URLs, and the opening of any place.

Outputs are uploaded whole, and the status file, which makes a job done, comes last.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from ptrack.batch import stores
from ptrack.batch.places import LocalPlace, Place
from ptrack.batch.stores import OBJECT_STORES, store_errors
from ptrack.errors import OutputError
from ptrack.fileio import temporary_folder


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
        with store_errors(f"{self.name}/{name}", OutputError):
            try:
                self._store.rm_file(self._path(name))
            except FileNotFoundError:
                return

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


def open_place(where: str) -> Place:
    """Return the place of a folder name or URL.

    Raises:
        OutputError: a URL of a kind that is not installed or not known.
    """
    if "://" in where:
        return RemotePlace(where)
    return LocalPlace(Path(where))

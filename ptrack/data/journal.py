"""A file that can be killed at any moment and rolled back to its last commit.

HDF5 rewrites its tables of contents in place, so a process that is killed in the middle of a flush leaves a file nobody
can open. ``JournaledFile`` sits between h5py and the disk: bytes after the committed end are written straight through
(that is all the pictures and tracks), and before a committed byte is overwritten its old value goes into an undo
journal beside the file. Opening the file again undoes what was not committed and cuts off what was appended.

An error inside HDF5 while it writes leaves its tables half-changed; closing such a file has crashed the process. So
HDF5 never learns of a failed write: from then on what it writes is kept in memory, and the next commit fails.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ptrack.errors import OutputError
from ptrack.fileio import NOFOLLOW, locked, new_file

_HEAD = struct.Struct("<8sQ")  # magic, committed size
_RECORD = struct.Struct("<QQI")  # offset, length, CRC-32 of the old bytes
_MAGIC = b"ptundo1\n"
_PAGE = 4096  # bytes of a block that is journaled, or kept in memory after a failed write


class JournaledFile(io.RawIOBase):
    """A random-access file for ``h5py.File(JournaledFile(path), ...)``; ``commit()`` makes what was written permanent.

    Args:
        path: the file; its journal is ``path`` + ".undo". An existing file is first rolled back to its last commit.

    Raises:
        OutputError: another process writes the file, or it cannot be opened.

    Attributes:
        failure: the error of the first write that failed (disk full). From then on nothing reaches the disk, every
            ``commit`` fails, and the file is as after its last commit when it is opened again.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self.path = Path(path)
        self.undo_path = self.path.with_name(self.path.name + ".undo")
        self.failure: OSError | None = None
        self._covered: set[int] = set()
        self._kept: dict[int, bytearray] = {}  # what was written after the failure, by number of the page
        self._size = 0  # of the file with what is kept, after the failure
        try:
            self._lock = _locked(self.path)
            rollback(self.path)
            self._file = open(self.path, "r+b", buffering=0)  # noqa: SIM115
            self._committed = os.fstat(self._file.fileno()).st_size
            self._undo = os.fdopen(new_file(self.undo_path), "wb", buffering=0)
            self._begin()
        except OSError as error:
            raise OutputError(f"Cannot write {self.path}: {error.strerror or error}.") from error

    def _begin(self) -> None:
        """Start an empty journal for the present committed size."""
        self._undo.seek(0)
        self._undo.truncate(0)
        self._undo.write(_HEAD.pack(_MAGIC, self._committed))
        os.fsync(self._undo.fileno())
        self._covered.clear()

    def commit(self) -> None:
        """Make everything written so far permanent (call it after ``h5py.File.flush``).

        Raises:
            OutputError: this or an earlier write failed; close the file.
        """
        try:
            if self.failure is not None:
                raise self.failure
            os.fsync(self._file.fileno())
            self._committed = os.fstat(self._file.fileno()).st_size
            self._begin()
        except OSError as error:
            self._fail(error)
            raise OutputError(f"Cannot write {self.path}: {error.strerror or error}.") from error

    def _fail(self, error: OSError) -> None:
        if self.failure is None:
            self._size = os.fstat(self._file.fileno()).st_size
            self.failure = error

    def _protect(self, start: int, stop: int) -> None:
        """Save the committed bytes of [start, stop) that are not in the journal yet, in blocks of a page."""
        stop = min(stop, self._committed)
        for block in range(start // _PAGE, -(-stop // _PAGE)):
            if block in self._covered:
                continue
            offset = block * _PAGE
            old = os.pread(self._file.fileno(), min(_PAGE, self._committed - offset), offset)
            self._undo.write(_RECORD.pack(offset, len(old), zlib.crc32(old)) + old)
            self._covered.add(block)

    def write(self, data: Any, /) -> int:
        """Write at the present position; committed bytes are journaled first. Never fails, see ``failure``."""
        view = memoryview(data).cast("B")
        start = self._file.tell()
        if self.failure is None:
            try:
                self._write_through(start, view)
            except OSError as error:
                self._fail(error)
        if self.failure is not None:
            self._keep(start, view)
            self._file.seek(start + len(view))
        return len(view)

    def _write_through(self, start: int, view: memoryview) -> None:
        if start < self._committed:
            self._protect(start, start + len(view))
        done = 0
        while done < len(view):
            done += self._file.write(view[done:]) or 0

    def _keep(self, start: int, view: memoryview) -> None:
        """Keep in memory what the disk does not take."""
        for at, number, within in _by_page(start, len(view)):
            page = self._page(number)
            page[within] = view[at : at + within.stop - within.start]
            self._kept[number] = page
        self._size = max(self._size, start + len(view))

    def _page(self, number: int) -> bytearray:
        """Return a page as it would be read, filled up with zeros."""
        return self._kept.get(number) or bytearray(
            os.pread(self._file.fileno(), _PAGE, number * _PAGE).ljust(_PAGE, b"\0")
        )

    def readinto(self, buffer: Any, /) -> int:
        """Read into ``buffer`` at the present position."""
        if self.failure is None:
            return self._file.readinto(buffer) or 0
        view, start = memoryview(buffer).cast("B"), self._file.tell()
        length = max(0, min(len(view), self._size - start))
        for at, number, within in _by_page(start, length):
            view[at : at + within.stop - within.start] = self._page(number)[within]
        self._file.seek(start + length)
        return length

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position."""
        if whence == os.SEEK_END and self.failure is not None:
            return self._file.seek(self._size + offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Change the size; committed bytes that fall away are journaled first. Never fails, see ``failure``."""
        size = self.tell() if size is None else size
        if self.failure is None:
            try:
                if size < self._committed:
                    self._protect(size, self._committed)
                return self._file.truncate(size)
            except OSError as error:
                self._fail(error)
        self._size = size
        return size

    def flush(self) -> None:
        """Nothing is buffered."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the file and its journal; what was not committed is undone at the next opening."""
        if not self.closed:
            super().close()
            for name in ("_undo", "_file", "_lock"):
                if hasattr(self, name):
                    getattr(self, name).close()


def _by_page(start: int, length: int) -> Iterator[tuple[int, int, slice]]:
    """Yield (position among the bytes, number of the page, place in the page) of the bytes [start, start + length)."""
    at = 0
    while at < length:
        number, begin = divmod(start + at, _PAGE)
        step = min(_PAGE - begin, length - at)
        yield at, number, slice(begin, begin + step)
        at += step


def _locked(path: Path) -> BinaryIO:
    """Open (and make) a file and lock it as long as it is open."""
    return locked(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | NOFOLLOW, 0o666), path, "ab", "stop it")


def check_free(path: Path | str) -> None:
    """Raise OutputError if another process writes the journaled file ``path``."""
    if Path(path).exists():
        _locked(Path(path)).close()


def rollback(path: Path | str) -> bool:
    """Bring a journaled file back to its last commit and remove its journal; return whether there was one.

    Records are applied in order of writing, the file is cut to its committed size. A record whose end is missing
    was never followed by the overwrite it protects, so it is left out.
    """
    path = Path(path)
    undo = path.with_name(path.name + ".undo")
    if not undo.exists():
        return False
    with open(undo, "rb") as journal:
        head = journal.read(_HEAD.size)
        if path.exists() and len(head) == _HEAD.size and head.startswith(_MAGIC):
            with open(path, "r+b") as file:
                _undo_records(journal, file)
                file.truncate(_HEAD.unpack(head)[1])
                file.flush()
                os.fsync(file.fileno())
    undo.unlink()
    return True


def _undo_records(journal: io.BufferedReader, file: io.BufferedRandom) -> None:
    while len(head := journal.read(_RECORD.size)) == _RECORD.size:
        offset, length, crc = _RECORD.unpack(head)
        old = journal.read(length)
        if len(old) < length or zlib.crc32(old) != crc:
            return
        file.seek(offset)
        file.write(old)

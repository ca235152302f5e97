"""Writing files so that a killed run never leaves half of one under a final name.

Temporary files are made new, never through a link and never over an existing file, so that in a folder that others can
write nobody can steer where the bytes go.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from ptrack.errors import OutputError, reason

NAME_MAX = 255  # bytes of one file name on the usual file systems
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)  # opening a link is an error; absent on Windows


def check_writable(path: Path | str, *, overwrite: bool) -> Path:
    """Fail before the expensive step if ``path`` cannot become an output file.

    Creates missing parent folders and proves that the folder takes a file.

    Raises:
        OutputError: the file exists and ``overwrite`` is false, ``path`` is a folder or a device, or its folder is not
            writable.
    """
    path = Path(path)
    if "\0" in str(path):
        raise OutputError(f"Cannot write {str(path)!r}: a file name cannot hold a null character.")
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder; give the name of a file in it.")
        if path.exists():
            if not path.is_file():
                raise OutputError(f"{path} is a device or a pipe, not a file; give the name of a file.")
            if not overwrite:
                raise OutputError(f"{path} already exists; choose another name or add --overwrite to replace it.")
        between = next((p for p in path.parents if p.exists()), path.parent)
        if not between.is_dir():
            raise OutputError(f"Cannot write {path}: {between} is a file, not a folder. Choose another place.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except (OSError, ValueError) as error:
        raise OutputError(f"Cannot write {path}: {reason(error)}. Choose a writable place.") from error
    return path


def locked(descriptor: int, path: Path, mode: str, advice: str) -> BinaryIO:
    """Return an open file, locked until it closes or the process dies, except on Windows and drives without locks.

    Raises:
        OutputError: another process writes it; ``advice`` ends the sentence.
    """
    file = cast(BinaryIO, os.fdopen(descriptor, mode))
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise OutputError(f"{path} is being written by another process; wait for it or {advice}.") from None
    except (ImportError, OSError):
        pass
    return file


def new_file(path: Path | str) -> int:
    """Create an empty file and return its open descriptor; an older file or link of that name is removed first.

    Raises:
        OSError: the folder does not take it, or another process made one in between.
    """
    Path(path).unlink(missing_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | NOFOLLOW, 0o666)


def check_space(path: Path | str, size: int) -> None:
    """Raise OSError (no space, quota) unless the disk of ``path`` takes ``size`` more bytes now.

    Libraries that keep data in memory until a file is closed (HDF5) cannot be stopped half-way: this comes before them.
    """
    folder = Path(path).parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except (AttributeError, OSError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        if shutil.disk_usage(folder).free < size:  # macOS and a few file systems cannot reserve
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error


def temporary_name(path: Path | str) -> Path:
    """Return an unused hidden sibling of ``path`` (same suffix) that is written before it is renamed.

    It holds this machine's and this process's number, by which a later run knows what a killed one left.
    """
    path = Path(path)
    tail = f".{_machine()}-{os.getpid()}.{secrets.token_hex(4)}.tmp{path.suffix}"
    return path.with_name(f".{_short(path.stem, tail)}{tail}")


def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def fitting(stem: str, tail: str) -> str:
    """Return a stem that, with ``tail`` behind it, is a file name; a long one is cut and ends in a hash of it all."""
    name, room = os.fsencode(stem), NAME_MAX - len(os.fsencode(tail))
    if len(name) <= room:
        return stem
    mark = hashlib.sha256(name).hexdigest()[:8]
    return f"{name[: room - 9].decode('utf-8', 'ignore')}-{mark}"


def plain_name(text: str, also: str = "") -> str:
    """Return a text in which all but letters, digits, ``._-`` and the characters of ``also`` have become ``_``."""
    return "".join(c if c.isalnum() or c in "._-" or c in also else "_" for c in text)


def _short(stem: str, tail: str) -> str:
    """Return as much of a name as fits with a dot before it and ``tail`` behind it."""
    return os.fsencode(stem)[: NAME_MAX - 1 - len(os.fsencode(tail))].decode("utf-8", "ignore")


@lru_cache(maxsize=256)
def _hidden_files(folder: Path) -> tuple[str, ...]:
    """Return what may be left in a folder of interrupted writes, as it is when this process first writes there.

    Listing a folder of 10,000 files takes 5 ms, which a run that writes as many files there should not pay for each.
    """
    with os.scandir(folder) as entries:
        return tuple(e.name for e in entries if e.name.startswith(".") and ".tmp" in e.name)


def _remove_left_over(path: Path) -> None:
    """Remove temporary files of ``path`` whose process on this machine has ended."""
    shape = re.compile(rf"\.(.+)\.{_machine()}-(\d+)\.[0-9a-f]{{8}}\.tmp{re.escape(path.suffix)}", re.DOTALL)
    for name in _hidden_files(path.parent.absolute()):
        found = shape.fullmatch(name)
        if found and path.stem.startswith(found[1]) and not _alive(int(found[2])):
            path.with_name(name).unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere there is no question without a signal
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it is another user's
    return True


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a new, empty temporary sibling of ``path``; rename it over ``path`` on success, delete it on any error.

    The result has the mode that the process's umask gives, whatever mode a library wrote it with.

    Raises:
        OutputError: an ``OSError`` came up while writing (disk full, read-only), with the path and the reason.
    """
    path = Path(path)
    temporary = temporary_name(path)
    try:
        _remove_left_over(path)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | NOFOLLOW, 0o666)
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.close(descriptor)
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:
            os.chmod(temporary, mode)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {reason(error)}.") from error
    finally:
        with contextlib.suppress(OSError):  # the folder is gone or the name too long: there is nothing to remove
            temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path | str, rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV table, whole or not at all; None is an empty cell."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def sha256_of(path: Path | str, chunk: int = 1 << 20) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, reading ``chunk`` bytes at a time."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(chunk):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="ptrack-", ignore_cleanup_errors=True) as name:
        yield Path(name)

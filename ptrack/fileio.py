"""Writing files so that a killed run never leaves half of one under a final name."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptrack.errors import OutputError


def check_writable(path: Path | str, *, overwrite: bool, option: str = "--overwrite") -> Path:
    """Fail before the expensive step if ``path`` cannot become an output file.

    Creates missing parent folders and proves that the folder takes a file.

    Raises:
        OutputError: the file exists and ``overwrite`` is false, ``path`` is a folder, or its folder is not writable.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file in it.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} already exists; choose another name or add {option} to replace it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}. Choose a writable place.") from error
    return path


def temporary_name(path: Path | str) -> Path:
    """Return the hidden sibling of ``path`` (same suffix) that is written before it is renamed."""
    path = Path(path)
    return path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of ``path``; rename it over ``path`` on success, delete it on any error.

    Raises:
        OutputError: an ``OSError`` came up while writing (disk full, read-only), with the path and the reason.
    """
    path = Path(path)
    temporary = temporary_name(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path | str, chunk: int = 1 << 20) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, reading ``chunk`` bytes at a time."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(chunk):
            digest.update(block)
    return digest.hexdigest()

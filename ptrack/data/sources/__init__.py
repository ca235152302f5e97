"""The datasets that can be converted. Every module here that has no leading underscore is one: its ``SOURCE`` class.

Adding a dataset is adding one file with a ``Source`` subclass and ``SOURCE = TheClass``.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from ptrack.data.source import Source
from ptrack.errors import DataError, did_you_mean


def names() -> list[str]:
    """Return the names of all sources as on the command line, without importing them."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def source_class(name: str) -> type[Source]:
    """Return the class of a source.

    Raises:
        DataError: there is no such source; the nearest name is suggested.
    """
    if name.replace("_", "-") not in names():
        raise DataError(f"There is no dataset '{name}'.{did_you_mean(name, names())} See 'ptrack convert --list'.")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").SOURCE


def open_dataset(name: str, root: Path | str, **options: Any) -> Source:
    """Open an original dataset: iterate it for its clips, or use ``refs()`` and ``load(ref)``.

    Raises:
        DataError: unknown name, or ``root`` does not exist.
    """
    return source_class(name)(root, **options)

"""Outputs of an analysis: never over its tracks, checked beforehand, written whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ptrack.errors import OutputError
from ptrack.fileio import check_writable, write_csv


def check_outputs(source: Path | str, outputs: Iterable[Path | str | None], *, overwrite: bool) -> None:
    """Raise OutputError unless every output can be written and none of them is ``source`` or another output."""
    taken = {Path(source).resolve()}
    for output in outputs:
        if output is None:
            continue
        if Path(output).resolve() in taken:
            raise OutputError(f"{output} is the tracks file or another output; an analysis needs a file of its own.")
        taken.add(check_writable(output, overwrite=overwrite).resolve())


def write_rows(path: Path | str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV table, whole or not at all; None and NaN are empty cells."""
    cells = (["" if v is None or v != v else f"{v:.9g}" if isinstance(v, float) else v for v in row] for row in rows)
    write_csv(path, itertools.chain([columns], cells))

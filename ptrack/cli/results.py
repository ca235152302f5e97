"""Files of results, and sizes as users write them: what several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ptrack.errors import ConfigError


def check_files(*paths: Path | None, overwrite: bool) -> None:
    """Raise OutputError for a file that exists or cannot be written, before any expensive step; None is passed over."""
    from ptrack.fileio import check_writable

    for path in paths:
        if path is not None:
            check_writable(path, overwrite=overwrite)


def finish_json(data: dict[str, Any], out: Path | None) -> None:
    """Write a result to a file, if one was asked for, and print it as one line, the last on stdout."""
    from ptrack.fileio import write_text

    if out is not None:
        write_text(out, json.dumps(data, indent=1, ensure_ascii=False))
    print(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")), flush=True)


def parse_size(text: str) -> tuple[int, int]:
    """Parse ``854x480`` (width x height) into (H, W); raises ConfigError."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) > 0 and int(height) > 0):
        raise ConfigError(f"--size {text}: write it as WIDTHxHEIGHT, for example 854x480.")
    return int(height), int(width)

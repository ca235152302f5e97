"""JSON, YAML and CSV that anybody may have made: their size in memory is estimated before they are parsed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptrack.untrusted.limits import Refused, amount, check_values

JSON_BYTES = 2 << 30  # a JSON document may take this much in memory, estimated from its commas and brackets
YAML_BYTES = 256 << 10  # a configuration of ptrack has 2 KiB; PyYAML reads about 100 KiB a second
YAML_VALUES = 50_000  # after every alias is replaced by what it stands for
LINE_BYTES = 16 << 20  # of one line of a CSV; its fields are limited to 128 KiB by Python


def load_json(path: Path | str) -> Any:
    """Return a JSON document, with or without a byte order mark.

    Raises:
        Refused: it would take too much memory.
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    data = Path(path).read_bytes()
    return parse_json(data)


def parse_json(data: bytes) -> Any:
    """Return a JSON document from its bytes; raises as ``load_json`` does."""
    # bytes of Python's values: about 32 for a number with its place in a list, 64 for a text, 72 and 240 for containers
    needed = len(data) + 64 * data.count(b",") + 72 * data.count(b"[") + 240 * data.count(b"{")
    if needed > JSON_BYTES:
        raise Refused(f"would take about {amount(needed)} in memory; the limit for JSON is {amount(JSON_BYTES)}")
    return json.loads(data.decode("utf-8-sig"))


def parse_yaml(text: str) -> Any:
    """Return a YAML document of plain values.

    Raises:
        Refused: it is too large, also by aliases that stand for much, or holds itself.
        yaml.YAMLError: it is not YAML.
        RecursionError: it is nested too deeply.
    """
    import yaml

    if len(text) > YAML_BYTES:
        raise Refused(f"has {amount(len(text))}; the limit for YAML is {amount(YAML_BYTES)}")
    try:
        value = yaml.safe_load(text)
    except (ValueError, TypeError, AttributeError, IndexError, KeyError, OverflowError) as error:
        raise yaml.YAMLError(f"a value is not what it is marked as ({error})") from error
    check_values(value, YAML_VALUES)
    return value


def csv_rows(path: Path | str) -> Iterator[list[str]]:
    """Yield the rows of a CSV with at least one cell, with or without a byte order mark.

    Raises:
        Refused: a line is too long.
        csv.Error: a field is.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        yield from (row for row in csv.reader(_lines(file)) if row)


def _lines(file: Any) -> Iterator[str]:
    while line := file.readline(LINE_BYTES):
        if len(line) >= LINE_BYTES:
            raise Refused(f"has a line of more than {amount(LINE_BYTES)}")
        yield line

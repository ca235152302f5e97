"""Configurations: frozen keyword-only dataclasses, read from YAML and mappings, with unknown keys refused."""

from __future__ import annotations

import dataclasses
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ptrack.errors import ConfigError, did_you_mean, reason
from ptrack.untrusted import text as untrusted_text
from ptrack.untrusted.limits import reading, reason_of

C = TypeVar("C")


def check_bounds(
    config: Any,
    *names: str,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    where: str = "",
) -> None:
    """Raise ConfigError, with ``where`` before the name, for a field beyond the bounds, as NaN is; None is allowed."""
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    words = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))
    for name in names:
        value = getattr(config, name)
        if value is None:
            continue
        beyond = (value <= above and above > -math.inf) or (value >= below and below < math.inf)
        if beyond or not least <= value <= most:
            raise ConfigError(f"{where}{name} must be {words}, not {value}.")


def from_mapping(cls: type[C], values: Mapping[str, Any], where: str = "configuration") -> C:
    """Build the config dataclass ``cls`` from a mapping; nested dataclasses from nested mappings.

    Raises:
        ConfigError: an unknown key (the nearest valid one is named) or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must be 'key: value' pairs, not {shown(values)}.")
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(typing.cast(Any, cls)) if f.init}
    arguments = {}
    for key, value in values.items():
        if key not in names:
            near = did_you_mean(key[:100], names) if isinstance(key, str) else ""
            raise ConfigError(f"{where}: unknown key {shown(key)}.{near}")
        arguments[key] = _convert(hints[key], value, f"{where}: {key}")
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}.") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Convert a plain YAML/JSON value to the annotated type."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [a for a in typing.get_args(hint) if a is not type(None)]
        if value is None:
            return None
        return _convert(options[0], value, where) if len(options) == 1 else value
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_mapping(typing.cast(type, hint), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        inner = typing.get_args(hint)
        if inner[-1] is not Ellipsis and len(value) != len(inner):
            raise ConfigError(f"{where} must have {len(inner)} values, not {len(value)}.")
        return tuple(_convert(inner[0] if inner[-1] is Ellipsis else inner[i], v, where) for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{where} is too large a number.") from None
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            return float(value)
        except ValueError:
            raise ConfigError(f"{where} must be a number, not {shown(value)}.") from None
    wrong = (hint in (int, float, str, bool) and type(value) is not hint) or (
        (origin is tuple or dataclasses.is_dataclass(hint)) and not isinstance(value, typing.cast(type, origin or hint))
    )
    if wrong:
        raise ConfigError(f"{where} must be of type {getattr(hint, '__name__', hint)}, not {shown(value)}.")
    return value


def shown(value: Any) -> str:
    """Return a value for a sentence: quoted text or short Python notation, at most 60 characters, in one line."""
    text = f"'{value}'" if isinstance(value, str) else _SHORT.repr(value)
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= 60 else f"{clean[:57]}..."


class _Short(reprlib.Repr):
    """Python's short notation, which fails for whole numbers of thousands of digits."""

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if abs(x) < 10**40 else "a huge number"


_SHORT = _Short()


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a config dataclass as plain nested dicts and lists that YAML and JSON can hold."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds something else than a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read the configuration {path}: {reason(error)}.") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold 'key: value' lines at its top level.")
    return values


def parse_yaml(text: str, where: str) -> Any:
    """Return the YAML document ``text``; ``where`` names it in errors.

    Raises:
        ConfigError: it is not YAML, or too large or too deep to be a configuration.
    """
    import yaml

    with reading(where, ConfigError, "YAML"):
        try:
            return untrusted_text.parse_yaml(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or reason_of(error)
            line = f" in line {mark.line + 1}" if mark and mark.line else ""
            raise ConfigError(f"{where} is not valid YAML: {problem}{line}.") from error


def override(values: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Return a copy of ``values`` with ``a.b=c`` assignments applied; each ``c`` is parsed as YAML.

    Raises:
        ConfigError: an assignment has no ``=``, or its value is no YAML.
    """
    import copy

    result = copy.deepcopy(values)
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        if not sign or not key:
            raise ConfigError(f"--set {assignment}: write it as key=value, for example --set lr=1e-4.")
        *parents, last = key.split(".")
        target = result
        for name in parents:
            target = target.setdefault(name, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--set {assignment}: '{name}' is a value, not a section.")
        target[last] = parse_yaml(text, f"--set {shown(assignment)[1:-1]}")
    return result

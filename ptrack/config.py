"""Configurations: frozen keyword-only dataclasses, read from YAML and mappings, with unknown keys refused."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ptrack.errors import ConfigError, did_you_mean

C = TypeVar("C")


def from_mapping(cls: type[C], values: Mapping[str, Any], where: str = "configuration") -> C:
    """Build the config dataclass ``cls`` from a mapping; nested dataclasses from nested mappings.

    Raises:
        ConfigError: an unknown key (the nearest valid one is named) or a value of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in names:
            raise ConfigError(f"{where}: unknown key '{key}'.{did_you_mean(str(key), names)}")
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
        return tuple(_convert(inner[0] if inner[-1] is Ellipsis else inner[i], v, where) for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            return float(value)
        except ValueError:
            raise ConfigError(f"{where} must be a number, not '{value}'.") from None
    if hint in (int, float, str, bool) and (type(value) is not hint):
        raise ConfigError(f"{where} must be of type {hint.__name__}, not {value!r}.")
    return value


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
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold 'key: value' lines at its top level.")
    return values


def override(values: dict[str, Any], assignments: list[str], option: str = "--set") -> dict[str, Any]:
    """Return a copy of ``values`` with ``a.b=c`` assignments applied; each ``c`` is parsed as YAML.

    Raises:
        ConfigError: an assignment has no ``=``.
    """
    import copy

    import yaml

    result = copy.deepcopy(values)
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        if not sign or not key:
            raise ConfigError(f"{option} {assignment}: write it as key=value, for example {option} lr=1e-4.")
        *parents, last = key.split(".")
        target = result
        for name in parents:
            target = target.setdefault(name, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{option} {assignment}: '{name}' is a value, not a section.")
        target[last] = yaml.safe_load(text)
    return result

"""Models of other packages: found by the entry points ``ptrack.models`` of what is installed.

A package declares, in its ``pyproject.toml``,

    [project.entry-points."ptrack.models"]
    my-model = "my_package.ptrack:ENTRY"

where ``ENTRY`` is a :class:`ptrack.models.entry.ModelEntry`, or a list of them. Its module should import no torch: it
is read whenever the models are listed. What cannot be used is a warning, and all other models still work.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points

from ptrack.models.entry import ModelEntry

GROUP = "ptrack.models"


def entries_of_packages(taken: Container[str]) -> list[ModelEntry]:
    """Return what other packages offer, in order of the entry points' names.

    Args:
        taken: names of models that no other may have.
    """
    found: dict[str, ModelEntry] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value)):
        package = _package(point)
        try:
            entries = list(_checked(point.load()))
        except Exception as error:  # whatever another package's code does must not end the command
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"The package {package} offers the model '{point.name}', but {reason}.", stacklevel=2)
            continue
        for entry in entries:
            if entry.name in taken or entry.name in found:
                owner = found[entry.name].package if entry.name in found else "ptrack"
                text = f"The model '{entry.name}' of {package} is left out: {owner} has one of that name."
                warnings.warn(text, stacklevel=2)
                continue
            found[entry.name] = replace(entry, package=package)
    return list(found.values())


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.module


def _checked(value: object) -> Iterator[ModelEntry]:
    for entry in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(entry, ModelEntry):
            raise TypeError(f"{entry!r} is not a ptrack.models.entry.ModelEntry")
        if not all(entry.builder.partition(":")):
            raise TypeError(f"the builder '{entry.builder}' is not MODULE:FUNCTION")
        yield entry

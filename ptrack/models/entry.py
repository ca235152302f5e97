"""What the zoo knows about a model, and what passes between it and a model's builder.

Importing this needs no torch: ``ptrack models`` and the check of a command's options stay quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ptrack.models.base import OnlineModel


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One line of ``ptrack models``."""

    name: str
    summary: str  # what it is, in a few words
    licence: str  # of the weights
    weights: str  # where they are: "packaged", "none", "--checkpoint FILE", or a hub address
    builder: str  # "module:function" of ``(LoadRequest) -> LoadedModel``
    options: tuple[str, ...] = ()  # keyword options of ``load`` that it takes
    takes_checkpoint: bool = False  # ``checkpoint=`` may be given
    untrained: str = ""  # "module:function" like ``builder``, with random weights, for measuring speed; "": none
    half: bool = False  # it computes in a half type if asked to; else always in float32
    vit: bool = False  # most of its work is a ViT's: speed is also given in multiples of a plain one
    package: str = "ptrack"  # that it comes from, filled in by the zoo
    file: str = ""  # of downloaded weights: path below the server's address
    size: int | None = None  # bytes of that file; None: unknown
    sha256: str = ""  # of that file; "": unknown


@dataclass(frozen=True, kw_only=True)
class LoadRequest:
    """What a builder gets."""

    entry: ModelEntry
    checkpoint: Path | None  # the user's weights file, existing
    device: torch.device
    dtype: torch.dtype
    options: Mapping[str, Any] = field(default_factory=dict)  # only names in ``entry.options``


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """What a builder returns."""

    model: OnlineModel  # on its device, in evaluation mode
    weights_sha256: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)  # it was built with, filled in by the zoo

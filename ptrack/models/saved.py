"""Files of weights with their configuration inside: safetensors whose metadata say format and configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ptrack.config import from_mapping, to_mapping
from ptrack.errors import CheckpointError, ConfigError
from ptrack.fileio import atomic_path

if TYPE_CHECKING:
    from torch import Tensor, nn

C = TypeVar("C")


def write(path: Path | str, format: str, config: Any, state: Mapping[str, Tensor], **notes: str) -> None:
    """Write tensors, configuration and some text ``notes``; the file appears when whole.

    Raises:
        OutputError: it cannot be written.
    """
    from safetensors.torch import save_file

    metadata = {"format": format, "config": json.dumps(to_mapping(config)), **notes}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read(path: Path | str, advice: str = "") -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata and the tensors of a safetensors file.

    Args:
        path: the file.
        advice: added to the sentence about a damaged file.

    Raises:
        CheckpointError: missing or damaged.
    """
    with _opened(path, advice) as file:
        return dict(file.metadata() or {}), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def read_format(path: Path | str) -> str:
    """Return what a safetensors file says it is, without its tensors; empty if it does not say.

    Raises:
        CheckpointError: missing or damaged.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {}).get("format", "")


@contextmanager
def _opened(path: Path | str, advice: str = "") -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({first_line(error)}){advice}.") from error


def configuration(metadata: Mapping[str, str], format: str, cls: type[C], where: str) -> C:
    """Return the configuration that a file of a ``format`` holds.

    Raises:
        CheckpointError: another format, or a configuration that cannot be used.
    """
    if metadata.get("format") != format:
        found = metadata.get("format", "unknown")
        raise CheckpointError(f"{where} has the format '{found}', not '{format}'; it belongs to another model.")
    try:
        return from_mapping(cls, json.loads(metadata["config"]), where)
    except (ConfigError, KeyError, ValueError) as error:
        raise CheckpointError(f"{where}: its configuration cannot be used ({first_line(error)}).") from error


def read_training(path: Path | str, model: str, cls: type[C], name: str) -> tuple[C, dict[str, Tensor]]:
    """Return configuration and weights, averaged ones if there are any, of a training checkpoint.

    Args:
        path: ``latest.pth`` or ``best.pth``.
        model: as the training configuration calls it.
        cls: of the configuration.
        name: of the model in sentences.

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    import torch

    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"{path} is missing, damaged or not a checkpoint ({type(error).__name__}).") from error
    config = saved.get("config") if isinstance(saved, dict) else None
    if not isinstance(config, dict) or config.get("model") != model:
        raise CheckpointError(f"{path} is no training checkpoint of {name}.")
    return from_mapping(cls, config["arch"], str(path)), dict(saved.get("ema") or saved["model"])


def fill(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load all tensors of a model.

    Raises:
        CheckpointError: keys or shapes do not fit.
    """
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise CheckpointError(f"{where}: the weights do not fit ({str(error).splitlines()[-1].strip()}).") from error


def differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]) -> str:
    """Return what is wrong with a table of weights in words, empty if nothing is.

    Args:
        expected: name -> shape.
        found: name -> tensor.
    """
    wrong = [
        f"{k} is {tuple(found[k].shape)} instead of {tuple(expected[k])}"
        for k in sorted(expected.keys() & found.keys())
        if tuple(found[k].shape) != tuple(expected[k])
    ]
    parts = (
        _listed("missing", sorted(expected.keys() - found.keys())),
        _listed("unexpected", sorted(found.keys() - expected.keys())),
        _listed("of the wrong shape", wrong),
    )
    return "; ".join(part for part in parts if part)


def _listed(kind: str, names: list[str], most: int = 8) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {kind} ({', '.join(names[:most])}{more})"


def first_line(error: BaseException) -> str:
    """Return what fits into a sentence of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:160]

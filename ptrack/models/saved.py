"""Files of weights with their configuration inside: safetensors whose metadata state format and configuration.

Files of ``torch.save`` are read too, without running anything in them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ptrack.config import from_mapping, shown, to_mapping
from ptrack.errors import CheckpointError, ConfigError, OutputError
from ptrack.fileio import atomic_path, check_writable
from ptrack.untrusted.limits import check_file, reading, reason_of
from ptrack.untrusted.pickles import Foreign

if TYPE_CHECKING:
    from torch import Tensor, nn

C = TypeVar("C")

WIDTH = 8192  # the most of any number in the configuration of a file: it decides how much memory a network takes
LAYERS = 64
TRAINING = "ptrack-training"  # what the checkpoints of ``ptrack train`` call their format
WRAPPERS = ("state_dict", "model", "model_state", "ema_state_dict")  # under which programs store the weights
ADVICE = "; download it again"
ONLINE = ("track-on2", "online")  # how training configurations name Track-On2: now, and earlier


def write(path: Path | str, format: str, config: Any, state: Mapping[str, Tensor], **notes: str) -> None:
    """Write tensors, configuration and some text ``notes``; the file appears when whole.

    Raises:
        OutputError: it cannot be written.
    """
    from safetensors.torch import save

    metadata = {"format": format, "config": json.dumps(to_mapping(config)), **notes}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    # Not save_file: it makes a file of mode 0600 whatever the umask, and reports a full disk as no OSError.
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=metadata))


def check_target(path: Path | str, *, overwrite: bool) -> Path:
    """Return the path of weights to write. Raises OutputError: it exists, is no safetensors file, or not writable."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise OutputError(f"{path} must end in .safetensors.")
    return check_writable(path, overwrite=overwrite)


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
    """Return what a safetensors file declares itself to be, without its tensors; empty if it states nothing.

    Raises:
        CheckpointError: missing or damaged.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {}).get("format", "")


@contextmanager
def _opened(path: Path | str, advice: str = "") -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    check_file(path, CheckpointError, "checkpoint")
    with reading(path, CheckpointError, "a checkpoint"):
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged or not a checkpoint ({reason_of(error)}){advice}.") from error


def configuration(metadata: Mapping[str, str], format: str, cls: type[C], where: str) -> C:
    """Return the configuration that a file of a ``format`` holds.

    Raises:
        CheckpointError: another format, or a configuration that cannot be used.
    """
    if metadata.get("format") != format:
        found = metadata.get("format", "unknown")
        raise CheckpointError(f"{where} has the format '{found}', not '{format}'; it belongs to another model.")
    try:
        return _from_saved(cls, json.loads(metadata["config"]))
    except (ConfigError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{where}: its configuration cannot be used ({reason_of(error)}).") from error


def _from_saved(cls: type[C], values: Any) -> C:
    """Build a configuration; ``cls.RENAMED`` holds the names that its fields had in older files."""
    renamed = getattr(cls, "RENAMED", {})
    values = {renamed.get(k, k): v for k, v in values.items()} if isinstance(values, Mapping) else values
    config = from_mapping(cls, values, "configuration")
    for name, value in vars(config).items():
        most = LAYERS if name in ("depth", "iterations") or name.endswith("layers") else WIDTH
        parts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(part, int) and part > most for part in parts):
            raise ConfigError(f"{name} is {shown(value)}; no model is so large (at most {most})")
    return config


def load_pickle(path: Path | str) -> Any:
    """Return what a file of ``torch.save`` holds: tensors and plain containers. Nothing in it is ever run.

    Raises:
        CheckpointError: not readable, damaged, asking for functions or classes, or claiming more than it holds.
    """
    from ptrack.untrusted import torch_files

    with reading(path, CheckpointError, "a PyTorch checkpoint"):
        try:
            return torch_files.load(path)
        except Foreign as error:
            raise CheckpointError(
                f"{path} holds more than weights (it asks for {error.wanted}); it was not loaded and nothing in it was "
                "run. Use only files from a source you trust."
            ) from error


def is_training(content: Any) -> bool:
    """Return whether the content of a file is a checkpoint of ``ptrack train``."""
    return isinstance(content, Mapping) and content.get("format") == TRAINING


def trained_model(path: Path | str) -> str:
    """Return the model that a checkpoint of ``ptrack train`` is of, empty for any other file."""
    if Path(path).suffix != ".pth":
        return ""
    content = load_pickle(path)
    return str(content["config"]["model"]) if is_training(content) else ""


def trained_weights(
    content: Any, models: Sequence[str], cls: type[C], name: str, where: str
) -> tuple[C, dict[str, Tensor]]:
    """Return configuration and weights, averaged ones if there are any, of the content of a training checkpoint.

    Args:
        content: of ``latest.pth`` or ``best.pth``.
        models: as training configurations call the model.
        cls: of the model's configuration.
        name: of the model in sentences.
        where: the file, in sentences.

    Raises:
        CheckpointError: of another model, or no such checkpoint.
    """
    config = content.get("config") if is_training(content) else None
    if not isinstance(config, Mapping) or config.get("model") not in models:
        trained = f"; it was trained as '{config.get('model')}'" if isinstance(config, Mapping) else ""
        raise CheckpointError(f"{where} is no training checkpoint of {name}{trained}.")
    try:
        return _from_saved(cls, config["arch"]), dict(content.get("ema") or content["model"])
    except (ConfigError, KeyError) as error:
        raise CheckpointError(f"{where}: its configuration cannot be used ({reason_of(error)}).") from error


def read_training(path: Path | str, models: Sequence[str], cls: type[C], name: str) -> tuple[C, dict[str, Tensor]]:
    """Return configuration and weights of a training checkpoint; see :func:`trained_weights`.

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    return trained_weights(load_pickle(path), models, cls, name, str(path))


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


def read_pt(path: Path | str) -> dict[str, Tensor]:
    """Return the tensors of a file of ``torch.save`` under their own names, wrappers and ``module.`` taken off.

    Raises:
        CheckpointError: damaged, not such a file, or holding anything but data.
    """
    return unwrapped(load_pickle(path), str(path))


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Return the tensors of a ``torch.save`` or safetensors file under their own names.

    Raises:
        CheckpointError: not readable, or holding anything but tensors.
    """
    path = Path(path)
    if is_pickle(path):
        return read_pt(path)
    return unwrapped(read(path, ADVICE)[1], str(path))


def is_pickle(path: Path) -> bool:
    """Whether a file starts like the zip archive of ``torch.save``, or like its older plain pickle."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"Cannot read the checkpoint {path}: {error.strerror or error}.") from error
    if head[8:] == b"{":  # safetensors: 8 bytes of length, which may look like anything, then JSON
        return False
    return head[:2] == b"PK" or head[:1] == b"\x80"


def unwrapped(content: Any, where: str) -> dict[str, Tensor]:
    """Return the table of weights in the content of a file, without what training programs put around it.

    Raises:
        CheckpointError: there is none.
    """
    from torch import Tensor

    if isinstance(content, Mapping):
        for key in WRAPPERS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{where} holds no table of weights; give a file of a trained model.")
    return {str(k).removeprefix("module."): v for k, v in content.items()}

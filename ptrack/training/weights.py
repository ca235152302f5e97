"""Weights that come in and go out: published backbones, a run to start from, and files for inference.

``best.safetensors`` of Track-On2 is the format of ``ptrack.models.checkpoints``; that of the transformer is the same
idea: tensors, and the configuration as JSON in the metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ptrack.config import to_mapping
from ptrack.errors import CheckpointError, did_you_mean
from ptrack.models import saved
from ptrack.models.nano import weights as nano
from ptrack.models.nano.model import Nano
from ptrack.training.config import TrainConfig
from ptrack.training.systems import System


def export(system: System, path: Path) -> None:
    """Write the weights for inference; the file appears when whole.

    Raises:
        OutputError: it cannot be written.
    """
    from ptrack.models.offline.model import PointTransformer

    if isinstance(system.model, PointTransformer):
        from ptrack.models.offline.weights import save_weights

        save_weights(path, system.model)
        return
    if isinstance(system.model, Nano):
        nano.save_weights(path, system.model)
        return
    from ptrack.models.checkpoints import checkpoint_of, save_checkpoint

    save_checkpoint(path, checkpoint_of(system.model))  # type: ignore[arg-type]


def start_from(system: System, config: TrainConfig) -> None:
    """Load ``init_from`` into an untrained system.

    Args:
        system: to be filled.
        config: whose ``init_from`` is a weights file, a training checkpoint, or a model name of ``ptrack models``.

    Raises:
        CheckpointError: missing, damaged, or of another architecture; names and shapes that differ are listed.
    """
    if config.init_from is None:
        return
    state = read_source(config.init_from).state
    if isinstance(system.model, Nano):
        state = nano.whole(system.model, state)
    _load(system.model, state, config.init_from)


@dataclass(frozen=True)
class Source:
    """Weights to start from, and the network they belong to."""

    model: str  # transformer, online or nano
    arch: dict[str, Any]
    state: Mapping[str, Tensor]


def read_source(name: str) -> Source:
    """Return what ``--init-from`` means: a weights file, a training checkpoint, or a model name of ``ptrack models``.

    Raises:
        CheckpointError: missing, damaged, or of a model that cannot be trained further.
    """
    from ptrack.models.offline import weights as transformer

    path = Path(name)
    if not path.is_file():
        return _of_zoo(name)
    if path.suffix == ".pth":
        from ptrack.training.state import read

        run = read(path)
        return Source(run.config["model"], dict(run.config["arch"]), run.ema or run.model)
    format = saved.read_format(path) if path.suffix == ".safetensors" else ""
    if format == transformer.FORMAT:
        config, state = transformer.read_weights(path)
        return Source("transformer", to_mapping(config), state)
    if format == nano.FORMAT:
        config, state = nano.read_weights(path)
        return Source("nano", to_mapping(config), state)
    from ptrack.models.checkpoints import read_checkpoint

    checkpoint = read_checkpoint(path)
    return Source("online", to_mapping(checkpoint.config), checkpoint.state)


def _of_zoo(name: str) -> Source:
    """Return the weights of a model that comes with them."""
    from ptrack.models.online.model import TrackOn2
    from ptrack.models.zoo import MODELS, load

    if name not in MODELS:
        raise CheckpointError(f"--init-from {name}: there is no such file or model.{did_you_mean(name, MODELS)}")
    if name == "nano":
        config, state = nano.packaged()
        return Source("nano", to_mapping(config), state)
    model: Any = load(name, device="cpu").model
    if not isinstance(model, TrackOn2):
        raise CheckpointError(f"--init-from {name}: this model has no weights that can be trained further.")
    return Source("online", to_mapping(model.config), model.state_dict())


def _load(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    own = model.state_dict()
    wrong = [
        f"{k} is {tuple(v.shape)} not {tuple(own[k].shape)}"
        for k, v in state.items()
        if k in own and own[k].shape != v.shape
    ]
    missing = [k for k in own if k not in state]
    extra = [k for k in state if k not in own]
    if wrong or missing or extra:
        problems = [f"missing {k}" for k in missing] + [f"unexpected {k}" for k in extra] + wrong
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(
            f"The weights of {where} are of another architecture: {'; '.join(problems[:5])}{more}. Train the same one "
            "(--config or --set arch.KEY=VALUE), or start without --init-from."
        )
    model.load_state_dict(dict(state))


def fill_backbone(model: Any) -> None:
    """Fill the encoder of Track-On2 with published weights.

    Raises:
        CheckpointError: they are not here and cannot be fetched; says which file belongs where.
    """
    name = model.config.backbone
    encoder = model.backbone.encoder
    from ptrack.models.backbones.encoders import LITE
    from ptrack.models.backbones.vit import VITS

    if name in VITS:
        _fill_vit(encoder, name)
    elif name != LITE:  # which has its packaged weights from the start
        encoder.load_imagenet()


def _fill_vit(encoder: Any, name: str) -> None:
    """Fetch a DINO transformer through timm."""
    import timm

    from ptrack.models.backbones.vit import VITS
    from ptrack.models.checkpoints import vit_from_any

    spec = VITS[name]
    try:
        source = timm.create_model(spec.weights, pretrained=True, num_classes=0)
    except Exception as error:  # the hub raises many kinds without a network
        raise CheckpointError(
            f"The weights of {name} cannot be fetched ({type(error).__name__}). Fetch https://huggingface.co/timm/"
            f"{spec.weights} into the Hugging Face cache, or start from a Track-On2 checkpoint with --init-from."
        ) from error
    encoder.vit.load_state_dict(vit_from_any(source.state_dict(), name))

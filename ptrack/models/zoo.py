"""The models by name: what they are, their licence, where their weights come from, and how to build them.

Models of other packages are found by entry points, see ``ptrack.models.plugins``.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptrack.errors import CheckpointError, ModelError, did_you_mean
from ptrack.models.entry import LoadedModel, LoadRequest, ModelEntry
from ptrack.models.plugins import entries_of_packages
from ptrack.tensors import dtype_name

if TYPE_CHECKING:
    import torch


_ENTRIES = [
    ModelEntry(
        name="nano",
        summary="small online tracker trained on synthetic clips, on a laptop CPU; the default",
        licence="MIT; EfficientNet-Lite0 weights Apache-2.0",
        weights="packaged, or --checkpoint FILE",
        builder="ptrack.models.nano.weights:build",
        options=("quality",),
        takes_checkpoint=True,
    ),
    ModelEntry(
        name="matching",
        summary="training-free patch matching of ImageNet features; the baseline",
        licence="MIT; EfficientNet-Lite0 weights Apache-2.0",
        weights="packaged",
        builder="ptrack.models.nano.matching:build",
    ),
    ModelEntry(
        name="lk",
        summary="OpenCV's pyramidal Lucas-Kanade flow with a forward-backward check; a classical baseline",
        licence="none needed",
        weights="none (needs the 'bench' extra)",
        builder="ptrack.models.baselines:build_lk",
    ),
    ModelEntry(
        name="static",
        summary="points that do not move; the baseline below which something is wrong",
        licence="none needed",
        weights="none",
        builder="ptrack.models.baselines:build_static",
    ),
    ModelEntry(
        name="transformer",
        summary="ResNet features and a transformer over windows of frames, trained by 'ptrack train'",
        licence="yours; ImageNet backbone weights BSD-3-Clause",
        weights="--checkpoint FILE",
        builder="ptrack.models.offline.weights:build",
        options=("iterations",),
        takes_checkpoint=True,
    ),
    ModelEntry(
        name="track-on2",
        summary="Track-On2 as you trained it with 'ptrack train --model track-on2'",
        licence="yours; DINO weights as below",
        weights="--checkpoint FILE",
        builder="ptrack.models.online.load:build",
        half=True,
        options=("memory", "vit_checkpoint", "compile"),
        takes_checkpoint=True,
        vit=True,
    ),
    *(
        ModelEntry(
            name=name,
            summary=summary,
            licence=licence,
            weights=f"huggingface.co/{address}, or --checkpoint FILE",
            builder="ptrack.models.online.load:build",
            half=True,
            options=("memory", "vit_checkpoint", "compile"),
            takes_checkpoint=True,
            untrained="ptrack.models.online.load:untrained",
            vit=True,
        )
        for name, summary, licence, address in (
            (
                "track-on2-dinov2",
                "Track-On2, online transformer with a memory per point, on DINOv2 ViT-S/14",
                "MIT; DINOv2 weights Apache-2.0",
                "gorkaydemir/track_on2",
            ),
            (
                "track-on2-dinov3",
                "Track-On2 on DINOv3 ViT-S+/16",
                "MIT; DINOv3 weights under Meta's DINOv3 License",
                "gorkaydemir/track_on2",
            ),
            (
                "track-on-r",
                "Track-On2 fine-tuned on real videos (Track-On-R), on DINOv3 ViT-S+/16",
                "MIT; DINOv3 weights under Meta's DINOv3 License",
                "gorkaydemir/track_on_r",
            ),
        )
    ),
    *(
        ModelEntry(
            name=name,
            summary=summary,
            licence="Apache-2.0",
            weights=f"storage.googleapis.com/{file.partition('/')[0]}, or --checkpoint FILE",
            builder="ptrack.models.tapnext.load:build",
            half=True,
            untrained="ptrack.models.tapnext.load:untrained",
            options=("reserve", "threshold"),
            takes_checkpoint=True,
            file=file,
        )
        for name, summary, file in (
            (
                "tapnext",
                "TAPNext trained further on real videos (BootsTAPNext): a recurrent state per point and image token",
                "dm-tapnet/tapnext/bootstapnext_ckpt.npz",
            ),
            (
                "tapnextpp",
                "TAPNext++, TAPNext for long videos, lost points and points outside the frame",
                "dm-tapnet/tapnextpp/tapnextpp_ckpt.pt",
            ),
            (
                "tapnextpp-512",
                "TAPNext++ on frames of 512x512: more exact, four to five times the work",
                "gresearch/tapnextpp/tapnextpp_512.ckpt",
            ),
        )
    ),
]

BUILT_IN: dict[str, ModelEntry] = {entry.name: entry for entry in _ENTRIES}
DEFAULT_MODEL = "nano"


@lru_cache(maxsize=1)
def models() -> dict[str, ModelEntry]:
    """Return all models by name: ptrack's own and behind them those of other packages."""
    return BUILT_IN | {entry.name: entry for entry in entries_of_packages(BUILT_IN)}


def find(name: str) -> ModelEntry:
    """Return a model's entry; raises ModelError naming the nearest known name."""
    if not isinstance(name, str):
        raise ModelError(
            f"A model is named by a text such as '{DEFAULT_MODEL}', not by {name!r} ({type(name).__name__})."
        )
    known = BUILT_IN if name in BUILT_IN else models()  # other packages are looked for only when they are needed
    if name not in known:
        raise ModelError(f"There is no model '{name}'.{did_you_mean(name, known)} 'ptrack models' lists all.")
    return known[name]


def build(
    name: str,
    *,
    checkpoint: Path | str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    untrained: bool = False,
    **options: Any,
) -> LoadedModel:
    """Build a model by name; see ``ptrack.load`` for the arguments.

    Args:
        name: as in ``ptrack models``.
        checkpoint: a weights file, for models that take one.
        device: where it runs.
        dtype: number type.
        untrained: with random weights, to measure its speed.
        **options: of the model; None is its default.

    Raises:
        ModelError: unknown name or option, or it cannot be built without weights.
        CheckpointError: the weights are missing, damaged, or of another architecture.
        DeviceError: the device or number type is not available.
    """
    from ptrack.models.devices import choose_device, choose_dtype

    entry = find(name)
    options = {key: value for key, value in options.items() if value is not None}
    for key in options:
        if key not in entry.options:
            takes = f"it takes {', '.join(entry.options)}" if entry.options else "it takes none"
            raise ModelError(f"The model '{name}' has no option '{key}'; {takes}.{did_you_mean(key, entry.options)}")
    place = choose_device(device).device
    if not entry.half and dtype_name(dtype) in ("bfloat16", "float16"):
        raise ModelError(f"The model '{name}' computes in float32 only; leave the number type at 'auto'.")
    number = choose_dtype(dtype if entry.half or dtype != "auto" else "float32", place)
    request = LoadRequest(
        entry=entry,
        checkpoint=_checked_checkpoint(entry, checkpoint),
        device=place,
        dtype=number,
        options=options,
    )
    loaded: LoadedModel = _builder(entry, untrained)(request)
    return replace(loaded, options={**options, "dtype": dtype_name(request.dtype)})


def _builder(entry: ModelEntry, untrained: bool) -> Any:
    if untrained and not entry.untrained:
        raise ModelError(f"The model '{entry.name}' cannot be built with random weights.")
    module, _, function = (entry.untrained if untrained else entry.builder).partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        if entry.package == "ptrack":
            raise
        reason = f"{type(error).__name__}: {error}"
        raise ModelError(f"The model '{entry.name}' of {entry.package} cannot be built ({reason}).") from error


def _checked_checkpoint(entry: ModelEntry, checkpoint: Path | str | None) -> Path | None:
    if checkpoint is None:
        return None
    if not entry.takes_checkpoint:
        raise ModelError(f"The model '{entry.name}' has its weights built in and takes no checkpoint.")
    path = Path(checkpoint)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.")
    return path

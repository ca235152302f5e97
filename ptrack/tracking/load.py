"""A tracker by the name of its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptrack.models import zoo

if TYPE_CHECKING:
    import torch

    from ptrack.tracking.tracker import Tracker


def load(
    name: str = zoo.DEFAULT_MODEL,
    *,
    checkpoint: Path | str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    support_grid: int | None = None,
    **options: Any,
) -> Tracker:
    """Build a tracker by name.

    Args:
        name: as in ``ptrack models``.
        checkpoint: a weights file, for models that take one.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        dtype: "auto", "float32", "bfloat16" or "float16".
        support_grid: points per side of the extra grid that gives online models context; None is the model's default.
        **options: of the model, e.g. ``memory=72`` for Track-On2.

    Raises:
        ModelError: unknown name or option.
        CheckpointError: the weights are missing, damaged, or of another architecture.
        DeviceError: the device or number type is not available.
    """
    from ptrack.tracking.tracker import Tracker

    loaded = zoo.build(name, checkpoint=checkpoint, device=device, dtype=dtype, **options)
    return Tracker(
        loaded.model,
        support_grid=support_grid,
        weights_sha256=loaded.weights_sha256,
        options=dict(loaded.options),
    )

"""Published weights of any model to safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptrack.models import checkpoints
from ptrack.models.tapnext import weights as tapnext


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written."""

    summary: str  # what the file holds, in words
    facts: dict[str, Any]  # the same for programs


def convert(
    source: Path | str, target: Path | str, *, model: str = "", backbone: str | None = None, overwrite: bool = False
) -> Converted:
    """Write the weights of a published file as safetensors with the configuration inside.

    Args:
        source: a file of Track-On2, Track-On-R, TAPNext or TAPNext++.
        target: the file to write.
        model: name as in ``ptrack models`` of TAPNext weights whose file has another name than the published one.
        backbone: transformer of a Track-On2 file that holds none.
        overwrite: replace an existing target.

    Raises:
        CheckpointError: ``source`` cannot be used.
        OutputError: ``target`` exists, has another suffix, or cannot be written.
        ModelError: ``model`` is no TAPNext.
    """
    if model or tapnext.holds(source):
        done = tapnext.convert(source, target, model=model, overwrite=overwrite)
        size = done["input_size"]
        return Converted(summary=f"{done['model']}, {done['tensors']} tensors, frames of {size}x{size}", facts=done)
    done = checkpoints.convert(source, target, backbone=backbone, overwrite=overwrite)
    held = "with" if done["transformer"] else "without"
    return Converted(
        summary=f"{done['backbone']}, {done['tensors']} tensors, {held} the frozen transformer", facts=done
    )

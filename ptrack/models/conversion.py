"""Published and trained weights of any model to safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptrack.models import saved
from ptrack.models.nano import weights as nano
from ptrack.models.offline import weights as transformer
from ptrack.models.online import weights as track_on2
from ptrack.models.tapnext import weights as tapnext


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written."""

    summary: str  # what the file holds, in words
    facts: dict[str, Any]  # the same for programs


def convert(
    source: Path | str, target: Path | str, *, model: str = "", backbone: str | None = None, overwrite: bool = False
) -> Converted:
    """Write the weights of a published file or a training checkpoint as safetensors with the configuration inside.

    Args:
        source: a file of Track-On2, Track-On-R, TAPNext or TAPNext++, or ``latest.pth`` or ``best.pth`` of a training.
        target: the file to write.
        model: name as in ``ptrack models`` of TAPNext weights whose file has another name than the published one.
        backbone: transformer of a Track-On2 file that holds none.
        overwrite: replace an existing target.

    Raises:
        CheckpointError: ``source`` cannot be used.
        OutputError: ``target`` exists, has another suffix, or cannot be written.
        ModelError: ``model`` is no TAPNext.
    """
    trained = "" if model else saved.trained_model(source)
    if trained in ("nano", "nano-encoder", "transformer"):
        return _convert_trained(Path(source), Path(target), trained, overwrite=overwrite)
    if model or (not trained and tapnext.holds(source)):
        done = tapnext.convert(source, target, model=model, overwrite=overwrite)
        size = done["input_size"]
        return Converted(summary=f"{done['model']}, {done['tensors']} tensors, frames of {size}x{size}", facts=done)
    done = track_on2.convert(source, target, backbone=backbone, overwrite=overwrite)
    held = "with" if done["transformer"] else "without"
    return Converted(
        summary=f"{done['backbone']}, {done['tensors']} tensors, {held} the frozen transformer", facts=done
    )


def _convert_trained(source: Path, target: Path, model: str, *, overwrite: bool) -> Converted:
    """Write the weights of a training checkpoint of nano or the transformer."""
    saved.check_target(target, overwrite=overwrite)
    if model.startswith("nano"):
        config, state = nano.read_weights(source)
        tracker = nano.untrained(config)
        nano.fill(tracker, state, str(source))
        nano.save_weights(target, tracker)
    else:
        state = transformer.read_weights(source)[1]
        transformer.save_weights(target, transformer.load_weights(source))
    return Converted(summary=f"{model}, {len(state)} tensors", facts={"model": model, "tensors": len(state)})

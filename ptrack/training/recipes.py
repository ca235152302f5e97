"""From what the user asked for to a configuration: defaults, recipes, resumed checkpoints, options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptrack import config as configs
from ptrack.errors import ConfigError, did_you_mean
from ptrack.training import state, weights
from ptrack.training.config import MODELS, TrainConfig, build, current


@dataclass(frozen=True)
class RunPlan:
    """What will be run: the configuration, and the state to go on from."""

    config: TrainConfig
    saved: state.RunState | None = None
    remarks: tuple[str, ...] = ()  # sentences for the user, e.g. about a skipped checkpoint


@dataclass(frozen=True)
class TrainRequest:
    """What the user asked for; only what was given."""

    values: Mapping[str, Any] = field(default_factory=dict)  # options, nested like TrainConfig
    recipe: str | None = None  # a YAML file or the name of a published one
    sets: Sequence[str] = ()  # key=value
    resume: str | None = None  # a checkpoint, or its folder


def resolve(request: TrainRequest) -> RunPlan:
    """Put together default recipe, configuration file or resumed checkpoint, options and ``--set``, in this order.

    Without a model's name, a data set means the transformer and the synthetic source nano;
    ``init_from`` without a recipe means the model and the architecture of those weights.

    Raises:
        ConfigError: an unknown key or a value out of range.
        CheckpointError: nothing to resume, or other options of architecture than the checkpoint's.
    """
    given = current(configs.override(dict(request.values), list(request.sets)))
    if request.resume is not None:
        return _resumed(request, given)
    base: Mapping[str, Any] = current(read_recipe(request.recipe)) if request.recipe else {}
    if given.get("init_from") and not request.recipe:
        source = weights.read_source(given["init_from"])
        base = {"model": source.model, "arch": source.arch}
    model = given.get("model") or base.get("model") or _default_model(given, base)
    if model not in MODELS:
        raise ConfigError(f"--model must be one of {', '.join(MODELS)}, not '{model}'.{did_you_mean(model, MODELS)}")
    defaults = {"model": model} if request.recipe else default_values(model, fine_tune=bool(given.get("init_from")))
    merged = merge(merge(defaults, base), given)
    return RunPlan(build(merged, request.recipe or "Training configuration"))


def _default_model(given: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    has_data = any(values.get("data", {}).get("root") for values in (given, base))
    return "transformer" if has_data or "backbone" in given.get("arch", {}) or "pretrained" in given else "nano"


def _resumed(request: TrainRequest, given: dict[str, Any]) -> RunPlan:
    saved, path, remarks = state.resume(Path(request.resume or ""))
    if request.recipe:
        given = merge(current(read_recipe(request.recipe)), given)
    before = current(saved.config)
    if given.get("model", before["model"]) != before["model"]:
        state.check_same_architecture(before, {**before, **given}, path)
    place = {"save_dir": str(path.parent)}  # go on where the checkpoint is, whatever the folder we are called from
    config = build(merge({**before, **place}, given), str(path))
    state.check_same_architecture(before, configs.to_mapping(config), path)
    going_on = (f"Going on from {path} instead.",) if remarks else ()
    return RunPlan(config, saved, (*remarks, *going_on))


# ---- defaults and recipes --------------------------------------------------------------------------------------------

SMALL_TRACK_ON2: dict[str, Any] = {
    # The small Track-On2 of ``ptrack train --model track-on2``: about 2 M parameters, seconds per step on two cores.
    "backbone": "resnet18",
    "input_size": [256, 256],
    "strides": [4, 8, 16],
    "dim": 64,
    "memory": 12,
    "candidates": 8,
    "decoder_layers": 2,
    "rerank_layers": 1,
    "head_layers": 1,
    "hidden": 256,
}


FINE_TUNING: dict[str, dict[str, Any]] = {
    # What differs where training starts from trained weights (--init-from); docs/training.md has what it gains on ten
    # clips. A rate of 2e-5 with a warm-up and an average over 100 steps left nano as it was.
    "nano": {"lr": 5e-4, "warmup": 0.0, "ema": 0.9, "max_steps": 200, "eval_every": 20},
}


def default_values(model: str, *, fine_tune: bool = False) -> dict[str, Any]:
    """Return the recipe a model is trained with when no configuration file is given, as a plain mapping."""
    values = _from_nothing(model)
    return merge(values, FINE_TUNING.get(model, {})) if fine_tune else values


def _from_nothing(model: str) -> dict[str, Any]:
    if model == "transformer":
        return {"model": "transformer"}
    if model in ("nano", "nano-encoder"):
        return {
            "model": model,
            "checkpoint": False,
            "lr": 1e-3,
            "weight_decay": 1e-3,
            "warmup": 0.02,
            "ema": 0.99,
            "batch_size": 2,
            "data": {
                "num_points": 96,
                "query": "any",
                "sequence_length": 24,
                "augment": "light",
                "supersampling": 1.25,
            },
        }
    return {
        "model": "track-on2",
        "arch": dict(SMALL_TRACK_ON2),
        "pretrained": False,
        "checkpoint": False,
        "lr": 5e-4,
        "weight_decay": 1e-5,
        "warmup": 0.01,
        "batch_size": 2,
        "data": {"num_points": 64, "query": "any", "sequence_length": 8},
    }


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``over``; sections are merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def read_recipe(name: str) -> dict[str, Any]:
    """Read a recipe: a YAML file, or the name of a published one (``configs/train/NAME.yaml``).

    Raises:
        ConfigError: there is no such file or recipe; known ones are named.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return configs.load_yaml(path)
    folder = recipe_folder()
    known = sorted(p.stem for p in folder.glob("*.yaml")) if folder else []
    if folder and name in known:
        return configs.load_yaml(folder / f"{name}.yaml")
    raise ConfigError(
        f"There is no configuration '{name}': give a YAML file or one of {', '.join(known) or '(none packaged)'}."
        f"{did_you_mean(name, known)}"
    )


def recipe_folder() -> Path | None:
    """Return the folder of the published recipes: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next((f for f in (package / "configs" / "train", package.parent / "configs" / "train") if f.is_dir()), None)

"""A whole training run from a configuration: data, model, listeners, loop. What ``ptrack train`` calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ptrack import config as configs
from ptrack.data.samples import SampleKey, collate
from ptrack.errors import ConfigError
from ptrack.fileio import atomic_path, check_writable
from ptrack.models.devices import choose_device
from ptrack.processes import Group, joined
from ptrack.training import config as recipes
from ptrack.training import data, state, systems, weights
from ptrack.training.config import TrainConfig
from ptrack.training.engine import Listener, Trainer, TrainResult
from ptrack.training.logging import JsonLog, TensorBoardLog
from ptrack.training.pictures import Painter
from ptrack.training.schedules import derive_seed, preserved_random_state

CONFIG = "config.yaml"
PICTURES = "visualizations"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What will be run: the configuration, and the state to go on from."""

    config: TrainConfig
    saved: state.RunState | None = None
    remarks: tuple[str, ...] = ()  # sentences for the user, e.g. about a skipped checkpoint


@dataclass(frozen=True)
class Request:
    """What the user asked for; only what was given."""

    values: Mapping[str, Any] = field(default_factory=dict)  # options, nested like TrainConfig
    recipe: str | None = None  # a YAML file or the name of a published one
    sets: Sequence[str] = ()  # key=value
    resume: str | None = None  # a checkpoint, or its folder


def resolve(request: Request) -> Plan:
    """Put together default recipe, configuration file or resumed checkpoint, options and ``--set``, in this order.

    Without a model's name, a data set means the transformer and the synthetic source nano;
    ``init_from`` without a recipe means the model and the architecture of those weights.

    Raises:
        ConfigError: an unknown key or a value out of range.
        CheckpointError: nothing to resume, or other options of architecture than the checkpoint's.
    """
    given = configs.override(dict(request.values), list(request.sets))
    if request.resume is not None:
        return _resumed(request, given)
    base: Mapping[str, Any] = recipes.read_recipe(request.recipe) if request.recipe else {}
    if given.get("init_from") and not request.recipe:
        source = weights.read_source(given["init_from"])
        base = {"model": source.model, "arch": source.arch}
    model = given.get("model") or base.get("model") or _default_model(given, base)
    if model not in recipes.MODELS:
        raise ConfigError(f"--model must be one of {', '.join(recipes.MODELS)}, not '{model}'.")
    defaults = recipes.default_values(model) if not request.recipe else {"model": model}
    merged = recipes.merge(recipes.merge(defaults, base), given)
    return Plan(recipes.build(merged, request.recipe or "Training configuration"))


def _default_model(given: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    has_data = any(values.get("data", {}).get("root") for values in (given, base))
    return "transformer" if has_data or "backbone" in given.get("arch", {}) or "pretrained" in given else "nano"


def _resumed(request: Request, given: dict[str, Any]) -> Plan:
    saved, path, remarks = state.resume(Path(request.resume or ""))
    if request.recipe:
        given = recipes.merge(recipes.read_recipe(request.recipe), given)
    if given.get("model", saved.config["model"]) != saved.config["model"]:
        state.check_same_architecture(saved.config, {**saved.config, **given}, path)
    place = {"save_dir": str(path.parent)}  # go on where the checkpoint is, whatever the folder we are called from
    config = recipes.build(recipes.merge({**saved.config, **place}, given), str(path))
    state.check_same_architecture(saved.config, configs.to_mapping(config), path)
    going_on = (f"Going on from {path} instead.",) if remarks else ()
    return Plan(config, saved, (*remarks, *going_on))


def train(plan: Plan, listeners: Sequence[Listener] = (), say: Say = lambda _: None) -> TrainResult:
    """Train as planned.

    Args:
        plan: of :func:`resolve`.
        listeners: displays; the logs and pictures are added here.
        say: told what happens before the first step.

    Raises:
        PTrackError: see ``Trainer.run``, ``open_data`` and ``systems.build``.
    """
    config = plan.config
    with joined(config.device) as group, ExitStack() as stack:
        quiet: Say = say if group.first else lambda _: None
        for remark in plan.remarks:
            quiet(remark)
        save_dir, log_dir = Path(config.save_dir), Path(config.log_dir)
        if group.first:
            check_writable(save_dir / CONFIG, overwrite=True)
            check_writable(log_dir / "training.jsonl", overwrite=True)
            write_config(save_dir / CONFIG, config)
        device = _device(config, group, quiet)
        if group.first:
            clips = data.open_data(config, quiet)
        group.wait()  # the first process may have converted the data set
        if not group.first:
            clips = data.open_data(config)
        system = build_system(config, fresh=plan.saved is None).to(device)
        trainer = Trainer(config, system, clips, group, export=weights.export)
        trainer.evaluate = _evaluation(config, group)
        if plan.saved is not None:
            trainer.restore(plan.saved)
            quiet(f"Going on after step {trainer.step} of {trainer.total_steps}.")
        if group.first:
            trainer.listeners = [*listeners, *_logs(config, trainer, stack)]
        return trainer.run()


def build_system(config: TrainConfig, *, fresh: bool = True) -> systems.System:
    """Return the model and its losses, initialised from the seed, published weights and ``init_from``.

    ``fresh`` false: a saved state follows, so no published weights are needed.
    """
    with preserved_random_state():
        torch.manual_seed(derive_seed(config.seed, "weights"))
        system = systems.build(config if fresh else replace(config, pretrained=False, init_from=None))
    if fresh:
        weights.start_from(system, config)
    return system


def _device(config: TrainConfig, group: Group, say: Say) -> torch.device:
    if group.world > 1 and config.device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", group.local_rank)
    choice = choose_device(config.device)
    say(f"Training on {choice.reason}{f', {group.world} processes' if group.world > 1 else ''}.")
    return choice.device


def _evaluation(config: TrainConfig, group: Group) -> Callable[[systems.System], dict[str, float]] | None:
    """Return the scoring of ``--eval-data``."""
    if config.eval_data is None:
        return None
    from ptrack.training.evaluate import Scorer

    return Scorer(config.eval_data, group)


def _logs(config: TrainConfig, trainer: Trainer, stack: ExitStack) -> list[Listener]:
    log_dir = Path(config.log_dir)
    lines = JsonLog(log_dir, trainer.step)
    board = TensorBoardLog(log_dir, trainer.step)
    stack.callback(lines.close)
    stack.callback(board.close)
    logs: list[Listener] = [lines, board]
    shown = trainer.data.valid if trainer.data.valid is not None and len(trainer.data.valid) else trainer.data.train
    batch = collate([shown[SampleKey(0)]])
    logs.append(Painter(Path(config.save_dir) / PICTURES, batch, log_dir, board.picture))
    return logs


def write_config(path: Path, config: TrainConfig) -> None:
    """Write the resolved configuration as YAML that ``--config`` reads."""
    with atomic_path(path) as temporary:
        temporary.write_text(describe(config), encoding="utf-8")


def describe(config: TrainConfig) -> str:
    """Return the resolved configuration as YAML."""
    import yaml

    return yaml.safe_dump(configs.to_mapping(config), sort_keys=False, allow_unicode=True)

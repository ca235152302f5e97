"""A whole training run from a plan: data, model, listeners, loop. What ``ptrack train`` calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from ptrack import config as configs
from ptrack.data.samples import SampleKey, collate
from ptrack.fileio import atomic_path, check_writable
from ptrack.models.devices import choose_device
from ptrack.processes import Group, joined
from ptrack.training import data, systems, weights
from ptrack.training.config import TrainConfig
from ptrack.training.engine import Listener, Trainer, TrainResult
from ptrack.training.evaluate import Scorer
from ptrack.training.logging import JSONL, JsonLog, TensorBoardLog
from ptrack.training.pictures import PictureLog
from ptrack.training.recipes import RunPlan
from ptrack.training.schedules import derive_seed, preserved_random_state

CONFIG = "config.yaml"
PICTURES = "visualizations"
Note = Callable[[str], None]


def train(plan: RunPlan, listeners: Sequence[Listener] = (), note: Note = lambda _: None) -> TrainResult:
    """Train as planned.

    Args:
        plan: of ``recipes.resolve``.
        listeners: displays; the logs and pictures are added here.
        note: called with sentences on what happens before the first step.

    Raises:
        PTrackError: see ``Trainer.run``, ``open_data`` and ``systems.build``.
    """
    config = plan.config
    with joined(config.device) as group, ExitStack() as stack:
        note = note if group.first else lambda _: None
        for remark in plan.remarks:
            note(remark)
        if group.first:
            check_writable(Path(config.save_dir) / CONFIG, overwrite=True)
            check_writable(Path(config.log_dir) / JSONL, overwrite=True)
            write_config(Path(config.save_dir) / CONFIG, config)
        device = _device(config, group, note)
        if group.first:
            clips = data.open_data(config, group, device, note)
        group.wait()  # the first process may have converted the data set
        if not group.first:
            clips = data.open_data(config, group, device)
        system = build_system(config, trained=plan.saved is not None).to(device)
        if group.first:
            done = plan.saved.step if plan.saved else 0
            listeners = [*listeners, *_logs(config, clips, done, stack)]
        scorer = None if config.eval_data is None else Scorer(config.eval_data, group)
        trainer = Trainer(config, system, clips.batches, clips.valid, group, listeners, scorer)
        if plan.saved is not None:
            trainer.restore(plan.saved)
            note(f"Going on after step {trainer.step} of {trainer.total_steps}.")
        return trainer.run()


def build_system(config: TrainConfig, *, trained: bool = False) -> systems.System:
    """Return the model and its losses, initialised from the seed, published weights and ``init_from``.

    ``trained``: a saved state follows, so no published weights are needed.
    """
    with preserved_random_state():
        torch.manual_seed(derive_seed(config.seed, "weights"))
        system = systems.build(replace(config, pretrained=False, init_from=None) if trained else config)
    if config.init_from is not None and not trained:
        system.start_from(weights.read_source(config.init_from).state, config.init_from)
    return system


def _device(config: TrainConfig, group: Group, note: Note) -> torch.device:
    if group.world > 1 and config.device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", group.local_rank)
    choice = choose_device(config.device)
    note(f"Training on {choice.reason}{f', {group.world} processes' if group.world > 1 else ''}.")
    return choice.device


def _logs(config: TrainConfig, clips: data.RunData, step: int, stack: ExitStack) -> list[Listener]:
    """Return the listeners that write into ``log_dir`` and ``save_dir``, after ``step`` steps."""
    log_dir = Path(config.log_dir)
    lines, board = JsonLog(log_dir, step), TensorBoardLog(log_dir, step)
    stack.callback(lines.close)
    stack.callback(board.close)
    if clips.shown is None:
        return [lines, board]
    batch = collate([clips.shown[SampleKey(0)]])
    return [lines, board, PictureLog(Path(config.save_dir) / PICTURES, batch, log_dir, board.picture)]


def write_config(path: Path, config: TrainConfig) -> None:
    """Write the resolved configuration as YAML that ``--config`` reads."""
    with atomic_path(path) as temporary:
        temporary.write_text(describe(config), encoding="utf-8")


def describe(config: TrainConfig) -> str:
    """Return the resolved configuration as YAML."""
    import yaml

    return yaml.safe_dump(configs.to_mapping(config), sort_keys=False, allow_unicode=True)

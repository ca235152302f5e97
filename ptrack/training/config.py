"""What a training run is: one frozen configuration, saved with the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ptrack import config as configs
from ptrack.errors import ConfigError

MODELS = ("nano", "nano-encoder", "transformer", "track-on2")
AMP = ("auto", "off", "bf16", "fp16")
SCHEDULES = ("cosine", "constant")
QUERIES = ("first", "any", "track-on2")
AUGMENTATIONS = ("none", "light", "strong", "track-on2")
WHERE = "Training configuration"


def _require(good: bool, sentence: str) -> None:
    if not good:
        raise ConfigError(f"{WHERE}: {sentence}.")


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """Rendered clips that other processes write into a folder while training goes on (``ptrack.data.pool``)."""

    folder: str  # of the clips, best in memory (/dev/shm/...)
    room: int = 400  # clips kept on the device
    least: int = 32  # clips to wait for before the first step
    any_query: float = 0.25  # share of batches whose queries may be in any frame, not only in the first
    photo_share: float = 0.5  # nano-encoder: share of pairs that are two views of one photo

    def __post_init__(self) -> None:
        where = f"{WHERE}: pool."
        configs.check_bounds(self, "room", "least", least=1, where=where)
        configs.check_bounds(self, "any_query", "photo_share", least=0, most=1, where=where)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where clips come from and how they are cut."""

    root: str | None = None  # converted HDF5 (file, glob or folder) or a folder to convert; None: the synthetic source
    videos: tuple[str, ...] = ()  # names to use, all if empty
    sequence_length: int = 8  # frames of a training clip
    num_points: int = 8  # points of a training clip, at most
    image_size: tuple[int, int] = (256, 256)  # (H, W) pixels of a training clip
    query: str = "first"  # first: points seen in frame 0; any: each starts where it is seen; track-on2: as published
    stride: int = 1  # frames of the video per frame of the clip
    augment: str = "none"  # none, light (flip, reversal, colour), strong (more; crops, erasing), track-on2
    validation_share: float = 0.2  # of the videos, if the source has no validation split of its own
    synthetic_clips: int = 1000  # rendered clips per epoch of the synthetic source
    supersampling: float = 1.5  # rendered pixels per pixel of the synthetic source, along each side
    validation_clips: int = 16  # clips that are validated on, at most
    actors: str | None = None  # folder of more meshes for the synthetic source
    textures: str | None = None  # folder of more photos for the synthetic source
    pool: PoolConfig | None = None  # train on clips that other processes render, nano alone

    def __post_init__(self) -> None:
        _require(self.sequence_length >= 2, f"sequence_length must be at least 2, not {self.sequence_length}")
        _require(self.num_points >= 1, f"num_points must be at least 1, not {self.num_points}")
        _require(
            len(self.image_size) == 2 and all(s >= 32 for s in self.image_size),
            f"image_size must be two numbers of at least 32, not {self.image_size}",
        )
        _require(self.query in QUERIES, f"query must be one of {', '.join(QUERIES)}, not '{self.query}'")
        _require(self.stride >= 1, f"stride must be at least 1, not {self.stride}")
        _require(
            self.augment in AUGMENTATIONS, f"augment must be one of {', '.join(AUGMENTATIONS)}, not '{self.augment}'"
        )
        _require(
            0 < self.validation_share < 1, f"validation_share must lie between 0 and 1, not {self.validation_share}"
        )
        _require(self.synthetic_clips >= 1, f"synthetic_clips must be at least 1, not {self.synthetic_clips}")
        _require(self.validation_clips >= 0, f"validation_clips must not be negative, not {self.validation_clips}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run's numbers, and where it writes."""

    model: str = "transformer"  # nano, nano-encoder, transformer or track-on2
    arch: dict[str, Any] = field(default_factory=dict)  # keys of NanoConfig, TransformerConfig or OnlineConfig
    pretrained: bool = True  # start the backbone from published weights
    init_from: str | None = None  # weights to start from: a file, or a name of ``ptrack models``
    data: DataConfig = field(default_factory=DataConfig)
    batch_size: int = 4  # clips per step and process
    epochs: int = 50
    max_steps: int | None = None  # stop after so many optimisation steps, whatever the epochs
    lr: float = 1e-4  # peak learning rate
    weight_decay: float = 1e-4
    schedule: str = "cosine"  # cosine (to 0 at the last step) or constant
    warmup: float = 0.0  # share of the steps with linearly rising rate
    clip_norm: float = 1.0  # largest total gradient norm
    grad_accum: int = 1  # forward passes per optimisation step
    amp: str = "auto"  # auto, off, bf16 or fp16; auto is off on the CPU
    compile: bool = False  # torch.compile the model
    graph: bool = False  # nano on a GPU: replay forward and backward as one CUDA graph
    encoder_from: str | None = None  # nano: weights whose encoder is taken over whenever that file changes
    backbone_share: float = 0.1  # nano-encoder: learning rate of the convolutions, as a share of lr; 0: fixed
    checkpoint: bool = True  # track-on2: recompute each frame in the backward pass; less memory, a third more time
    ema: float = 0.0  # decay of the averaged weights, 0 for none
    seed: int = 0  # decides initialisation, order, augmentation and dropout
    device: str = "auto"
    num_workers: int = 4  # loader processes
    eval_every: int = 0  # steps between validations, 0: after each epoch
    eval_data: str | None = None  # a data set that is evaluated after each epoch
    save_every: float = 60.0  # seconds between saves of latest.pth
    keep: int = 2  # generations of latest.pth that stay
    nan_limit: int = 10  # steps without a finite loss, in a row, before the run stops
    save_dir: str = "checkpoints"
    log_dir: str = "logs"

    def __post_init__(self) -> None:
        _require(self.model in MODELS, f"model must be one of {', '.join(MODELS)}, not '{self.model}'")
        _require(self.amp in AMP, f"amp must be one of {', '.join(AMP)}, not '{self.amp}'")
        _require(self.schedule in SCHEDULES, f"schedule must be one of {', '.join(SCHEDULES)}, not '{self.schedule}'")
        counts = ("batch_size", "epochs", "grad_accum", "keep", "nan_limit")
        amounts = ("weight_decay", "num_workers", "eval_every", "save_every", "backbone_share")
        configs.check_bounds(self, *counts, least=1, where=f"{WHERE}: ")
        configs.check_bounds(self, *amounts, least=0, where=f"{WHERE}: ")
        configs.check_bounds(self, "lr", "clip_norm", above=0, where=f"{WHERE}: ")
        configs.check_bounds(self, "warmup", "ema", least=0, below=1, where=f"{WHERE}: ")
        pooled = self.model == "nano-encoder" or self.data.pool is not None
        _require(
            not pooled or (self.model in ("nano", "nano-encoder") and self.data.pool is not None),
            "data.pool trains nano and nano-encoder alone, and nano-encoder needs it",
        )
        _require(self.max_steps is None or self.max_steps >= 1, f"max_steps must be at least 1, not {self.max_steps}")


def build(values: Mapping[str, Any], where: str = WHERE) -> TrainConfig:
    """Check a plain mapping and return the configuration, its ``arch`` complete with every default.

    Raises:
        ConfigError: an unknown key, here or in ``arch`` (the nearest valid one is named), or a value out of range.
    """
    given = configs.from_mapping(TrainConfig, current(values), where)
    arch = configs.to_mapping(arch_of(given, where))
    return configs.from_mapping(TrainConfig, {**configs.to_mapping(given), "arch": arch}, where)


def current(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with Track-On2 under its present name; earlier ones call it "online"."""
    return {**values, "model": "track-on2"} if values.get("model") == "online" else dict(values)


def arch_of(config: TrainConfig, where: str = WHERE) -> Any:
    """Return the model's own configuration object: a NanoConfig, a TransformerConfig or an OnlineConfig."""
    values = dict(config.arch)
    if config.model == "transformer":
        from ptrack.models.offline.model import TransformerConfig as Arch

        values.setdefault("norm", "frozen" if config.pretrained else "group")
        values.setdefault("input_size", list(config.data.image_size))
        values.setdefault("window", max(2, min(8, config.data.sequence_length)))
    elif config.model in ("nano", "nano-encoder"):
        from ptrack.models.nano.config import NanoConfig as Arch

        values.setdefault("input_size", list(config.data.image_size))
    else:
        from ptrack.models.online.config import OnlineConfig as Arch

    return configs.from_mapping(Arch, values, f"{where}: arch")

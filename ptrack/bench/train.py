"""Training throughput: optimisation steps of the batched model, and of a plain loop over clips and frames.

The plain loop is what a straightforward program does with the same model: every clip by itself, every frame encoded
when its turn comes, gradients added up. Both do the same arithmetic on the same random clips; they take turns.

Letters: B clips, T frames, N points, H W pixels.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from ptrack.data.samples import TrainingBatch
from ptrack.models.devices import choose_device, wait_for
from ptrack.processes import Group
from ptrack.tensors import dtype_name
from ptrack.training import losses
from ptrack.training.config import TrainConfig
from ptrack.training.engine import peak_memory
from ptrack.training.order import one_clip
from ptrack.training.run import build_system
from ptrack.training.step import Precision, Stepper, choose_precision
from ptrack.training.systems.track_on2 import CorrelationOutputs, TrackOn2System, frame_terms


@dataclass(frozen=True)
class TrainBench:
    """What was measured. Seconds are medians over the timed steps."""

    model: str
    device: str
    threads: int
    batch: int  # clips per step
    frames: int
    points: int
    size: tuple[int, int]  # (H, W)
    amp: str  # number type of autocast, "float32" for none
    seconds: float  # of one optimisation step
    clips_per_second: float
    memory_mib: float  # peak: allocated on a GPU, resident on a CPU
    plain_seconds: float | None = None  # of one step of the plain loop
    speedup: float | None = None  # plain over batched
    arch: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return asdict(self)


def random_batch(config: TrainConfig, device: torch.device) -> TrainingBatch:
    """Return a batch of noise with points that all start in frame 0: the cost does not depend on the content."""
    data, B = config.data, config.batch_size
    T, N, (H, W) = data.sequence_length, data.num_points, data.image_size
    g = torch.Generator().manual_seed(0)
    tracks = torch.rand(B, 1, N, 2, generator=g) * torch.tensor([W, H]) + torch.randn(B, T, N, 2, generator=g)
    tracks = torch.minimum(tracks.clamp(min=0.0), torch.tensor([W - 1.0, H - 1.0]))
    ones = torch.ones(B, T, N, dtype=torch.bool)
    batch = TrainingBatch(
        frames=torch.randint(0, 256, (B, T, H, W, 3), generator=g, dtype=torch.uint8),
        tracks=tracks,
        visibility=ones,
        valid=ones,
        query_time=torch.zeros(B, N, dtype=torch.int64),
        query_xy=tracks[:, 0],
        clip_ids=tuple(str(b) for b in range(B)),
        frame_index=torch.arange(T).expand(B, T),
        sizes=((H, W),) * B,
    )
    return batch.to(device)


def bench_train(
    config: TrainConfig, *, steps: int = 5, warmup: int = 1, plain: bool = True, note: Callable[[str], None] = print
) -> TrainBench:
    """Time optimisation steps of a configuration on random clips.

    Args:
        config: of the run; weights are random.
        steps: timed steps, at least 1.
        warmup: steps before that.
        plain: also time the plain loop (the online model alone has one).
        note: called with lines on progress.
    """
    device = choose_device(config.device).device
    precision = choose_precision(config.amp, device)
    system = build_system(config, trained=True).to(device).train()
    trainable = [p for p in system.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-6, weight_decay=config.weight_decay)
    batch = random_batch(config, device)
    stepper = Stepper(system, system, optimizer, precision, Group(), config.clip_norm, config.seed)
    ways: dict[str, Callable[[int], Any]] = {"batched": lambda i: stepper([batch], i, 1e-6)}
    if plain and isinstance(system, TrackOn2System):
        ways["plain"] = lambda i: plain_step(system, batch, optimizer, precision, config.clip_norm)
    memory = 0.0
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for i in range(warmup + steps):
            for name, work in ways.items():
                seconds = _timed(work, i, device)
                if name == "batched":
                    memory = max(memory, peak_memory(device))  # before the plain loop raised the peak of the process
                if i >= warmup:
                    times[name].append(seconds)
                    note(f"{name} step {i - warmup + 1}/{steps}: {seconds:.3f} s")
            if i == 0:
                first_memory = memory
    median = {name: statistics.median(values) for name, values in times.items()}
    slow = median.get("plain")
    return TrainBench(
        model=config.model,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        batch=config.batch_size,
        frames=config.data.sequence_length,
        points=config.data.num_points,
        size=config.data.image_size,
        amp=dtype_name(precision.dtype or torch.float32),
        seconds=median["batched"],
        clips_per_second=config.batch_size / median["batched"],
        memory_mib=first_memory,
        plain_seconds=slow,
        speedup=None if slow is None else slow / median["batched"],
        arch=dict(config.arch),
    )


def _timed(work: Callable[[int], Any], i: int, device: torch.device) -> float:
    """Return the seconds of one call, the device being idle before and after."""
    wait_for(device)
    started = time.perf_counter()
    work(i)
    wait_for(device)
    return time.perf_counter() - started


def plain_step(
    system: TrackOn2System,
    batch: TrainingBatch,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    clip_norm: float,
) -> float:
    """Do one optimisation step the plain way: clip by clip, frame by frame, every frame encoded by itself.

    Returns:
        The loss, equal to the batched one up to batch statistics, dropout and rounding.
    """
    counts = losses.count(system.targets(batch))
    total = 0.0
    for b in range(len(batch.clip_ids)):
        one = one_clip(batch, b)
        device = one.frames.device
        with torch.autocast(device.type, precision.dtype or torch.bfloat16, enabled=precision.dtype is not None):
            loss = _plain_clip(system, one, counts)
        precision.scaler.scale(loss).backward()
        total += float(loss.detach())
    precision.scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_([p for p in system.parameters() if p.requires_grad], clip_norm)
    precision.scaler.step(optimizer)
    precision.scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return total


def _plain_clip(system: TrackOn2System, one: TrainingBatch, counts: losses.Counts) -> Tensor:
    """Return the loss of one clip, walking through its frames as a tracker on a stream does."""
    model = system.model
    targets, stride = system.targets(one), model.config.strides[0]
    state = model.init_state()
    terms: losses.Terms = {}
    for t in range(one.frames.shape[1]):
        frame = model.features(one.frames[:, t])
        if t == 0:
            state = state.add(model.sample(frame, one.query_xy))
        out = model.track(frame, state, detail=True)
        state = state.remember(out.query)
        terms = losses.add_terms(
            terms, frame_terms(cast(CorrelationOutputs, out), targets, t, counts, system.size, stride)
        )
    return torch.stack(list(terms.values())).sum()

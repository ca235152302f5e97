"""How fast a model tracks on this machine, stage by stage, and how much memory it takes.

Every configuration streams frames through decode, transfer, encode, step and write, one after the other and each
waited for, so the stages add up. A tracker that overlaps decoding with tracking (``ptrack track``) is faster than the
sum. Models with a memory are measured with the memory full: it is filled at once after the first frame.

Letters: T frames, N points, M memory slots, H W pixels.
"""

from __future__ import annotations

import itertools
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptrack import geometry
from ptrack._version import __version__
from ptrack.bench.floor import Floor, floor_of, measure_peak
from ptrack.errors import ConfigError
from ptrack.memory import MemoryMeter
from ptrack.models.base import OnlineModel
from ptrack.models.devices import choose_dtype, wait_for
from ptrack.models.zoo import DEFAULT_MODEL, build, find
from ptrack.tensors import dtype_name
from ptrack.tracks import TracksInfo

STAGES = ("decode", "transfer", "encode", "step", "write")
VIT = ("vit_small_patch14_dinov2", (378, 504))  # the yardstick: timm model and its input (H, W)
VIT_ROUNDS = 9
SYNTHETIC = (480, 854, 24)  # height, width and frames of the made-up clip
LEAST = 5  # frames that are timed even when the time is up


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """What is measured: every combination of models, points, memories, devices, number types and sizes."""

    models: tuple[str, ...] = (DEFAULT_MODEL,)
    points: tuple[int, ...] = (256,)
    memories: tuple[int | None, ...] = (None,)  # slots per point; None: the model's own
    devices: tuple[str, ...] = ("auto",)
    dtypes: tuple[str, ...] = ("auto",)
    sizes: tuple[tuple[int, int] | None, ...] = (None,)  # (H, W) frames are resized to; None: as they are
    checkpoints: tuple[Path, ...] = ()  # for the models that take one, in order
    random_weights: bool = False  # Track-On2 and TAPNext without a checkpoint: speed does not depend on the weights
    quality: str | None = None  # fast, default or best, for the models that have it
    support_grid: int = 0  # points per side of the extra grid
    frames: int = 30  # timed
    warmup: int = 5  # frames before that
    seconds: float = 120.0  # stop timing a configuration after that, but not before 5 frames
    batch: int = 1  # frames per encoder call; 1 is streaming
    video: Path | None = None  # frames come from this file or folder,
    davis: Path | None = None  # or from the videos of TAP-Vid DAVIS; without both from a made-up clip
    vit_unit: bool | None = None  # also time the plain ViT; None: when a Track-On2 model is among the models
    floor: bool = True  # count a frame's operations and time the processor's own products and copies, on CPUs

    def __post_init__(self) -> None:
        if min(self.points, default=0) < 1 or self.frames < 1 or self.warmup < 1 or self.batch < 1:
            raise ConfigError("points, frames, warmup and batch must be at least 1.")
        if self.video is not None and self.davis is not None:
            raise ConfigError("Give --video or --davis, not both.")

    def cases(self) -> list[SpeedCase]:
        """Return the combinations in order."""
        grid = itertools.product(self.models, self.devices, self.dtypes, self.sizes, self.memories, self.points)
        seen: list[SpeedCase] = []
        for model, device, dtype, size, memory, points in grid:
            case = SpeedCase(model, points, memory if "memory" in find(model).options else None, device, dtype, size)
            if case not in seen:
                seen.append(case)
        return seen


@dataclass(frozen=True)
class SpeedCase:
    """One combination."""

    model: str
    points: int
    memory: int | None
    device: str
    dtype: str
    size: tuple[int, int] | None


@dataclass(kw_only=True)
class SpeedRow:
    """What was measured for one combination. Times in seconds per frame."""

    model: str
    points: int
    memory: int | None
    device: str
    dtype: str
    height: int
    width: int
    weights: str  # "random" or "loaded"
    frames: int
    median: dict[str, float]  # stage -> seconds
    p95: dict[str, float]
    latency_median: float  # of a frame, all stages
    latency_p95: float
    frames_per_second: float  # timed frames divided by their time
    peak_rss_mb: float  # of the process while this combination ran
    peak_gpu_mb: float
    rss_trace_mb: list[float] = field(default_factory=list)  # after each timed frame
    vit_seconds: float | None = None  # mean of the plain ViT before and after
    vit_multiple: float | None = None  # median latency without decoding and writing, in plain ViT forwards
    gflop: float | None = None  # products and convolutions of encoding a frame and its step
    moved_mb: float | None = None  # weights, frame, features and state, each moved once
    peak_gflops: float | None = None  # of a product of matrices in the same run
    peak_gb_per_s: float | None = None  # of a copy in memory in the same run
    floor_seconds: float | None = None  # of encoding and step together, at that peak


@dataclass(kw_only=True)
class SpeedReport:
    """All combinations, and the machine."""

    rows: list[SpeedRow]
    machine: dict[str, Any]
    source: str

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data for JSON, numbers rounded to what they carry."""
        return {"machine": self.machine, "source": self.source, "results": [_rounded(asdict(r)) for r in self.rows]}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def bench_speed(
    options: SpeedOptions,
    note: Callable[[str], None] = lambda _: None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> SpeedReport:
    """Measure every combination.

    Args:
        options: what is measured.
        note: called with a line on what was measured.
        progress: called with a model's name, the combinations that are done, and how many there are.

    Raises:
        ModelError, CheckpointError, DeviceError, InputError: see ``ptrack.load`` and ``ptrack.video.open_source``.
    """
    cases = options.cases()
    unit = any(find(c.model).vit for c in cases) if options.vit_unit is None else options.vit_unit
    rows = []
    with FrameFeed(options) as feed:
        for done, case in enumerate(cases):
            progress(case.model, done, len(cases))
            row = _measure(case, options, feed, unit)
            rows.append(row)
            note(summary(row))
    return SpeedReport(rows=rows, machine=machine(), source=feed.name)


def summary(row: SpeedRow) -> str:
    """Return a row in one line."""
    stages = ", ".join(f"{s} {1e3 * row.median[s]:.1f}" for s in STAGES)
    memory = f", M = {row.memory}" if row.memory else ""
    floor = (
        f"; encode and step {1e3 * (row.median['encode'] + row.median['step']):.1f}, floor "
        f"{1e3 * row.floor_seconds:.1f} ({row.gflop:.2f} GFLOP at {row.peak_gflops:.0f} GFLOP/s, {row.moved_mb:.0f} MB "
        f"at {row.peak_gb_per_s:.0f} GB/s)"
        if row.floor_seconds
        else ""
    )
    vit = f", {row.vit_multiple:.2f} x a plain ViT-S/14 forward" if row.vit_multiple else ""
    weights = ", random weights" if row.weights == "random" else ""
    return (
        f"{row.model} ({row.device}, {row.dtype}{weights}), {row.width}x{row.height}, N = {row.points}{memory}: "
        f"{row.frames_per_second:.2f} frames/s; ms per frame: {stages}; latency {1e3 * row.latency_median:.1f} "
        f"(p95 {1e3 * row.latency_p95:.1f}); peak {row.peak_rss_mb:.0f} MB"
        f"{f', GPU {row.peak_gpu_mb:.0f} MB' if row.peak_gpu_mb else ''}{vit}{floor}"
    )


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "ptrack": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "processor": _processor(),
        "system": platform.system(),
        "gpu": gpu,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


# --- models ----------------------------------------------------------------------------------------------------------


def load_model(case: SpeedCase, options: SpeedOptions) -> tuple[OnlineModel, str]:
    """Return the model of a case and what its weights are, "loaded" or "random"."""
    entry = find(case.model)
    takers = [m for m in options.models if find(m).takes_checkpoint]
    place = takers.index(case.model) if case.model in takers else len(options.checkpoints)
    checkpoint = options.checkpoints[place] if place < len(options.checkpoints) else None
    random = options.random_weights and bool(entry.untrained) and checkpoint is None
    given = {"memory": case.memory, "quality": options.quality}
    more = {k: v for k, v in given.items() if k in entry.options}
    loaded = build(case.model, checkpoint=checkpoint, device=case.device, dtype=case.dtype, untrained=random, **more)
    return loaded.model, "random" if random else "loaded"


def fill_memory(state: Any, memory: int) -> Any:
    """Return a Track-On2 state whose rings are full, with copies of the newest token; other states unchanged."""
    from ptrack.models.online.state import OnlineState

    if not isinstance(state, OnlineState):
        return state
    assert state.memory == memory
    return state.repeat_newest()


# --- frames ----------------------------------------------------------------------------------------------------------


class FrameFeed:
    """An endless stream of decoded frames: a video over and over, DAVIS's videos one after the other, or made up.

    The made-up clip is a moving texture, written as H.264 so that decoding costs what it costs.
    """

    def __init__(self, options: SpeedOptions) -> None:
        self.options = options
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.name = str(options.video or options.davis or f"a made-up clip, {SYNTHETIC[1]}x{SYNTHETIC[0]}")
        self._path: Path | None = options.video

    def __enter__(self) -> FrameFeed:
        if self.options.video is None and self.options.davis is None:
            self._folder = tempfile.TemporaryDirectory(prefix="ptrack-bench-")
            self._path = write_clip(Path(self._folder.name) / "clip.mp4", SYNTHETIC)
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def frames(self, size: tuple[int, int] | None) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8 frames of one size for ever: ``size``, or that of the first frame."""
        from ptrack.video.arrays import resize

        while True:
            for rgb in self._once():
                size = size or rgb.shape[:2]
                yield resize(rgb, (size[1], size[0]))

    def _once(self) -> Iterator[np.ndarray]:
        if self.options.davis is not None:
            from ptrack.evaluation.clips import open_clips
            from ptrack.evaluation.protocols import find_protocol

            for row in open_clips(find_protocol("davis"), self.options.davis):
                clip = row.load()
                yield from (clip.frames.rgb(t) for t in range(clip.num_frames))
            return
        from ptrack.video import open_source

        with open_source(str(self._path)) as source:
            yield from (frame.rgb for frame in source if frame.ok)


def write_clip(path: Path, shape: tuple[int, int, int]) -> Path:
    """Write a made-up H.264 clip of (H, W, frames): a smooth texture that moves 3 px right and 1 px down a frame."""
    from ptrack.video.arrays import resize
    from ptrack.video.writing import open_writer

    height, width, frames = shape
    coarse = np.random.default_rng(0).integers(0, 256, (height // 12 + 12, width // 12 + 12, 3), dtype=np.uint8)
    big = resize(coarse, (coarse.shape[1] * 12, coarse.shape[0] * 12))
    with open_writer(path, fps=24.0) as writer:
        for t in range(frames):
            writer.write(np.ascontiguousarray(big[t : t + height, 3 * t : 3 * t + width]))
    return path


def spread_points(count: int, size: tuple[int, int]) -> np.ndarray:
    """Return (count, 2) points, evenly chosen from the smallest square grid that has as many."""
    side = int(np.ceil(np.sqrt(count)))
    grid = geometry.grid_points(side, size)
    return grid[np.linspace(0, len(grid) - 1, count).round().astype(np.int64)]


# --- timing ----------------------------------------------------------------------------------------------------------


def _measure(case: SpeedCase, options: SpeedOptions, feed: FrameFeed, unit: bool) -> SpeedRow:
    model, weights = load_model(case, options)
    device = model.device
    before = vit_seconds(device) if unit else None
    meter = MemoryMeter(device)
    times, size, trace, stages = _stream(model, case, options, feed, meter)
    peak = meter.peak()
    floor = stages.floor() if options.floor and device.type == "cpu" else {}
    after = vit_seconds(device) if unit else None
    total = times.sum(axis=1)
    work = times[:, 1:4].sum(axis=1)  # transfer, encode, step: what the yardstick compares
    vit = None if before is None or after is None else (before + after) / 2
    return SpeedRow(
        model=case.model, points=case.points, memory=model.memory, device=str(device),
        dtype=dtype_name(choose_dtype(case.dtype, device)), height=size[0], width=size[1], weights=weights,
        frames=len(times),
        median=dict(zip(STAGES, np.median(times, axis=0).tolist(), strict=True)),
        p95=dict(zip(STAGES, np.percentile(times, 95, axis=0).tolist(), strict=True)),
        latency_median=float(np.median(total)), latency_p95=float(np.percentile(total, 95)),
        frames_per_second=len(total) / float(total.sum()),
        peak_rss_mb=peak.process / 1e6, peak_gpu_mb=peak.gpu / 1e6, rss_trace_mb=trace,
        vit_seconds=vit, vit_multiple=None if vit is None else float(np.median(work)) / vit,
        **floor,
    )  # fmt: skip


def _stream(
    model: OnlineModel, case: SpeedCase, options: SpeedOptions, feed: FrameFeed, meter: MemoryMeter
) -> tuple[np.ndarray, tuple[int, int], list[float], Stages]:
    """Return (T, 5) seconds per stage of the timed frames, their (H, W), the memory after each, and the stages."""
    from ptrack.tracks_h5 import TracksWriter

    frames = feed.frames(case.size)
    stages = Stages(model, frames, options.batch)
    rows: list[list[float]] = []
    trace: list[float] = []
    with tempfile.TemporaryDirectory(prefix="ptrack-bench-") as folder, torch.inference_mode():
        first = next(frames)
        size = (first.shape[0], first.shape[1])
        stages.start(first, spread_points(case.points, size), options.support_grid)
        queries = np.column_stack([np.zeros(case.points), spread_points(case.points, size)])
        names = np.asarray([str(i) for i in range(case.points)])
        writer = TracksWriter(Path(folder) / "tracks.h5", queries, names, TracksInfo(width=size[1], height=size[0]))
        began = time.perf_counter()
        for number in range(options.warmup + options.frames):
            row = stages.frame(writer, case.points)
            if number == options.warmup - 1:
                began = time.perf_counter()
            if number >= options.warmup:
                rows.append(row)
                trace.append(round(meter.now() / 1e6, 1))
            if len(rows) >= LEAST and time.perf_counter() - began > options.seconds:
                break
        writer.close()
    return np.asarray(rows), size, trace, stages


class Stages:
    """Runs a model frame by frame and times each stage, waiting for the device after every one."""

    def __init__(self, model: OnlineModel, frames: Iterator[np.ndarray], batch: int) -> None:
        self.model, self.frames, self.batch = model, frames, batch
        self.device = model.device
        self.state: Any = None
        self.ready: list[tuple[Any, list[float]]] = []  # encoded frames and the time each took so far
        self.number = 0

    def start(self, first: np.ndarray, points: np.ndarray, support_grid: int) -> None:
        """Add the points on the first frame, step once, and fill the memory."""
        features = self.model.encode(torch.from_numpy(first)[None].to(self.device))[0]
        given = [points]
        if support_grid:
            given.append(geometry.support_points(support_grid, (first.shape[0], first.shape[1])))
        xy = torch.from_numpy(np.concatenate(given).astype(np.float32)).to(self.device)
        self.state = self.model.add(self.model.init_state(), features, xy)
        self.state, _ = self.model.step(self.state, features)
        if self.model.memory:
            self.state = fill_memory(self.state, self.model.memory)
        wait_for(self.device)

    def floor(self) -> dict[str, float]:
        """Track one more frame and return the fields of a row about the least time that it could take."""
        picture = torch.from_numpy(next(self.frames))[None]
        seen: list[Any] = [picture]

        def work() -> None:
            seen.append(self.model.encode(picture)[0])
            self.state, _ = self.model.step(self.state, seen[-1])

        peak = measure_peak(str(self.device), torch.get_num_threads())
        with torch.inference_mode():
            least: Floor = floor_of(work, self.model, seen, lambda: self.state, peak)
        return {
            "gflop": least.gflop,
            "moved_mb": least.megabytes,
            "peak_gflops": peak.gflops,
            "peak_gb_per_s": peak.gigabytes,
            "floor_seconds": least.seconds,
        }

    def frame(self, writer: Any, points: int) -> list[float]:
        """Track one frame and return the seconds of the five stages."""
        if not self.ready:
            self._encode()
        features, spent = self.ready.pop(0)
        began = time.perf_counter()
        self.state, out = self.model.step(self.state, features)
        wait_for(self.device)
        stepped = time.perf_counter()
        xy, visibility, confidence = (
            v[:points].float().cpu().numpy() for v in (out.xy, out.visibility, out.confidence)
        )
        writer.append(xy, visibility, confidence, self.number, self.number / 24.0)
        self.number += 1
        return [*spent, stepped - began, time.perf_counter() - stepped]

    def _encode(self) -> None:
        """Decode, transfer and encode the next batch; its cost is shared evenly by its frames."""
        began = time.perf_counter()
        pictures = [next(self.frames) for _ in range(self.batch)]
        decoded = time.perf_counter()
        tensors = [torch.from_numpy(p) for p in pictures]
        stack = (tensors[0][None] if self.batch == 1 else torch.stack(tensors)).to(self.device)
        wait_for(self.device)
        moved = time.perf_counter()
        encoded = self.model.encode(stack)
        wait_for(self.device)
        ended = time.perf_counter()
        spent = [(b - a) / self.batch for a, b in ((began, decoded), (decoded, moved), (moved, ended))]
        self.ready = [(encoded[i], spent) for i in range(self.batch)]


def vit_seconds(device: torch.device, rounds: int = VIT_ROUNDS) -> float:
    """Return the median seconds of one plain float32 forward of timm's ViT-S/14 on a 378x504 picture, batch 1."""
    import timm

    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        model = timm.create_model(VIT[0], pretrained=False, img_size=VIT[1], num_classes=0).eval().to(device)
        picture = torch.zeros(1, 3, *VIT[1], device=device)
        times = []
        for _ in range(rounds + 2):
            began = time.perf_counter()
            model(picture).sum().item()  # .item() waits for the device
            times.append(time.perf_counter() - began)
    return float(np.median(times[2:]))


# --- the plot --------------------------------------------------------------------------------------------------------


def plot(rows: Sequence[SpeedRow], path: Path) -> None:
    """Draw frames/s against points, and memory against frames, one line per model and memory.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ptrack.fileio import atomic_path

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    speed, memory = figure.subplots(1, 2)
    groups: dict[str, list[SpeedRow]] = {}
    for row in rows:
        groups.setdefault(_label(row, rows), []).append(row)
    for label, members in groups.items():
        members = sorted(members, key=lambda r: r.points)
        speed.plot([r.points for r in members], [r.frames_per_second for r in members], marker="o", label=label)
        for r in members:
            memory.plot(range(1, len(r.rss_trace_mb) + 1), r.rss_trace_mb, label=f"{label}, N = {r.points}")
    speed.set(xlabel="points", ylabel="frames per second", xscale="log")
    rates = [r.frames_per_second for r in rows]
    if max(rates) > 10 * min(rates):
        speed.set_yscale("log")
    else:
        speed.set_ylim(0, 1.15 * max(rates))
    memory.set(xlabel="frame", ylabel="resident memory, MB")
    memory.set_ylim(0, 1.15 * max([1.0, *(m for r in rows for m in r.rss_trace_mb)]))
    ticks = sorted({r.points for r in rows})
    speed.set_xticks(ticks, [str(n) for n in ticks])
    speed.set_xticks([], minor=True)
    for axes in (speed, memory):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _label(row: SpeedRow, rows: Sequence[SpeedRow]) -> str:
    """Return what distinguishes a row's line: the model, and whatever else differs between the rows."""
    parts = [row.model]
    for name, value in (("M", row.memory), ("", row.device), ("", row.dtype), ("", f"{row.width}x{row.height}")):
        values = {(r.memory if name else None, r.device, r.dtype, f"{r.width}x{r.height}") for r in rows}
        if (name and value) or (not name and len({v[1:] for v in values}) > 1):
            parts.append(f"{name} = {value}" if name else str(value))
    return ", ".join(parts)

"""Train nano for some minutes of one GPU: other processes render clips, each is used many times, changed anew.

python scripts/train_nano_gpu.py render --folder /dev/shm/clips --workers 14 --minutes 12 --actors DIR --textures DIR &
python scripts/train_nano_gpu.py track --folder /dev/shm/clips --out OUT --minutes 8 --init-from nano.safetensors
python scripts/train_nano_gpu.py features --folder /dev/shm/clips --out OUT --minutes 2 --textures DIR

``track`` trains search, refinement, memory and heads on features that it does not change, as ``ptrack train`` does;
``features`` trains the encoder: a point's patch should be told from every other place of another frame. Both may run
side by side: ``track --features OUT/features.pt`` takes the encoder anew whenever that file changes. Both may be
stopped at any moment: they write their averaged weights every so often.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ptrack.data.gpu_augment import Clips, GpuAugmentConfig, augment
from ptrack.data.samples import TrainingBatch
from ptrack.data.synthetic import SyntheticConfig, generate
from ptrack.fileio import atomic_path
from ptrack.models.layers.windows import PATCH, patch_scores, patches
from ptrack.models.nano.model import Nano
from ptrack.models.nano.state import STRIDE
from ptrack.models.nano.weights import fill, packaged, read_weights, save_weights, untrained
from ptrack.training import losses
from ptrack.training.nano import NanoSystem
from ptrack.training.schedules import Average, learning_rate

SIZE, POINTS = 256, 256
SAVE_EVERY = 20.0  # seconds


# --- rendering --------------------------------------------------------------------------------------------------------


def render(o: argparse.Namespace) -> None:
    """Start workers; each writes one file per clip until the time is up."""
    Path(o.folder).mkdir(parents=True, exist_ok=True)
    workers = [multiprocessing.Process(target=_render, args=(o, i), daemon=True) for i in range(o.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _render(o: argparse.Namespace, worker: int) -> None:
    torch.set_num_threads(1)
    os.nice(10)
    config = SyntheticConfig(
        frames=o.frames, height=SIZE, width=SIZE, points=POINTS, supersampling=1.25, seed=o.seed, actors_dir=o.actors,
        textures_dir=o.textures,
    )  # fmt: skip
    end, number = time.monotonic() + 60 * o.minutes, worker * o.batch
    while time.monotonic() < end:
        made = generate(config, range(number, number + o.batch), o.device)
        if bool(made.overflow):
            made = generate(config, range(number, number + o.batch), "cpu")
        for b in range(o.batch):
            clip = {
                "frames": made.frames[b].cpu().clone(),
                "tracks": made.tracks[b].cpu().clone(),
                "visible": made.visibility[b].cpu().clone(),
                "valid": made.valid[b].cpu().clone(),
            }
            with atomic_path(Path(o.folder) / f"{number + b:07d}.pt") as temporary:
                torch.save(clip, temporary)
        number += o.workers * o.batch


class Pool:
    """Clips on the device; files of the folder come in as they appear, in place of old ones when it is full.

    Args:
        folder: of ``render``.
        room: clips kept.
        device: where.
    """

    def __init__(self, folder: Path, room: int, device: torch.device) -> None:
        self.folder, self.room, self.device = folder, room, device
        self.known: set[str] = set()
        self.taken = 0
        self.clips: Clips | None = None

    @property
    def count(self) -> int:
        """Clips that are there."""
        return min(self.taken, self.room)

    def poll(self, most: int) -> None:
        """Take at most so many new files; hidden ones are still being written."""
        new = sorted(p.name for p in self.folder.glob("[0-9]*.pt") if p.name not in self.known)
        for name in new[:most]:
            self.known.add(name)
            data = torch.load(self.folder / name)
            if self.clips is None:
                self.clips = Clips(*(
                    torch.zeros(self.room, *data[k].shape, dtype=data[k].dtype, device=self.device)
                    for k in ("frames", "tracks", "visible", "valid")
                ))  # fmt: skip
            slot = self.taken % self.room
            for mine, k in zip(_fields(self.clips), ("frames", "tracks", "visible", "valid"), strict=True):
                mine[slot].copy_(data[k])
            self.taken += 1

    def wait(self, least: int) -> None:
        """Wait until so many clips are there, or as many as there is room for."""
        print(f"waiting for {min(least, self.room)} clips in {self.folder}", flush=True)
        while self.count < min(least, self.room):
            self.poll(least)
            time.sleep(0.2)

    def draw(self, index: Tensor, frames: Tensor) -> Clips:
        """Return clips (B,) with their frames (B, T); what is not valid counts as hidden."""
        assert self.clips is not None
        picked = (v[index[:, None], frames] for v in _fields(self.clips))
        video, tracks, visible, valid = picked
        return Clips(video, torch.nan_to_num(tracks), visible & valid, valid)


def _fields(clips: Clips) -> tuple[Tensor, ...]:
    return clips.frames, clips.tracks, clips.visible, clips.valid


# --- the tracker ------------------------------------------------------------------------------------------------------


def batches(o: argparse.Namespace, pool: Pool, random: torch.Generator) -> Iterator[TrainingBatch]:
    """Yield batches for ever."""
    config = GpuAugmentConfig()
    device = pool.device
    while True:
        pool.poll(4)
        index = torch.randint(pool.count, (o.batch,), generator=random, device=device)
        whole = pool.clips.frames.shape[1]  # type: ignore[union-attr]
        start = torch.randint(whole - o.length + 1, (o.batch, 1), generator=random, device=device)
        clips = augment(pool.draw(index, start + torch.arange(o.length, device=device)), config, random)
        yield to_batch(clips, o.points, random, torch.rand((), generator=random, device=device) < o.any_query)


def to_batch(clips: Clips, points: int, random: torch.Generator, anywhere: Tensor) -> TrainingBatch:
    """Choose points of each clip, queried in the first frame or, ``anywhere``, in any frame where they are seen."""
    b = len(clips.visible)
    rows = torch.arange(b, device=clips.visible.device)[:, None]
    first = torch.zeros_like(clips.visible)
    first[:, 0] = True
    askable = clips.visible & (first | anywhere)
    seen = askable.any(1).float()
    chosen = torch.multinomial(seen + 1e-6, points, generator=random)
    visible, valid, tracks = (v.transpose(1, 2)[rows, chosen].transpose(1, 2) for v in
                              (clips.visible, clips.valid, clips.tracks))  # fmt: skip
    askable = askable.transpose(1, 2)[rows, chosen]  # (B, P, T)
    # Where too few can be asked, others fill the rows; they are valid nowhere and play no part.
    time = torch.multinomial(askable.flatten(0, 1).float() + 1e-9, 1, generator=random).view(b, points)
    valid = valid & askable.any(-1)[:, None]
    at = tracks.transpose(1, 2).gather(2, time[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
    return TrainingBatch(
        frames=clips.frames,
        tracks=tracks,
        visibility=visible & valid,
        valid=valid,
        query_time=time,
        query_xy=at.nan_to_num().clamp(0, SIZE),
        clip_ids=(), frame_index=time, sizes=(),
    )  # fmt: skip


def load(o: argparse.Namespace, device: torch.device) -> Nano:
    """Return the network to go on with, at the size of the clips."""
    config, state = packaged() if o.init_from is None else read_weights(o.init_from)
    model = untrained(replace(config, input_size=(SIZE, SIZE), iterations=2))
    fill(model, state, str(o.init_from or "nano"))
    return model.to(device)


class Encoder:
    """The file that ``features`` writes; it may change while it is followed."""

    def __init__(self, path: str | None) -> None:
        self.path, self.time = Path(path) if path else None, 0.0

    @torch.no_grad()
    def follow(self, *values: dict[str, Tensor]) -> None:
        """Copy the encoder into weights, if there is one that was not copied yet."""
        if self.path is None or not self.path.exists() or self.path.stat().st_mtime == self.time:
            return
        self.time = self.path.stat().st_mtime
        for name, value in torch.load(self.path).items():
            for mine in values:
                mine[name].copy_(value)


def rate(elapsed: float, o: argparse.Namespace, peak: float) -> float:
    """Return the learning rate after some seconds: the usual schedule, its steps being milliseconds."""
    return learning_rate(int(1000 * elapsed), int(60_000 * o.minutes), peak, warmup=0.02)


class Gradients:
    """Puts the gradients of a batch's loss into the parameters, on a GPU as one captured graph of all frames.

    Launched one by one, the small kernels of 80 frames take three times as long.
    """

    def __init__(self, system: NanoSystem, graph: bool) -> None:
        self.system, self.wanted = system, graph
        self.graph: torch.cuda.CUDAGraph | None = None
        self.given: list[Tensor] = []
        self.terms: dict[str, Tensor] = {}

    def __call__(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the loss terms."""
        targets = self.system.targets(batch)
        counts = losses.count(targets)
        inputs = [
            batch.frames, batch.query_time, batch.query_xy, targets.xy, targets.visible, targets.valid, counts.time,
            counts.point,
        ]  # fmt: skip
        if not self.wanted:
            return self._run(inputs)
        if self.graph is None:
            self._capture(inputs)
        assert self.graph is not None
        for mine, theirs in zip(self.given, inputs, strict=True):
            mine.copy_(theirs)
        self.graph.replay()
        return self.terms

    def _run(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        frames, time, at, xy, visible, valid, *counts = inputs
        batch = TrainingBatch(frames, xy, visible, valid, time, at, (), time, ())
        self.system.zero_grad()
        terms = self.system(batch, losses.Targets(xy, visible, valid, time), losses.Counts(*counts), 0)
        torch.stack(list(terms.values())).sum().backward()
        return {k: v.detach() for k, v in terms.items()}

    def _capture(self, inputs: list[Tensor]) -> None:
        self.given = [x.clone() for x in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._run(self.given)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        self.graph = torch.cuda.CUDAGraph()
        begin = time.monotonic()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.terms = self._run(self.given)
        torch.cuda.synchronize()
        print(f"captured in {time.monotonic() - begin:.1f} s", flush=True)


def track(o: argparse.Namespace) -> None:
    """Train the tracker."""
    device = torch.device(o.device)
    random = torch.Generator(device).manual_seed(o.seed)
    torch.manual_seed(o.seed)
    system = NanoSystem(load(o, device)).to(device).train()
    parameters = [p for p in system.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=o.lr, weight_decay=1e-3)
    average = Average(system.model, o.ema)
    gradients = Gradients(system, device.type == "cuda" and not o.eager)
    pool = Pool(Path(o.folder), o.room, device)
    pool.wait(o.least)
    encoder, weights = Encoder(o.features), system.model.state_dict()
    begin = saved = time.monotonic()
    steps, shown, sums = 0, begin, {}
    for batch in batches(o, pool, random):
        elapsed = time.monotonic() - begin
        if elapsed >= 60 * o.minutes or (o.steps and steps >= o.steps):
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(elapsed, o, o.lr)
        encoder.follow(weights, average.values)
        terms = gradients(batch)
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if bool(torch.isfinite(norm)):
            optimizer.step()
            average.update(system.model, steps)
        else:
            print(f"step {steps}: the gradient is not finite; skipped", flush=True)
        steps += 1
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        now = time.monotonic()
        if steps % o.show == 0:
            told = ", ".join(f"{k} {v / o.show:.3f}" for k, v in sums.items())
            print(f"{o.name} step {steps}, {now - begin:.0f} s, {(now - shown) / o.show:.3f} s/step, clips "
                  f"{pool.taken}: {sum(sums.values()) / o.show:.3f} ({told})", flush=True)  # fmt: skip
            shown, sums = now, {}
        if now - saved > SAVE_EVERY:
            store(o, system.model, average)
            saved = now
    store(o, system.model, average)
    print(f"{o.name}: {steps} steps, {pool.taken} clips, {time.monotonic() - begin:.0f} s", flush=True)
    if device.type == "cuda":
        print(f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)


def store(o: argparse.Namespace, model: Nano, average: Average) -> None:
    """Write the averaged weights."""
    out = Path(o.out)
    out.mkdir(parents=True, exist_ok=True)
    with average.applied(model):
        save_weights(out / f"{o.name}.safetensors", model)


# --- the encoder ------------------------------------------------------------------------------------------------------


def photos(folder: str | None, device: torch.device) -> Tensor:
    """Return the photos of the training split, (P, 256, 256, 3) uint8."""
    from PIL import Image

    from ptrack.data.synthetic.library import open_library

    files = open_library(None, folder, "train").photos
    pictures = [Image.open(p).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC) for p in files]
    return torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).to(device)


def pairs(rendered: int, count: int, pool: Pool, stills: Tensor, random: torch.Generator) -> Clips:
    """Return so many pairs of frames of rendered clips, and of photos with themselves, each frame changed anew."""
    device = pool.device
    still = stills[torch.randint(len(stills), (count,), generator=random, device=device)]
    xy = torch.rand(count, 1, POINTS, 2, generator=random, device=device) * SIZE
    yes = torch.ones(count, 2, POINTS, dtype=torch.bool, device=device)
    kinds = [Clips(still[:, None].expand(-1, 2, -1, -1, -1), xy.expand(-1, 2, -1, -1), yes, yes)]
    if rendered:
        index = torch.randint(pool.count, (rendered,), generator=random, device=device)
        whole = pool.clips.frames.shape[1]  # type: ignore[union-attr]
        kinds.append(pool.draw(index, torch.randint(whole, (rendered, 2), generator=random, device=device)))
    joined = [torch.cat(values) for values in zip(*map(_fields, kinds), strict=True)]
    order = torch.randperm(rendered + count, generator=random, device=device)
    mixed = Clips(*(v[order] for v in joined))
    return augment(mixed, GpuAugmentConfig(reverse=0.0), random, apart=True)


def matching_loss(model: Nano, clips: Clips, points: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the true place in the other frame among all places; and the share found within one cell."""
    b = len(clips.frames)
    both = clips.visible.all(1)
    chosen = torch.multinomial(both.float() + 1e-6, points, generator=random)
    rows = torch.arange(b, device=both.device)[:, None]
    counted = both[rows, chosen].flatten()
    cells = [(clips.tracks[:, i][rows, chosen] / STRIDE - 0.5).flatten(0, 1) for i in (0, 1)]
    map = model.features(clips.frames.flatten(0, 1).permute(0, 2, 3, 1)).map
    here, there = map[0::2], map[1::2]
    w = map.shape[2]
    clip = torch.arange(b, device=both.device).repeat_interleave(points)
    template = patches(here.contiguous(), clip, cells[0].clamp(0, w - 1)).view(b, points, len(PATCH), -1)
    score = patch_scores(F.pad(there, (0, 0, 1, 1, 1, 1)), template, model.patch_weights)
    logits = (score / model.config.temperature).flatten(0, 1).flatten(1).log_softmax(1)
    low = cells[1].clamp(0, w - 1.001).floor()
    part = cells[1].clamp(0, w - 1.001) - low
    loss = torch.zeros_like(part[:, 0])
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (part[:, 0] if dx else 1 - part[:, 0]) * (part[:, 1] if dy else 1 - part[:, 1])
            place = ((low[:, 1] + dy).long() * w + (low[:, 0] + dx).long())[:, None]
            loss = loss - weight * logits.gather(1, place)[:, 0]
    best = logits.argmax(1)
    near = ((torch.stack([best % w, best // w], 1) - cells[1]).abs() <= 1).all(1)
    total = counted.sum().clamp(min=1)
    return (loss * counted).sum() / total, (near & counted).sum() / total


def features(o: argparse.Namespace) -> None:
    """Train the encoder."""
    device = torch.device(o.device)
    torch.backends.cuda.matmul.allow_tf32 = True
    random = torch.Generator(device).manual_seed(o.seed)
    model = load(o, device)
    model.projection.requires_grad_(True)
    backbone = list(model.backbone.parameters()) if o.backbone_lr else []
    for p in backbone:
        p.requires_grad_(True)
    groups = [{"params": [model.projection], "peak": o.lr}, {"params": backbone, "peak": o.backbone_lr}]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=o.lr, weight_decay=0.0)
    average = Average(model, 0.99)
    pool = Pool(Path(o.folder), o.room, device)
    stills = photos(o.textures, device)
    count = round(o.batch * o.stills)
    rendered = o.batch - count
    if rendered:
        pool.wait(o.least)
    begin = saved = time.monotonic()
    steps, sums = 0, torch.zeros(2, device=device)
    while (elapsed := time.monotonic() - begin) < 60 * o.minutes and not (o.steps and steps >= o.steps):
        pool.poll(4)
        for group in optimizer.param_groups:
            group["lr"] = rate(elapsed, o, group["peak"])
        loss, found = matching_loss(model, pairs(rendered, count, pool, stills, random), o.points, random)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([model.projection, *backbone], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(model, steps)
        steps += 1
        sums += torch.stack([loss.detach(), found])
        if time.monotonic() - saved > SAVE_EVERY:
            store_features(o, average)
            saved = time.monotonic()
        if steps % o.show == 0:
            mean = (sums / o.show).tolist()
            print(f"{o.name} step {steps}, {time.monotonic() - begin:.0f} s, clips {pool.taken}: loss {mean[0]:.3f}, "
                  f"found {100 * mean[1]:.1f} %", flush=True)  # fmt: skip
            sums.zero_()
    store_features(o, average)
    print(f"{o.name}: {steps} steps, {pool.taken} clips", flush=True)
    if device.type == "cuda":
        print(f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)


def store_features(o: argparse.Namespace, average: Average) -> None:
    """Write the averaged encoder; the file appears when whole."""
    kept = {k: v.cpu() for k, v in average.values.items() if k.startswith("backbone.") or k == "projection"}
    out = Path(o.out)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / f"{o.name}.pt") as temporary:
        torch.save(kept, temporary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)

    def verb(name: str) -> argparse.ArgumentParser:
        p = verbs.add_parser(name, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        p.add_argument("--folder", required=True, help="where rendered clips are")
        p.add_argument("--minutes", type=float, default=8.0)
        p.add_argument("--seed", type=int, default=0)
        p.add_argument("--textures", help="folder with more photos")
        return p

    p = verb("render")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--frames", type=int, default=96)
    p.add_argument("--batch", type=int, default=1, help="clips rendered at once")
    p.add_argument("--device", default="cpu")
    p.add_argument("--actors", help="folder with more actors")
    for name in ("track", "features"):
        p = verb(name)
        p.add_argument("--out", required=True)
        p.add_argument("--name", default=name)
        p.add_argument("--device", default="cuda")
        p.add_argument("--steps", type=int, default=0, help="stop earlier, after so many")
        p.add_argument("--show", type=int, default=10, help="steps per line")
        p.add_argument("--batch", type=int, default=32)
        p.add_argument("--points", type=int, default=64)
        p.add_argument("--room", type=int, default=400, help="clips kept on the device")
        p.add_argument("--least", type=int, default=32, help="clips to wait for")
        p.add_argument("--lr", type=float, default=1e-3)
        p.add_argument("--init-from", help="weights to start from; the packaged ones")
        if name == "track":
            p.add_argument("--features", help="an encoder of 'features', followed while it changes")
            p.add_argument("--length", type=int, default=80, help="frames of a clip")
            p.add_argument("--any-query", type=float, default=0.25, help="share of batches with queries in any frame")
            p.add_argument("--ema", type=float, default=0.99)
            p.add_argument("--eager", action="store_true", help="no captured graph")
        else:
            p.add_argument("--backbone-lr", type=float, default=1e-4)
            p.add_argument("--stills", type=float, default=0.5, help="share of pairs that are two views of one photo")
    o = parser.parse_args()
    {"render": render, "track": track, "features": features}[o.verb](o)


if __name__ == "__main__":
    main()

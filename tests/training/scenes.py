"""A stand-in for a data set: a textured plane that pans behind a textured square, with exact tracks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ptrack.data.samples import SampleKey, TrainingSample
from ptrack.training.schedules import derive_seed


def _texture(generator: torch.Generator, side: int) -> Tensor:
    """(1, 3, side, side) in 0..1, detail at several scales."""
    total = torch.zeros(1, 3, side, side)
    for cells in (4, 12, 32):
        noise = torch.rand(1, 3, cells, cells, generator=generator)
        total += F.interpolate(noise, size=(side, side), mode="bicubic", align_corners=False) / 3
    return total.clamp(0, 1)


@dataclass
class PanningClips:
    """``length`` clips; what they show depends on (seed, epoch, index) alone, or on (seed, index) if ``still``."""

    length: int = 8
    frames: int = 4
    points: int = 4
    size: int = 64
    seed: int = 0
    speed: float = 2.0  # pixels per frame
    still: bool = False  # the same clips in every epoch
    poison: tuple[int, ...] = ()  # clips whose tracks are NaN

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: SampleKey) -> TrainingSample:
        index, epoch = key
        g = torch.Generator().manual_seed(derive_seed(self.seed, 0 if self.still else epoch, index))
        T, N, S = self.frames, self.points, self.size
        back, front = _texture(g, 2 * S), _texture(g, S // 3)
        drift = (torch.rand(2, generator=g) * 2 - 1) * self.speed
        move = (torch.rand(2, generator=g) * 2 - 1) * self.speed * 2
        corner = torch.rand(2, generator=g) * S * 0.6
        pixel = torch.arange(S) + 0.5
        grid = torch.stack(torch.meshgrid(pixel, pixel, indexing="xy"), -1)
        images, boxes = [], []
        for t in range(T):
            place = (grid + S / 2 - drift * t) / (2 * S) * 2 - 1
            image = F.grid_sample(back, place[None], align_corners=False)
            inside = (grid - corner - move * t) / (S // 3)
            over = ((inside >= 0) & (inside <= 1)).all(-1)
            square = F.grid_sample(front, inside[None] * 2 - 1, align_corners=False)
            images.append(torch.where(over, square, image)[0])
            boxes.append(corner + move * t)
        time = torch.arange(T)[:, None, None]
        many = torch.rand(N * 8, 2, generator=g) * S
        on_square = torch.arange(N * 8) % 3 == 0
        many[on_square] = corner + torch.rand(int(on_square.sum()), 2, generator=g) * (S // 3)
        tracks = many + torch.where(on_square[:, None], move, drift) * time
        box = torch.stack(boxes)[:, None]
        covered = ((tracks >= box) & (tracks <= box + S // 3)).all(-1) & ~on_square
        visible = ((tracks >= 0) & (tracks < S)).all(-1) & ~covered
        good = visible[0].nonzero()[:N, 0]
        if index in self.poison:
            tracks = torch.full_like(tracks, float("nan"))
        return TrainingSample(
            frames=(torch.stack(images) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous(),
            tracks=tracks[:, good],
            visibility=visible[:, good],
            valid=torch.ones_like(visible[:, good]),
            query_time=torch.zeros(len(good), dtype=torch.int64),
            query_xy=tracks[0, good],
            clip_id=f"panning/{index}",
            frame_index=torch.arange(T),
            size=(S, S),
        )

"""``matching``: a training-free tracker, and the baseline that every trained model must beat.

Each point carries two templates, patches of 3x3 cells of frozen ImageNet features: one from its query frame, one from
the last frame in which it was surely seen. In a new frame the mean of both is compared with every cell of a window
around the last position; the score of a cell is the Gaussian-weighted sum of the nine cosines of the patch laid over
it. The position is a soft-argmax around the best cell. Visibility comes from the score of the query template and from
tracking the new position back into the previous frame.

Patch-against-patch comparison follows region-to-region correlation (LocoTrack, arXiv 2407.15420; CoTracker3,
arXiv 2410.11831). Everything works in cells of stride 4 of the model's 384x512 input.

Letters: B frames, N points, h w cells, C = 176 channels, R search radius in cells, S = 9 cells of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptrack import geometry
from ptrack.errors import ConfigError
from ptrack.models.backbones.lite0 import TAPS, Lite0, joined, packaged_sha256, packaged_weights, stretched
from ptrack.models.base import StepOutput
from ptrack.models.layers.windows import PATCH, inside, patch_scores, soft_argmax, window
from ptrack.models.zoo import LoadedModel, LoadRequest

STRIDE = 4  # model pixels per cell


@dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """Settings of the matcher; the defaults are the shipped ones."""

    input_size: tuple[int, int] = (384, 512)  # (H, W) every frame is resized to, multiples of 16
    level_weights: tuple[float, float, float] = (0.7, 1.0, 1.0)  # of the L2-normalised maps at strides 4, 8, 16
    patch_sigma: float = 1.0  # of the Gaussian over the 3x3 patch, in cells
    first_weight: float = 0.5  # share of the query template; the rest is the last confident one
    radius: int = 8  # search window around the last position, in cells
    temperature: float = 1 / 30  # of the soft-argmax, in units of the score
    back_radius: int = 4  # search window of the backward check, in cells
    update_score: float = 0.4  # query-template score from which the last template is renewed
    update_back: float = 2.0  # backward error below which it is renewed, in cells
    # Logistic fits on 24 synthetic clips of the validation split, 35,328 point-frames: P(visible) and P(within 8 px at
    # 256x256) from the score s and the backward error e in cells, 1 / (1 + exp(-(s - score - back * e) / scale)).
    visible_fit: tuple[float, float, float] = (0.492, 0.0265, 0.086)  # score, back, scale
    confident_fit: tuple[float, float, float] = (0.527, 0.0638, 0.0832)
    max_back: float = 6.0  # larger backward errors say no more; in cells
    chunk: int = 128  # points compared at a time: bounds the window buffer to about 35 MB

    def __post_init__(self) -> None:
        if any(s % 16 or s < 32 for s in self.input_size):
            raise ConfigError(f"input_size {self.input_size} must be multiples of 16, at least 32.")
        if not 0 <= self.first_weight <= 1:
            raise ConfigError(f"first_weight {self.first_weight} must be between 0 and 1.")


@dataclass(frozen=True)
class MatchingFeatures:
    """One encoded frame."""

    map: Tensor  # (h, w, C) float32, unit length per cell
    size: tuple[int, int]  # (H, W) of the frame as given


@dataclass(frozen=True)
class MatchingState:
    """All that the tracker remembers."""

    xy: Tensor  # (N, 2) last positions in cells, cell centres at whole numbers
    first: Tensor  # (N, S, C) patch of the query frame
    last: Tensor  # (N, S, C) patch of the last confident frame
    fresh: Tensor  # (N,) bool, added on the current frame and not yet stepped
    previous: Tensor | None = field(default=None)  # (h, w, C) features of the previous frame


class MatchingModel(nn.Module):
    """The matcher as an ``OnlineModel``."""

    name = "matching"
    threshold = 0.5
    support_grid = 0
    patch_weights: Tensor  # (S,)
    patch_xy: Tensor  # (S, 2)

    def __init__(self, config: MatchingConfig, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        self.backbone = Lite0(weights)
        offsets = torch.tensor(PATCH, dtype=torch.float32)
        gauss = torch.exp(-offsets.square().sum(1) / (2 * config.patch_sigma**2))
        self.register_buffer("patch_weights", gauss / gauss.sum())
        self.register_buffer("patch_xy", offsets.flip(1))

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.patch_weights.device

    @property
    def encode_batch(self) -> int:
        """A batch keeps a GPU busy; on a CPU one frame already does, and bits do not depend on the batch."""
        return 1 if self.device.type == "cpu" else 8

    # -- frames ---------------------------------------------------------------------------------------------------

    def encode(self, frames: Tensor) -> list[MatchingFeatures]:
        """(B, H, W, 3) uint8 -> B feature maps."""
        size = (frames.shape[1], frames.shape[2])
        taps = self.backbone(stretched(frames.to(self.device), self.config.input_size))
        maps = joined(taps, self.config.level_weights)
        return [MatchingFeatures(m, size) for m in maps.unbind()]

    # -- state ----------------------------------------------------------------------------------------------------

    def init_state(self) -> MatchingState:
        """Return a state without points."""
        empty = torch.zeros(0, len(PATCH), sum(TAPS.values()), device=self.device)
        flags = torch.zeros(0, dtype=torch.bool, device=self.device)
        return MatchingState(torch.zeros(0, 2, device=self.device), empty, empty, flags)

    def add(self, state: MatchingState, features: MatchingFeatures, xy: Tensor) -> MatchingState:
        """Append (N, 2) points given in pixels of this frame."""
        cells = self._to_cells(xy.to(self.device, torch.float32), features.size)
        patch = self._patches(features.map, cells)
        return replace(
            state,
            xy=torch.cat([state.xy, cells]),
            first=torch.cat([state.first, patch]),
            last=torch.cat([state.last, patch]),
            fresh=torch.cat([state.fresh, torch.ones(len(cells), dtype=torch.bool, device=self.device)]),
        )

    def keep(self, state: MatchingState, index: Tensor) -> MatchingState:
        """Keep the points of ``index``."""
        index = index.to(self.device)
        return replace(
            state, xy=state.xy[index], first=state.first[index], last=state.last[index], fresh=state.fresh[index]
        )

    # -- one frame ------------------------------------------------------------------------------------------------

    def step(self, state: MatchingState, features: MatchingFeatures) -> tuple[MatchingState, StepOutput]:
        """Find every point in this frame."""
        c = self.config
        template = c.first_weight * state.first + (1 - c.first_weight) * state.last
        xy = torch.where(state.fresh[:, None], state.xy, self._search(features.map, template, state.xy, c.radius))
        patch = self._patches(features.map, xy)
        score = torch.einsum("nsc,nsc,s->n", patch, state.first, self.patch_weights)
        previous = features.map if state.previous is None else state.previous
        back = self._search(previous, patch, state.xy, c.back_radius)
        error = torch.where(state.fresh, torch.zeros_like(score), (back - state.xy).norm(dim=1))

        visibility, confidence = (
            torch.sigmoid((score - at - slope * error.clamp(max=c.max_back)) / scale)
            for at, slope, scale in (c.visible_fit, c.confident_fit)
        )
        sure = (score > c.update_score) & (error < c.update_back)
        state = replace(
            state,
            xy=xy,
            last=torch.where(sure[:, None, None], patch, state.last),
            fresh=torch.zeros_like(state.fresh),
            previous=features.map,
        )
        return state, StepOutput(self._to_pixels(xy, features.size), visibility, confidence)

    def _search(self, map: Tensor, template: Tensor, centre: Tensor, radius: int) -> Tensor:
        """Return where the (N, S, C) templates fit best within ``radius`` cells of ``centre``: (N, 2) cells."""
        parts = [
            self._search_chunk(map, t, p, radius)
            for t, p in zip(template.split(self.config.chunk), centre.split(self.config.chunk), strict=True)
        ]
        return torch.cat(parts) if parts else centre

    def _search_chunk(self, map: Tensor, template: Tensor, centre: Tensor, radius: int) -> Tensor:
        side = 2 * radius + 1
        origin = centre.round().long() - radius  # (N, 2) upper-left cell of the window
        clip = torch.zeros(len(centre), dtype=torch.long, device=map.device)
        cells = window(map[None], clip, origin - 1, side + 2)
        score = patch_scores(cells, template[:, None], self.patch_weights)[:, 0] / self.config.temperature
        h, w, _ = map.shape
        return origin + soft_argmax(score.masked_fill(~inside(origin, side, (h, w)), float("-inf")))

    def _patches(self, map: Tensor, cells: Tensor) -> Tensor:
        """Sample the 3x3 patches around (N, 2) positions in cells: (N, S, C), unit length, border repeated."""
        h, w, channels = map.shape
        where = cells[:, None] + self.patch_xy
        x = where[..., 0].clamp(0, w - 1)
        y = where[..., 1].clamp(0, h - 1)
        x0, y0 = x.floor().clamp(max=w - 2), y.floor().clamp(max=h - 2)
        fx, fy = (x - x0)[..., None], (y - y0)[..., None]
        flat, base = map.reshape(-1, channels), (y0 * w + x0).long()
        top = flat[base] * (1 - fx) + flat[base + 1] * fx
        bottom = flat[base + w] * (1 - fx) + flat[base + w + 1] * fx
        return F.normalize(top * (1 - fy) + bottom * fy, dim=-1)

    def _to_cells(self, xy: Tensor, size: geometry.Size) -> Tensor:
        return geometry.rescale(xy, size, self.config.input_size) / STRIDE - 0.5

    def _to_pixels(self, cells: Tensor, size: geometry.Size) -> Tensor:
        return geometry.rescale((cells + 0.5) * STRIDE, self.config.input_size, size)


def build(request: LoadRequest) -> LoadedModel:
    """Build the matcher with its packaged weights (see ``ptrack.models.zoo``)."""
    model = MatchingModel(MatchingConfig(), packaged_weights()).eval().to(request.device)
    return LoadedModel(model=model, weights_sha256=packaged_sha256())

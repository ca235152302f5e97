"""What nano knows of a frame and what it remembers of its points.

Letters: B clips, N points of all clips together, H W pixels of a frame as given, h w cells of stride 4, b more on every
side of a map, C channels, K templates, S = 9 cells of a patch, P cells of a stride-2 patch, D channels of a token, M
remembered frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import register_dataclass, tree_map

from ptrack import geometry
from ptrack.models.backbones.lite0 import FINE
from ptrack.models.layers.windows import PATCH, bilinear_window, patches
from ptrack.models.nano.config import NanoConfig

STRIDE = 4  # model pixels per cell
FIRST, LAST = 0, 1  # places among the templates: of the query frame, of the last confident frame
TEMPLATES = 2  # K
FINE_PATCH = 2  # half side of the stride-2 templates


def to_cells(xy: Tensor, size: geometry.Size, input_size: geometry.Size) -> Tensor:
    """Turn (N, 2) raster pixels of frames of ``size`` (H, W) into cells, whose centres are at whole numbers."""
    return geometry.rescale(xy, size, input_size) / STRIDE - 0.5


def to_pixels(cells: Tensor, size: geometry.Size, input_size: geometry.Size) -> Tensor:
    """Turn (N, 2) cells into raster pixels of frames of ``size`` (H, W)."""
    return geometry.rescale((cells + 0.5) * STRIDE, input_size, size)


@dataclass(frozen=True, slots=True)
class NanoFeatures:
    """All that the tracker needs of B frames."""

    map: Tensor  # (B, h + 2b, w + 2b, C) unit length per cell; border cells repeat: no window leaves it
    fine: Tensor  # (B, 2h, 2w, 16)
    grey: Tensor  # (B, H, W) grey values for the alignment, of large frames fewer; (B, 0, 0) if nothing is aligned
    size: tuple[int, int]  # (H, W) of the frames as given

    def __getitem__(self, i: int) -> NanoFeatures:
        one = slice(i, i + 1)
        return NanoFeatures(self.map[one], self.fine[one], self.grey[one], self.size)

    @property
    def cells(self) -> tuple[int, int]:
        """(h, w)."""
        return self.fine.shape[1] // 2, self.fine.shape[2] // 2

    @property
    def border(self) -> int:
        """b."""
        return (self.map.shape[1] - self.cells[0]) // 2

    @property
    def has_grey(self) -> bool:
        """Whether positions are aligned, and points on plain surfaces told from others; in exported graphs they may be.

        Not in training, nor in frames much smaller than the network's input.
        """
        return torch.compiler.is_exporting() or self.grey.numel() > 0

    @property
    def inner(self) -> Tensor:
        """The map without its border, (B, h, w, C)."""
        b, (h, w) = self.border, self.cells
        return self.map[:, b : b + h, b : b + w]

    def patches(self, clip: Tensor, cells: Tensor) -> Tensor:
        """Sample the patches (N, S, C) around (N, 2) cells of their clips' maps, each cell of unit length."""
        return patches(self.map, clip, cells, self.border)


@dataclass(frozen=True, slots=True)
class Templates:
    """How the points look, in several frames."""

    coarse: Tensor  # (N, K, S, C) patches of stride 4, unit length per cell
    fine: Tensor  # (N, K, P, P, 16) patches of stride 2

    @classmethod
    def cut(cls, frame: NanoFeatures, clip: Tensor, cells: Tensor) -> Templates:
        """Return the one template, K = 1, of every point at (N, 2) cells of its clip's frame."""
        fine = bilinear_window(frame.fine, clip, 2 * cells + 0.5, FINE_PATCH)
        return cls(frame.patches(clip, cells)[:, None], fine[:, None])

    def renewed(self, new: Templates, where: Tensor) -> Templates:
        """Put ``new``, K = 1, in the last one's place ``where`` (N,) bool; the first one is never forgotten."""

        def put(old: Tensor, last: Tensor) -> Tensor:
            chosen = torch.where(where.view(-1, *[1] * (old.ndim - 1)), last, old[:, LAST:])
            return torch.cat([old[:, :LAST], chosen], dim=1)

        return Templates(put(self.coarse, new.coarse), put(self.fine, new.fine))


@dataclass(frozen=True, slots=True)
class PointStates:
    """All that is remembered of N points."""

    xy: Tensor  # (N, 2) last positions in cells, cell centres at whole numbers
    velocity: Tensor  # (N, 2) cells per frame
    templates: Templates
    token: Tensor  # (N, D) of the last frame, after attention
    past: Tensor  # (N, M, D) tokens, newest first
    filled: Tensor  # (N, M) bool, which of them there are
    unseen: Tensor  # (N,) frames since it was last called visible
    own_motion: Tensor  # (N,) cells per frame by which it moved otherwise than the picture around it, while seen
    anchor: Tensor  # (N, 2) cells: where it was last sure to be, carried by the picture's motion since
    doubted: Tensor  # (N,) bool, not sure in the last frame
    shown: Tensor  # (N, 2) cells: ``xy`` after the alignment, what the user got
    shown_visible: Tensor  # (N,) bool, likely enough to be visible there to be aligned
    plain: Tensor  # (N,) 0..1, how plain the surface is that it was queried on
    added: Tensor  # (N,) bool, on the current frame, and not yet stepped

    @classmethod
    def at(cls, frame: NanoFeatures, clip: Tensor, cells: Tensor, config: NanoConfig) -> PointStates:
        """Return points as they start, at (N, 2) cells of their clip's frame."""
        n, device = cells.shape[0], cells.device
        template = Templates.cut(frame, clip, cells)
        zeros = template.coarse.new_zeros
        return cls(
            xy=cells,
            velocity=zeros(n, 2),
            templates=Templates(
                template.coarse.expand(-1, TEMPLATES, -1, -1),
                template.fine.expand(-1, TEMPLATES, -1, -1, -1),
            ),
            token=zeros(n, config.token),
            past=zeros(n, config.memory, config.token),
            filled=torch.zeros(n, config.memory, dtype=torch.bool, device=device),
            unseen=zeros(n),
            own_motion=zeros(n),
            anchor=cells,
            doubted=torch.zeros(n, dtype=torch.bool, device=device),
            shown=cells,
            shown_visible=torch.ones(n, dtype=torch.bool, device=device),
            plain=zeros(n),
            added=torch.ones(n, dtype=torch.bool, device=device),
        )

    @classmethod
    def none(cls, config: NanoConfig, device: torch.device) -> PointStates:
        """Return no points."""

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(0, *shape, device=device, dtype=dtype)

        side = 2 * FINE_PATCH + 1
        return cls(
            xy=empty(2),
            velocity=empty(2),
            templates=Templates(empty(TEMPLATES, len(PATCH), config.dim), empty(TEMPLATES, side, side, FINE)),
            token=empty(config.token),
            past=empty(config.memory, config.token),
            filled=empty(config.memory, dtype=torch.bool),
            unseen=empty(),
            own_motion=empty(),
            anchor=empty(2),
            doubted=empty(dtype=torch.bool),
            shown=empty(2),
            shown_visible=empty(dtype=torch.bool),
            plain=empty(),
            added=empty(dtype=torch.bool),
        )

    @property
    def age(self) -> Tensor:
        """(N, 1) share of the memory that is filled: how long a point has been tracked. 0 without a memory."""
        return self.filled.float().sum(1, keepdim=True) / max(1, self.filled.shape[1])

    def select(self, index: Tensor | slice) -> PointStates:
        """Return the points of ``index``, in that order."""
        return tree_map(lambda x: x[index], self)

    def combine(self, other: PointStates, of_two: Callable[[Tensor, Tensor], Tensor]) -> PointStates:
        """Combine every tensor of two sets of points."""
        return tree_map(of_two, self, other)

    def extended(self, other: PointStates) -> PointStates:
        """Return these points and behind them the others."""
        return self.combine(other, lambda a, b: torch.cat([a, b]))

    def replaced(self, other: PointStates, where: Tensor) -> PointStates:
        """Take the ``other`` points ``where`` (N,) bool."""
        return self.combine(other, lambda a, b: torch.where(where.view(-1, *[1] * (a.ndim - 1)), b, a))


@dataclass(frozen=True, slots=True)
class NanoState:
    """All that the tracker remembers."""

    points: PointStates
    previous: Tensor | None = None  # (B, h + 2b, w + 2b, C) map of the previous frame
    grey: Tensor | None = None  # (B, H, W) its grey values, as in ``NanoFeatures``


# Leaves in trees of tensors: states are mapped over, and captured by CUDA graphs, without naming their fields.
for _class in (NanoFeatures, Templates, PointStates, NanoState):
    register_dataclass(_class)

"""Settings of the online tracker. Every field is architecture: it decides the shapes or the meaning of the weights."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ptrack.errors import ConfigError
from ptrack.models.backbones.encoders import check_backbone
from ptrack.models.backbones.vit import VITS


@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """Architecture of Track-On2 (arXiv 2509.19115); the defaults are the published DINOv2 model.

    Raises:
        ConfigError: a value is out of its range or does not fit another.
    """

    backbone: str = "dinov2_s"  # see ``ptrack.models.backbones.encoders.BACKBONES``
    input_size: tuple[int, int] = (384, 512)  # (H, W) pixels every frame is stretched to
    strides: tuple[int, ...] = (4, 8, 16, 32)  # pixels per cell of the feature maps, each twice the one before
    dim: int = 256  # channels of every token (D), a multiple of 32
    heads: int = 4  # heads of every attention outside the encoder
    memory: int = 24  # remembered frames per point in training (M); inference may use any number
    candidates: int = 16  # cells that are looked at again (K)
    decoder_layers: int = 3  # rounds of frame, query and memory attention
    rerank_layers: int = 3  # deformable layers around the candidates
    head_layers: int = 3  # deformable layers of the offset head
    points: int = 4  # sampled positions per head and level of a deformable layer
    hidden: int = 1024  # channels inside the feed-forward layers
    vit_upsample: float = 1.0  # scale of the image that a DINO backbone sees; 1.143 with DINOv3's patches of 16
    delta_v: float = 0.8  # visibility probability from which a point counts as visible
    dropout: float = 0.1  # in training, in all attention and feed-forward layers
    memory_mask: float = 0.1  # in training, share of remembered frames hidden at random, per layer

    def __post_init__(self) -> None:
        check_backbone(self.backbone)
        whole = (
            "dim",
            "heads",
            "memory",
            "candidates",
            "decoder_layers",
            "rerank_layers",
            "head_layers",
            "points",
            "hidden",
        )
        for name in whole:
            self._require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("delta_v", "dropout", "memory_mask"):
            self._require(0 <= getattr(self, name) <= 1, f"{name} must lie in 0..1, not {getattr(self, name)}")
        self._require(self.dropout < 1 and self.memory_mask < 1, "dropout and memory_mask must be below 1")
        self._require(self.dim % 32 == 0, f"dim must be a multiple of 32 (groups of the group norms), not {self.dim}")
        self._require(self.dim % self.heads == 0, f"dim {self.dim} must be a multiple of heads {self.heads}")
        self._require(0.25 <= self.vit_upsample <= 4, f"vit_upsample must lie in 0.25..4, not {self.vit_upsample}")
        self._check_sizes()

    def _check_sizes(self) -> None:
        s = list(self.strides)
        good = len(s) >= 1 and set(s) <= {4, 8, 16, 32} and all(b == 2 * a for a, b in itertools.pairwise(s))
        self._require(good, f"strides must be neighbours among 4, 8, 16, 32, not {s}")
        deepest = 32 if self.backbone in VITS else s[-1]
        size = list(self.input_size)
        good = len(size) == 2 and all(n >= deepest and n % deepest == 0 for n in size)
        self._require(good, f"input_size must be two multiples of {deepest}, not {size}")
        cells = (size[0] // s[0]) * (size[1] // s[0])
        self._require(self.candidates <= cells, f"candidates {self.candidates} exceed the {cells} cells of the map")

    @staticmethod
    def _require(good: bool, sentence: str) -> None:
        if not good:
            raise ConfigError(f"Model configuration: {sentence}.")

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every feature map."""
        return tuple((self.input_size[0] // s, self.input_size[1] // s) for s in self.strides)


DINOV2 = OnlineConfig()
DINOV3 = OnlineConfig(backbone="dinov3_s_plus", vit_upsample=1.143)

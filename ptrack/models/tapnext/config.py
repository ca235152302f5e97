"""Settings of TAPNext. The published networks differ in ``input_size`` alone; the rest decides the weights' shapes."""

from __future__ import annotations

from dataclasses import dataclass

from ptrack.config import check_bounds
from ptrack.errors import ConfigError

WINDOW = 17  # bins per axis around a position whose probability is its confidence
WHERE = "Model configuration: "  # in front of every sentence


@dataclass(frozen=True, kw_only=True)
class TapNextConfig:
    """Architecture of TAPNext and TAPNext++; the defaults are the published network for 256x256 frames.

    Raises:
        ConfigError: a value is out of its range or does not fit another.
    """

    input_size: int = 256  # height and width in pixels that every frame is resized to
    raster: int = 256  # side of the space of queries and positions, and bins per coordinate, whatever the input size
    patch: int = 8  # pixels per side of an image token
    width: int = 768  # channels of a token and of its recurrent state (C)
    depth: int = 12  # blocks (L), each along time and then across the tokens of a frame
    heads: int = 12  # of the attention; also the diagonal blocks of the recurrence's gates
    hidden: int = 3072  # channels inside the feed-forward parts
    head_hidden: int = 256  # channels inside the two output heads
    conv_width: int = 4  # frames that the convolution along time sees
    temperature: float = 0.5  # factor on the coordinate logits before their softmax
    window: int = 20  # bins on either side of the best one that count for the position
    radius: float = 8.0  # pixels of the raster: the probability so near the position is the confidence
    threshold: float = 0.5  # visibility probability from which a point counts as visible, as published

    def __post_init__(self) -> None:
        counts = ("input_size", "patch", "width", "depth", "heads", "hidden", "head_hidden", "conv_width", "window")
        check_bounds(self, *counts, least=1, where=WHERE)
        check_bounds(self, "raster", least=WINDOW, where=WHERE)
        for name in ("input_size", "raster"):
            size = getattr(self, name)
            self._require(size % self.patch == 0, f"{name} {size} must be a multiple of patch {self.patch}")
        self._require(self.width % self.heads == 0, f"width {self.width} must be a multiple of heads {self.heads}")
        self._require(self.width % 4 == 0 and self.width >= 8, f"width must be a multiple of 4, not {self.width}")
        check_bounds(self, "threshold", above=0, below=1, where=WHERE)
        check_bounds(self, "radius", above=0, most=WINDOW // 2, where=WHERE)
        check_bounds(self, "temperature", above=0, where=WHERE)

    @staticmethod
    def _require(good: bool, sentence: str) -> None:
        if not good:
            raise ConfigError(f"{WHERE}{sentence}.")

    @property
    def grid(self) -> int:
        """Image tokens per side of a frame."""
        return self.input_size // self.patch

    @property
    def image_tokens(self) -> int:
        """Image tokens of a frame (n): 1024 at 256x256, 4096 at 512x512."""
        return self.grid**2

    @property
    def native_grid(self) -> int:
        """Image tokens per side that the position embedding was trained for."""
        return self.raster // self.patch

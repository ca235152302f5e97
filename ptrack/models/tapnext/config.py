"""Settings of TAPNext. The published networks differ in ``input_size`` alone; the rest decides the weights' shapes."""

from __future__ import annotations

from dataclasses import dataclass

from ptrack.errors import ConfigError

WINDOW = 17  # bins per axis around a position whose probability is its confidence


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
        for name in ("input_size", "patch", "width", "depth", "heads", "hidden", "head_hidden", "conv_width", "window"):
            self._require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}")
        self._require(self.raster >= WINDOW, f"raster must be at least {WINDOW}, not {self.raster}")
        for name in ("input_size", "raster"):
            size = getattr(self, name)
            self._require(size % self.patch == 0, f"{name} {size} must be a multiple of patch {self.patch}")
        self._require(self.width % self.heads == 0, f"width {self.width} must be a multiple of heads {self.heads}")
        self._require(self.width % 4 == 0 and self.width >= 8, f"width must be a multiple of 4, not {self.width}")
        self._require(0 < self.threshold < 1, f"threshold must lie between 0 and 1, not {self.threshold}")
        self._require(0 < self.radius <= WINDOW // 2, f"radius must lie in 0..{WINDOW // 2}, not {self.radius}")
        self._require(self.temperature > 0, f"temperature must be positive, not {self.temperature}")

    @staticmethod
    def _require(good: bool, sentence: str) -> None:
        if not good:
            raise ConfigError(f"Model configuration: {sentence}.")

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

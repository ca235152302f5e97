"""What the synthetic world may contain: the configuration of clips that are made on the spot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ptrack.config import check_bounds
from ptrack.data.synthetic.motion import CAMERA_KINDS
from ptrack.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Size, mix and sources of synthetic clips. Effects are probabilities per clip; 0 switches one off.

    Raises:
        ConfigError: a value is outside its range.
    """

    frames: int = 24  # T
    height: int = 256  # pixels
    width: int = 256  # pixels
    points: int = 256  # N per clip
    supersampling: float = 1.5  # rendered pixels per pixel, along each side
    split: str = "train"  # "train", "val" (other actors, other photos) or "all"
    seed: int = 0  # another seed gives other clips
    actors_dir: str | None = None  # folder with more actors (.npz)
    textures_dir: str | None = None  # folder with more photos
    max_faces: int = 15_000  # faces of the actors and things of one clip
    pace: float = 1.0  # factor of all speeds; 1 gives a median of 1-3 px/frame at 256 px
    procedural_share: float = 0.2  # share of textures that are patterns, not photos
    cameras: tuple[str, ...] = CAMERA_KINDS  # kinds of camera motion
    occluders: float = 0.3  # something crosses close to the camera
    repeated_texture: float = 0.1  # all objects wear the same texture
    frame_rate_change: float = 1.0  # other frame rates, repeated and skipped frames
    light_change: float = 1.0  # of the light's direction and strength, in a third of these clips
    shadows: float = 0.6  # cast on the floor
    specular: float = 1.0  # highlights, on a third of the objects of these clips
    fog: float = 0.12
    motion_blur: float = 0.3
    defocus: float = 0.15
    blur: float = 0.15  # the whole picture
    exposure: float = 0.5  # gain, white balance and gamma, changing over time
    noise: float = 0.5
    compression: float = 0.4  # block transform coding

    def __post_init__(self) -> None:
        for name, low in (("frames", 2), ("height", 16), ("width", 16), ("points", 1), ("max_faces", 100), ("seed", 0)):
            check_bounds(self, name, least=low, where="Synthetic clips: ")
        check_bounds(self, "supersampling", least=1, most=4, where="Synthetic clips: ")
        check_bounds(self, *PROBABILITIES, least=0, most=1, where="Synthetic clips: ")
        if self.split not in ("train", "val", "all"):
            raise ConfigError(f"Synthetic clips: split must be train, val or all, not '{self.split}'.")
        if not self.cameras or set(self.cameras) - set(CAMERA_KINDS):
            raise ConfigError(f"Synthetic clips: cameras must be some of {', '.join(CAMERA_KINDS)}.")


CAMERA_EFFECTS = ("fog", "motion_blur", "defocus", "blur", "exposure", "noise", "compression")
WORLD = (
    "occluders",
    "repeated_texture",
    "frame_rate_change",
    "light_change",
    "shadows",
    "specular",
    "procedural_share",
)
PROBABILITIES = (*CAMERA_EFFECTS, *WORLD)


def without_effects(config: SyntheticConfig) -> SyntheticConfig:
    """Return the configuration of the same clips, drawn clean: no blur, noise, fog, compression or change of light."""
    off: dict[str, Any] = dict.fromkeys((*CAMERA_EFFECTS, "light_change", "specular", "shadows"), 0.0)
    return replace(config, **off)

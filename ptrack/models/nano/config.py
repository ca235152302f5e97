"""What a nano network is: sizes, search windows and the constants of its training-free start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ptrack.config import check_bounds
from ptrack.errors import ConfigError

SMALLEST = {
    "dim": 4,
    "radius": 2,
    "iterations": 0,
    "reach": 1,
    "fine_reach": 1,
    "hidden": 8,
    "token": 8,
    "memory": 0,
    "back_radius": 2,
}


@dataclass(frozen=True, kw_only=True)
class NanoConfig:
    """Architecture of nano.

    Raises:
        ConfigError: a value is outside its range.
    """

    RENAMED: ClassVar = {"carry_apart": "own_motion", "judged": "learned_renewal"}  # as older files call fields

    input_size: tuple[int, int] = (384, 512)  # (H, W) every frame is resized to, multiples of 16
    dim: int = 96  # channels of the stride-4 map; 176 without a projection
    project: bool = True  # the joined features are projected to ``dim`` channels; False: they are the map
    centre: bool = True  # take the frame's mean off the map
    tune: bool = False  # the projection of the features is trained, too
    radius: int = 8  # search window around the last position, in cells of stride 4
    wide_radius: int = 16  # window of points that moved fast, in cells; 0: none has one
    wide_speed: float = 3.0  # cells per frame from which a point is fast
    temperature: float = 1 / 22  # of the soft-argmax, in units of the score
    patch_sigma: float = 1.0  # of the Gaussian over the 3x3 patch, in cells
    iterations: int = 2  # of the local refinement; 0: the coarse position is final
    reach: int = 3  # half side of the local window, in cells
    fine_reach: int = 3  # half side of the stride-2 window, in its cells
    hidden: int = 256  # width of the refinement MLP
    token: int = 64  # channels of what is remembered per frame
    memory: int = 12  # remembered frames per point; 0: none
    back_radius: int = 4  # search window of the backward check, in cells
    learned_renewal: bool = True  # the last template is renewed where the network is sure; False: by the two rules
    renew_visible: float = 0.5  # probability of "visible" from which it is renewed
    renew_confident: float = 0.7  # and of "position right"
    update_score: float = 0.4  # first rule: query-template score from which it is renewed
    update_back: float = 2.0  # second rule: backward error below which it is renewed, in cells
    carry: float = 0.5  # probability of "visible" below which the picture's motion carries a point; 0: none is carried
    own_motion: float = 1.0  # cells per frame: for a point that moved otherwise by so much, half that probability
    sure: float = 0.6  # probability of "position right" below which a visible point is doubted: it is also searched for
    # where the picture carried it since it was last sure; 0: it never is
    closer: bool = True  # positions are aligned with the previous frame at the source's resolution
    # Logistic fits of the training-free start on 24 rendered clips, 35,328 point-frames: P(visible) and P(within 8 px
    # at 256x256) from the score s and the backward error e in cells, 1 / (1 + exp(-(s - score - back * e) / scale)).
    visible_fit: tuple[float, float, float] = (0.492, 0.0265, 0.086)  # score, back, scale
    confident_fit: tuple[float, float, float] = (0.527, 0.0638, 0.0832)
    threshold: float = 0.5  # visibility probability from which a point counts as visible

    @property
    def border(self) -> int:
        """b: cells by which the windows of points at the border reach beyond the map."""
        return max(self.radius, self.wide_radius, self.back_radius) + 1

    def __post_init__(self) -> None:
        if any(s % 16 or s < 32 for s in self.input_size):
            raise ConfigError(f"input_size {self.input_size} must be multiples of 16, at least 32.")
        for name, low in SMALLEST.items():
            check_bounds(self, name, least=low)
        if 0 < self.wide_radius < self.radius:
            raise ConfigError(f"wide_radius must be 0 or at least radius ({self.radius}), not {self.wide_radius}.")
        check_bounds(self, "carry", "sure", least=0, below=1)
        check_bounds(self, "own_motion", above=0)
        check_bounds(self, "threshold", above=0, below=1)

"""The settings of drawn tracks: sizes, trails, occluded points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ptrack.config import check_bounds
from ptrack.errors import ConfigError

_REFERENCE = 480.0  # the frame side at which the default sizes below are meant in pixels
OCCLUDED = ("brief", "always", "never")


@dataclass(frozen=True, kw_only=True)
class OverlayStyle:
    """How tracks look. Sizes left at None follow the frame's shorter side and shrink when there are many points."""

    trail: int = 12  # frames of the past that are drawn, 0 for none
    reach: float | None = 0.25  # length at which a trail has faded, of the frame's shorter side; None: any length
    width: float | None = None  # pixels, of a trail
    radius: float | None = None  # pixels, of a point
    fade: float = 1.0  # how much of its opacity a trail has lost at its old end, 0 to 1
    opacity: float = 0.9  # of a trail at its new end, 0 to 1
    occluded: str = "brief"  # occluded points as rings: fading over ``linger`` frames, always, or never
    linger: int = 8  # frames for which an occluded point is drawn when ``occluded`` is "brief"
    outline: bool = True  # a dark rim that keeps points and trails readable on light and busy ground

    def __post_init__(self) -> None:
        if self.occluded not in OCCLUDED:
            raise ConfigError(f"occluded must be one of {', '.join(OCCLUDED)}, not {self.occluded}.")
        check_bounds(self, "trail", "linger", least=0)
        check_bounds(self, "fade", "opacity", least=0, most=1)
        check_bounds(self, "width", "radius", "reach", above=0)

    @property
    def history(self) -> int:
        """Frames before the drawn one that its picture depends on."""
        return max(self.trail, self.linger if self.occluded == "brief" else 0)

    def sizes(self, height: int, width: int, points: int) -> tuple[float, float]:
        """Return (trail width, point radius) in pixels for a frame of this size with so many points."""
        scale = min(height, width) / _REFERENCE
        scale = max(scale, np.sqrt(scale))  # in small pictures points would otherwise be too small to see
        room = 0.2 * np.sqrt(height * width / max(points, 1))  # a fifth of the distance in an even grid
        radius = self.radius or float(np.clip(3.6 * scale, 1.2, max(1.2, room)))
        return self.width or max(0.8, 0.5 * radius), radius


def overlay_style(trail: int | None = None, occluded: bool | None = None, **more: Any) -> OverlayStyle:
    """Return the style for what a user asked for; None leaves the standard look.

    Args:
        trail: frames. A length that is asked for is drawn whole, however far the point moved meanwhile.
        occluded: draw occluded points always (True) or never (False).
        more: further fields of ``OverlayStyle``.

    Raises:
        ConfigError: a value out of range.
    """
    asked: dict[str, Any] = {} if trail is None else {"trail": trail, "reach": None}
    if occluded is not None:
        asked["occluded"] = "always" if occluded else "never"
    return OverlayStyle(**asked, **more)

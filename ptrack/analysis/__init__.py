"""What people do with tracks: cleaning, jumps worth a look, measuring with units, planes and corner pins.

Plain functions over ``Tracks``: they return data, print nothing and never change their arguments.
"""

from __future__ import annotations

from ptrack.analysis.cleaning import CleanConfig, CleanReport, clean
from ptrack.analysis.jumps import Jump, JumpConfig, JumpReport, find_jumps
from ptrack.analysis.measuring import MeasureConfig, Measures, Scale, measure, scale_of_distance, summary
from ptrack.analysis.planar import PlanarConfig, Plane, corner_pin, plane

__all__ = [
    "CleanConfig",
    "CleanReport",
    "Jump",
    "JumpConfig",
    "JumpReport",
    "MeasureConfig",
    "Measures",
    "PlanarConfig",
    "Plane",
    "Scale",
    "clean",
    "corner_pin",
    "find_jumps",
    "measure",
    "plane",
    "scale_of_distance",
    "summary",
]

"""What people do with tracks: cleaning, jumps worth a look, measuring with units, planes, corner pins; frames to label.

Plain functions over ``Tracks``, and one over a video: they return data, print nothing and never change their arguments.
"""

from __future__ import annotations

from ptrack.analysis.cleaning import CleanConfig, CleanReport, clean
from ptrack.analysis.jumps import Jump, JumpConfig, JumpReport, find_jumps
from ptrack.analysis.measuring import MeasureConfig, Measures, Scale, measure, scale_of_distance, summary
from ptrack.analysis.planar import PlanarConfig, Plane, corner_pin, plane
from ptrack.analysis.suggesting import SuggestConfig, Suggestion, SuggestReport, suggest_frames

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
    "SuggestConfig",
    "SuggestReport",
    "Suggestion",
    "clean",
    "corner_pin",
    "find_jumps",
    "measure",
    "plane",
    "scale_of_distance",
    "suggest_frames",
    "summary",
]

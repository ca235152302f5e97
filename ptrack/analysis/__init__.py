"""What people do with tracks: cleaning, jumps worth a look, measuring with units, planes and corner pins.

Plain functions over ``Tracks``: they return data, print nothing and never change their arguments.
"""

from __future__ import annotations

from ptrack.analysis.clean import CleanConfig, CleanReport, clean
from ptrack.analysis.jumps import Jump, JumpConfig, JumpReport, find_jumps

__all__ = ["CleanConfig", "CleanReport", "Jump", "JumpConfig", "JumpReport", "clean", "find_jumps"]

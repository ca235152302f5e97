"""A world of textured, moving triangle meshes, rendered in plain torch, with exact tracks and visibility."""

from __future__ import annotations

from ptrack.data.synthetic.config import SyntheticConfig, without_effects
from ptrack.data.synthetic.source import SyntheticBatch, clips, generate

__all__ = ["SyntheticBatch", "SyntheticConfig", "clips", "generate", "without_effects"]

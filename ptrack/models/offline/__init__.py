"""The offline tracker: ResNet features and a transformer over windows of frames."""

from __future__ import annotations

from ptrack.models.offline.model import PointTransformer, TransformerConfig
from ptrack.models.offline.streaming import StreamingTransformer

__all__ = ["PointTransformer", "StreamingTransformer", "TransformerConfig"]

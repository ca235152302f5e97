"""``matching``: nano before any training, and the baseline that every trained model must beat.

Each point carries two templates, patches of 3x3 cells of frozen ImageNet features: one from its query frame, one from
the last frame in which it was surely seen. In a new frame the mean of both is compared with every cell of a window
around the last position; the position is a soft-argmax around the best cell. Visibility comes from the score of the
query template and from tracking the new position back into the previous frame, by two logistic fits.
"""

from __future__ import annotations

from ptrack.models.backbones.lite0 import TAPS, packaged_sha256, packaged_weights
from ptrack.models.entry import LoadedModel, LoadRequest
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.model import Nano

MATCHING = NanoConfig(
    dim=sum(TAPS.values()),
    project=False,
    centre=False,
    wide_radius=0,
    temperature=1 / 30,
    iterations=0,
    memory=0,
    learned_renewal=False,
    carry=0,
    sure=0,
    closer=False,
)


def build(request: LoadRequest) -> LoadedModel:
    """Build the matcher with its packaged weights (see ``ptrack.models.zoo``)."""
    model = Nano(MATCHING, packaged_weights(), name="matching").eval().to(request.device)
    return LoadedModel(model=model, weights_sha256=packaged_sha256())

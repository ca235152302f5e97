"""Tracking scores of a batch as plain sums, so that they add up exactly over batches and processes.

The thresholds are TAP-Vid's (arXiv 2211.03726): 1, 2, 4, 8 and 16 px at the 256-pixel scale. Frames after the query
frame count; positions count where the point is visible.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ptrack.data.samples import TrainingBatch
from ptrack.training.systems import PredictedTracks, System

THRESHOLDS = (1, 2, 4, 8, 16)
SUMS = 2 * len(THRESHOLDS) + 6  # see `score_sums`


def score_sums(prediction: PredictedTracks, batch: TrainingBatch, threshold: float) -> Tensor:
    """Return (16,) float64 sums: points within each threshold, true positives at each, visible points, called visible,
    frames classified correctly as visible or hidden, all frames, error in pixels, finite ones.
    """
    H, W = batch.size
    scale = batch.tracks.new_tensor([256.0 / W, 256.0 / H])
    t = torch.arange(batch.tracks.shape[1], device=batch.tracks.device)[None, :, None]
    judged = (t > batch.query_time[:, None]) & batch.valid
    visible = judged & batch.visibility
    called = judged & (prediction.visibility >= threshold)
    error = ((prediction.xy - batch.tracks) * scale).norm(dim=-1).nan_to_num(1e6, posinf=1e6)
    near = [error < limit for limit in THRESHOLDS]
    sums = [(visible & n).sum() for n in near] + [(visible & called & n).sum() for n in near]
    sums += [visible.sum(), called.sum(), (judged & (called == visible)).sum(), judged.sum()]
    sums += [torch.where(visible, error, torch.zeros_like(error)).sum(), (visible & (error < 1e6)).sum()]
    return torch.stack([s.double() for s in sums])


def scores(sums: Tensor) -> dict[str, float]:
    """Return percentages and the mean error from sums of :func:`score_sums`.

    ``delta_avg``: share of visible points within the thresholds, averaged over them. ``occlusion_accuracy``: share of
    frames classified correctly. ``jaccard``: TAP-Vid's Average Jaccard, over all points together instead of per video.
    ``error``: mean distance in pixels of the 256-pixel scale.
    """
    values = sums.tolist()
    n = len(THRESHOLDS)
    within, true = values[:n], values[n : 2 * n]
    visible, called, right, judged, error, _ = values[2 * n :]
    jaccard = [tp / max(1.0, visible + called - tp) for tp in true]
    return {
        "delta_avg": 100 * sum(within) / n / max(1.0, visible),
        "occlusion_accuracy": 100 * right / max(1.0, judged),
        "jaccard": 100 * sum(jaccard) / n,
        "error": error / max(1.0, visible),
    }


@torch.no_grad()
def validate(system: System, batches: Iterable[TrainingBatch]) -> Tensor:
    """Return the sums over some batches, with the system in evaluation mode; its mode is restored."""
    device = next(system.parameters()).device
    total = torch.zeros(SUMS, dtype=torch.float64, device=device)
    with system.evaluating():
        for batch in batches:
            batch = batch.to(device)
            total += score_sums(system.predict(batch), batch, system.threshold)
    return total

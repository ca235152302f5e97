"""What follows from stage 5 of nano, the judgement: which points moved where, and what is reported of them.

Letters: N points of all clips together, h w cells of stride 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ptrack import geometry
from ptrack.models.layers.windows import constant
from ptrack.models.nano.alignment import align
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.layers import LONG
from ptrack.models.nano.motion import PointMotion
from ptrack.models.nano.state import NanoFeatures, NanoState, PointStates, to_cells, to_pixels

RECENT = 0.9  # share of what was, in running means
VISIBLE_PER_RIGHT = 5.0  # "visible" is at most so many times as likely as "position right"
LEFT_BEHIND = 0.05  # widths of the picture between a point and its anchor outside from which the point may have left
ALIGNED_FROM = 0.3  # probability of "visible" from which positions are aligned, in both frames
SMALLER = 2  # frames with fewer pixels than the network's input by more than this hold nothing finer
ALIGNED_REACH = 0.8  # cells by which the alignment may correct the network
ALIGNED_SHARE = 0.9  # of the position it finds; the network's rest keeps alignments from drifting


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is thought of the positions that were found."""

    visibility_logit: Tensor  # (N,)
    confidence_logit: Tensor  # (N,)
    renew: Tensor  # (N,) bool, the last template may be renewed
    seen: Tensor  # (N,) bool, the point is where it was found; else the picture carries it
    sure: Tensor  # (N,) bool, there is no doubt that it is there


def visible_probability(points: PointStates, frame: NanoFeatures, verdict: Verdict, config: NanoConfig) -> Tensor:
    """Return the probability of "visible" (N,) that the user gets: bounded by that of "position right".

    A place that is hardly right is not where the point is seen. Of a point that the picture seems to have left,
    because it carried the anchor out of itself while something else was found far from it, "visible" is at most as
    likely as "right": on seven panning clips 17 % of the points that had left were called visible without this.
    """
    visible, right = verdict.visibility_logit.sigmoid(), verdict.confidence_logit.sigmoid()
    if not config.sure:
        return visible
    h, w = frame.cells
    outside = ((points.anchor < -0.5) | (points.anchor > constant((w - 0.5, h - 0.5), points.xy.device))).any(1)
    left = points.doubted & outside & ((points.xy - points.anchor).norm(dim=1) > LEFT_BEHIND * w)
    return torch.minimum(visible, torch.where(left, right, VISIBLE_PER_RIGHT * right))


def moved_points(
    points: PointStates, found: Tensor, steady: Tensor, motion: PointMotion, anchor: Tensor, verdict: Verdict
) -> PointStates:
    """Move points to where they were found (N, 2), steadied (N, 2), or, where they are not seen, with the picture.

    Their own motion is that of where they were found: of a plain thing that moves the steadied place tells nothing.
    """
    seen, started = verdict.seen, ~points.added
    xy = torch.where(seen[:, None], steady, points.xy + motion.shift)
    own = torch.lerp((found - points.xy - motion.shift).norm(dim=1), points.own_motion, RECENT)
    return replace(
        points,
        xy=xy,
        velocity=torch.where(points.added[:, None], 0.0, xy - points.xy),
        unseen=torch.where(seen, 0.0, (points.unseen + 1).clamp(max=LONG)),
        own_motion=torch.where(seen & started, own, points.own_motion),
        anchor=torch.where(verdict.sure[:, None], xy, anchor),
        doubted=~verdict.sure,
    )


@torch.no_grad()
def aligned_points(
    moved: PointStates, before: NanoState, frame: NanoFeatures, clip: Tensor, verdict: Verdict, config: NanoConfig
) -> PointStates:
    """Align what is likely visible with the previous frame; the rest is shown where the network has it."""
    visible = verdict.visibility_logit.sigmoid() >= ALIGNED_FROM
    moved = replace(moved, shown=moved.xy, shown_visible=visible)
    if before.grey is None or not _comparable(before.grey, frame.grey, clip, config):
        return moved
    points, sizes = before.points, (frame.size, config.input_size)
    guess = points.shown + moved.xy - points.xy
    near = (guess - moved.xy).norm(dim=1, keepdim=True) < ALIGNED_REACH
    guess = torch.where(near, guess, moved.xy)
    start, guess = (to_pixels(xy, *sizes) for xy in (points.shown, guess))
    aligned = align(before.grey, frame.grey, clip, start, guess, frame.size)
    xy = to_cells(aligned.xy, *sizes)
    taken = aligned.textured & visible & points.shown_visible & verdict.seen & ~points.added
    taken &= (xy - moved.xy).norm(dim=1) < ALIGNED_REACH
    if torch.compiler.is_exporting():  # frames of any size: the graph asks for theirs
        taken &= holds_detail(frame.size, config)
    return replace(moved, shown=torch.where(taken[:, None], torch.lerp(moved.xy, xy, ALIGNED_SHARE), moved.xy))


def holds_detail(size: geometry.Size, config: NanoConfig) -> Tensor:
    """Return whether frames of ``size`` (H, W) are not much smaller than the input, for graphs."""
    return torch.full((), config.input_size[0] * config.input_size[1]) <= SMALLER * size[0] * size[1]


def _comparable(before: Tensor, after: Tensor, clip: Tensor, config: NanoConfig) -> bool:
    """Return whether there is anything to align; in exported graphs there always may be."""
    if torch.compiler.is_exporting():
        return config.closer
    return before.shape == after.shape and after.numel() > 0 and len(clip) > 0


def is_aligned(size: geometry.Size, config: NanoConfig) -> bool:
    """Return whether frames of ``size`` (H, W) are not much smaller than the input, and nothing is trained."""
    if torch.compiler.is_exporting():  # the graph asks for the size
        return config.closer
    h, w = config.input_size
    return config.closer and SMALLER * size[0] * size[1] >= h * w and not torch.is_grad_enabled()

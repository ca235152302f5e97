"""Points on plain surfaces: walls, skies, ceilings. What they look like does not say where they are.

Their patch fits many cells about as well, so the best one wanders with the noise of the video: on judo's ceiling by up
to 100 px. The mean of many frames is right all the same, so such a point moves with the picture around it, and a small
share of every frame's finding corrects it: a filter whose gain follows from how plain the surface is. What is found far
from there is more than noise, and counts; and where what is found keeps going its own way, the point is on something
that moves, and is no longer held: held firmly, points of flat discs fell 12 to 30 px behind them.

Letters: B clips, N points, V side of the search window.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ptrack.models.nano.alignment import texture
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.judgement import holds_detail
from ptrack.models.nano.matcher import PatchMatcher, nearest_cell, nobody
from ptrack.models.nano.motion import PictureMotion
from ptrack.models.nano.state import NanoFeatures, PointStates, to_pixels

SHARPNESS = 35.0  # of the scores, about that of the search: 22 times what the network makes of it on plain surfaces
UNIQUE, PLAIN = 0.2, 0.3  # entropies (0 one cell, 1 the whole window) of a patch that is no other's, and of a plain one
TEXTURE = 1e-5  # of the source's pixels, which the alignment can follow: there a point is half as plain
HELD = 0.95  # share of the picture's motion against what was found, on plain surfaces
NOISE = 4.0  # cells between both at which that share is half as large
OWN = 0.3  # cells per frame by which a point moves otherwise than the picture, at which it counts as half as plain


@torch.no_grad()
def plainness(matcher: PatchMatcher, frame: NanoFeatures, clip: Tensor, cells: Tensor, config: NanoConfig) -> Tensor:
    """Return how plain the surface at (N, 2) cells of their clips' frames is: (N,) 0..1.

    It is 0 in frames much smaller than the network's input: enlarged, everything there looks plain.
    """
    if nobody(clip) or not config.closer or not frame.has_grey:
        return torch.zeros_like(cells[:, 0])
    patch, centre = frame.patches(clip, cells), nearest_cell(cells, frame.cells)
    scores = matcher.search(patch, frame.map, clip, centre, config.radius)[0].flatten(1)
    entropy = torch.special.entr((scores * SHARPNESS).softmax(1)).sum(1) / math.log(scores.shape[1])
    alike = ((entropy - UNIQUE) / (PLAIN - UNIQUE)).clamp(0, 1)
    found = texture(frame.grey, clip, to_pixels(cells, frame.size, config.input_size), frame.size)
    plain = alike / (1 + (found / TEXTURE).square())
    return plain * holds_detail(frame.size, config) if torch.compiler.is_exporting() else plain


def undecided(points: PointStates) -> Tensor:
    """Return how plain points are (N,), 0..1; those that went their own way have shown that they can be found."""
    return points.plain / (1 + (points.own_motion / OWN).square())


@torch.no_grad()
def steadied(points: PointStates, found: Tensor, picture: PictureMotion | None, clip: Tensor) -> Tensor:
    """Return where points were found (N, 2), those on plain surfaces mostly where the picture's motion took them.

    Points that were not seen in the last frame are left where they were found again.
    """
    if picture is None:
        return found
    held = points.xy + picture.near_unique(clip, points.xy).shift
    share = HELD * undecided(points) / (1 + (found - held).square().sum(1) / NOISE**2)
    share = torch.where(points.added | (points.unseen > 0), 0.0, share)
    return torch.lerp(found, held, share[:, None])

"""Points on plain surfaces move with the picture around them."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from ptrack.models.nano import motion, weights
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.judgement import Verdict, moved_points
from ptrack.models.nano.model import Nano
from ptrack.models.nano.motion import PictureMotion, PointMotion, uniqueness
from ptrack.models.nano.plain import steadied
from ptrack.models.nano.search import Search
from ptrack.models.nano.state import PointStates

SIZE = (96, 128)
CONFIG = NanoConfig(input_size=SIZE, dim=32, hidden=32, token=16, memory=4)
PLAIN, TEXTURED = [96.0, 48.0], [30.0, 48.0]  # pixels of the picture below


def picture() -> np.ndarray:
    """Texture on the left, a wall with the noise of a camera on the right: (H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    grey = 128 + rng.normal(0, 1.0, SIZE)
    grey[:, :60] += np.kron(rng.uniform(-100, 100, (24, 15)), np.ones((4, 4)))
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def model() -> Nano:
    torch.manual_seed(0)
    return weights.untrained(CONFIG).eval()


def plain_of(model: Nano, frame: np.ndarray, places: list[list[float]]) -> Tensor:
    features = model.encode(torch.from_numpy(frame)[None])[0]
    return model.add(model.init_state(), features, torch.tensor(places)).points.plain


def test_a_wall_is_plain_and_texture_is_not(model):
    wall, texture = plain_of(model, picture(), [PLAIN, TEXTURED]).tolist()
    assert wall > 0.9
    assert texture < 0.01


def test_a_point_is_as_plain_in_company_as_alone(model):
    together = plain_of(model, picture(), [PLAIN, TEXTURED, [64.0, 20.0]])
    alone = torch.cat([plain_of(model, picture(), [place]) for place in (PLAIN, TEXTURED, [64.0, 20.0])])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_nothing_is_plain_in_frames_much_smaller_than_the_input(model):
    assert plain_of(model, picture()[::2, ::2], [[48.0, 24.0]]).tolist() == [0.0]


def points(plain: list[float], **changes: Tensor) -> PointStates:
    """Points at (10, 10) cells, seen in the last frame."""
    n = len(plain)
    none = PointStates.none(CONFIG, torch.device("cpu"))
    zeros = torch.zeros(n)
    values = {"xy": torch.full((n, 2), 10.0), "plain": torch.tensor(plain), "unseen": zeros, "own_motion": zeros}
    return dataclasses.replace(none, **values | {"added": torch.zeros(n, dtype=torch.bool)} | changes)


def moving(shift: tuple[float, float]) -> PictureMotion:
    place = motion.grid((24, 32), torch.device("cpu"))
    ones = torch.ones(1, len(place))
    return PictureMotion(place, torch.tensor(shift).expand(1, len(place), 2), ones, ones, (24, 32))


def test_plain_points_move_with_the_picture_and_others_to_where_they_were_found():
    found = torch.tensor([[10.5, 10.0], [10.5, 10.0]])
    xy = steadied(points([0.0, 1.0]), found, moving((0.0, 0.5)), torch.zeros(2, dtype=torch.long))
    assert xy[0].tolist() == [10.5, 10.0]
    torch.testing.assert_close(xy[1], torch.tensor([10.0, 10.5]), atol=0.1, rtol=0)


def test_what_is_found_far_away_counts_more():
    """Something plain that moves on its own is not left: the way behind it grows until it is more than noise."""
    clip = torch.zeros(1, dtype=torch.long)
    state, gap = points([1.0]), []
    for t in range(1, 40):
        xy = steadied(state, torch.tensor([[10.0 + t, 10.0]]), moving((0.0, 0.0)), clip)
        gap.append(10.0 + t - float(xy[0, 0]))
        state = dataclasses.replace(state, xy=xy)
    assert max(gap) < 4.0


def test_a_point_of_something_plain_that_keeps_moving_is_soon_held_no_longer():
    """At 0.2 cells a frame; judged by where it was held, not by where it was found, it fell 1 cell behind."""
    clip, ones = torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.bool)
    verdict = Verdict(torch.ones(1), torch.ones(1), ones, ones, ones)
    state, gap = points([1.0], anchor=torch.full((1, 2), 10.0), velocity=torch.zeros(1, 2)), []
    for t in range(1, 40):
        found = torch.tensor([[10.0 + 0.2 * t, 10.0]])
        steady = steadied(state, found, moving((0.0, 0.0)), clip)
        state = moved_points(state, found, steady, PointMotion.still(state.xy), state.anchor, verdict)
        gap.append(float((found - state.xy).norm()))
    assert max(gap[10:]) < 0.3


def test_what_went_its_own_way_is_found_where_it_is():
    found, clip = torch.tensor([[11.0, 10.0]]), torch.zeros(1, dtype=torch.long)
    still, own = (
        steadied(points([1.0], own_motion=torch.tensor([speed])), found, moving((0.0, 0.0)), clip)
        for speed in (0.0, 3.0)
    )
    assert float(still[0, 0]) < 10.2
    assert float(own[0, 0]) > 10.9


def test_points_that_were_not_seen_and_new_ones_stay_where_they_were_found():
    found, clip = torch.tensor([[11.0, 10.0]]), torch.zeros(1, dtype=torch.long)
    for change in ({"unseen": torch.ones(1)}, {"added": torch.ones(1, dtype=torch.bool)}):
        assert torch.equal(steadied(points([1.0], **change), found, moving((0.0, 0.0)), clip), found)
    assert steadied(points([1.0]), found, None, clip) is found


def test_the_picture_moves_as_unique_places_do():
    place = motion.grid((24, 32), torch.device("cpu"))
    left = place[:, 0] < 16
    shift = torch.where(left[:, None], torch.tensor([1.0, 0.0]), torch.tensor([0.0, -2.0]))[None]
    picture = PictureMotion(place, shift, torch.ones(1, len(place)), torch.where(left, 0.3, 0.0)[None], (24, 32))
    right, clip = torch.tensor([[28.0, 12.0]]), torch.zeros(1, dtype=torch.long)
    torch.testing.assert_close(picture.near_unique(clip, right).shift, torch.tensor([[1.0, 0.0]]), atol=0.05, rtol=0)
    assert float(picture.near(clip, right).shift[0, 0]) < 0.1


def test_a_peak_is_as_unique_as_it_stands_out_two_cells_from_it():
    scores = torch.full((2, 7, 7), 0.5)
    scores[:, 0, 3] = 1.0  # at the border: cells outside do not count
    scores[1, 2, 4] = 0.75
    scores[1, 0, 4] = 0.9  # its neighbour belongs to it
    torch.testing.assert_close(uniqueness(scores), torch.tensor([0.5, 0.25]))


def test_plain_points_are_searched_for_near_the_expected_place(model):
    """Equal to the eye, a place far from the expected one scores less."""
    features = model.encode(torch.from_numpy(picture())[None])[0]
    clip = torch.zeros(1, dtype=torch.long)
    search = Search(CONFIG, model.matcher, model.steer, features, clip)
    added = model.add(model.init_state(), features, torch.tensor([PLAIN])).points
    logits = []
    for plain in (0.0, 1.0):
        state = dataclasses.replace(added, plain=torch.tensor([plain]))
        logits.append(search.find(state, state.xy, state.xy).logits[0].detach())
    lower = logits[0] - logits[1]
    assert float(lower[8, 8]) < 0.1
    assert float(lower[8, 2]) > 1.0

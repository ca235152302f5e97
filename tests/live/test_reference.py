import numpy as np
import pytest

from ptrack.errors import InputError, QueryError
from ptrack.homography import apply
from ptrack.live import reference as module
from ptrack.live.reference import Reference, _bent, _similarity, open_reference
from ptrack.queries_io import QueryOptions, plan_queries
from ptrack.tracking.load import load
from ptrack.tracks import Queries
from ptrack.video import open_writer

SIZE = (96, 128)


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(3)
    blocks = np.kron(rng.integers(0, 255, (12, 16, 3)), np.ones((8, 8, 1)))
    return _bent(blocks.astype(np.uint8), np.eye(3) + np.asarray([[0.001, 0.02, 0], [0.01, 0, 0], [0, 0, 0]]))


@pytest.fixture(scope="module")
def tracker():
    pytest.importorskip("cv2")
    return load("lk", device="cpu")


def found(scene, tracker, attempt, look=1):
    """Return how far the found homography is from the true one, in pixels, and the reference."""
    h = _similarity(attempt, SIZE)
    reference = Reference(_bent(scene, h), Queries.grid(3, SIZE), SIZE)
    for _ in range(look):
        if reference.start(tracker, scene):
            break
    return reference, np.linalg.inv(h)


@pytest.mark.parametrize("attempt", [(1.0, 0, 0.05, 0.02), (0.9, 8, 0.0, 0.03)])
def test_a_moved_picture_is_found_and_its_points_are_followed(scene, tracker, attempt):
    _, truth = found(scene, tracker, attempt)
    grid = Queries.grid(3, SIZE).xy
    wanted = apply(truth, grid.astype(float))
    result = tracker.step(scene)
    index = tracker.ids.astype(int)
    assert len(index) >= 6
    assert np.linalg.norm(result.positions - wanted[index], axis=1).max() < 1.0


def test_what_is_far_off_is_found_by_other_tries(scene, tracker):
    reference = Reference(_bent(scene, _similarity((1.0, 0, -0.3, 0.0), SIZE)), Queries.grid(2, SIZE), SIZE)
    notes = []
    reference._note = notes.append
    looks = next(i for i in range(1, 10) if reference.start(tracker, scene))
    assert looks > 1
    assert notes[0].startswith("The reference is not in the first frame")


def test_another_scene_is_not_taken_for_the_reference(scene, tracker):
    other = np.random.default_rng(9).integers(0, 255, scene.shape).astype(np.uint8)
    reference = Reference(other, Queries.grid(2, SIZE), SIZE)
    assert not any(reference.start(tracker, scene) for _ in range(3))
    flat = np.full_like(scene, 90)
    assert not Reference(flat, Queries.grid(2, SIZE), SIZE).start(tracker, scene)


def test_a_reference_from_a_picture_or_one_frame_of_a_video(tmp_path, scene):
    with open_writer(tmp_path / "shot.mp4", fps=25) as writer:
        for t in range(3):
            writer.write(np.full((48, 64, 3), 50 * t, np.uint8), t / 25)
    plan = plan_queries(QueryOptions(points=("32,24@2",)))
    made = open_reference(tmp_path / "shot.mp4", plan, SIZE)
    assert abs(int(made._rgb[0, 0, 0]) - 100) < 6
    assert made._xy.tolist() == [[64, 48]]  # in pixels of the stream
    with pytest.raises(InputError, match="has no frame 9"):
        open_reference(tmp_path / "shot.mp4", plan_queries(QueryOptions(points=("3,3@9",))), SIZE)
    with pytest.raises(QueryError, match="on 2 frames"):
        open_reference(tmp_path / "shot.mp4", plan_queries(QueryOptions(points=("3,3", "4,4@1"))), SIZE)


def test_tries_are_similarities():
    for attempt in module.TRIES:
        h = _similarity(attempt, SIZE)
        assert np.linalg.det(h) == pytest.approx(attempt[0] ** 2)

"""Which clips, frames and points the loader gives, and that it gives the same ones every time."""

from __future__ import annotations

import hashlib
import os
import pickle
import random

import numpy as np
import pytest
import torch

from ptrack.data.augment import AugmentConfig
from ptrack.data.hdf5 import ClipStore
from ptrack.data.loading.dataset import ClipDataset, read_window, sample_clip
from ptrack.data.loading.sampling import LoaderConfig, choose_clips, choose_frames, choose_points, choose_queries
from ptrack.data.samples import SampleKey, collate
from ptrack.errors import ConfigError, DataError
from ptrack.processes import Group
from ptrack.training import order
from tests.data.helpers import raw_clip, write_store

AUGMENTED = AugmentConfig(pad=4, zoom_relative=True, crop_step=2, erase_size=(2, 6), reverse=0.5)
CONFIG = LoaderConfig(size=(24, 32), num_frames=6, num_points=5, augment=AUGMENTED)


def plain(num_frames: int, num_points: int, size: tuple[int, int] = (24, 32)) -> LoaderConfig:
    """Consecutive frames, points visible in the first one, nothing changed."""
    return LoaderConfig(
        size=size, num_frames=num_frames, stride=1, num_points=num_points, points="first_frame",
        queries="first_frame", augment=AugmentConfig.none(),
    )  # fmt: skip


PLAIN = plain(4, 5)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ClipStore:
    root = tmp_path_factory.mktemp("store")
    clips = [raw_clip(f"v{i}", frames=12 + i, points=8, seed=i) for i in range(7)]
    write_store(root / "a.h5", clips[:4], "jpeg")
    write_store(root / "b.h5", clips[4:], "raw")
    return ClipStore(root)


def fingerprint(samples) -> str:
    """Return a hash of everything in some samples or batches."""
    digest = hashlib.sha256()
    for sample in samples:
        for name in ("frames", "tracks", "visibility", "valid", "query_time", "query_xy", "frame_index"):
            digest.update(getattr(sample, name).numpy().tobytes())
        digest.update(repr(getattr(sample, "clip_ids", None) or sample.clip_id).encode())
    return digest.hexdigest()


# --- samples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CONFIG, PLAIN])
def test_a_sample_is_as_promised(store, config):
    data = ClipDataset(store, config)
    for index in range(len(data)):
        sample = data[SampleKey(index, 3)]
        n = len(sample.query_time)
        assert 1 <= n <= config.num_points
        assert sample.frames.shape == (config.num_frames, 24, 32, 3)
        assert sample.frames.dtype == torch.uint8
        assert sample.tracks.shape == (config.num_frames, n, 2)
        assert torch.isfinite(sample.tracks).all()
        every = torch.arange(n)
        assert sample.visibility[sample.query_time, every].all()
        assert sample.valid[sample.query_time, every].all()
        assert torch.equal(sample.query_xy, sample.tracks[sample.query_time, every])
        shown = sample.tracks[sample.visibility]
        assert (shown >= 0).all()
        assert (shown <= torch.tensor([32, 24])).all()
        assert not (sample.visibility & ~sample.valid).any()


def test_plain_samples_are_the_stored_values(store):
    data = ClipDataset(store, PLAIN)
    sample = data[5]
    clip = store[sample.clip_id]
    rows = sample.frame_index.numpy()
    assert (np.diff(rows) == 1).all()
    assert (sample.query_time == 0).all()
    np.testing.assert_array_equal(sample.frames.numpy(), clip.video()[rows])
    for n in range(sample.tracks.shape[1]):
        distance = np.abs(clip.tracks[rows] - sample.tracks[:, n, None].numpy()).max(axis=(0, 2))
        source = int(distance.argmin())
        assert distance[source] < 1e-4
        assert clip.visibility[rows[0], source]
        np.testing.assert_array_equal(sample.visibility[:, n].numpy(), clip.visibility[rows, source])


def test_points_outside_the_frame_become_invisible_and_far_ones_go():
    tracks = np.full((6, 3, 2), 10.0)
    tracks[2, 0] = (33.0, 5.0)  # just outside
    tracks[3, 1] = (5000.0, 5.0)  # too far from the centre
    clip = raw_clip("x", frames=6, points=3, tracks=tracks, visibility=np.ones((6, 3), bool))
    config = plain(6, 3)
    sample = sample_clip(clip, config, np.random.default_rng(0))
    assert sample is not None
    assert sample.tracks.shape[1] == 2
    row = int((sample.visibility.sum(0) == 5).nonzero()[0])
    assert not sample.visibility[2, row]
    assert sample.valid[2, row]


def test_not_finite_points_are_not_valid_and_never_queried():
    tracks = np.full((6, 2, 2), 10.0)
    tracks[:3, 0] = np.nan
    clip = raw_clip("x", frames=6, points=2, tracks=tracks, visibility=np.ones((6, 2), bool))
    config = LoaderConfig(
        size=(24, 32),
        num_frames=6,
        stride=1,
        num_points=2,
        points="any_frame",
        queries="any",
        augment=AugmentConfig.none(),
    )
    for seed in range(20):
        sample = sample_clip(clip, config, np.random.default_rng(seed))
        assert sample is not None
        late = int((~sample.valid[0]).nonzero()[0])
        assert sample.query_time[late] >= 3
        assert (sample.tracks[:3, late] == 0).all()


def test_damaged_frames_are_black_and_hide_everything():
    clip = raw_clip("x", frames=6, frame_ok=np.asarray([1, 1, 0, 1, 1, 1]), visibility=np.ones((6, 6), bool))
    config = plain(6, 6)
    sample = sample_clip(clip, config, np.random.default_rng(0))
    assert sample is not None
    assert sample.frames[2].max() == 0
    assert sample.frames[3].max() > 0
    assert not sample.visibility[2].any()
    assert not sample.valid[2].any()


def test_a_clip_without_points_is_replaced_by_another(tmp_path):
    empty = raw_clip("empty", visibility=np.zeros((10, 6), bool))
    none = raw_clip("none", points=0)
    path = write_store(tmp_path / "s.h5", [empty, none, raw_clip("full", seed=3)])
    data = ClipDataset(path, PLAIN)
    assert {data[i].clip_id for i in range(3)} == {"test/all/full"}
    with pytest.raises(DataError, match=r"None of the clips .*\(test/all/empty, test/all/none\)"):
        ClipDataset(path, PLAIN, clips=[0, 1])[0]
    with pytest.raises(IndexError):
        data[3]
    with pytest.raises(DataError, match="has no clips"):
        ClipDataset(path, PLAIN, clips=[])


# --- which frames, points and queries ----------------------------------------------------------------------------


def test_uniform_frames_are_the_published_ones():
    config = LoaderConfig()
    starts = set()
    for seed in range(300):
        index = choose_frames(config, np.random.default_rng(seed), 120)
        assert index.shape == (48,)
        assert (np.diff(index) == 2).all()
        starts.add(int(index[0]))
    assert min(starts) == 0
    assert max(starts) <= 120 - 95
    assert len(starts) > 20


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 9, 14, 15, 16, 17, 40])
def test_short_clips_reduce_the_stride_and_then_turn_back(length):
    for seed in range(10):
        index = choose_frames(LoaderConfig(num_frames=8), np.random.default_rng(seed), length)
        assert index.shape == (8,)
        assert index.min() >= 0
        assert index.max() < length
        assert np.abs(np.diff(index)).max() <= 2
        if length >= 8:
            assert (np.diff(index) > 0).all()
    if length == 3:
        assert index.tolist() == [0, 1, 2, 1, 0, 1, 2, 1]


def test_time_reversal_plays_backwards(store):
    config = LoaderConfig(
        size=(24, 32),
        num_frames=4,
        stride=1,
        num_points=3,
        augment=AugmentConfig(reverse=1.0, erase=0, colour=0, blur=0),
    )
    sample = ClipDataset(store, config)[2]
    assert (torch.diff(sample.frame_index) == -1).all()


def test_point_candidates():
    seen = np.zeros((8, 6), bool)
    seen[0, 0] = seen[4, 1] = seen[2, 2] = seen[6, 3] = seen[5, 4] = True
    rng = np.random.default_rng(0)

    def chosen(points, n):
        queries = "first_frame" if points == "first_frame" else "any"
        return sorted(choose_points(LoaderConfig(points=points, queries=queries, num_points=n), rng, seen).tolist())

    assert chosen("first_frame", 6) == [0]
    assert chosen("any_frame", 6) == [0, 1, 2, 3, 4]
    assert chosen("track_on", 2) == [0, 1]
    assert set(chosen("track_on", 3)) < {0, 1, 2, 3}
    assert len(chosen("track_on", 3)) == 3
    assert chosen("track_on", 6) == [0, 1, 2, 3]
    drawn = {tuple(choose_points(LoaderConfig(points="any_frame", num_points=2), rng, seen)) for _ in range(200)}
    assert len(drawn) > 10


def test_queries():
    rng = np.random.default_rng(0)
    seen = np.zeros((10, 400), bool)
    seen[3:] = True
    first = choose_queries(LoaderConfig(points="first_frame", queries="first_frame"), rng, seen)
    assert (first == 3).all()
    anywhere = choose_queries(LoaderConfig(queries="any"), rng, seen)
    assert set(anywhere.tolist()) == set(range(3, 10))
    counts = np.bincount(anywhere, minlength=10)[3:]
    assert counts.min() > 30  # uniform: 57 expected
    mixed = choose_queries(LoaderConfig(queries="track_on"), rng, seen)
    assert (mixed[100:] == 3).all()
    assert len(set(mixed[:100].tolist())) == 7


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="num_frames must be at least 1"):
        LoaderConfig(num_frames=0)
    with pytest.raises(ConfigError, match="need points 'first_frame'"):
        LoaderConfig(queries="first_frame", points="any_frame")


def test_reading_any_order_of_frames(store):
    clip = store[1]
    video = clip.video()
    for index in ([2], [1, 3, 5], [5, 4, 3], [9, 5, 1], [4, 0, 7, 7], [0, 1, 2, 1, 0]):
        window = read_window(store, 1, np.asarray(index))
        np.testing.assert_array_equal(window.tracks, clip.tracks[index])
        np.testing.assert_array_equal(window.visibility, clip.visibility[index])
        for k, t in enumerate(index):
            np.testing.assert_array_equal(window.rgb(k), video[t])


# --- splits ------------------------------------------------------------------------------------------------------


def test_80_20_by_video_when_there_are_no_splits(tmp_path):
    names = [f"v{i // 2}" for i in range(20)]  # each video twice
    clips = [raw_clip(n, frames=2, id=f"test/all/{n}/{i}", seed=i) for i, n in enumerate(names)]
    store = ClipStore(write_store(tmp_path / "s.h5", clips))
    train, val = choose_clips(store, "train"), choose_clips(store, "val")
    assert sorted(train + val) == list(range(20)) == choose_clips(store)
    assert len(val) == 4
    assert not {store.names[i] for i in train} & {store.names[i] for i in val}
    assert choose_clips(store, "train") == train
    assert choose_clips(store, "train", seed=1) != train
    chosen = choose_clips(store, videos=["v3", "v1"])
    assert {store.names[i] for i in chosen} == {"v1", "v3"}
    assert len(choose_clips(store, "val", videos=["v3", "v1"])) == 2
    with pytest.raises(DataError, match="no video 'v33'.*Did you mean 'v3'"):
        choose_clips(store, videos=["v33"])


def test_a_source_keeps_its_own_splits(tmp_path):
    clips = [raw_clip(f"{s}{i}", frames=2, split=s, id=f"{s}{i}") for s in ("train", "val", "test") for i in range(2)]
    store = ClipStore(write_store(tmp_path / "s.h5", clips))
    assert choose_clips(store, "train") == [0, 1]
    assert choose_clips(store, "val") == [2, 3, 4, 5]
    one = ClipStore(write_store(tmp_path / "t.h5", clips[:1]))
    assert choose_clips(one, "train") == [0]
    with pytest.raises(DataError, match="no clips for the split 'val'"):
        choose_clips(one, "val")


def test_clips_of_one_split_are_divided_too(tmp_path):
    """Kubric's are all called train: without a division there would be nothing to validate on."""
    clips = [raw_clip(f"v{i}", frames=2, split="train", id=f"v{i}") for i in range(10)]
    other = raw_clip("x", frames=2, split="all", id="x")
    store = ClipStore(write_store(tmp_path / "s.h5", [*clips, other]))
    train, val = choose_clips(store, "train"), choose_clips(store, "val")
    assert len(train) == 8
    assert sorted(train + val) == list(range(10))


def test_two_videos_give_one_to_each_side(tmp_path):
    store = ClipStore(write_store(tmp_path / "s.h5", [raw_clip("a", frames=2), raw_clip("b", frames=2)]))
    assert len(choose_clips(store, "train")) == len(choose_clips(store, "val")) == 1


# --- the same every time -----------------------------------------------------------------------------------------


def epoch_of(data: ClipDataset, batch: int, epoch: int, workers: int = 0, group: Group | None = None) -> list[str]:
    batches = order.step_batches(len(data), batch, group or Group(), 1, 5, epoch)
    return [fingerprint([b]) for b in order.loader(data, batches, workers)]


def test_workers_do_not_change_anything(store):
    data = ClipDataset(store, CONFIG, seed=5)
    alone = [epoch_of(data, 3, epoch) for epoch in (0, 1)]
    store.index_of(0)
    store.group(0)  # an open handle in the parent must not be used by forked workers
    assert [epoch_of(data, 3, epoch, workers=2) for epoch in (0, 1)] == alone
    assert alone[0] != alone[1]


def test_the_random_state_of_the_process_is_untouched(store):
    data = ClipDataset(store, CONFIG)
    state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    epoch_of(data, 2, 0)
    epoch_of(data, 2, 0, workers=1)
    assert torch.equal(torch.get_rng_state(), state[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])
    assert random.getstate() == state[2]


def test_seeds_and_epochs_differ(store):
    seen = {
        fingerprint([ClipDataset(store, CONFIG, seed=seed)[SampleKey(1, epoch)]]) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(seen) == 4


def test_a_dataset_can_be_pickled_with_open_files(store):
    data = ClipDataset(store, CONFIG)
    first = fingerprint([data[0]])
    assert fingerprint([pickle.loads(pickle.dumps(data))[0]]) == first


def test_open_files_are_bounded_and_reopened(tmp_path):
    paths = [write_store(tmp_path / f"{i}.h5", [raw_clip(f"c{i}", seed=i)]) for i in range(5)]
    store = ClipStore(paths, max_open=2)
    clips = [store[i].tracks for i in range(5)]
    assert len(store._handles.open) == 2
    np.testing.assert_array_equal(store[0].tracks, clips[0])
    fds = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        for i in range(5):
            store[i].frames.rgb(0)
    assert fds == 0 or len(os.listdir("/proc/self/fd")) <= fds + 1
    store.close()
    assert store[3].name == "c3"


# --- batches -----------------------------------------------------------------------------------------------------


def test_collate_keeps_as_many_points_as_the_poorest_sample(store):
    data = ClipDataset(store, PLAIN)
    few, many = data[0].points(slice(2)), data[1]
    batch = collate([few, many])
    assert batch.tracks.shape[:3] == (2, 4, 2)
    assert torch.equal(batch.tracks[1], many.tracks[:, :2])
    assert batch.queries.shape == (2, 2, 3)
    assert batch.clip_ids == (few.clip_id, many.clip_id)
    assert batch.to("cpu").frames.shape == (2, 4, 24, 32, 3)
    with pytest.raises(DataError, match="at least one sample"):
        collate([])
    other = ClipDataset(store, plain(4, 5, (16, 16)))[0]
    with pytest.raises(DataError, match="must have the same frames"):
        collate([few, other])

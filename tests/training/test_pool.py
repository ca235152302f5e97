"""A pool of rendered clips: from rendering to weights on a CPU, and what the batches promise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ptrack.cli.app import app
from ptrack.data.gpu_augment import DeviceClips
from ptrack.data.pool import SUFFIX, ClipPool, render, write_clip
from ptrack.data.samples import SampleKey, collate
from ptrack.data.synthetic import SyntheticConfig
from ptrack.errors import ConfigError, DataError
from ptrack.models.nano.weights import NanoConfig, packaged, read_weights, untrained
from ptrack.processes import Group
from ptrack.training import losses
from ptrack.training.config import PoolConfig, build
from ptrack.training.pool import PoolBatches, open_pool, to_batch
from ptrack.training.step import Precision, Stepper, make_stepper
from ptrack.training.systems.nano import NanoSystem
from ptrack.training.systems.nano_encoder import NanoEncoderSystem
from tests.training.scenes import PanningClips

CPU = torch.device("cpu")
TINY = NanoConfig(input_size=(64, 64), dim=32, hidden=32, token=16, memory=4, radius=4)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """Three clips of 6 frames, and one that another process is still writing."""
    folder = tmp_path_factory.mktemp("pool") / "clips"
    world = SyntheticConfig(frames=6, height=64, width=64, points=48, supersampling=1.0, seed=3)
    render(world, folder, range(3))
    (folder / f".0000009.1.tmp{SUFFIX}").write_bytes(b"half a clip")
    return folder


def settings(folder: Path, model: str = "nano", **pool: object):
    return build(
        {
            "model": model, "batch_size": 2, "seed": 5, "arch": {"input_size": [64, 64]},
            "data": {"sequence_length": 5, "num_points": 8, "image_size": [64, 64], "synthetic_clips": 6,
                     "pool": {"folder": str(folder), "room": 2, "least": 2, **pool}},
        }
    )  # fmt: skip


def test_from_clips_to_weights(rendered: Path, tmp_path: Path) -> None:
    small = ["--max-steps", "2", "--batch-size", "2", "--device", "cpu"]
    sets = [
        "data.image_size=[64,64]",
        "arch.input_size=[64,64]",
        "data.sequence_length=5",
        "data.num_points=8",
        "data.validation_clips=0",
        f"data.pool.folder={rendered}",
        "data.pool.least=2",
        "data.pool.room=2",
    ]

    def train(recipe: str, name: str, *more: str) -> None:
        words = [word for value in (*sets, *more) for word in ("--set", value)]
        place = ["--save-dir", str(tmp_path / name), "--log-dir", str(tmp_path / name)]
        result = CliRunner().invoke(app, ["train", "--config", recipe, *place, *small, *words], catch_exceptions=False)
        assert result.exit_code == 0
        assert "Trained 2 steps" in result.output

    train("nano_gpu_encoder", "encoder")
    encoder = read_weights(tmp_path / "encoder" / "best.safetensors")[1]
    start = packaged()[1]
    assert not torch.equal(encoder["projection"], start["projection"])
    assert not torch.equal(encoder["backbone.stem.weight"], start["backbone.stem.weight"])
    assert torch.equal(encoder["refiner.move.weight"], start["refiner.move.weight"])
    train("nano_gpu", "tracker", "graph=false", f"encoder_from={tmp_path / 'encoder' / 'best.safetensors'}")
    config, tracker = read_weights(tmp_path / "tracker" / "best.safetensors")
    assert config.input_size == (64, 64)
    torch.testing.assert_close(tracker["projection"], encoder["projection"], rtol=1e-3, atol=1e-3)
    assert not torch.equal(tracker["refiner.move.weight"], start["refiner.move.weight"])
    resumed = CliRunner().invoke(
        app, ["train", "--resume", str(tmp_path / "tracker"), "--max-steps", "3"], catch_exceptions=False
    )
    assert "Going on after step 2 of 3" in resumed.output


def test_the_newest_clips_stay(rendered: Path, tmp_path: Path) -> None:
    pool = ClipPool(rendered, 2, CPU)
    pool.poll(1)
    assert (len(pool), pool.names) == (1, ["0000000"])
    pool.poll(9)
    assert (len(pool), pool.names) == (2, ["0000002", "0000001"])
    assert pool.shape == (6, 48)
    drawn = pool.draw([1, 0], torch.tensor([[0, 5], [3, 3]]))
    assert drawn.frames.shape == (2, 2, 64, 64, 3)
    assert torch.isfinite(drawn.tracks).all()
    assert not (drawn.visible & ~drawn.valid).any()
    write_clip(tmp_path / f"1{SUFFIX}", drawn)
    (tmp_path / f"2{SUFFIX}").write_bytes(b"no clip")
    with pytest.raises(DataError, match=r"2\.clip\.safetensors is no clip of a pool"):
        ClipPool(tmp_path, 2, CPU).poll(2)


def test_a_step_gets_the_same_batch_again(rendered: Path) -> None:
    config = settings(rendered)
    batches = open_pool(config, config.data.pool, Group(), CPU)
    assert batches.epoch_steps == 3
    whole = [parts[0] for parts in batches.steps(1, 0, 2)]
    assert whole[0].frames.shape == (2, 5, 64, 64, 3)
    assert whole[0].size == (64, 64)
    assert set(whole[0].clip_ids) <= {"0000001", "0000002"}
    (again,) = [parts[0] for parts in batches.steps(1, 1, 1)]
    assert torch.equal(again.frames, whole[1].frames)
    assert torch.equal(again.query_xy, whole[1].query_xy)
    other = PoolBatches(config, config.data.pool, batches.pool, Group(1, 2))
    assert not torch.equal(next(iter(other.steps(1, 0, 1)))[0].frames, whole[0].frames)


def test_clips_must_be_long_enough(rendered: Path) -> None:
    config = settings(rendered)
    long = build({"model": "nano", "data": {"sequence_length": 9, "pool": {"folder": str(rendered), "least": 1}}})
    with pytest.raises(ConfigError, match="have 6 frames, fewer than sequence_length 9"):
        open_pool(long, config.data.pool, Group(), CPU)


@pytest.mark.parametrize(
    "values", [{"model": "transformer", "data": {"pool": {"folder": "x"}}}, {"model": "nano-encoder"}]
)
def test_pools_are_for_nano(values: dict) -> None:
    with pytest.raises(ConfigError, match=r"data\.pool trains nano and nano-encoder alone"):
        build(values)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_pairs_show_points_in_both_frames(rendered: Path, share: float) -> None:
    config = settings(rendered, "nano-encoder", photo_share=share)
    (parts,) = open_pool(config, config.data.pool, Group(), CPU).steps(0, 0, 1)
    (batch,) = parts
    assert batch.frames.shape == (2, 2, 64, 64, 3)
    assert sum(name == "photo" for name in batch.clip_ids) == 2 * share
    assert (batch.query_time == 0).all()
    assert torch.equal(batch.visibility[:, 0], batch.visibility[:, 1])
    assert batch.visibility.any()


def test_queries_are_where_points_are_seen_and_fillers_play_no_part() -> None:
    generator = torch.Generator().manual_seed(0)
    visible = torch.zeros(2, 5, 8, dtype=torch.bool)
    visible[0, 0, :6] = True  # six points in the first frame, of one clip
    visible[1, 3, 2:] = True  # of the other, six in frame 3 alone
    tracks = torch.rand(2, 5, 8, 2) * 200
    clips = DeviceClips(torch.zeros(2, 5, 256, 256, 3, dtype=torch.uint8), tracks, visible, torch.ones_like(visible))
    first = to_batch(clips, 7, generator, names=("a", "b"))
    counted = first.valid[0].any(0)
    assert counted.sum() == 6
    assert (first.query_time[0, counted] == 0).all()
    assert not first.valid[1].any()
    anywhere = to_batch(clips, 7, generator, anywhere=True, names=("a", "b"))
    for b in range(2):
        counted = anywhere.valid[b].any(0)
        assert counted.sum() == 6
        for n in counted.nonzero()[:, 0]:
            t = int(anywhere.query_time[b, n])
            assert t == (0, 3)[b]
            assert anywhere.visibility[b, t, n]
            assert torch.equal(anywhere.query_xy[b, n], anywhere.tracks[b, t, n])


def test_the_matching_loss_knows_the_right_place() -> None:
    """Two equal pictures of noise: a patch fits where it is, and not where the tracks wrongly say."""
    generator = torch.Generator().manual_seed(0)
    system = NanoEncoderSystem(untrained(packaged()[0]), 0.1)
    noise = torch.rand(2, 1, 32, 32, 3, generator=generator) * 255
    picture = noise.repeat_interleave(8, 2).repeat_interleave(8, 3).to(torch.uint8).expand(-1, 2, -1, -1, -1)
    xy = torch.rand(2, 1, 32, 2, generator=generator) * 180 + 40
    yes = torch.ones(2, 2, 32, dtype=torch.bool)

    def loss(tracks: torch.Tensor) -> float:
        clips = DeviceClips(picture, tracks, yes, yes)
        batch = to_batch(clips, 32, generator, names=("a", "b"))
        targets = system.targets(batch)
        with torch.no_grad():
            return float(system(batch, targets, losses.count(targets), 0)["matching"])

    assert loss(torch.cat([xy, xy + 25], 1)) > loss(xy.expand(-1, 2, -1, -1)) + 2


def test_what_a_graph_replays_has_the_gradients_of_a_plain_pass() -> None:
    torch.manual_seed(0)
    system = NanoSystem(untrained(TINY))
    batch = collate([PanningClips(2, frames=4, points=8)[SampleKey(i)] for i in range(2)])
    trainable = [p for p in system.parameters() if p.requires_grad]
    stepper = Stepper(system, system, torch.optim.SGD(trainable, lr=0.1), Precision(None), Group(), 1.0, 0)

    def gradients(run) -> list[torch.Tensor]:
        system.zero_grad()
        run()
        return [p.grad.clone() for p in trainable if p.grad is not None]

    plain = gradients(lambda: stepper._gradients([batch], 0))
    held: list = []

    def replayed(tensors: dict) -> losses.Terms:
        held.append(tensors)
        return stepper.captured_pass(tensors)

    as_graph = Stepper(*(getattr(stepper, f) for f in stepper.__dataclass_fields__ if f != "replay"), replay=replayed)
    assert all(
        torch.equal(a, b) for a, b in zip(plain, gradients(lambda: as_graph._gradients([batch], 0)), strict=True)
    )
    assert len(plain) > 5
    assert all(isinstance(value, torch.Tensor) for value in held[0].values())
    with pytest.raises(ConfigError, match="on one GPU"):
        make_stepper(
            build({"model": "nano", "graph": True}), system, system, stepper.optimizer, Precision(None), Group()
        )


def test_options_of_a_pool_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"pool\.room must be at least 1"):
        PoolConfig(folder="x", room=0)
    with pytest.raises(ConfigError, match=r"pool\.photo_share must be at least 0 and at most 1"):
        PoolConfig(folder="x", photo_share=1.5)

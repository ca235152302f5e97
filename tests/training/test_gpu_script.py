"""``scripts/train_nano_gpu.py`` from rendering to weights, on a CPU, with a few small clips and steps."""

import sys

import torch

from ptrack.data.gpu_augment import Clips
from ptrack.models.nano.weights import packaged, read_weights
from scripts import train_nano_gpu as script


def test_from_clips_to_weights(tmp_path, monkeypatch, capsys):
    def call(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["train_nano_gpu.py", *map(str, words)])
        script.main()

    clips, out = tmp_path / "clips", tmp_path / "out"
    call("render", "--folder", clips, "--workers", 1, "--minutes", 0.03, "--frames", 6, "--batch", 2, "--seed", 3)
    assert len(list(clips.glob("*.pt"))) >= 2
    assert not list(clips.glob("*.part"))
    (clips / ".9999999.1.tmp.pt").write_bytes(b"half a clip")  # what another worker is still writing
    small = ("--folder", clips, "--out", out, "--device", "cpu", "--batch", 2, "--room", 2, "--least", 2)
    call("features", *small, "--steps", 2, "--points", 16, "--show", 1)
    changed = torch.load(out / "features.pt")
    assert {"projection", "backbone.stem.weight"} <= set(changed)
    call("track", *small, "--steps", 2, "--points", 8, "--length", 5, "--show", 1, "--features", out / "features.pt")
    config, state = read_weights(out / "track.safetensors")
    assert config == packaged()[0]
    torch.testing.assert_close(state["projection"], changed["projection"], rtol=1e-3, atol=1e-3)
    assert not torch.equal(state["refiner.move.weight"], packaged()[1]["refiner.move.weight"])
    told = capsys.readouterr().out
    assert "features: 2 steps" in told
    assert "track: 2 steps" in told


def test_queries_are_where_points_are_seen_and_fillers_play_no_part():
    random = torch.Generator().manual_seed(0)
    visible = torch.zeros(2, 5, 8, dtype=torch.bool)
    visible[0, 0, :6] = True  # six points in the first frame, of one clip
    visible[1, 3, 2:] = True  # of the other, six in frame 3 alone
    tracks = torch.rand(2, 5, 8, 2) * 200
    clips = Clips(torch.zeros(2, 5, 3, 4, 4, dtype=torch.uint8), tracks, visible, torch.ones_like(visible))
    first = script.to_batch(clips, 7, random, torch.tensor(False))
    counted = first.valid[0].any(0)
    assert counted.sum() == 6
    assert (first.query_time[0, counted] == 0).all()
    assert not first.valid[1].any()
    anywhere = script.to_batch(clips, 7, random, torch.tensor(True))
    for b in range(2):
        counted = anywhere.valid[b].any(0)
        assert counted.sum() == 6
        for n in counted.nonzero()[:, 0]:
            t = int(anywhere.query_time[b, n])
            assert t == (0, 3)[b]
            assert anywhere.visibility[b, t, n]
            assert torch.equal(anywhere.query_xy[b, n], anywhere.tracks[b, t, n])


def test_the_matching_loss_knows_the_right_place():
    """Two equal pictures of noise: a patch is found where it is, and not where the tracks wrongly say."""
    random = torch.Generator().manual_seed(0)
    model = script.untrained(packaged()[0])
    picture = (torch.rand(2, 1, 3, 32, 32, generator=random) * 255).repeat_interleave(8, -1).repeat_interleave(8, -2)
    xy = torch.rand(2, 1, 40, 2, generator=random) * 180 + 40
    yes = torch.ones(2, 2, 40, dtype=torch.bool)
    pair = Clips(picture.to(torch.uint8).expand(-1, 2, -1, -1, -1), xy.expand(-1, 2, -1, -1), yes, yes)
    with torch.no_grad():
        loss, found = script.matching_loss(model, pair, 32, random)
        wrong, lost = script.matching_loss(model, Clips(pair.frames, torch.cat([xy, xy + 25], 1), yes, yes), 32, random)
    assert found > 0.95
    assert lost < 0.05
    assert wrong > loss + 2

"""Reading and writing weights: published forms, own files, and files that must be refused."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import ptrack
from ptrack.cli.app import app
from ptrack.errors import CheckpointError, ConfigError, ModelError, OutputError
from ptrack.models.backbones.vit import VITS
from ptrack.models.backbones.vit_weights import vit_from_any
from ptrack.models.conversion import convert
from ptrack.models.online import weights as c
from ptrack.models.online.config import OnlineConfig
from ptrack.models.online.model import TrackOn2
from ptrack.models.online.official import from_official, to_official

SMALL = OnlineConfig(backbone="resnet18", input_size=(32, 64), dim=32, hidden=32, memory=3, candidates=4)


@pytest.fixture(scope="module")
def tiny() -> dict[str, c.OnlineCheckpoint]:
    """Random DINOv2 and DINOv3 models of the published layout at 32x64."""
    made = {}
    for name, up in (("dinov2_s", 1.0), ("dinov3_s_plus", 1.143)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = TrackOn2(OnlineConfig(backbone=name, vit_upsample=up, input_size=(32, 64)))
            with torch.no_grad():
                for p in model.parameters():
                    p.normal_(0, 0.05)
        made[name] = c.checkpoint_of(model)
    return made


def _same(a: c.OnlineCheckpoint, b: c.OnlineCheckpoint) -> bool:
    return a.config == b.config and a.state.keys() == b.state.keys() and all(
        torch.equal(a.state[k], b.state[k]) for k in a.state
    )  # fmt: skip


@pytest.mark.parametrize("wrap", ["plain", "model", "state_dict", "module"])
@pytest.mark.parametrize("backbone", ["dinov2_s", "dinov3_s_plus"])
def test_official_containers(tiny, backbone: str, wrap: str, tmp_path: Path) -> None:
    checkpoint = tiny[backbone]
    state = to_official(checkpoint.state, checkpoint.config)
    content = {
        "plain": state,
        "model": {"model": state, "best_aj": [np.float64(0.5), np.float32(1)], "epoch": 1},
        "state_dict": {"state_dict": state},
        "module": {f"module.{k}": v for k, v in state.items()},
    }[wrap]
    torch.save(content, tmp_path / "a.pt")
    assert _same(c.read_checkpoint(tmp_path / "a.pt"), checkpoint)


def test_legacy_torch_format(tiny, tmp_path: Path) -> None:
    checkpoint = tiny["dinov2_s"]
    state = to_official(checkpoint.state, checkpoint.config)
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert _same(c.read_checkpoint(tmp_path / "old.pt"), checkpoint)


def _transformers_5(name: str) -> str:
    if ".dinov2." in name:
        name = re.sub(r"attention\.attention\.(q|k|v)\w+\.", r"attention.\1_proj.", name)
        return name.replace("attention.output.dense", "attention.o_proj")
    return name.replace("dinov3.layer.", "dinov3.model.layer.")


@pytest.mark.parametrize("backbone", ["dinov2_s", "dinov3_s_plus"])
def test_names_of_transformers_5(tiny, backbone: str) -> None:
    checkpoint = tiny[backbone]
    state = to_official(checkpoint.state, checkpoint.config)
    renamed = {_transformers_5(k): v for k, v in state.items()}
    assert renamed.keys() != state.keys()
    assert _same(from_official(renamed), checkpoint)


def test_dinov3_without_its_transformer(tiny, tmp_path: Path) -> None:
    checkpoint = tiny["dinov3_s_plus"]
    official = to_official(checkpoint.state, checkpoint.config)
    torch.save({k: v for k, v in official.items() if ".dinov3." not in k}, tmp_path / "a.pt")
    found = c.read_checkpoint(tmp_path / "a.pt")
    assert not found.has_vit
    assert found.config == checkpoint.config
    vit = {k.removeprefix(c.VIT): v for k, v in checkpoint.state.items() if k.startswith(c.VIT)}
    timm = {k.replace("patch_proj", "patch_embed.proj"): v for k, v in vit.items()}
    assert _same(c.add_vit(found, timm), checkpoint)
    with pytest.raises(CheckpointError, match="missing"):
        c.add_vit(found, {k: v for k, v in timm.items() if "blocks.3" not in k})


def test_original_dinov3_names(tiny) -> None:
    vit = {k.removeprefix(c.VIT): v for k, v in tiny["dinov3_s_plus"].state.items() if k.startswith(c.VIT)}
    meta = {}
    for key, value in vit.items():
        name = key.replace("patch_proj", "patch_embed.proj").replace("reg_token", "storage_tokens")
        name = re.sub(r"gamma_([12])", r"ls\1.gamma", name)
        name = name.replace("fc1_g", "w1").replace("fc1_x", "w2").replace("mlp.fc2", "mlp.w3")
        if name.endswith("q_bias"):
            rest = torch.full_like(value, float("nan")), vit[key.replace("q_bias", "v_bias")]
            meta[name.replace("q_bias", "qkv.bias")] = torch.cat([value, *rest])
        elif not name.endswith("v_bias"):
            meta[name] = value
    meta |= {"rope_embed.periods": torch.ones(16), "mask_token": torch.zeros(1, 384)}
    found = vit_from_any(meta, "dinov3_s_plus")
    assert found.keys() == vit.keys()
    assert all(torch.equal(found[k], vit[k]) for k in vit)


def test_timm_weights_without_biases_get_zeros(tiny) -> None:
    vit = {k.removeprefix(c.VIT): v for k, v in tiny["dinov3_s_plus"].state.items() if k.startswith(c.VIT)}
    found = vit_from_any({k: v for k, v in vit.items() if "_bias" not in k}, "dinov3_s_plus")
    assert found.keys() == vit.keys()
    assert (found["blocks.0.attn.q_bias"] == 0).all()


def test_own_files(tmp_path: Path) -> None:
    checkpoint = c.checkpoint_of(TrackOn2(SMALL))
    c.save_checkpoint(tmp_path / "a.safetensors", checkpoint, note="x")
    found = c.read_checkpoint(tmp_path / "a.safetensors")
    assert _same(found, checkpoint)
    model = c.build_model(found, memory=9)
    assert model.memory == 9
    assert not model.training
    tracker = ptrack.load("track-on2-dinov2", checkpoint=tmp_path / "a.safetensors", memory=5, device="cpu")
    assert tracker.model.config == SMALL
    assert (tracker.model.memory, tracker.support_grid, tracker.model.threshold) == (5, 20, 0.8)
    clip = np.random.default_rng(0).integers(0, 255, (1, 16, 16, 3), dtype=np.uint8)
    tracks = tracker.track(clip, np.array([[0, 0, 0], [0, 16, 16]]))
    assert tracks.tracks.tolist() == [[[0, 0], [16, 16]]]


@pytest.mark.parametrize("value", [0, -3, 2.5, True])
def test_memory_must_be_a_number_of_frames(value, tmp_path: Path) -> None:
    c.save_checkpoint(tmp_path / "a.safetensors", c.checkpoint_of(TrackOn2(SMALL)))
    with pytest.raises(ModelError, match="memory"):
        ptrack.load("track-on2-dinov2", checkpoint=tmp_path / "a.safetensors", memory=value, device="cpu")


def test_every_difference_is_listed(tiny) -> None:
    checkpoint = tiny["dinov2_s"]
    state = to_official(checkpoint.state, checkpoint.config)
    del state["projection1.bias"]
    state["surprise"] = torch.zeros(1)
    state["projection2.bias"] = torch.zeros(7)
    with pytest.raises(CheckpointError) as error:
        from_official(state, where="a.pt")
    for words in ("a.pt", "1 missing (projection1.bias)", "1 unexpected (surprise)", "projection2.bias is (7,)"):
        assert words in str(error.value)


class _Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["PTRACK_TEST_BOMB"],)


@pytest.mark.parametrize("kind", ["torch", "pickle", "model"])
def test_a_pickle_bomb_does_not_go_off(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTRACK_TEST_BOMB", str(tmp_path / "boom"))
    path = tmp_path / "a.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(_Bomb()))
    else:
        torch.save({"model": {"t_embedding": torch.zeros(1)}, "x": _Bomb()} if kind == "model" else _Bomb(), path)
    with pytest.raises(CheckpointError, match=r"nothing in it was run|damaged"):
        c.read_checkpoint(path)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("kind", ["empty", "garbage", "zip", "truncated", "truncated safetensors", "text"])
def test_damaged_files(tiny, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    checkpoint = tiny["dinov2_s"]
    if kind == "truncated":
        torch.save({k: v for k, v in checkpoint.state.items() if k.startswith("fpn")}, path)
    elif kind == "truncated safetensors":
        save_file({k: v.clone() for k, v in checkpoint.state.items() if k.startswith("fpn")}, path)
    content = {"empty": b"", "garbage": bytes(range(256)) * 40, "zip": b"PK\x03\x04" + b"x" * 999, "text": b"hello"}
    path.write_bytes(content.get(kind) or (path.read_bytes()[:-5000] if path.exists() else b""))
    with pytest.raises(CheckpointError) as error:
        c.read_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_of_other_models(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(CheckpointError, match="not a Track-On2 checkpoint"):
        c.read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="no table of weights"):
        c.read_checkpoint(path)
    save_file({"a": torch.zeros(1)}, path, metadata={"format": "else", "config": "{}"})
    with pytest.raises(CheckpointError, match="another model"):
        c.read_checkpoint(path)
    save_file({"a": torch.zeros(1)}, path, metadata={"format": c.FORMAT, "config": '{"dimm": 3}'})
    with pytest.raises(CheckpointError, match="dimm"):
        c.read_checkpoint(path)
    with pytest.raises(CheckpointError, match="Cannot read"):
        c.read_checkpoint(tmp_path / "none.pt")


def test_convert_command(tiny, tmp_path: Path) -> None:
    checkpoint = tiny["dinov2_s"]
    source, target = tmp_path / "a.pt", tmp_path / "b.safetensors"
    torch.save(to_official(checkpoint.state, checkpoint.config), source)
    run = CliRunner().invoke(app, ["convert", "checkpoint", str(source), str(target)])
    assert run.exit_code == 0, run.output
    assert "dinov2_s" in run.output
    assert _same(c.read_checkpoint(target), checkpoint)
    with pytest.raises(OutputError, match="already exists"):
        c.convert(source, target)
    with pytest.raises(OutputError, match=r"\.safetensors"):
        c.convert(source, tmp_path / "b.bin")


def test_every_backbone_has_a_source_and_a_licence() -> None:
    assert {v.licence for v in VITS.values()} == {"Apache-2.0", "DINOv3 License"}
    with pytest.raises(ConfigError, match="Did you mean 'dinov3_s'"):
        OnlineConfig(backbone="dinov3_x")


TRAINED = {"format": "ptrack-training", "version": 1, "ema": None}


@pytest.mark.parametrize("named", ["track-on2", "online"])  # "online": what earlier configurations say
def test_checkpoints_of_a_training_are_weights_too(named: str, tmp_path: Path) -> None:
    from ptrack.config import to_mapping

    state = c.checkpoint_of(TrackOn2(SMALL)).state
    config = {"model": named, "arch": to_mapping(SMALL)}
    torch.save({**TRAINED, "config": config, "model": state}, tmp_path / "latest.pth")
    assert _same(c.read_checkpoint(tmp_path / "latest.pth"), c.OnlineCheckpoint(SMALL, state, True))
    line = ["convert", "checkpoint", str(tmp_path / "latest.pth"), str(tmp_path / "a.safetensors")]
    assert CliRunner().invoke(app, line, catch_exceptions=False).exit_code == 0
    tracker = ptrack.load("track-on2", checkpoint=tmp_path / "a.safetensors", device="cpu")
    assert (tracker.model.name, tracker.model.memory) == ("track-on2", SMALL.memory)
    with pytest.raises(CheckpointError, match="weights of your own.*--checkpoint"):
        ptrack.load("track-on2", device="cpu")
    other = {**TRAINED, "config": {"model": "nano", "arch": {}}, "model": {}}
    torch.save(other, tmp_path / "nano.pth")
    with pytest.raises(CheckpointError, match="no training checkpoint of Track-On2; it was trained as 'nano'"):
        c.read_checkpoint(tmp_path / "nano.pth")


@pytest.mark.parametrize("model", ["nano", "transformer"])
def test_checkpoints_of_the_other_models_are_converted(model: str, tmp_path: Path) -> None:
    from ptrack.config import to_mapping
    from ptrack.models.nano import weights as nano
    from ptrack.models.offline import weights as transformer
    from ptrack.models.offline.model import PointTransformer, TransformerConfig

    if model == "nano":
        network = nano.untrained(nano.NanoConfig(input_size=(32, 32), dim=8, hidden=8, token=8))
    else:
        network = PointTransformer(TransformerConfig(norm="group", input_size=(32, 32), dim=32, levels=1, layers=1))
    config = {"model": model, "arch": to_mapping(network.config)}
    torch.save({**TRAINED, "config": config, "model": network.state_dict()}, tmp_path / "latest.pth")
    done = convert(tmp_path / "latest.pth", tmp_path / "a.safetensors")
    assert done.facts["model"] == model
    read = nano.read_weights if model == "nano" else transformer.read_weights
    found, state = read(tmp_path / "a.safetensors")
    assert found == network.config
    assert all(torch.allclose(network.state_dict()[k].float(), v, rtol=1e-3, atol=1e-3) for k, v in state.items())


def test_weights_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        c.save_checkpoint(tmp_path / "a.safetensors", c.checkpoint_of(TrackOn2(SMALL)))
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o644

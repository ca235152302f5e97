"""TAPNext's weights: the three kinds of files, and files that must be refused in one sentence."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import ptrack
from ptrack.cli.app import app
from ptrack.errors import CheckpointError, ModelError, OutputError
from ptrack.models.conversion import convert
from ptrack.models.tapnext import weights as w
from ptrack.models.tapnext.config import TapNextConfig
from tests.parity.tapnext.plain import table
from tests.parity.tapnext.recorded import DATA, TINY, tiny

TABLE = {w.TABLE: table(TINY.raster, TINY.width).view(1, -1, TINY.width)}


def _as_jax(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The same weights as the JAX program stores them."""
    out: dict[str, torch.Tensor] = {}
    heads = TINY.heads
    for key, value in state.items():
        name = re.sub(r"^blocks\.(\d+)\.", r"backbone/Transformer/encoderblock_\1/", key)
        name = name.replace("encoder_norm.", "backbone/Transformer/encoder_norm/")
        for ours, theirs in (
            ("ln_1.", "LayerNorm_0/"), ("ln_2.", "LayerNorm_1/"), ("mlp.0.", "MlpBlock_0/Dense_0/"),
            ("mlp.3.", "MlpBlock_0/Dense_1/"), ("self_attention.", "MultiHeadDotProductAttention_0/"),
            ("out_proj.", "out/"), ("lin_proj.", "backbone/embedding/"), ("_head.", "_head/layers_"),
        ):  # fmt: skip
            name = name.replace(ours, theirs)
        name = name.replace(".", "/")
        if name in ("mask_token", "unknown_token", "point_query_token"):
            name = f"backbone/{name}"
        if name == "image_pos_emb":
            name = "backbone/pos_embedding"
        if "in_proj" in name:
            base, _, kind = name.rpartition("in_proj_")
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                kernel = rows.T.unflatten(1, (heads, -1)) if kind == "weight" else rows.view(heads, -1)
                out[f"{base}{part}/{'kernel' if kind == 'weight' else 'bias'}"] = kernel
            continue
        if name.endswith("weight"):
            norm = value.ndim == 1
            name = name.removesuffix("weight") + ("scale" if norm else "kernel")
            value = value if norm else value.permute(2, 3, 1, 0)[None] if value.ndim == 4 else value.T
            if "/out/" in name:
                value = value.unflatten(0, (heads, -1))
        out[name] = value
    return {name: value.numpy() for name, value in out.items()}


def _write(path: Path, kind: str) -> Path:
    state = tiny()
    if kind == "plain":
        torch.save(state, path)
    elif kind == "wrapped":
        torch.save({"state_dict": {f"tapnext.{k}": v for k, v in (state | TABLE).items()}, "epoch": 3}, path)
    elif kind == "jax":
        with open(path, "wb") as file:
            np.savez(file, **_as_jax(state), step=np.int64(7))
    else:
        w.save_checkpoint(path, w.TapNextCheckpoint(config=TINY, state=state, model="tapnextpp"))
    return path


KINDS = {"plain": "a.pt", "wrapped": "a.ckpt", "jax": "a.npz", "ours": "a.safetensors"}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_files_hold_the_same_weights(kind: str, tmp_path: Path) -> None:
    found = w.read_checkpoint(_write(tmp_path / KINDS[kind], kind), model="tapnextpp")
    assert found.state.keys() == tiny().keys()
    assert all(torch.equal(found.state[k], v) for k, v in tiny().items())
    assert w.holds(tmp_path / KINDS[kind])
    assert (found.config.depth, found.config.heads, found.config.raster) == (TINY.depth, TINY.heads, TINY.raster)
    assert w.build_model(found).name == "tapnextpp"


def test_names_of_the_published_numpy_file() -> None:
    listed = json.loads((DATA / "manifest_jax_npz.json").read_text())["keys"]
    arrays = {name: torch.zeros(1).expand(shape) for name, shape in listed}
    assert len(arrays) == 448
    found = {key: tuple(value.shape) for key, value in w.to_model(arrays).items()}
    assert found == w.expected_shapes(TapNextConfig())


def test_load_by_name_with_options(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.npz", "jax")
    tracker = ptrack.load("tapnext", checkpoint=path, device="cpu", reserve=2, threshold=0.7)
    assert (tracker.model.name, tracker.model.reserve, tracker.model.threshold) == ("tapnext", 2, 0.7)
    assert tracker.support_grid == 0
    for wrong, words in (({"reserve": -1}, "reserve"), ({"reserve": 1.5}, "reserve"), ({"threshold": 1}, "threshold")):
        with pytest.raises(ModelError, match=words):
            ptrack.load("tapnext", checkpoint=path, device="cpu", **wrong)
    with pytest.raises(ModelError, match="memory"):
        ptrack.load("tapnext", checkpoint=path, device="cpu", memory=3)


def _refused(path: Path, model: str = "tapnextpp") -> str:
    with pytest.raises(CheckpointError) as error:
        w.read_checkpoint(path, model=model)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", ["plain", "jax"])
def test_every_difference_is_listed(kind: str, tmp_path: Path) -> None:
    state = dict(tiny())
    del state["lin_proj.bias"]
    state["blocks.1.vit_block.ln_1.bias"] = torch.zeros(7)
    path = tmp_path / KINDS[kind]
    if kind == "plain":
        torch.save(state | {"surprise": torch.zeros(1)}, path)
    else:
        with open(path, "wb") as file:
            np.savez(file, **_as_jax(state), **{"backbone/surprise": np.zeros(1, np.float32)})
    sentence = _refused(path)
    for words in ("1 missing (lin_proj.bias)", "1 unexpected (surprise)", "ln_1.bias is (7,) instead of (32,)"):
        assert words in sentence


def test_the_weights_of_another_network(tmp_path: Path) -> None:
    torch.save(tiny(), tmp_path / "tapnextpp_512.ckpt")
    assert "tapnextpp-512" in _refused(tmp_path / "tapnextpp_512.ckpt")
    assert "load them with --model tapnextpp" in _refused(_write(tmp_path / "a.safetensors", "ours"), "tapnextpp-512")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "b.pt")
    assert "no TAPNext checkpoint" in _refused(tmp_path / "b.pt")
    assert not w.holds(tmp_path / "b.pt")
    torch.save(tiny() | {w.TABLE: TABLE[w.TABLE] + 1}, tmp_path / "c.pt")
    assert w.TABLE in _refused(tmp_path / "c.pt")
    torch.save(tiny() | {w.TABLE: torch.zeros(3)}, tmp_path / "d.pt")
    assert w.TABLE in _refused(tmp_path / "d.pt")
    with pytest.raises(ModelError, match="Did you mean"):
        w.read_checkpoint(_write(tmp_path / "e.pt", "plain"), model="tapnextp")


def test_a_published_network_gets_its_frame_size() -> None:
    full = {name: torch.zeros(1).expand(shape) for name, shape in w.expected_shapes(TapNextConfig()).items()}
    for name, size in w.SIZES.items():
        found = w._for(w.TapNextCheckpoint(config=w._config(full), state=full), name, Path("a.pt"))
        assert (found.config, found.model) == (TapNextConfig(input_size=size), name)
    with pytest.raises(CheckpointError, match="399 missing"):
        few = {"lin_proj.weight": full["lin_proj.weight"]}
        w._for(w.TapNextCheckpoint(config=w._config(few), state=few), "tapnextpp", Path("a.pt"))


class _Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["PTRACK_TEST_BOMB"],)


@pytest.mark.parametrize("kind", ["plain", "jax"])
def test_nothing_in_a_file_is_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTRACK_TEST_BOMB", str(tmp_path / "boom"))
    path = tmp_path / KINDS[kind]
    if kind == "plain":
        torch.save({"mask_token": _Bomb()}, path)
    else:
        np.savez(path, **{"backbone/mask_token": np.array([_Bomb()], dtype=object)})
    assert "nothing in it was run" in _refused(path)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["truncated", "empty", "scrambled"])
def test_damaged_files(kind: str, damage: str, tmp_path: Path) -> None:
    path = _write(tmp_path / KINDS[kind], kind)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "empty":
        content = bytearray()
    else:
        content[:64] = bytes(64)
    path.write_bytes(content)
    _refused(path)
    with pytest.raises(CheckpointError, match="There is no|no such file|Cannot read|No such"):
        w.read_checkpoint(tmp_path / "none" / KINDS[kind])


@pytest.mark.parametrize("kind", ["wrapped", "jax"])
def test_convert_command(kind: str, tmp_path: Path) -> None:
    source, target = _write(tmp_path / KINDS[kind], kind), tmp_path / "b.safetensors"
    run = CliRunner().invoke(app, ["convert", "checkpoint", str(source), str(target), "--model", "tapnextpp"])
    assert run.exit_code == 0, run.output
    assert "tapnextpp" in run.output
    found = w.read_checkpoint(target)
    assert found.model == "tapnextpp"
    assert all(torch.equal(found.state[k], v) for k, v in tiny().items())
    for arguments, words, kinds in (
        ({"model": "tapnextpp"}, "already exists", OutputError),
        ({"overwrite": True}, "--model", CheckpointError),  # the file's name does not say which network it is
    ):
        with pytest.raises(kinds, match=words):
            convert(source, target, **arguments)
    with pytest.raises(OutputError, match=r"\.safetensors"):
        convert(source, tmp_path / "b.bin", model="tapnextpp")
    named = source.rename(tmp_path / "bootstapnext_ckpt.npz") if kind == "jax" else None
    if named:
        assert convert(named, target, overwrite=True).facts["model"] == "tapnext"

"""Files of torch.save come back as torch.load gives them; claims of more than a file holds, and code, are refused."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ptrack.errors import CheckpointError
from ptrack.models.nano.weights import read_weights
from ptrack.models.offline.weights import load_weights
from ptrack.models.saved import load_pickle, read_pt
from ptrack.untrusted import pickles, torch_files
from ptrack.untrusted.limits import Refused


def content() -> dict:
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(4, 6, generator=generator)
    return {
        "model": OrderedDict(a=a, view=a[1:, ::2].T, half=a.half(), brain=a.bfloat16(), flag=a > 0),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "none": torch.zeros(0, 5),
        "scalar": torch.tensor(7),
        "step": 12,
        "lr": 0.5,
        "text": "x",
        "best": np.float64(2.5),
        "betas": (0.9, 0.99),
        "size": a.shape,
        "type": torch.float16,
        "random": torch.get_rng_state(),
        "list": [None, True, {1}],
    }


def equal(back, wanted) -> bool:
    if isinstance(wanted, torch.Tensor):
        return back.dtype == wanted.dtype and torch.equal(back, wanted.detach()) and not back.requires_grad
    if isinstance(wanted, dict):
        return list(back) == list(wanted) and all(equal(back[key], wanted[key]) for key in wanted)
    return back == wanted


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_comes_back(zipped, tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))  # its table of weights carries notes as attributes
    wanted = content() | {"state": model.state_dict()}
    torch.save(wanted, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    back = torch_files.load(tmp_path / "a.pt")
    assert equal(back, wanted)
    assert back["model"]["a"].data_ptr() + 24 == back["model"]["view"].data_ptr()


def spoiled(path, change, zipped: bool = True):
    """Write a file of one tensor whose pickle was changed."""
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(100.0)}, buffer, _use_new_zipfile_serialization=zipped)
    if not zipped:
        path.write_bytes(change(buffer.getvalue()))
        return path
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith("data.pkl") else data)
    return path


def replaced(before: bytes, after: bytes):
    def change(data: bytes) -> bytes:
        assert re.search(before, data, re.DOTALL)
        return re.sub(
            before, lambda found: after.replace(b"@", b"".join(found.groups())), data, count=1, flags=re.DOTALL
        )

    return change


MOST = b"J\xff\xff\xff\x7f"  # 2**31 - 1


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (b"Kd(N?)t", MOST + b"@t", "storage claims 8589934588 bytes"),
        (b"K\x00Kd\x85", b"K\x00M\x00\x41\x85", "claims 16640 values of a storage of 100"),
        (b"K\x00Kd\x85", b"KcKd\x85", "claims 199 values of a storage of 100"),
        (b"Kd\x85(q.)K\x01\x85", MOST + b"\x85@K\x00\x85", "claims 2147483647 values in a tensor"),
        (b"Kd\x85(q.)K\x01\x85", b"Kd\x85@J\xff\xff\xff\xff\x85", "an impossible shape"),
        (b"ctorch._utils\n_rebuild_tensor_v2", b"cos\nsystem", "asks for 'os.system'"),
        (b"ctorch._utils\n_rebuild_tensor_v2", b"ctorch._utils\n_rebuild_sparse_tensor", "_rebuild_sparse_tensor'"),
    ],
)
def test_claims_are_checked_before_memory_is_touched(zipped, before, after, words, tmp_path):
    path = spoiled(tmp_path / "a.pt", replaced(before, after), zipped)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_pickle(path)
    assert "a.pt" in str(caught.value)


def test_an_archive_that_unpacks_to_more_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", pickle.dumps({}, 2))
        file.writestr("a/byteorder", b"big" * 5)
    with pytest.raises(CheckpointError, match="big-endian"):
        load_pickle(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as file:
        file.writestr("a/other", b"")
    with pytest.raises(CheckpointError, match="without weights of PyTorch"):
        load_pickle(tmp_path / "b.pt")


def test_the_file_may_end_anywhere(tmp_path):
    torch.save({"w": torch.arange(100.0)}, tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    for end in range(0, len(whole) - 1, 37):
        (tmp_path / "b.pt").write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match=r"b\.pt"):
            read_pt(tmp_path / "b.pt")


def test_foreign_names_are_known_without_being_imported():
    with pytest.raises(pickles.Foreign, match="asks for 'antigravity.fly'") as caught:
        pickles.load(io.BytesIO(b"cantigravity\nfly\n."), torch_files.Budget(0))
    assert caught.value.wanted == "'antigravity.fly'"
    assert isinstance(caught.value, Refused)


@pytest.mark.parametrize(
    ("name", "value"), [("hidden", 10**9), ("iterations", 10**6), ("dim", 10**400), ("input_size", [16, 1 << 20])]
)
def test_a_configuration_cannot_claim_a_network_of_any_size(name, value, tmp_path):
    metadata = {"format": "ptrack-nano-1", "config": json.dumps({name: value})}
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=rf"a\.safetensors: its configuration cannot be used.*{name}"):
        read_weights(tmp_path / "a.safetensors")


def test_weights_of_another_size_are_refused_before_the_network_is_made(tmp_path):
    metadata = {"format": "ptrack-transformer-1", "config": json.dumps({"dim": 8192, "layers": 64})}
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match="the weights do not fit"):
        load_weights(tmp_path / "a.safetensors")

"""Single pieces against the recorded official ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptrack import geometry
from ptrack.models.backbones.vit import resize_positions, rotary_table
from ptrack.models.layers import deformable
from ptrack.models.layers.attention import AttentionBlock
from ptrack.models.layers.deformable import DeformableAttention, DeformableBlock
from ptrack.models.online.config import OnlineConfig
from ptrack.models.online.heads import cell_to_xy, correlation_volume
from ptrack.models.online.model import TrackOn2
from tests.parity import official
from tests.parity.track_on2 import fill

CLOSE = {"atol": 2e-6, "rtol": 1e-5}


def _group(name: str) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v) for k, v in official.group("modules", name).items()}


def _load(module: torch.nn.Module, data: dict[str, torch.Tensor]) -> torch.nn.Module:
    module.load_state_dict({k[2:]: v for k, v in data.items() if k.startswith("w.")}, strict=True)
    return module.eval()


def _shapes(data: dict[str, torch.Tensor]) -> deformable.Shapes:
    return tuple((int(h), int(w)) for h, w in data["spatial_shapes"])


@pytest.mark.parametrize("sampler", ["sample_bags", "sample_grids"])
@pytest.mark.parametrize("name", ["msda_levels", "msda_broadcast_ref", "msda_one_level"])
def test_deformable_attention(name: str, sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _group(name)
    shapes, query = _shapes(data), data["query"]
    module = _load(DeformableAttention(query.shape[-1], int(data["num_heads"]), len(shapes)), data)
    monkeypatch.setattr(deformable, "sample_bags", getattr(deformable, sampler))  # what a CPU tensor is sampled with
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found = module(
                query[:, :, None], data["reference_points"][:, :, None], module.values(data["value"]), shapes
            )
        torch.testing.assert_close(found[:, :, 0].detach(), data["out"], **CLOSE)
        torch.testing.assert_close(found[:, :, 0].detach() - query, data["out_zero_identity"], atol=5e-6, rtol=1e-4)


def test_both_samplers_have_the_same_gradients() -> None:
    data = _group("msda_levels")
    shapes = _shapes(data)
    grads = []
    for sampler in (deformable.sample_bags, deformable.sample_grids):
        values, x, y, w = (
            torch.randn(s, generator=torch.Generator().manual_seed(i)).requires_grad_()
            for i, s in enumerate([(2, 128, 4, 8), *[(2, 5, 4, 4, 4)] * 3])
        )
        out = sampler(values, shapes, x * 3 + 2, y * 3 + 2, w)
        (out * torch.arange(out.numel()).view(out.shape)).sum().backward()
        grads.append([t.grad for t in (values, x, y, w)])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def test_deformable_block() -> None:
    data = _group("dmsmha_block")
    shapes = _shapes(data)
    block = _load(DeformableBlock(32, int(data["num_heads"]), len(shapes), int(data["num_points"]), 128), data)
    values = block.mha.values(data["value"])
    with torch.no_grad():
        found = block(data["query"][:, :, None], data["reference_points"][:, :, None], values, shapes)
    torch.testing.assert_close(found[:, :, 0], data["out"], **CLOSE)


@pytest.mark.parametrize("grad", [False, True])
def test_attention_block(grad: bool) -> None:
    data = _group("mha_block")
    block = _load(AttentionBlock(32, int(data["num_heads"]), 128), data)
    q, k, v = data["q"], data["k"], data["v"]
    with torch.set_grad_enabled(grad):
        found = [block(q, k, v), block(q, k, v, data["mask"]), block(q, q, q)]
        zt = data["mem_x"] + data["mem_t"]
        memory = block(zt, zt, data["mem_x"], data["mem_mask"])
        last = block.forward_one(zt[:, -1], zt, data["mem_x"], data["mem_mask"])
        ones = torch.stack([block.forward_one(q[:, i], k, v) for i in range(q.shape[1])], dim=1)
    for a, name in zip(found, ("out_nomask", "out_mask", "self_out"), strict=True):
        torch.testing.assert_close(a.detach(), data[name], **CLOSE)
    torch.testing.assert_close(memory.detach(), data["mem_out"], **CLOSE)
    torch.testing.assert_close(last.detach(), data["mem_out"][:, -1], **CLOSE)  # keys and values never projected
    torch.testing.assert_close(ones.detach(), data["out_nomask"], **CLOSE)


@pytest.mark.parametrize("memory", [72, 48, 12, 24])
def test_memory_extension(memory: int) -> None:
    data = _group("memory_extension")
    model = TrackOn2(OnlineConfig(backbone="resnet18", input_size=(32, 32)))
    with torch.no_grad():
        model.t_embedding.copy_(data["t_embedding"])
    model.set_memory(memory)
    assert model.memory == memory
    torch.testing.assert_close(model.t_embedding.detach(), data[f"out_{memory}"], atol=1e-7, rtol=0)


def test_cells() -> None:
    data = _group("coords")
    stride = int(data["stride"])
    for size, cells, xy in (("size", "indices", "xy"), ("big_size", "big_indices", "big_xy")):
        width = int(data[size][1]) // stride
        torch.testing.assert_close(cell_to_xy(data[cells], width, stride), data[xy], atol=0, rtol=0)


def test_support_grid() -> None:
    for name, points in official.group("modules", "support_grid").items():
        n, size = name.split("_")
        h, w = (int(v) for v in size.split("x"))
        np.testing.assert_allclose(geometry.support_points(int(n), (h, w)), points, atol=1e-4)


def test_correlation_volume() -> None:
    data = _group("multiscale_correlation")
    h, w = int(data["Hf"]), int(data["Wf"])
    shapes = tuple((h // f, w // f) for f in (1, 2, 4, 8))
    levels = [data[f"h{s}"] for s in (4, 8, 16, 32)]
    volume = correlation_volume(levels, shapes, data["w.weight"].flatten())
    found = torch.nn.functional.normalize(data["q"], dim=-1) @ volume.transpose(1, 2) + data["w.bias"]
    torch.testing.assert_close(found, data["out"], atol=1e-6, rtol=1e-5)


def test_rotary_table() -> None:
    data = _group("dinov3_rope")
    for grid, step in (((4, 6), 1), ((27, 36), 37)):
        sin, cos = rotary_table(grid, 64)[::step].chunk(2, dim=-1)
        torch.testing.assert_close(sin, data[f"sin_{grid[0]}x{grid[1]}"], atol=1e-6, rtol=0)
        torch.testing.assert_close(cos, data[f"cos_{grid[0]}x{grid[1]}"], atol=1e-6, rtol=0)


def test_position_embedding() -> None:
    data = _group("dinov2_position")
    key = "backbone.vit_encoder.dinov2.embeddings.position_embeddings"
    table = torch.from_numpy(fill.fill_array(key, (1, 1370, 384)))
    for grid, step in (((4, 6), 1), ((27, 36), 37)):
        found = resize_positions(table, grid)[0, ::step]
        torch.testing.assert_close(found, data[f"out_{grid[0]}x{grid[1]}"], atol=1e-5, rtol=0)

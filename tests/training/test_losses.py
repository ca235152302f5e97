"""The loss terms against recorded values of the official program, and the rules about masks, clamps and counts."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ptrack.training import losses
from ptrack.training.losses import Counts, Targets
from ptrack.training.systems import track_on2, transformer

RECORDED = Path(__file__).parent / "data" / "losses.npz"
TERMS = ("L_p", "L_p2", "L_vis", "L_o", "L_u", "L_topk_u", "L_topk_rank")
NAMES = {
    "C1": "c1", "C2": "c2", "O": "offsets", "V_logit": "visibility_logit", "U_logit": "uncertainty_logit",
    "P_patch": "patch", "U_logit_top_k": "candidate_uncertainty", "S_logit_top_k": "candidate_score",
    "P_patch_top_k": "candidate_patch",
}  # fmt: skip


@dataclass
class Out:
    c1: Tensor
    c2: Tensor
    offsets: Tensor
    visibility_logit: Tensor
    uncertainty_logit: Tensor
    patch: Tensor
    candidate_uncertainty: Tensor
    candidate_score: Tensor
    candidate_patch: Tensor


def recorded(group: str) -> tuple[dict[str, Tensor], Targets, dict[str, np.ndarray]]:
    data = {k.removeprefix(f"{group}/"): v for k, v in np.load(RECORDED).items() if k.startswith(f"{group}/")}
    outputs = {k.removeprefix("out."): torch.from_numpy(v) for k, v in data.items() if k.startswith("out.")}
    visible = torch.from_numpy(data["gt_visibility"])
    targets = Targets(
        torch.from_numpy(data["gt_tracks"]), visible, torch.ones_like(visible), torch.from_numpy(data["query_times"])
    )
    return outputs, targets, data


def run(outputs: dict[str, Tensor], targets: Targets, size: tuple[int, int], counts: Counts | None = None):
    total: losses.Terms = {}
    counts = counts or losses.count(targets)
    for t in range(targets.xy.shape[1]):
        frame = Out(**{NAMES[k]: v[:, t] for k, v in outputs.items()})
        total = losses.add_terms(total, track_on2.frame_terms(frame, targets, t, counts, size))
    return total


@pytest.mark.parametrize("group", ["a", "b"])
def test_terms_and_gradients_equal_the_recorded_ones(group: str) -> None:
    outputs, targets, data = recorded(group)
    for value in outputs.values():
        value.requires_grad_(True)
    terms = run(outputs, targets, tuple(int(v) for v in data["input_size"]))
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert set(terms) == set(TERMS)
    for name in TERMS:
        np.testing.assert_allclose(terms[name].item(), data[name][0], rtol=1e-5)
    np.testing.assert_allclose(total.item(), data["total"][0], rtol=1e-5)
    for name in (k.removeprefix("grad.") for k in data if k.startswith("grad.")):
        wanted = data[f"grad.{name}"]
        got = outputs[name].grad
        assert got is not None
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    outputs, targets, data = recorded("b")
    size = tuple(int(v) for v in data["input_size"])
    whole = run(outputs, targets, size)
    counts = losses.count(targets)
    parts: losses.Terms = {}
    for b in range(2):
        one = Targets(*(getattr(targets, f)[b : b + 1] for f in ("xy", "visible", "valid", "query_time")))
        part = run({k: v[b : b + 1] for k, v in outputs.items()}, one, size, counts)
        parts = losses.add_terms(parts, part)
    for name in TERMS:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-6, atol=1e-7)


def test_the_query_frame_and_unknown_coordinates_are_not_supervised() -> None:
    _, targets, _ = recorded("a")
    valid = targets.valid.clone()
    valid[0, 4, 0] = False
    time, point = replace(targets, valid=valid).masks()
    for n, start in enumerate(targets.query_time[0].tolist()):
        assert not time[0, : start + 1, n].any()
    assert not time[0, 4, 0]
    assert (point == (time & targets.visible)).all()
    first, _ = targets.masks(query_frame=True)
    assert first[0, int(targets.query_time[0, 0]), 0]


def test_unknown_coordinates_may_be_nan() -> None:
    outputs, targets, data = recorded("a")
    size = tuple(int(v) for v in data["input_size"])
    valid, xy = targets.valid.clone(), targets.xy.clone()
    valid[:, 3], xy[:, 3] = False, float("nan")
    terms = run(outputs, replace(targets, valid=valid, xy=xy), size)
    xy[:, 3] = 5.0
    again = run(outputs, replace(targets, valid=valid, xy=xy), size)
    for name in TERMS:
        assert torch.isfinite(terms[name])
        assert terms[name] == again[name]


def test_nothing_to_supervise_is_zero_and_not_nan() -> None:
    outputs, targets, data = recorded("a")
    nothing = replace(targets, valid=torch.zeros_like(targets.valid))
    terms = run(outputs, nothing, tuple(int(v) for v in data["input_size"]))
    assert all(value == 0 for value in terms.values())


def test_the_offset_loss_is_flat_where_the_patch_is_wrong() -> None:
    offsets = torch.zeros(1, 1, 2, 2, requires_grad=True)
    xy = torch.tensor([[[3.0, 1.0], [30.0, 0.0]]])
    loss = track_on2.offset_loss(offsets, torch.zeros(1, 2, 2), xy, torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 4.0 + track_on2.OFFSET_CLAMP
    assert offsets.grad is not None
    assert offsets.grad[0, 0, 0].tolist() == [-1.0, -1.0]
    assert offsets.grad[0, 0, 1].tolist() == [0.0, 0.0]


def test_cells_of_points_outside_are_zero() -> None:
    points = torch.tensor([[0.0, 0.0], [4.0, 8.0], [-0.1, 3.0], [48.0, 3.0], [47.9, 31.9], [float("nan"), 1.0]])
    assert losses.cell_index(points, (32, 48), 4).tolist() == [0, 25, 0, 0, 95, 0]


@dataclass
class Window:
    start: int
    xy: Tensor
    visibility_logit: Tensor
    confidence_logit: Tensor


def test_transformer_terms_by_hand() -> None:
    xy = torch.full((1, 3, 1, 2), 10.0)
    flags = torch.ones(1, 3, 1, dtype=torch.bool)
    visible = flags.clone()
    visible[0, 2, 0] = False
    targets = Targets(xy, visible, flags, torch.zeros(1, 1, dtype=torch.int64))
    predicted = torch.full((2, 1, 2, 1, 2), 10.0)
    predicted[..., 0, :, 0] += 3.0  # frame 1 (visible): 3 px off in a 128-pixel input = 6 px at the 256-pixel scale
    predicted[..., 1, :, 0] += 10.0  # frame 2 (hidden): 20 px at the 256-pixel scale
    zero = torch.zeros(2, 1, 2, 1)
    terms = transformer.window_terms(Window(1, predicted, zero, zero), targets, losses.count(targets), (128, 128))
    place = 0.1 * ((6 - 0.5) + 0.2 * (20 - 0.5)) / 2  # Huber: |e| - 0.5 beyond 1 px
    assert terms["position"].item() == pytest.approx(place, rel=1e-6)
    assert terms["visibility"].item() == pytest.approx(np.log(2), rel=1e-6)
    assert terms["confidence"].item() == pytest.approx(np.log(2), rel=1e-6)


def test_a_later_iteration_weighs_more() -> None:
    flags = torch.ones(1, 2, 1, dtype=torch.bool)
    targets = Targets(torch.zeros(1, 2, 1, 2), flags, flags, torch.zeros(1, 1, dtype=torch.int64))
    terms = []
    for wrong in (0, 1):
        predicted = torch.zeros(2, 1, 1, 1, 2)
        predicted[wrong] = 100.0
        zero = torch.zeros(2, 1, 1, 1)
        out = Window(1, predicted, zero, zero)
        terms.append(transformer.window_terms(out, targets, losses.count(targets), (256, 256))["position"].item())
    assert terms[0] / terms[1] == pytest.approx(0.8, rel=1e-6)


def test_the_matching_term_by_hand() -> None:
    maps = torch.zeros(1, 2, 2, 2, 4)  # four cells of 32 px with one-hot features
    maps[0, 1] = torch.eye(4).view(2, 2, 4)
    template = torch.eye(4)[None, [3, 3, 0]]  # three queries
    xy = torch.tensor([[40.0, 50.0], [10.0, 50.0], [10.0, 50.0]]).expand(1, 2, 3, 2)  # in cells 3, 2 and 2
    visible = torch.tensor([True, True, False]).expand(1, 2, 3)
    targets = Targets(xy, visible, torch.ones_like(visible), torch.zeros(1, 3, dtype=torch.int64))
    got = transformer.matching_term([maps], [template], targets, losses.count(targets), (64, 64))
    peak = 1 / transformer.MATCH_TEMPERATURE
    total = np.logaddexp.reduce([peak, 0, 0, 0])
    wanted = transformer.MATCH_WEIGHT * ((total - peak) + (total - 0)) / 2  # right, wrong, hidden
    assert got.item() == pytest.approx(wanted, rel=1e-5)

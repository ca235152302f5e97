"""TAPNext against the recorded outputs of the official program.

Every stage is compared at full width in two blocks; the whole network, the whole clips and the 512x512 frames take
minutes and are run with PTRACK_WHOLE_NETWORK=1.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ptrack.models.tapnext.config import TapNextConfig
from ptrack.models.tapnext.heads import locate, mass_near, window_probabilities
from ptrack.models.tapnext.model import TapNext, sine_rows
from ptrack.models.tapnext.state import State
from ptrack.models.tapnext.weights import TABLE, TapNextCheckpoint, build_model, expected_shapes, to_model
from tests.parity.tapnext import fill, recorded
from tests.parity.tapnext.plain import Plain, table

PIXELS = 3e-3  # a wrong GELU costs 8e-3
VISIBILITY = 2e-4
LOGITS = 2e-3
ACTIVATIONS = 1e-4  # of an array's largest value
TIE = 2e-3  # of the arg-max's margin: below, it may go either way


def _model(config: TapNextConfig, state) -> TapNext:
    return build_model(TapNextCheckpoint(config=config, state=state))


def _close(found: torch.Tensor, value: np.ndarray, what: str) -> None:
    _near(found.numpy(), value, ACTIVATIONS * np.abs(value).max(), what)


def _near(found: np.ndarray, value: np.ndarray, most: float, what: str) -> None:
    """``pytest -rP`` shows by how much."""
    error = np.abs(found - value).max()
    print(f"{what}: {error:.2g} of {most:.2g} allowed")
    assert error <= most, what


def _agrees(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], prefix: str = "") -> None:
    assert (wanted["argmax_margin"] >= TIE).all()  # nothing is a near tie
    model_tracks = f"{prefix}tracks_model"
    tracks = wanted[model_tracks if model_tracks in wanted else f"{prefix}tracks"]
    _near(found["tracks"], tracks, PIXELS, f"{prefix}tracks")
    limits = {"vis_logit": LOGITS, "certainty": VISIBILITY, "vis_prob": VISIBILITY, "track_logits": LOGITS}
    for name, most in limits.items():
        if prefix + name in wanted:
            _near(found[name], wanted[prefix + name], most, prefix + name)


def _read(logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Positions (..., 2) as (x, y), and the official program's certainty of (..., 2, R) logits."""
    yx = locate(logits, 0.5, 20)
    (py, dy), (px, dx) = (window_probabilities(logits[..., axis, :], yx[..., axis]) for axis in (0, 1))
    # The official program exchanges the two distances inside its disc; ptrack does not.
    return yx.flip(-1).numpy(), mass_near(py, px, dx, dy, 8.0).numpy()


# ---- every run ------------------------------------------------------------------------------------------------------


def test_names_shapes_and_number_of_weights() -> None:
    manifest = recorded.manifest()
    wanted = {name: tuple(shape) for name, shape, *_ in manifest["keys"] if name != TABLE}
    assert expected_shapes(TapNextConfig()) == wanted
    assert sum(np.prod(s) for s in wanted.values()) == manifest["totals"]["parameter_elements"] == 194_202_881


def test_table_of_query_positions() -> None:
    """The official table, of every place, is one axis's sines beside the other's."""
    waves = sine_rows(256, 384).numpy()
    for place, values in recorded.manifest()["fill"]["query_pos_embed_samples"].items():
        y, x = (int(n) for n in place.split(","))
        row = np.concatenate([waves[x], waves[y]])
        assert all(np.abs(row - value).min() <= 1e-7 for value in values), place
    official = fill.query_pos_embed(24, 24, 64).reshape(24, 24, 64)
    waves = sine_rows(24, 32).numpy()
    assert np.abs(official[..., :32] - waves).max() <= 1e-7
    assert np.abs(official[..., 32:] - waves[:, None]).max() <= 1e-7


@pytest.fixture(scope="module")
def two_blocks() -> TapNext:
    """The first two of the twelve blocks; the heads belong to the twelfth's output all the same."""
    config = TapNextConfig(depth=2)
    return _model(config, recorded.fill(expected_shapes(config)))


def test_every_stage_of_two_blocks(two_blocks: TapNext) -> None:
    wanted, clip = recorded.load("frames01"), recorded.load("clip")
    kept = torch.from_numpy(wanted["tokens"])
    queries = torch.from_numpy(clip["queries_txy"])
    frames = two_blocks.encode(torch.from_numpy(clip["video"][:2]))
    state = two_blocks._joined(two_blocks.init_state(), queries[:, 1:], queries[:, 0].long(), (256, 256))
    with torch.inference_mode():
        for t, frame in enumerate(frames):
            found, blocks = _stages(two_blocks, frame.tokens, state)
            state = state.after(blocks, 1)
            for name, value in found.items():
                _close(value[kept], wanted[f"frame{t}/{name}"], f"frame {t} {name}")


def _stages(model: TapNext, image: torch.Tensor, state: State) -> tuple[dict[str, torch.Tensor], tuple]:
    """The activations inside the first block and after the parts of all, under their recorded names; the states."""
    x = torch.cat([image[None], model._point_tokens(state.query, state.delay, 1)], dim=1)
    first, memory = model.blocks[0], state.blocks[0]
    mixing, r = first.ssm_block.recurrent_block, first.ssm_block.temporal_pre_norm(x)
    u = mixing.linear_x(r)
    c, _ = mixing.conv_1d(u, memory.inputs)
    h, _ = mixing.rg_lru(c, memory.hidden, state.seen[None])
    y = mixing.linear_y(r)
    out = mixing.linear_out(F.gelu(y, approximate="tanh") * h)
    found = {
        "tokens_in": x, "b0_rms1": r, "b0_linear_y": y, "b0_linear_x": u, "b0_conv": c, "b0_lru": h,
        "b0_recurrent_out": out,
    }  # fmt: skip
    after = []
    for i, block in enumerate(model.blocks):
        x, memory = block.ssm_block(x, state.blocks[i], state.seen[None])
        after.append(memory)
        found[f"b{i}_temporal"] = x
        if i == 0:
            found["b0_attention"] = block.vit_block.attend(block.vit_block.ln_1(x))
        x = block.vit_block(x)
        found[f"b{i}_spatial"] = x
    found["b0_state_lru"] = after[0].hidden[None]
    found["b0_state_conv"] = torch.stack(after[0].inputs, 1)[None]
    return {name: value[0] for name, value in found.items()}, tuple(after)


def test_heads_on_recorded_tokens(two_blocks: TapNext) -> None:
    wanted, clip = recorded.load("frames01"), recorded.load("clip")
    tokens = torch.stack([torch.from_numpy(wanted[f"frame{t}/tokens_out"][-10:]) for t in (0, 1)])
    with torch.inference_mode():
        outputs = two_blocks.read(tokens)
    assert np.abs(outputs.coordinate_logits.flatten(2).numpy() - clip["track_logits"][:2]).max() <= LOGITS
    assert np.abs(outputs.visibility_logit.numpy() - clip["vis_logit"][:2]).max() <= LOGITS


@pytest.mark.parametrize("name", ["clip", "res128", "res512", "resize"])
def test_positions_and_confidence_of_recorded_logits(name: str) -> None:
    wanted = recorded.load(name)
    tracks, certainty = _read(torch.from_numpy(wanted["track_logits"]).unflatten(-1, (2, 256)))
    assert np.abs(tracks - wanted.get("tracks_model", wanted["tracks"] if name == "clip" else None)).max() <= 1e-4
    assert np.abs(certainty - wanted["certainty"]).max() <= 2e-5


@pytest.mark.parametrize(("name", "size", "every"), [("res128", 128, 5), ("res512", 512, 67)])
def test_resampled_position_embedding(name: str, size: int, every: int, two_blocks: TapNext) -> None:
    with torch.device("meta"):
        model = TapNext(dataclasses.replace(two_blocks.config, input_size=size))
    model.image_pos_emb = two_blocks.image_pos_emb
    model.set_tables()
    assert np.abs(model.positions[::every].numpy() - recorded.load(name)["pos_emb"]).max() <= 1e-5


def test_resized_frame() -> None:
    from ptrack.models.online.preprocess import prepare
    from ptrack.models.tapnext.model import HALF

    wanted = recorded.load("resize")
    found = prepare(torch.from_numpy(wanted["video"][:1]), (256, 256))[0].permute(1, 2, 0) / HALF - 1
    assert np.abs(found[::16, ::16].numpy() - wanted["frame0"]).max() <= 1e-6


def test_a_small_network_equals_the_formulas() -> None:
    """All formulas once more, frame by frame, with points that start later, on and beyond the border."""
    c = recorded.TINY
    model = _model(c, recorded.tiny())
    video = recorded.video(5, (48, 48))
    queries = torch.tensor([[0, 3.0, 40.0], [1, 0.3, 47.9], [3, 20.0, 20.0], [0, 60.0, -9.0], [4, 48.0, 0.0]])
    out = model(video, queries, chunk=2)
    plain = Plain(recorded.tiny(), heads=c.heads, input_size=c.input_size, window=c.window)
    raster = queries * torch.tensor([1, 32 / 48, 32 / 48])
    for t, frame in enumerate(video):
        xy, _, visibility = plain.frame(frame, raster)
        torch.testing.assert_close(out.xy[t] * 32 / 48, xy, atol=2e-4, rtol=0)
        torch.testing.assert_close(out.visibility[t], visibility.sigmoid(), atol=2e-5, rtol=0)


# ---- the whole network ----------------------------------------------------------------------------------------------


def _whole(size: int = 256) -> TapNext:
    return _model(TapNextConfig(input_size=size), recorded.whole())


def _run(model: TapNext, video: np.ndarray, queries: np.ndarray, chunk: int) -> dict[str, np.ndarray]:
    """The whole clip in calls of ``chunk`` frames, all points known from the start."""
    size = video.shape[1:3]
    rows = torch.from_numpy(queries)
    state = model._joined(model.init_state(), rows[:, 1:], rows[:, 0].long(), size)
    logits, visibility = [], []
    with torch.inference_mode():
        for frames in torch.from_numpy(video).split(chunk):
            outputs, state = model.advance(torch.stack([f.tokens for f in model.encode(frames)]), state)
            logits.append(outputs.coordinate_logits)
            visibility.append(outputs.visibility_logit)
    return _words(torch.cat(logits), torch.cat(visibility))


def _stream(model: TapNext, video: np.ndarray, queries: np.ndarray) -> dict[str, np.ndarray]:
    """Step by step through the public calls: later points join in slots that were reserved. Only started rows count."""
    size, start = video.shape[1:3], queries[:, 0]
    state, order = model.init_state(), []
    xy = np.full((len(video), len(queries), 2), np.nan, np.float32)
    visibility = np.full((len(video), len(queries)), np.nan, np.float32)
    for t in range(len(video)):
        frame = model.encode(torch.from_numpy(video[t : t + 1]))[0]
        new = np.flatnonzero(start == t)
        state = model.add(state, frame, torch.from_numpy(queries[new, 1:])) if len(new) else state
        state = model.reserve_slots(state, len(queries) - len(new)) if t == 0 else state
        order += new.tolist()
        state, output = model.step(state, frame)
        xy[t, order], visibility[t, order] = output.xy.numpy(), output.visibility.numpy()
    assert (size, len(order)) == (video.shape[1:3], len(queries))
    return {"tracks": xy, "vis_prob": visibility}


def _words(logits: torch.Tensor, visibility: torch.Tensor) -> dict[str, np.ndarray]:
    tracks, certainty = _read(logits)
    return {
        "tracks": tracks, "certainty": certainty, "track_logits": logits.flatten(2).numpy(),
        "vis_logit": visibility.numpy(), "vis_prob": visibility.sigmoid().numpy(),
    }  # fmt: skip


@recorded.whole_network
def test_weights_are_those_of_the_fixtures() -> None:
    arrays = {k: v.numpy() for k, v in recorded.whole().items()}
    assert fill.digest(arrays) == recorded.manifest()["fill"]["sha256"]


@recorded.whole_network
@pytest.mark.parametrize("chunk", [1, 6])
def test_clip_at_128x128(chunk: int) -> None:
    wanted, clip = recorded.load("res128"), recorded.load("clip")
    queries = wanted["queries_tyx"][:, [0, 2, 1]] * np.float32([1, 0.5, 0.5])
    _agrees(_run(_whole(128), np.ascontiguousarray(clip["video"][:6, ::2, ::2]), queries, chunk), wanted)


@recorded.whole_network
def test_every_stage_of_the_whole_network() -> None:
    wanted, clip, model = recorded.load("frames01"), recorded.load("clip"), _whole()
    kept, queries = torch.from_numpy(wanted["tokens"]), torch.from_numpy(clip["queries_txy"])
    state = model._joined(model.init_state(), queries[:, 1:], queries[:, 0].long(), (256, 256))
    with torch.inference_mode():
        for t, frame in enumerate(model.encode(torch.from_numpy(clip["video"][:2]))):
            x = torch.cat([frame.tokens[None], model._point_tokens(state.query, state.delay, 1)], dim=1)
            _close(x[0, kept], wanted[f"frame{t}/tokens_in"], "tokens_in")
            after = []
            for i, block in enumerate(model.blocks):
                x, memory = block.ssm_block(x, state.blocks[i], state.seen[None])
                after.append(memory)
                if f"frame{t}/b{i}_temporal" in wanted:
                    _close(x[0, kept], wanted[f"frame{t}/b{i}_temporal"], f"frame {t} b{i}_temporal")
                x = block.vit_block(x)
                if f"frame{t}/b{i}_spatial" in wanted:
                    _close(x[0, kept], wanted[f"frame{t}/b{i}_spatial"], f"frame {t} b{i}_spatial")
            _close(model.encoder_norm(x)[0, kept], wanted[f"frame{t}/tokens_out"], "tokens_out")
            for i in (0, 11):
                _close(after[i].hidden[kept], wanted[f"frame{t}/b{i}_state_lru"], f"frame {t} b{i}_state_lru")
                inputs = torch.stack(after[i].inputs, 1)[kept]
                _close(inputs, wanted[f"frame{t}/b{i}_state_conv"], f"frame {t} b{i}_state_conv")
            state = state.after(tuple(after), 1)


@recorded.whole_network
def test_clip_at_256x256_in_one_call_and_step_by_step() -> None:
    wanted, model = recorded.load("clip"), _whole()
    whole = _run(model, wanted["video"], wanted["queries_txy"], 12)
    _agrees(whole, wanted)
    _agrees(whole, wanted, "whole.")
    steps = _stream(model, wanted["video"], wanted["queries_txy"])
    started = np.arange(12)[:, None] >= wanted["queries_txy"][:, 0]
    assert np.isfinite(steps["tracks"][started]).all()
    for name, most in (("tracks", PIXELS), ("vis_prob", VISIBILITY)):
        _near(steps[name][started], wanted[name][started], most, f"step by step {name}")


@recorded.whole_network
def test_clip_at_512x512() -> None:
    wanted, clip = recorded.load("res512"), recorded.load("clip")
    video = np.ascontiguousarray(clip["video"][:2].repeat(2, axis=1).repeat(2, axis=2))
    queries = wanted["queries_tyx"][:, [0, 2, 1]] * np.float32([1, 2, 2])
    _agrees(_run(_whole(512), video, queries, 1), wanted)


@recorded.whole_network
def test_clip_of_another_size() -> None:
    wanted = recorded.load("resize")
    model = _whole()
    _agrees(_run(model, wanted["video"], wanted["queries_txy"], 3), wanted)
    out = model(torch.from_numpy(wanted["video"]), torch.from_numpy(wanted["queries_txy"]))
    assert np.abs(out.xy.numpy() - wanted["tracks"]).max() <= PIXELS
    assert np.abs(out.visibility.numpy() - wanted["vis_prob"]).max() <= VISIBILITY
    assert to_model({**recorded.whole(), TABLE: table(256, 768).view(1, -1, 768)}).keys() == recorded.whole().keys()

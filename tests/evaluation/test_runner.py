"""Evaluation end to end on the tiny datasets: the same numbers on every way, and clear words about bad input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ptrack.data.convert import ConvertOptions, convert
from ptrack.data.sources import open_dataset
from ptrack.errors import DataError, ModelError, OutputError
from ptrack.evaluation import results
from ptrack.evaluation.clips import choose, file_names, open_clips
from ptrack.evaluation.protocols import PROTOCOLS, find_protocol
from ptrack.evaluation.runner import EvalProgress, evaluate
from ptrack.evaluation.subjects import EvalRequest
from tests.evaluation.test_metrics import EGO
from tests.evaluation.test_protocols import DATASETS, NAMES, RESULTS
from tests.test_processes import run_two

DAVIS = DATASETS / "tapvid_davis" / "tapvid_davis.pkl"
PLACES = {
    "davis": "tapvid_davis/tapvid_davis.pkl",
    "kinetics": "tapvid_kinetics",
    "robotap": "robotap",
    "rgb_stacking": "tapvid_rgb_stacking",
    "point_odyssey": "pointodyssey",
    "dynamic_replica": "dynamic_replica",
    "ego_points": "ego_points",
    "kubric": "kubric_cotracker3",
    "badja": "badja",
}


def ask(benchmark: str = "davis", **more: Any) -> EvalRequest:
    if "data" not in more:
        more["data"] = DATASETS / PLACES[benchmark]
    return EvalRequest(**{"benchmark": benchmark, "models": ("static",), "device": "cpu"} | more)


def means(request: EvalRequest) -> list[dict[str, float]]:
    return [m.mean for m in evaluate(request).models]


@pytest.mark.parametrize("benchmark", sorted(PLACES))
def test_static_on_every_tiny_dataset_gets_the_recorded_value(benchmark: str) -> None:
    found = means(ask(benchmark))[0]
    recorded = next((RESULTS[d]["mean"]["static"] for d, name in NAMES.items() if name == benchmark), None)
    if recorded is None:
        key = find_protocol(benchmark).headline[0]
        assert 0 < found[key] < (100 if find_protocol(benchmark).percent else 1)
        return
    for name, value in recorded.items():
        if name != "RE_ID_acc" and value is not None:
            ours = EGO.get(name, name) if benchmark == "ego_points" else name
            np.testing.assert_allclose(found[ours], value, rtol=1e-6, atol=1e-6, err_msg=name)


def test_static_on_badja_and_kubric_gets_the_value_computed_by_hand() -> None:
    scores = []
    for ref in (c for c in open_dataset("badja", DATASETS / PLACES["badja"]) if c.name != "rs_dog"):  # not from DAVIS
        hits, (h, w) = [], ref.size
        for t in range(1, ref.num_frames):
            if ref.visibility[t].any():
                picture = Image.fromarray(ref.masks.rgb(t)[..., 0]).resize((512, 320), Image.Resampling.NEAREST)
                limit = 0.2 * np.sqrt((np.asarray(picture) > 0).sum())
                for j in np.flatnonzero(ref.visibility[t]):
                    dx, dy = (ref.tracks[t, j].astype(float) - ref.tracks[0, j]) * [512 / w, 320 / h]
                    hits.append(np.hypot(dx, dy) < limit)
        scores.append(100 * np.mean(hits))
    assert means(ask("badja"))[0]["pck"] == pytest.approx(np.mean(scores), abs=1e-6)

    scores = []
    for clip in open_dataset("kubric", DATASETS / PLACES["kubric"]):
        errors = []
        for n in range(clip.num_tracks):
            first = int(clip.visibility[:, n].argmax())
            later = [t for t in range(first + 1, clip.num_frames) if clip.visibility[t, n]]
            step = clip.tracks[later, n].astype(float) - clip.tracks[first, n]
            errors += list(np.hypot(*(step * [256 / clip.size[1], 256 / clip.size[0]]).T))
        scores.append(np.mean([np.mean(np.asarray(errors) < k) for k in (1, 2, 4, 8, 16)]))
    assert means(ask("kubric"))[0]["average_pts_within_thresh"] == pytest.approx(np.mean(scores), abs=1e-6)


@pytest.mark.parametrize("benchmark", sorted(PLACES))
def test_matching_runs_on_every_tiny_dataset(benchmark: str) -> None:
    report = evaluate(ask(benchmark, models=("matching",), limit=1))
    (model,) = report.models
    assert [v.status for v in model.videos] == [results.OK]
    assert model.videos[0].frames > 0
    headline = find_protocol(benchmark).headline
    # No point of the first tiny sequence of EgoPoints leaves the picture and comes back.
    assert set(headline) - set(model.mean) == ({"reid"} if benchmark == "ego_points" else set())
    assert all(np.isfinite(model.mean[key]) for key in headline if key in model.mean)
    assert model.frames_per_second > 0


def converted(source: str, root: Path, out: Path) -> Path:
    convert(open_dataset(source, root), out, ConvertOptions())
    return out


@pytest.mark.parametrize("benchmark", ["davis", "kinetics", "dynamic_replica", "ego_points", "badja"])
def test_converted_files_give_identical_numbers(benchmark: str, tmp_path: Path) -> None:
    original = DATASETS / PLACES[benchmark]
    store = converted(find_protocol(benchmark).source, original, tmp_path / "store.h5")
    models = ("static", "lk") if benchmark in ("davis", "kinetics") else ("static",)
    if "lk" in models:
        pytest.importorskip("cv2")
    first = means(ask(benchmark, models=models))
    assert means(ask(benchmark, models=models, data=store)) == first
    assert len(first) == len(models)


def test_strided_mode_tracks_backwards_too() -> None:
    report = evaluate(ask(mode="strided"))
    assert report.models[0].videos[0].points == 7  # as recorded by the reference sampler for bike-tiny
    assert 0 < report.models[0].mean["average_jaccard"] < 1
    assert "AJ_RD" not in report.models[0].mean


PAIR = """
import sys, json, os
from ptrack.evaluation.runner import evaluate
from ptrack.evaluation.subjects import EvalRequest
from tests.test_processes import gloo_threads
report = evaluate(EvalRequest(benchmark="robotap", data=sys.argv[1], models=("static", "lk"), device="cpu"))
with open(f"{sys.argv[2]}/{os.environ['RANK']}.json", "w") as file:
    json.dump([[m.mean, sorted(v.id for v in m.videos)] for m in report.models], file)
assert not gloo_threads()
"""


def test_two_gloo_processes_give_identical_numbers(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    for status, output in run_two(PAIR, str(DATASETS / "robotap"), str(tmp_path)):
        assert status == 0, output
    alone = evaluate(ask("robotap", models=("static", "lk")))
    expected = [[m.mean, sorted(v.id for v in m.videos)] for m in alone.models]
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected


SLOW = """
import sys, time
from pathlib import Path
from ptrack.models.baselines import StaticModel
step = StaticModel.step
def slow(self, state, features):
    if Path(sys.argv[2]).is_dir() and list(Path(sys.argv[2]).rglob("*-tiny.json")):
        time.sleep(600)  # in the second video
    return step(self, state, features)
StaticModel.step = slow
from ptrack.evaluation.runner import evaluate
from ptrack.evaluation.subjects import EvalRequest
evaluate(EvalRequest(benchmark="davis", data=sys.argv[1], models=("static",), device="cpu", run_dir=Path(sys.argv[2])))
"""


def test_a_killed_run_goes_on_and_ends_with_identical_numbers(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(DAVIS), str(run)])
    deadline = time.monotonic() + 240
    while not list(run.rglob("*-tiny.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(list(run.rglob("*-tiny.json"))) == 1
    steps: list[EvalProgress] = []
    report = evaluate(ask(run_dir=run), steps.append)
    assert sorted(s.result.reused for s in steps) == [False, True]
    assert report.models[0].mean == means(ask())[0]
    again: list[EvalProgress] = []
    evaluate(ask(run_dir=run), again.append)
    assert all(s.result.reused for s in again)
    recomputed: list[EvalProgress] = []
    evaluate(ask(run_dir=run, recompute=True), recomputed.append)
    assert not any(s.result.reused for s in recomputed)


def test_other_settings_or_content_are_computed_again(tmp_path: Path) -> None:
    evaluate(ask(run_dir=tmp_path / "run"))
    for changed in (ask(run_dir=tmp_path / "run", threshold=0.9), ask(run_dir=tmp_path / "run", mode="strided")):
        steps: list[EvalProgress] = []
        evaluate(changed, steps.append)
        assert not any(s.result.reused for s in steps)
    for path in (tmp_path / "run").rglob("*-tiny.json"):
        path.write_text("{ damaged")
    steps = []
    evaluate(ask(run_dir=tmp_path / "run"), steps.append)
    assert not any(s.result.reused for s in steps)


# --- stored predictions ----------------------------------------------------------------------------------------------


def test_saved_predictions_score_the_same(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    made = evaluate(ask(models=("lk",), save=tmp_path / "tracks", run_dir=tmp_path / "run"))
    again = evaluate(ask(models=(), predictions=(tmp_path / "tracks",)))
    assert again.models[0].mean == made.models[0].mean
    assert again.models[0].model == "predictions tracks"
    shutil.rmtree(tmp_path / "tracks")  # saved again from the run folder, without tracking
    steps: list[EvalProgress] = []
    evaluate(ask(models=("lk",), save=tmp_path / "tracks", run_dir=tmp_path / "run"), steps.append)
    assert all(s.result.reused for s in steps)
    assert sorted(p.name for p in (tmp_path / "tracks").iterdir()) == ["bike-tiny.npz", "goat-tiny.npz"]


def foreign(folder: Path, change: Any = None) -> Path:
    """Write the static tracker's predictions as another tool would."""
    folder.mkdir()
    for row in open_clips(find_protocol("davis"), DAVIS):
        case = find_protocol("davis").case(row.load())
        tracks = np.tile(case.queries[None, :, 1:], (case.frames, 1, 1))
        arrays = {"pred_tracks": tracks[None], "pred_occluded": np.zeros(tracks.shape[:2], bool)}
        if change is not None and row.name == "goat-tiny":
            arrays = change(arrays)
        if arrays:
            np.savez(folder / f"{row.name}.npz", **arrays)
    return folder


def test_tracks_of_another_tool(tmp_path: Path) -> None:
    report = evaluate(ask(models=("static",), predictions=(foreign(tmp_path / "other"),)))
    assert report.models[0].mean == report.models[1].mean


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda a: a | {"pred_tracks": a["pred_tracks"][:, :-1]}, "has the shape .* but the video has 12 frames"),
        (lambda a: {}, "There is no file of predictions .*goat-tiny.npz"),
        (lambda a: {"xy": a["pred_tracks"]}, "have no array 'tracks'"),
        (lambda a: {"pred_tracks": a["pred_tracks"], "visibility": np.full((12, 5), 7.0)}, "between 0 and 1"),
        (lambda a: a | {"pred_tracks": np.full_like(a["pred_tracks"], np.nan)}, "is not a number"),
        (lambda a: a | {"size": np.asarray([256, 256]), "queries": np.ones((5, 3))}, "made for other points"),
        (lambda a: a | {"size": np.asarray([256, 256]), "queries": np.ones((2, 3))}, "made for 2 queries"),
    ],
)
def test_bad_predictions_are_reported_and_excluded(change: Any, words: str, tmp_path: Path) -> None:
    report = evaluate(ask(models=(), predictions=(foreign(tmp_path / "other", change),)))
    assert report.failed == 1
    (bad,) = report.models[0].having(results.FAILED)
    assert bad.name == "goat-tiny"
    import re

    assert re.search(words, bad.reason)
    good = next(v for v in evaluate(ask()).models[0].videos if v.name == "bike-tiny")
    assert report.models[0].mean["average_jaccard"] == good.scores["average_jaccard"]


def test_damaged_prediction_file(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "other")
    (folder / "bike-tiny.npz").write_bytes(b"PK\x03\x04 nonsense")
    report = evaluate(ask(models=(), predictions=(folder,)))
    assert "cannot be read" in report.models[0].having(results.FAILED)[0].reason


def test_predictions_in_pixels_of_the_original_size(tmp_path: Path) -> None:
    def larger(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return arrays | {"pred_tracks": arrays["pred_tracks"] * 2, "size": np.asarray([512, 512])}

    report = evaluate(ask(models=("static",), predictions=(foreign(tmp_path / "other", larger),)))
    assert report.models[0].mean == report.models[1].mean


# --- bad data --------------------------------------------------------------------------------------------------------


def test_one_broken_video_among_good_ones(tmp_path: Path) -> None:
    root = tmp_path / "ego"
    shutil.copytree(DATASETS / "ego_points", root)
    broken = sorted(p for p in root.iterdir() if p.is_dir())[0]
    frame = sorted((broken / "rgbs").iterdir())[3]
    frame.write_bytes(frame.read_bytes()[:200])
    report = evaluate(ask("ego_points", data=root))
    assert report.failed == 1
    assert len(report.models[0].having(results.OK)) == 1
    assert report.models[0].having(results.FAILED)[0].name == broken.name
    (broken / "annot.npz").unlink()
    assert "annot.npz is missing" in evaluate(ask("ego_points", data=root)).models[0].having(results.FAILED)[0].reason


def own_video(folder: Path, visible: int) -> Path:
    from PIL import Image

    pictures = folder / "walk"
    pictures.mkdir(parents=True)
    for t in range(4):
        Image.fromarray(np.full((40, 60, 3), 50 * t, np.uint8)).save(pictures / f"{t}.png")
    rows = [f"{t},0,{10 + t},20,{visible}" for t in range(4)]
    (folder / "walk.csv").write_text("\n".join(["frame,id,x,y,visible", *rows]))
    return folder


def test_own_videos_with_a_csv_of_tracks(tmp_path: Path) -> None:
    report = evaluate(ask("custom", data=own_video(tmp_path / "own", 1)))
    # Errors of 1, 2, 3 px of a 60 px wide picture are 4.27, 8.5, 12.8 px of a 256 px wide one.
    assert report.models[0].mean["pts_within_4"] == 0
    assert report.models[0].mean["pts_within_8"] == pytest.approx(1 / 3)
    assert report.models[0].mean["pts_within_16"] == 1


def test_curves_of_a_sparsely_labelled_video_count_labelled_frames_only(tmp_path: Path) -> None:
    folder = own_video(tmp_path / "own", 1)
    lines = (folder / "walk.csv").read_text().splitlines()
    (folder / "walk.csv").write_text("\n".join(line for line in lines if not line.startswith("2,")))
    (video,) = evaluate(ask("custom", data=folder)).models[0].videos
    assert np.sum(video.visibility_counts) == 2  # frames 1 and 3
    assert sum(video.error_counts) == 2


def test_a_dataset_without_visible_points(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no video that own videos scores: walk: no point is visible"):
        evaluate(ask("custom", data=own_video(tmp_path / "own", 0)))


def test_what_is_asked_for_is_checked_first(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="at least one model"):
        evaluate(ask(models=()))
    with pytest.raises(ModelError, match="Did you mean 'static'"):
        evaluate(ask(models=("statik",)))
    with pytest.raises(ModelError, match="more checkpoints than models"):
        evaluate(ask(checkpoints=(tmp_path / "a.pt",)))
    with pytest.raises(DataError, match="no folder of predictions"):
        evaluate(ask(models=(), predictions=(tmp_path / "nowhere",)))
    with pytest.raises(DataError, match="No video is called 'goat'. Did you mean 'goat-tiny'"):
        evaluate(ask(videos=("goat",)))
    with pytest.raises(DataError, match="needs its data"):
        evaluate(ask(data=""))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write into the run folder"):
        evaluate(ask(run_dir=tmp_path / "file"))


def test_videos_are_chosen_by_name_pattern_and_number() -> None:
    rows = open_clips(find_protocol("davis"), DAVIS)
    assert [r.name for r in choose(rows, ("goat*",), None)] == ["goat-tiny"]
    assert [r.name for r in choose(rows, (), 1)] == ["bike-tiny"]
    odd = [replace(rows[0], id="x/a", name="a/b"), replace(rows[0], id="x/b", name="a/b"), replace(rows[0], id="x:b")]
    names = file_names(odd)
    assert len(set(names.values())) == 3
    assert not any("/" in n for n in names.values())


def test_the_split_of_the_protocol_is_scored() -> None:
    rows = open_clips(find_protocol("point_odyssey"), DATASETS / "pointodyssey")
    assert {r.split for r in rows} == {"test"}
    assert len(PROTOCOLS) == 11


def test_results_are_written_in_three_forms(tmp_path: Path) -> None:
    report = evaluate(ask("badja"))
    for name in ("r.json", "r.csv", "r.md"):
        results.write(report, tmp_path / name)
    document = json.loads((tmp_path / "r.json").read_text())
    (model,) = document["models"]
    assert model["mean"] == report.models[0].mean
    assert model["videos_skipped"] == 1  # rs_dog is not from DAVIS
    assert document["published"][0]["source"] == "pips README"
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 + 1
    assert lines[-1].startswith("static,mean")
    assert float(lines[-1].split(",")[-2]) == report.models[0].mean["pck"]
    assert "PIPs (published: pips README) | 64.4" in (tmp_path / "r.md").read_text()
    with pytest.raises(OutputError, match=r"\.json, \.csv, \.md"):
        results.write(report, tmp_path / "r.xlsx")


def test_a_mean_says_how_many_videos_it_leaves_out() -> None:
    made = [
        results.VideoResult(id="b", name="b", scores={"x": 0.1, "y": None}),
        results.VideoResult(id="a", name="a", scores={"x": 0.2, "y": 1.0}),
        results.VideoResult(id="c", name="c", status=results.FAILED),
    ]
    model = results.ModelResult(model="m", settings={}, videos=made)
    assert model.mean == {"x": (0.1 + 0.2) / 2, "y": 1.0}
    assert model.left_out == {"y": 1}

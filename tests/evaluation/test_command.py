"""``ptrack eval`` and its HTML report."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ptrack.cli.app import app
from ptrack.errors import OutputError
from ptrack.evaluation import report, results
from tests.evaluation.test_protocols import DATASETS
from tests.evaluation.test_runner import DAVIS, foreign, own_video

run = CliRunner()


def ask(tmp_path: Path, *arguments: str) -> list[str]:
    return ["eval", "--dataset", "davis", "--data", str(DAVIS), "--run-dir", str(tmp_path / "run"), *arguments]


def test_table_with_published_numbers(tmp_path: Path) -> None:
    result = run.invoke(app, ask(tmp_path, "--model", "static"), catch_exceptions=False)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("model\tδavg\tOA\tAJ")
    assert lines[1].startswith("static\t22.19\t84.36\t13.03\t2")
    assert all("(published: " in line for line in lines[2:])
    assert "Track-On-R (published: track_on README)\t80.3" in result.stdout
    assert "static 2/2 goat-tiny: δavg 26.3 (mean 22.2)" in result.stderr
    again = run.invoke(app, ask(tmp_path, "--model", "static", "--json"), catch_exceptions=False)
    assert "kept" in again.stderr
    assert json.loads(again.stdout)["models"][0]["mean"]["average_jaccard"] == pytest.approx(0.13029173965294177)


def test_files_and_report(tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("r.json", "r.csv", "r.md", "r.html")]
    arguments = ask(
        tmp_path, "--model", "static", "--model", "matching", "--save-predictions", str(tmp_path / "tracks")
    )
    for path in outputs[:3]:
        arguments += ["--out", str(path)]
    arguments += ["--html", str(outputs[3])]
    result = run.invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert all(path.is_file() for path in outputs)
    assert sorted(p.name for p in (tmp_path / "tracks").iterdir()) == ["matching", "static"]
    page = outputs[3].read_text()
    HTMLParser().feed(page)
    assert not re.search(r"""(?:src|href)=['"](?!data:)""", page)  # nothing from outside
    assert page.count("data:image/jpeg;base64,") == 2 * 2 * 3  # models, videos, moments
    assert page.count("<polyline") == 2
    assert "goat-tiny" in page
    with pytest.raises(OutputError, match="already exists"):
        run.invoke(app, arguments, catch_exceptions=False)
    with pytest.raises(OutputError, match="ends in none"):
        run.invoke(app, ask(tmp_path, "--model", "static", "--out", "r.txt"), catch_exceptions=False)


def test_a_failed_video_shows_in_the_exit_code(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "other", lambda a: {})
    page = tmp_path / "r.html"
    arguments = ask(tmp_path, "--from-predictions", str(folder), "--html", str(page))
    result = run.invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 1
    assert "goat-tiny could not be evaluated: There is no file of predictions" in result.stderr
    assert "1 video failed and counted in no mean" in result.stderr
    assert "predictions other\t" in result.stdout
    assert "failed: There is no file of predictions" in page.read_text()


def test_scoring_stored_tracks_has_no_speed(tmp_path: Path) -> None:
    saved = ask(tmp_path, "--model", "static", "--save-predictions", str(tmp_path / "p"))
    assert "frames/s" in run.invoke(app, saved, catch_exceptions=False).stderr
    result = run.invoke(app, ask(tmp_path, "--from-predictions", str(tmp_path / "p")), catch_exceptions=False)
    assert result.exit_code == 0
    assert "frames/s" not in result.stderr
    columns, row = (line.split("\t") for line in result.stdout.splitlines()[:2])
    assert row[columns.index("frames/s")] == "-"


def test_skipped_videos_are_named(tmp_path: Path) -> None:
    arguments = ["eval", "--dataset", "badja", "--data", str(DATASETS / "badja"), "--model", "static"]
    result = run.invoke(app, [*arguments, "--run-dir", str(tmp_path / "run"), "--limit", "3"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "rs_dog is left out by the protocol" in result.stderr


def test_own_videos(tmp_path: Path) -> None:
    data = own_video(tmp_path / "own", 1)
    arguments = ["eval", "--dataset", "custom", "--data", str(data), "--model", "static", "--quiet"]
    result = run.invoke(app, [*arguments, "--run-dir", str(tmp_path / "run")], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout == ""


def model_of(visible: list[int], hidden: list[int], errors: np.ndarray) -> results.ModelResult:
    counts = [c + [0] * (results.BINS - len(c)) for c in (visible, hidden)]
    video = results.VideoResult(id="a", name="a", visibility_counts=counts, error_counts=results.count_errors(errors))
    return results.ModelResult(model="m", settings={}, videos=[video])


def test_precision_and_recall_by_hand() -> None:
    counts = results.count_visibility(
        np.asarray([[True, True, False]]), np.asarray([[1.0, 0.1, 0.99]]), np.asarray([[True, True, True]])
    )
    model = model_of([], [], np.zeros(0))
    model.videos[0].visibility_counts = counts
    precision, recall = report.precision_recall(model)
    assert precision[0] == 0.5  # of the two predicted above 0.98 one is visible
    assert recall[0] == 0.5
    assert precision[-1] == pytest.approx(2 / 3)
    assert recall[-1] == 1
    nothing, _ = report.precision_recall(model_of([], [1], np.zeros(0)))
    assert np.isnan(nothing[0])


def test_error_histogram_by_hand() -> None:
    shares = report.error_shares(model_of([], [], np.asarray([0.0, 1.0, 1.4, 1000.0])))
    one = results.EDGES.index(1.0)
    assert shares[0] == 0.25  # below the first edge
    assert shares[one + 1] == 0.5  # from 1 to 1.41
    assert shares[-1] == 0.25
    assert report.error_shares(results.ModelResult(model="m", settings={}, videos=[])).sum() == 0

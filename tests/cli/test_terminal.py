"""Every command that shows progress, run in a terminal: bars, a summary that can be read, and the right exit code."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from ptrack.cli import console, progress
from ptrack.cli.console import Output
from ptrack.cli.progress import Bar, Display, compose, duration, shorten
from ptrack.errors import count
from ptrack.video import open_writer
from tests.cli.terminal import in_terminal
from tests.data.helpers import DATASETS

SIMPLE = DATASETS / "simple"
LOOKS = pytest.mark.parametrize(("columns", "colour"), [(100, True), (40, True), (100, False)])


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working folder with a clip whose name has brackets, in which every redraw is drawn."""
    with open_writer(tmp_path / "a [clip].mp4", fps=25) as writer:
        for t in range(8):
            writer.write(np.full((48, 64, 3), 20 * t, np.uint8), t / 25)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "LIVE_SECONDS", 0.0)
    return tmp_path


def look(monkeypatch, colour: bool) -> None:
    monkeypatch.setenv("NO_COLOR", "" if colour else "1")


def bars(raw: str) -> int:
    return raw.count("━")


def assert_clean(seen, columns: int, colour: bool) -> None:
    """The command went well, nothing of the bars is left, and colours are as asked for."""
    assert seen.code == 0, seen.raw
    assert bars(seen.raw) > 0
    assert "━" not in seen.text
    assert "Traceback" not in seen.raw
    assert ("\x1b[32m" in seen.raw) is colour
    assert all(len(line) <= columns for line in seen.screen)


@LOOKS
def test_track(place, monkeypatch, columns, colour):
    look(monkeypatch, colour)
    seen = in_terminal(["track", "a [clip].mp4", "--grid", "2", "--model", "static"], monkeypatch, columns)
    assert_clean(seen, columns, colour)
    assert seen.screen[-4] == "a [clip].mp4: 4 points, 8 frames"
    assert seen.screen[-3].startswith("  time     0.")
    assert [line.split() for line in seen.screen[-2:]] == [
        ["tracks", "a", "[clip].tracks.h5"],
        ["overlay", "a", "[clip].overlay.mp4"],
    ]
    assert "8/8" in seen.raw
    assert columns == 40 or "4/4 visible" in seen.raw
    assert sorted(p.name for p in place.glob("*.*4")) == ["a [clip].mp4", "a [clip].overlay.mp4"]


@LOOKS
def test_several_sources_end_in_a_table(place, monkeypatch, columns, colour):
    look(monkeypatch, colour)
    (place / "bad[b].mp4").write_text("no video")
    arguments = ["track", "a [clip].mp4", "bad[b].mp4", "--grid", "1", "--model", "static", "--no-overlay"]
    seen = in_terminal(arguments, monkeypatch, columns)
    assert seen.code == 1
    assert "Traceback" not in seen.raw
    assert "━" not in seen.text
    assert "Summary" in seen.text
    assert "1 of 2 sources failed" in seen.text


@LOOKS
def test_convert(place, monkeypatch, columns, colour):
    look(monkeypatch, colour)
    seen = in_terminal(["convert", "point-odyssey", SIMPLE, "o.h5"], monkeypatch, columns)
    assert_clean(seen, columns, colour)
    assert "Wrote 2 clips, 20 frames" in seen.text


def pretended_training(plan, listeners, note):
    """Report as a training of two steps does, without its seconds of work."""
    from ptrack.training.engine import StepRecord, TrainResult, ValidationRecord
    from ptrack.training.step import StepOutcome

    (listener,) = listeners
    for step in (1, 2):
        result = StepOutcome(loss=0.5, terms={"position": 0.25}, grad_norm=1.0, done=True)
        listener.on_step(StepRecord(step, 1, step, 2, 2, result, 1e-4, 3.0, 100.0))
    listener.on_validation(ValidationRecord(2, 1, {"delta_avg": 50.0}, True), None)
    return TrainResult(2, 1, {}, Path("latest.pth"))


@LOOKS
def test_train(place, monkeypatch, columns, colour):
    look(monkeypatch, colour)
    monkeypatch.setattr("ptrack.training.run.train", pretended_training)
    seen = in_terminal(["train"], monkeypatch, columns)
    assert_clean(seen, columns, colour)
    assert "validation after step 2" in seen.text
    assert "Trained 2 steps" in seen.text


@LOOKS
def test_eval(place, monkeypatch, columns, colour):
    look(monkeypatch, colour)
    data = DATASETS / "tapvid_davis" / "tapvid_davis.pkl"
    seen = in_terminal(["eval", "--dataset", "davis", "--data", data, "--model", "static"], monkeypatch, columns)
    assert seen.code == 0, seen.raw
    assert "static 2/2 goat-tiny" in seen.text
    assert bars(seen.raw) > 0


@LOOKS
def test_visualize(place, monkeypatch, columns, colour):
    look(monkeypatch, colour)
    arguments = ["track", "a [clip].mp4", "--grid", "2", "--model", "static", "--no-overlay", "-q"]
    assert in_terminal(arguments, monkeypatch).raw == ""
    seen = in_terminal(["visualize", "a [clip].tracks.h5", "--out", "seen.mp4"], monkeypatch, columns)
    assert_clean(seen, columns, colour)
    assert seen.screen == ["seen.mp4"]


@pytest.mark.parametrize("columns", [100, 40])
def test_bench(place, monkeypatch, columns):
    words = [
        "bench",
        "speed",
        "--model",
        "static",
        "--points",
        4,
        "--frames",
        1,
        "--warmup",
        1,
        "--video",
        "a [clip].mp4",
    ]
    seen = in_terminal(words, monkeypatch, columns)
    assert seen.code == 0, seen.raw
    assert "Traceback" not in seen.raw
    assert "0/1" in seen.raw  # the line that says which model is being measured
    assert "0/1" not in seen.text


def test_a_drawing_error_changes_nothing_but_the_display(place, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise KeyError("visible")

    monkeypatch.setattr(progress, "compose", broken)
    seen = in_terminal(["track", "a [clip].mp4", "--grid", "2", "--model", "static"], monkeypatch)
    assert seen.code == 0
    assert [line for line in seen.screen if "display" in line] == [
        "The progress display is switched off (KeyError: 'visible'); the work goes on."
    ]
    assert "Traceback" not in seen.raw
    assert "4 points, 8 frames" in seen.text
    assert (place / "a [clip].overlay.mp4").is_file()


def test_an_error_in_a_terminal_leaves_no_bar(place, monkeypatch):
    assert in_terminal(["track", "a [clip].mp4", "--model", "static", "--point", "9,9@3"], monkeypatch).code == 0
    seen = in_terminal(["track", "a [clip].mp4", "--model", "static"], monkeypatch)
    assert seen.code == 1
    assert seen.text.startswith("error: a [clip].tracks.h5 already exists")
    assert "\x1b[1;31merror: \x1b[0m" in seen.raw


class Gone(io.StringIO):
    """A terminal that has been closed."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("stream", [None, Gone()])
def test_without_a_screen_the_work_goes_on(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    output = Output()
    with Display(output) as display:
        for done in range(3):
            display.show(Bar(name="work", done=done, total=2))
            output.warning("words")
    assert console.displays == []


def test_lines_elsewhere_come_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(progress, "PACE_SECONDS", 0.0)
    with Display(Output()) as display:
        for done in (3, 4):
            display.show(Bar(name="clip.mp4", done=done, total=9, unit="frames", details=("2/2 visible",)))
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first == "clip.mp4: 3/9, 2/2 visible"
    assert second.startswith("clip.mp4: 4/9, 0:00 left, ")
    assert second.endswith("frames/s, 2/2 visible")


def test_other_lines_are_printed_above_the_bars(place, monkeypatch):
    (place / "bad.mp4").write_text("no video")
    monkeypatch.setattr("ptrack.cli.track._run", lambda request, output: _talk(output))
    seen = in_terminal(["track", "x.mp4"], monkeypatch, 60)
    assert seen.screen == ["note 0", "note 1"]
    assert seen.raw.count("two") == 4


def _talk(output: Output) -> None:
    with Display(output) as display:
        for done in range(2):
            display.show(Bar(name="one", done=done, total=2), Bar(name="two", done=0, total=1))
            output.note(f"note {done}")
            display.show(Bar(name="one", done=done, total=2), Bar(name="two", done=0, total=1))


@pytest.mark.parametrize("width", [24, 39, 40, 59, 60, 79, 100, 200])
@pytest.mark.parametrize("name", ["a", "日本語" * 20, "x" * 250, "tab\tand \x1b[31m line\n"])
def test_a_line_fits(width, name):
    line = compose(name, 5, 9, ["5/9", "1:02:03 left", "12.3 frames/s", "3/4 visible"], width)
    assert line.cell_len <= width
    assert "5/9" in line.plain
    assert line.plain.isprintable()
    assert compose(name, 5, 9, ["5/9"], width, plain=True).plain.isascii() is name.isascii()


def test_small_words():
    assert [duration(s) for s in (0.4, 61, 3723)] == ["0:00", "1:01", "1:02:03"]
    assert shorten("a long name.mp4", 9) == "a lo….mp4"
    assert [count(n, "frame") for n in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]


def test_names_that_the_encoding_lacks(monkeypatch, tmp_path):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    Output().result("über \udcff.mp4")
    Output(json_mode=True).document({"name": "ü"})
    assert stream.buffer.getvalue() == b'\\xfcber \\udcff.mp4\n{"name": "\\u00fc"}\n'

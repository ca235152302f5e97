"""``ptrack live`` as typed: bad input is one sentence, a terminal is left clean."""

import numpy as np
import pytest

from ptrack.cli import app
from ptrack.cli.options import seconds_of
from ptrack.errors import ConfigError
from ptrack.video import open_writer
from tests.cli.terminal import in_terminal


@pytest.fixture
def place(tmp_path, monkeypatch):
    with open_writer(tmp_path / "a.mp4", fps=25) as writer:
        for t in range(6):
            writer.write(np.full((48, 64, 3), 20 * t, np.uint8), t / 25)
    (tmp_path / "late.csv").write_text("t,x,y\n3,5,5\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


BAD = {
    "source": (["none.mp4"], "There is no file or folder none.mp4"),
    "refused": (["tcp://127.0.0.1:1"], "Cannot open tcp://127.0.0.1:1"),
    "late point": (["a.mp4", "--queries", "late.csv"], "start with its first frame"),
    "late grid": (["a.mp4", "--point", "3,3@2"], "start with its first frame"),
    "outside": (["a.mp4", "--point", "300,3"], "outside the 64x48 frame"),
    "duration": (["a.mp4", "--duration", "soon"], "--duration soon"),
    "split": (["a.mp4", "--split", "1h"], "add --out"),
    "osc": (["a.mp4", "--osc", "here"], "--osc here"),
    "jsonl": (["a.mp4", "--jsonl", "udp://a:1"], "--jsonl udp://a:1"),
    "two documents": (["a.mp4", "--json", "--jsonl", "-"], "both want stdout"),
    "lost": (["a.mp4", "--max-lost", "0"], "--max-lost 0"),
    "coverage": (["a.mp4", "--min-coverage", "2"], "--min-coverage 2"),
    "model": (["a.mp4", "--model", "nani"], "Did you mean 'nano'"),
    "out": (["a.mp4", "--out", "a.txt"], "a.txt"),
    "exists": (["a.mp4", "--out", "old.h5"], "old.h5 already exists"),
    "reference": (["a.mp4", "--reference", "none.png"], "none.png"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_writes_nothing(place, monkeypatch, capsys, name):
    (place / "old.h5").touch()
    before = sorted(p.name for p in place.iterdir())
    arguments, sentence = BAD[name]
    monkeypatch.setattr("sys.argv", ["ptrack", "live", "--model", "static", *arguments])
    with pytest.raises(SystemExit) as end:
        app.main()
    err = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("model ")]
    assert end.value.code == 1
    assert len(err) == 1
    assert sentence in err[0]
    assert sorted(p.name for p in place.iterdir()) == before


def test_a_terminal_is_left_clean(place, monkeypatch):
    arguments = ["live", "a.mp4", "--model", "static", "--grid", "2", "--out", "a.tracks.h5"]
    seen = in_terminal(arguments, monkeypatch, 80)
    assert seen.code == 0, seen.raw
    assert "Traceback" not in seen.raw
    assert seen.screen[-3].startswith("a.mp4: 6 frames")
    assert seen.screen[-1].split() == ["tracks", "a.tracks.h5"]


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("5m", 300), ("1h", 3600), ("2 d", 172800)])
def test_lengths_of_time(text, seconds):
    assert seconds_of(text, "--duration") == seconds
    with pytest.raises(ConfigError, match="--duration"):
        seconds_of("-3s", "--duration")

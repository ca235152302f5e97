"""``ptrack pick`` as a process: it prints one address, serves, and stops by the page or by Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

COMMAND = [sys.executable, "-c", "from ptrack.cli.app import command; command()", "pick"]


def _start(*words, cwd):
    process = subprocess.Popen(
        [*COMMAND, *map(str, words), "--no-browser"], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    line = process.stderr.readline()
    found = re.search(r"(http://127\.0\.0\.1:\d+)/([\w-]{32})/", line)
    assert found, line + process.stderr.read()
    return process, found[1], found[0]


def _post(origin, address, route, body):
    request = urllib.request.Request(
        address + route, json.dumps(body).encode(), {"Content-Type": "application/json", "Origin": origin}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_save_and_done(moving_clip, tmp_path):
    process, origin, address = _start(moving_clip, "--json", cwd=tmp_path)
    points = [{"id": "a", "t": 0, "x": 3, "y": 4}]
    _post(origin, address, "edit", {"tab": "t", "points": points})
    _post(origin, address, "save", {"tab": "t"})
    _post(origin, address, "edit", {"tab": "t", "points": points[:0]})
    _post(origin, address, "done", {"tab": "t"})
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "warning: changes since the last save are lost" in err
    assert json.loads(out) == {"saved": ["moving.queries.csv"]}
    assert (tmp_path / "moving.queries.csv").read_text().splitlines() == ["t,x,y,id,colour", "0,3.0,4.0,a,"]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=5)


def test_ctrl_c_stops_it(moving_clip, tmp_path):
    process, _, _ = _start(moving_clip, cwd=tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "stopped" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["gone.mp4"], "error: There is no file or folder gone.mp4."),
        (["{clip}", "--out", "t.txt"], "error: t.txt: tracks files end in"),
        (["{clip}", "--model", "matchin"], "Did you mean 'matching'"),
    ],
)
def test_errors_are_one_sentence(words, sentence, moving_clip, tmp_path):
    words = [w.format(clip=moving_clip) for w in words]
    done = subprocess.run([*COMMAND, *words, "--no-browser"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from ptrack import __version__
from ptrack.cli import app as cli
from ptrack.cli.console import Output
from ptrack.cli.track import _moment
from ptrack.errors import InputError
from tests.cli.helpers import ptrack

runner = CliRunner()


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['ptrack', '--help']\n"
        "from ptrack.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'numpy', 'h5py', 'av', 'matplotlib', 'timm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "track" in done.stdout


def test_every_command_has_help():
    for command in typer.main.get_command(cli.app).commands:
        result = runner.invoke(cli.app, [command, "--help"])
        assert result.exit_code == 0, command
        assert "Usage" in result.output


def test_version():
    assert runner.invoke(cli.app, ["--version"]).output.strip() == f"ptrack {__version__}"


def test_models_are_listed():
    result = runner.invoke(cli.app, ["models"])
    assert "matching" in result.output
    assert "Apache-2.0" in result.output
    listed = {m["name"]: m for m in json.loads(runner.invoke(cli.app, ["models", "--json"]).output)}
    assert listed["matching"]["file"] is None
    assert listed["tapnextpp"]["file"].endswith("tapnextpp_ckpt.pt")
    assert (listed["tapnextpp"]["bytes"], listed["tapnextpp"]["sha256"]) == (None, None)  # unknown, not invented


def test_unknown_option_is_a_usage_error():
    done = ptrack("track", "--gird", "3")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_errors_are_one_line_and_debug_shows_more(tmp_path):
    done = ptrack("track", tmp_path / "none.mp4")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" in ptrack("--debug", "track", tmp_path / "none.mp4").stderr


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("print('done')", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('words')", 1, "words"),
        ("raise KeyError('bug')", 1, "KeyError: 'bug'"),
    ],
)
def test_the_process_ends_as_python_would(body, code, words, tmp_path):
    """Threads are waited for, other exit handlers run, output arrives, and the exit status is the usual one."""
    program = (
        "import atexit, sys, threading, time\n"
        "from pathlib import Path\n"
        "from ptrack.cli import app\n"
        "def late(): time.sleep(0.2); Path('thread').touch()\n"
        f"def main():\n    atexit.register(Path('handler').touch)\n    threading.Thread(target=late).start()\n"
        f"    print('x' * 100_000, end='')\n    {body}\n"
        "app.main = main\n"
        "app.command()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code
    assert done.stdout.count("x") == 100_000
    assert words in done.stderr
    assert (tmp_path / "thread").exists()
    assert (tmp_path / "handler").exists()


@pytest.mark.parametrize(
    ("text", "value"), [(None, None), ("100", 100), ("2.5", 2.5), ("2s", 2.0), ("1:30", 90.0), ("1:02.5", 62.5)]
)
def test_moments(text, value):
    made = _moment(text, "--start")
    assert made == value
    assert type(made) is type(value)


def test_moments_that_make_no_sense():
    with pytest.raises(InputError, match="--end soon: give a frame number"):
        _moment("soon", "--end")


def test_output_keeps_stdout_and_stderr_apart(capsys):
    output = Output()
    output.result("r"), output.note("n"), output.warning("w"), output.document({"a": 1})
    output.table("t", ["a", "b"], [["1", "2"]])
    out, err = capsys.readouterr()
    assert out == "r\na\tb\n1\t2\n"
    assert err == "n\nwarning: w\n"
    Output(quiet=True).note("n"), Output(quiet=True).result("r"), Output(json_mode=True).document({"ä": None})
    out, err = capsys.readouterr()
    assert (out, err) == ('{"ä": null}\n', "")

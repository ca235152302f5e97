"""What stands in several files about the distribution is the same in all; the documentation site has no dead link."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import ptrack

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == ptrack.__version__
    assert citation["license"] == PROJECT["license"]


def test_every_supported_python_is_tested_on_every_system():
    matrix = yaml.safe_load(read(".github/workflows/test.yml"))["jobs"]["tests"]["strategy"]["matrix"]
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert matrix["python"] == named
    assert [system.split("-")[0] for system in matrix["os"]] == ["ubuntu", "macos", "windows"]


@pytest.mark.parametrize("name", ["test", "publish"])
def test_workflows_have_no_rights_that_they_do_not_need(name):
    text = read(f".github/workflows/{name}.yml")
    flow = yaml.safe_load(text)
    assert flow["permissions"] == {"contents": "read"}
    for job in flow["jobs"].values():
        assert job.get("permissions", {"id-token": "write"}) == {"id-token": "write"}
    uses = re.findall(r"uses: (\S+)", text)
    assert uses
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in uses), "a tag can be moved, a commit cannot"


def test_the_lock_file_has_every_dependency():
    locked = {package["name"] for package in tomllib.loads(read("uv.lock"))["package"]}
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    wanted = {re.split(r"[\[<>=]", line)[0].replace("_", "-").lower() for line in [*PROJECT["dependencies"], *extras]}
    assert wanted <= locked, "run: uv lock"


def test_the_container_is_not_run_by_root_and_holds_what_the_build_needs():
    lines = read("Dockerfile").splitlines()
    user = [line.split()[1] for line in lines if line.startswith("USER ")][-1]
    assert user not in ("root", "0")
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    allowed = [line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / name).exists() for name in copied)


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("furo")
    build = [sys.executable, "-m", "sphinx", "-W", "-q", "--keep-going", str(ROOT / "docs"), str(tmp_path / "site")]
    found = subprocess.run([*build, "-d", str(tmp_path / "cache")], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    front = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    assert all(f'href="{page.as_posix()}"' in front for page in pages if page.name != "index.html")

import csv
import json
from dataclasses import replace

import pytest

from ptrack.batch.jobs import Shard
from ptrack.batch.owner import this_process
from ptrack.batch.places import LocalPlace
from ptrack.batch.report import COLUMNS, check_report, counts_of, folder_status, row_of, write_report
from ptrack.batch.status import Status, write_status
from ptrack.errors import OutputError


@pytest.fixture
def place(tmp_path):
    made = LocalPlace(tmp_path)
    owner = replace(this_process("alive", Shard()), shard="0/2")
    made.write(".ptrack-run-0-of-2.json", owner.to_json())
    for name, state, run in (("a", "done", "old"), ("b", "running", "alive"), ("c", "running", "dead")):
        write_status(made, Status(job=name, source=f"{name}.mp4", state=state, run=run, outputs={f"{name}.h5": 3}))
    write_status(made, Status(job="d", source="d.mp4", state="failed", error="d.mp4 is no video."))
    made.write("e.status.json", b"{")
    return made


def test_the_status_files_of_a_folder_together(place):
    found = folder_status(place)
    states = {row["job"]: row["state"] for row in found.rows}
    assert states == {"a": "done", "b": "running", "c": "interrupted", "d": "failed", "e": "failed"}
    assert counts_of(found.rows) == {"done": 1, "failed": 2, "interrupted": 1, "running": 1}
    assert not found.complete
    assert len(found.runs) == 1
    assert "shard 0/2" in found.runs[0]
    assert "damaged" in found.rows[-1]["error"]
    with pytest.raises(OutputError, match="no status files"):
        folder_status(LocalPlace(place.folder / "none"))


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_reports(place, tmp_path, suffix):
    rows = [row_of(Status(job="a", source="ü, 1.mp4", state="done", outputs={"a.h5": 1}, warnings=("one", "two")))]
    path = tmp_path / f"report{suffix}"
    check_report(path)
    write_report(path, rows, {"counts": {"done": 1}})
    if suffix == ".json":
        document = json.loads(path.read_text(encoding="utf-8"))
        assert document["counts"] == {"done": 1}
        assert document["jobs"] == rows
    else:
        (read,) = csv.DictReader(path.open(encoding="utf-8", newline=""))
        assert list(read) == list(COLUMNS)
        assert (read["source"], read["warnings"], read["outputs"]) == ("ü, 1.mp4", "one; two", "a.h5")
    with pytest.raises(OutputError, match=r"must end in \.json or \.csv"):
        check_report(tmp_path / "report.txt")

import numpy as np
import pytest
import torch

from ptrack.errors import TracksError
from ptrack.tracking.frame_tracker import TrackerState
from ptrack.tracking.snapshot import load_snapshot, pack, save_snapshot, unpack
from ptrack.tracking.tracker import Tracker
from tests.fakes import DriftModel

CPU = torch.device("cpu")
FRAME = np.full((48, 64, 3), 7, np.uint8)


def test_a_restored_tracker_goes_on_exactly(tmp_path, monkeypatch):
    import ptrack.tracking.snapshot as snapshot

    monkeypatch.setattr(snapshot, "HOME", "")  # the stand-in's state is not a class of ptrack
    tracker = Tracker(DriftModel(), support_grid=2)
    tracker.add([[0, 1, 1], [4, 9, 9]], ids=["ä", "b"])
    tracker.step(FRAME), tracker.step(FRAME)
    save_snapshot(tmp_path / "s", {"tracker": tracker.state, "rows": 2, "list": [1, (2.5, None)], "flag": True})
    saved = load_snapshot(tmp_path / "s", CPU)
    assert saved["rows"] == 2
    assert saved["list"] == [1, (2.5, None)]
    other = Tracker(DriftModel(), support_grid=2)
    other.state = saved["tracker"]
    for _ in range(5):
        left, right = tracker.step(FRAME), other.step(FRAME)
        for a, b in zip(left, right, strict=True):
            np.testing.assert_array_equal(a, b)
    assert other.ids.tolist() == ["ä", "b"]
    assert other.state.model.total == tracker.state.model.total


def test_only_classes_of_ptrack_are_built():
    packed = pack(TrackerState())
    packed["__class__"] = "subprocess:Popen"
    with pytest.raises(TracksError, match="foreign class"):
        unpack(packed, CPU)


def test_damaged_and_missing_files(tmp_path):
    with pytest.raises(TracksError, match="cannot be read"):
        load_snapshot(tmp_path / "none", CPU)
    (tmp_path / "bad").write_bytes(b"junk")
    with pytest.raises(TracksError, match="--overwrite"):
        load_snapshot(tmp_path / "bad", CPU)


@pytest.mark.parametrize("change", [lambda state: state.pop("model"), lambda state: state.update(more=1)])
def test_a_state_of_another_version_is_refused(tmp_path, change):
    packed = pack({"tracker": TrackerState()})
    change(packed["tracker"])
    torch.save(packed, tmp_path / "state")
    with pytest.raises(TracksError, match="state cannot be continued.*another version of ptrack; use --overwrite"):
        load_snapshot(tmp_path / "state", CPU)


def test_what_cannot_be_saved_is_refused():
    with pytest.raises(TypeError, match="cannot hold a set"):
        pack({1, 2})

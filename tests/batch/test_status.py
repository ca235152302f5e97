"""Status files of jobs."""

from ptrack.batch.places import LocalPlace
from ptrack.batch.status import Status, read_status, write_status


def test_the_status_of_a_very_long_name_has_a_name_of_its_own(tmp_path):
    place, names = LocalPlace(tmp_path), ["n" * 246, "n" * 245 + "m"]
    for name in names:
        write_status(place, Status(job=name, source=f"{name}.mp4"))
    assert [read_status(place, name).job for name in names] == names

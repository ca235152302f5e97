"""The public API as README and types promise it."""

import html
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import ptrack
from ptrack.errors import InputError, ModelError
from tests.fakes import DriftModel
from tests.typed_api import shown, streamed, tracked

FRAMES = np.zeros((3, 8, 8, 3), np.uint8)


def test_what_the_type_checker_accepts_works(tmp_path):
    found = tracked(ptrack.Tracker(DriftModel()), FRAMES, tmp_path)
    assert [t.tracks[2, 0].tolist() for t in found] == [[3, 3]] * 12
    assert np.isnan(streamed(ptrack.Tracker(DriftModel()), FRAMES)).all()


def test_what_notebooks_show_is_made(tmp_path):
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    tracks = ptrack.Tracker(DriftModel())(frames, ptrack.Queries([[0, 1, 2]], ids=["paw"]))
    picture, page = shown(tracks, frames, tmp_path)
    assert Image.open(picture).size == (792, 648)
    assert picture.stat().st_size < 60_000  # notebooks keep it
    assert page.read_text().startswith("<!doctype html>")


def test_the_viewer_in_a_notebook_is_a_document_of_its_own():
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    tracks = ptrack.Tracker(DriftModel())(frames, ptrack.Queries([[0, 1, 2]], ids=['"><script>x</script>']))
    viewer = ptrack.show(tracks, list(frames), height=400)
    assert repr(viewer) == "Viewer(height=400)"
    shell = viewer._repr_html_()
    assert shell.count("<iframe") == shell.count("</iframe>") == 1
    assert "height:400px" in shell
    assert html.unescape(shell.split('srcdoc="')[1].split('"')[0]) == viewer.page  # no quote ends the attribute early
    with pytest.raises(InputError, match=r"name no video file that exists here; give the video: ptrack.show\(tracks"):
        ptrack.show(tracks)
    with pytest.raises(InputError, match=r"another video: .*force=True"):
        ptrack.show(tracks, frames + 1)
    assert ptrack.show(tracks, frames + 1, force=True).height >= 360


def test_without_matplotlib_there_is_a_sentence(monkeypatch):
    tracks = ptrack.Tracker(DriftModel())(FRAMES, [[0, 1, 2]])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ptrack.PTrackError, match=r"plot\(\) needs matplotlib, which is not installed: pip install"):
        tracks.plot()


def test_frames_of_a_stream_may_be_what_frames_of_a_video_may_be():
    for frame in (FRAMES[0], torch.zeros(3, 8, 8), Image.new("RGB", (8, 8)), np.zeros((8, 8)), FRAMES[0, :, ::-1]):
        tracker = ptrack.Tracker(DriftModel())
        tracker.add(torch.tensor([[1, 2]]))
        assert tracker.step(frame).positions.tolist() == [[1, 2]]
        assert tracker.step(frame).positions.tolist() == [[2, 2.5]]
        for wrong in ([1, 2], "frame.png", np.zeros((8, 8, 3), int)):
            with pytest.raises(InputError, match="The frame (has|is|holds)"):
                tracker.step(wrong)  # pyright: ignore


def test_points_without_a_frame_are_refused_with_what_to_add():
    with pytest.raises(ptrack.PTrackError, match=r"rows \(t, x, y\), not \(1, 2\); put the frame t"):
        ptrack.Tracker(DriftModel())(FRAMES, [[1, 2]])


def test_one_picture_is_no_video():
    for picture in (FRAMES[0], np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(InputError, match=r"One picture .*frames\[None\]"):
            ptrack.Tracker(DriftModel()).track(picture, [[0, 1, 2]])
    assert ptrack.Tracker(DriftModel()).track(FRAMES[0][None], [[0, 1, 2]]).num_frames == 1


def test_two_threads_take_turns():
    started, tracker = threading.Event(), ptrack.Tracker(DriftModel())

    def frames(number):
        for t in range(6):
            if number == 0:
                started.set()
            threading.Event().wait(0.002)
            yield np.full((8, 8, 3), 10 * number + t, np.uint8)

    found = {}

    def work(number):
        if number:
            started.wait()
        found[number] = tracker.track(frames(number), [[0, number, number]])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert found[number].num_points == 1
        assert found[number].tracks[:, 0, 0].tolist() == [number + t for t in range(6)]


def test_a_frame_of_another_size_is_refused():
    tracker = ptrack.Tracker(DriftModel())
    tracker.add([[1, 2]])
    tracker.step(FRAMES[0])
    with pytest.raises(ModelError, match="Frame 1 is 9x8, but the frames before it are 8x8; resize it"):
        tracker.step(np.zeros((8, 9, 3), np.uint8))
    assert tracker.step(FRAMES[1]).positions.tolist() == [[2, 2.5]]  # the refused frame left no trace
    tracker.reset((480, 640))
    tracker.step(np.zeros((45, 60, 3), np.uint8))
    tracker.reset((640, 480))
    with pytest.raises(ModelError, match="A 60x45 frame is not the 480x640 picture reduced"):
        tracker.step(np.zeros((45, 60, 3), np.uint8))


def test_a_point_that_is_no_number_is_named_in_plain_digits():
    with pytest.raises(ptrack.PTrackError, match=r"Query 0 is \(0, nan, 2\); NaN"):
        ptrack.Queries([[0, float("nan"), 2]])

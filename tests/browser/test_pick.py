"""Picking in a browser: load, scrub, three queries, track live, correct one, save; the files equal the command's."""

from __future__ import annotations

import numpy as np
import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys
from typer.testing import CliRunner

import ptrack
from ptrack.viz.pick import PickServer, PickSession
from tests.viz.scenes import H, W, textured_frame, write_clip

pytestmark = pytest.mark.usefixtures("one_thread")
T = 20


@pytest.fixture
def page(browser, tmp_path, until, severe):
    write_clip(tmp_path / "clip.mp4", [textured_frame(t) for t in range(T)])

    def load():
        return ptrack.load("matching", device="cpu")

    session = PickSession(tmp_path / "clip.mp4", load, tmp_path / "t.h5", tmp_path / "q.csv")
    with PickServer(session) as server:
        browser.get(server.url)
        until(lambda: browser.execute_script("return !!window.ptrackPick && ptrackPick.state.complete"))
        until(lambda: browser.execute_script("return ptrackPick.state.shown") == 0)
        assert severe() == []
        yield browser, server
        browser.get("about:blank")


def _state(driver, name):
    return driver.execute_script(f"return ptrackPick.state.{name}")


def _offset(driver, x, y):
    box = driver.find_element("id", "view").size
    return round((x / W - 0.5) * box["width"]), round((y / H - 0.5) * box["height"])


def _click(driver, x, y):
    view = driver.find_element("id", "view")
    ActionChains(driver).move_to_element_with_offset(view, *_offset(driver, x, y)).click().perform()


def _drag(driver, *places):
    view = driver.find_element("id", "view")
    chain = ActionChains(driver).move_to_element_with_offset(view, *_offset(driver, *places[0])).click_and_hold()
    for place in places[1:]:
        chain = chain.move_to_element_with_offset(view, *_offset(driver, *place))
    chain.release().perform()


def _scrub(driver, until, frame):
    driver.execute_script(
        "const s = document.getElementById('seek'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))", frame
    )
    until(lambda: _state(driver, "shown") == frame)


def _message(driver):
    return driver.find_element("id", "message").text


def test_pick_track_correct_save(page, tmp_path, until):
    driver, server = page
    _click(driver, 30, 20)
    _scrub(driver, until, 4)
    _click(driver, 60, 40)
    _click(driver, 45, 30)
    points = _state(driver, "points")
    assert [p["t"] for p in points] == [0, 4, 4]
    np.testing.assert_allclose([[p["x"], p["y"]] for p in points], [[30, 20], [60, 40], [45, 30]], atol=0.2)
    name = driver.find_elements("css selector", ".point input[type=text]")[0]
    name.send_keys(Keys.CONTROL + "a" + Keys.NULL, "nose" + Keys.TAB)
    assert _state(driver, "points")[0]["id"] == "nose"

    driver.find_element("id", "track").click()
    until(lambda: "points tracked through 20 frames" in _message(driver))
    driver.find_element("id", "save").click()
    until(lambda: _message(driver).startswith("Saved"))
    from ptrack.cli.app import app

    done = CliRunner().invoke(
        app,
        ["track", str(tmp_path / "clip.mp4"), "--queries", str(tmp_path / "q.csv"), "--model", "matching",
         "--device", "cpu", "--out", str(tmp_path / "cli.h5"), "--no-overlay"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    ours, theirs = ptrack.load_tracks(tmp_path / "t.h5"), ptrack.load_tracks(tmp_path / "cli.h5")
    np.testing.assert_array_equal(ours.tracks, theirs.tracks)
    np.testing.assert_array_equal(ours.visibility, theirs.visibility)
    assert ours.ids.tolist() == theirs.ids.tolist() == ["nose", "1", "2"]

    _scrub(driver, until, 10)
    driver.find_element("id", "tool-move").click()
    x, y = ours.tracks[10, 0]
    _drag(driver, (x, y), (x + 3, y + 2), (x + 8, y + 5))
    until(lambda: _message(driver) == "nose corrected on frame 10.")
    corrected = server.session.tracks
    np.testing.assert_allclose(corrected.tracks[10, 0], [x + 8, y + 5], atol=0.2)
    np.testing.assert_array_equal(corrected.tracks[:10], ours.tracks[:10])
    np.testing.assert_array_equal(corrected.tracks[:, 1:], ours.tracks[:, 1:])
    shown = driver.execute_script("return ptrackPick.state.tracked.get(15).get('nose')")
    np.testing.assert_allclose(shown[:2], corrected.tracks[15, 0], atol=6e-4)

    driver.find_element("id", "undo").click()
    until(lambda: "taken back" in _message(driver))
    np.testing.assert_array_equal(server.session.tracks.tracks, ours.tracks)
    _drag(driver, (x, y), (x + 4, y + 4))
    until(lambda: _message(driver) == "nose corrected on frame 10.")
    driver.find_element("id", "save").click()
    until(lambda: "corrections.csv" in _message(driver))
    assert ptrack.load_tracks(tmp_path / "t.h5").info.warnings == ("Point nose was corrected by hand on frame 10.",)
    driver.find_element("id", "done").click()
    server.wait()


def test_grids_undo_delete_and_keys(page, until):
    driver, _ = page
    driver.execute_script("document.getElementById('spacing').value = 10")
    driver.find_element("id", "tool-box").click()
    _drag(driver, (20, 10), (62, 42))
    points = _state(driver, "points")
    assert len(points) == 5 * 4
    xs = sorted({p["x"] for p in points})
    np.testing.assert_allclose(np.diff(xs), 10)
    np.testing.assert_allclose((xs[0] + xs[-1]) / 2, 41, atol=0.2)
    body = driver.find_element("tag name", "body")
    body.send_keys(Keys.CONTROL, "z")
    assert _state(driver, "points") == []
    driver.find_element("id", "tool-lasso").click()
    _drag(driver, (20, 10), (80, 10), (20, 60))  # a triangle: half of its box
    count = len(_state(driver, "points"))
    assert 12 <= count <= 24
    body.send_keys(Keys.DELETE)
    assert len(_state(driver, "points")) == count - 1
    body.send_keys(Keys.CONTROL, "z")
    assert len(_state(driver, "points")) == count
    body.send_keys(Keys.ARROW_RIGHT)
    until(lambda: _state(driver, "shown") == 1)
    body.send_keys(Keys.END)
    until(lambda: _state(driver, "shown") == T - 1)
    driver.find_element("id", "tool-move").click()
    assert driver.find_element("id", "tool-move").get_attribute("aria-pressed") == "true"


def test_names_must_differ_and_errors_are_shown(page, until):
    driver, _ = page
    driver.find_element("id", "track").click()
    until(lambda: "no point yet" in _message(driver))
    _click(driver, 30, 20)
    _click(driver, 40, 30)
    name = driver.find_elements("css selector", ".point input[type=text]")[1]
    name.send_keys(Keys.CONTROL + "a" + Keys.NULL, "0" + Keys.TAB)
    assert _message(driver) == "The name 0 is in use."
    assert [p["id"] for p in _state(driver, "points")] == ["0", "1"]


def test_another_page_cannot_read_or_change_anything(page, tmp_path):
    driver, server = page
    (tmp_path / "evil.html").write_text("<!doctype html><title>evil</title>")
    driver.get((tmp_path / "evil.html").as_uri())
    driver.set_script_timeout(20)
    script = """
    const [url, done] = arguments;
    Promise.all([
      fetch(url + 'about').then(() => 'read', () => 'refused'),
      fetch(url + 'done', {method: 'POST', mode: 'no-cors', body: '{}'}).then(() => 'sent', () => 'refused'),
      new Promise((tell) => {
        const image = new Image();
        image.onload = () => tell('shown');
        image.onerror = () => tell('refused');
        image.src = url + 'frame?i=0';
      }),
    ]).then(done);
    """
    read, _, image = driver.execute_async_script(script, server.url)
    assert (read, image) == ("refused", "refused")
    assert not server.done.wait(0.5)

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


def _rename(driver, row, name):
    driver.find_elements("css selector", "#list .row")[row].click()
    box = driver.find_element("id", "name")
    box.send_keys(Keys.CONTROL + "a" + Keys.NULL, name + Keys.TAB)


def test_pick_track_correct_save(page, tmp_path, until):
    driver, server = page
    _click(driver, 30, 20)
    _scrub(driver, until, 4)
    _click(driver, 60, 40)
    _click(driver, 45, 30)
    points = _state(driver, "points")
    assert [p["t"] for p in points] == [0, 4, 4]
    np.testing.assert_allclose([[p["x"], p["y"]] for p in points], [[30, 20], [60, 40], [45, 30]], atol=0.2)
    _rename(driver, 0, "nose")
    until(lambda: _state(driver, "points")[0]["id"] == "nose")

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
    _scrub(driver, until, 15)
    until(lambda: driver.execute_script("return ptrackPick.state.rows.has(15)"))
    shown = driver.execute_script("return ptrackPick.state.rows.get(15).get('nose')")
    np.testing.assert_allclose(shown[:2], corrected.tracks[15, 0], atol=6e-4)

    driver.find_element("id", "undo").click()
    until(lambda: _message(driver) == "The correction of nose is undone.")
    np.testing.assert_array_equal(server.session.tracks.tracks, ours.tracks)
    _scrub(driver, until, 10)
    _drag(driver, (x, y), (x + 4, y + 4))
    until(lambda: _message(driver) == "nose corrected on frame 10.")
    driver.find_element("id", "save").click()
    until(lambda: "corrections.csv" in _message(driver))
    assert ptrack.load_tracks(tmp_path / "t.h5").info.warnings == ("Point nose was corrected by hand on frame 10.",)
    driver.find_element("id", "done").click()
    server.wait()


def test_suggested_frames_places_worth_a_look_and_collected_corrections(page, tmp_path, until):
    driver, _ = page
    with PickServer(_fake(tmp_path)) as server:
        driver.get(server.url)
        _loaded(driver, until)
        driver.execute_script("document.getElementById('suggest-count').value = 3")
        driver.find_element("id", "suggest").click()
        shots = until(lambda: driver.find_elements("css selector", "#strip .shot"))
        assert driver.find_element("id", "look-note").text == "Of 20 frames 20 were looked at (all)."
        frames = [int(shot.get_attribute("data-frame")) for shot in shots]
        loaded = "return [...document.querySelectorAll('#strip img')].map((i) => i.complete && i.naturalWidth)"
        until(lambda: driver.execute_script(loaded) == [W, W, W])
        shots[1].click()
        until(lambda: _state(driver, "shown") == frames[1])
        ActionChains(driver).send_keys(Keys.ARROW_RIGHT).perform()
        until(lambda: _state(driver, "shown") == frames[2])
        driver.find_element("tag name", "body").send_keys(Keys.HOME)
        until(lambda: _state(driver, "shown") == 0)
        _click(driver, 30, 20)
        _click(driver, 60, 40)
        driver.find_element("id", "track").click()
        until(lambda: "2 points tracked through 20 frames" in _message(driver))
        rows = until(lambda: driver.find_elements("css selector", "#worth-list .row"))  # the model is never sure
        assert rows[0].text.split("\n")[-1].startswith("unsure in")
        rows[1].click()
        until(lambda: _state(driver, "chosen") == rows[1].get_attribute("data-id"))

        driver.find_element("id", "collect").click()
        driver.find_element("id", "tool-move").click()
        for frame, x, y in ((4, 34, 22), (9, 39, 24.5)):
            _scrub(driver, until, frame)
            until(lambda at=frame: driver.execute_script("return ptrackPick.state.rows.has(arguments[0])", at))
            _drag(driver, (x, y), (x + 5, y + 5), (x + 10, y + 8))
            until(lambda at=frame: f"{1 + (at > 4)} corrected" in _message(driver))
        assert driver.find_element("id", "track").text == "Track again (2)"
        driver.find_element("id", "track").click()
        until(lambda: _message(driver) == "2 corrections tracked.")
        assert driver.find_element("id", "track").text == "Track"
        np.testing.assert_allclose(server.session.tracks.tracks[[4, 9], 0], [[44, 30], [49, 32.5]], atol=0.3)


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
    until(lambda: _state(driver, "points") == [])
    driver.find_element("id", "tool-lasso").click()
    _drag(driver, (20, 10), (80, 10), (20, 60))  # a triangle: half of its box
    count = len(_state(driver, "points"))
    assert 12 <= count <= 24
    body.send_keys(Keys.DELETE)
    until(lambda: len(_state(driver, "points")) == count - 1)
    body.send_keys(Keys.CONTROL, "z")
    until(lambda: len(_state(driver, "points")) == count)
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
    _rename(driver, 1, "0")
    until(lambda: _message(driver) == "The name '0' is in use; every point needs its own.")
    assert driver.find_element("id", "name").get_attribute("value") == "1"
    assert [p["id"] for p in _state(driver, "points")] == ["0", "1"]


def _fake(path, **more):
    from ptrack.tracking.tracker import Tracker
    from tests.fakes import DriftModel

    return PickSession(path / "clip.mp4", lambda: Tracker(DriftModel()), path / "t2.h5", path / "q2.csv", **more)


def _loaded(driver, until):
    until(lambda: driver.execute_script("return !!window.ptrackPick && ptrackPick.state.shown === 0"))


def test_a_reload_and_a_second_tab_get_the_session_and_one_of_them_writes(page, tmp_path, until):
    driver, _ = page
    with PickServer(_fake(tmp_path)) as server:
        driver.get(server.url)
        _loaded(driver, until)
        _click(driver, 30, 20)
        _click(driver, 60, 40)
        driver.find_element("id", "track").click()
        until(lambda: "2 points tracked through 20 frames" in _message(driver))
        assert driver.find_element("id", "count").text == "2 points, not saved"
        driver.refresh()  # it asks whether to leave, which the driver answers
        _loaded(driver, until)
        until(lambda: len(_state(driver, "points")) == 2)
        assert _state(driver, "writer")
        _scrub(driver, until, 12)
        there = "const row = ptrackPick.state.rows.get(12); return row && row.get('1')[0]"
        until(lambda: abs((driver.execute_script(there) or 0) - 72) < 0.5)
        driver.find_element("id", "undo").click()
        until(lambda: len(_state(driver, "points")) == 1)

        first = driver.current_window_handle
        driver.switch_to.new_window("tab")
        driver.get(server.url)
        _loaded(driver, until)
        until(lambda: "Another tab works" in _message(driver))
        assert len(_state(driver, "points")) == 1
        assert not driver.find_element("id", "save").is_enabled()
        _click(driver, 50, 20)
        assert len(_state(driver, "points")) == 1
        driver.find_element("id", "take").click()
        until(lambda: _state(driver, "writer"))
        _click(driver, 50, 20)
        until(lambda: len(server.session.points) == 2)
        second = driver.current_window_handle
        driver.switch_to.window(first)
        until(lambda: "Another tab works" in _message(driver))
        until(lambda: len(_state(driver, "points")) == 2)
        driver.switch_to.window(second)
        driver.close()
        driver.switch_to.window(first)


def test_leaving_with_changes_is_asked_about(page, until):
    driver, _ = page
    _click(driver, 30, 20)
    script = (
        "const e = new Event('beforeunload', {cancelable: true}); window.dispatchEvent(e); return e.defaultPrevented"
    )
    assert driver.execute_script(script)
    driver.find_element("id", "save").click()
    until(lambda: _message(driver).startswith("Saved"))
    assert not driver.execute_script(script)
    _click(driver, 40, 20)
    driver.find_element("id", "done").click()
    alert = until(lambda: driver.switch_to.alert)
    assert "not saved" in alert.text
    alert.dismiss()
    driver.find_element("id", "save").click()
    until(lambda: _message(driver).startswith("Saved"))


def test_when_the_server_is_gone_a_sentence_says_so(page, tmp_path, until):
    driver, _ = page
    with PickServer(_fake(tmp_path)) as server:
        driver.get(server.url)
        _loaded(driver, until)
        _click(driver, 30, 20)
        until(lambda: len(server.session.points) == 1)
    until(lambda: "no longer answers" in _message(driver))
    _click(driver, 40, 20)
    assert "no longer answers" in _message(driver)
    assert len(_state(driver, "points")) == 1
    assert not driver.find_element("id", "save").is_enabled()


@pytest.mark.parametrize("width", [1280, 390])
def test_messages_do_not_move_the_picture_and_nothing_is_cut_off(page, width, until):
    driver, _ = page
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        place = "const b = document.getElementById('view').getBoundingClientRect(); return [b.x, b.y, b.width]"
        name = "a-rather-long-name-of-a-video-file-7.mp4"
        driver.execute_script("document.getElementById('title').textContent = arguments[0]", name)
        until(lambda: driver.execute_script(place) == driver.execute_script(place))
        before = driver.execute_script(place)
        _click(driver, 30, 20)
        assert "1 point added" in _message(driver)
        assert driver.execute_script(place) == before
        driver.execute_script("document.getElementById('message').textContent = 'word '.repeat(60)")
        assert driver.execute_script(place) == before
        assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        cut = "const t = document.getElementById('title'); return t.scrollWidth > t.clientWidth"
        assert not driver.execute_script(cut)
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_thousand_points_are_one_tab_stop(page, until):
    driver, server = page
    points = [{"id": f"p{i}", "t": i % 3, "x": i % 96, "y": i % 64} for i in range(1000)]
    driver.execute_script("ptrackPick.state.tool = 'move'")
    server.session.edit(points)
    until(lambda: len(driver.find_elements("css selector", "#list [role=option]")) == 1000)
    stops = "return [...document.querySelectorAll('aside [tabindex=\\'0\\'], aside input, aside button')].length"
    assert driver.execute_script(stops) == 5  # the list, and four properties of the chosen point
    driver.execute_script("document.querySelector('#list [tabindex=\\'0\\']').focus()")
    chain = ActionChains(driver)
    for key in (Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.PAGE_DOWN):
        chain = chain.send_keys(key)
    chain.perform()
    assert _state(driver, "chosen") == "p11"
    focused = "const e = document.activeElement; return [e.dataset.id, e.getAttribute('aria-selected')]"
    assert driver.execute_script(focused) == ["p11", "true"]
    ActionChains(driver).send_keys(Keys.DELETE).perform()
    until(lambda: len(server.session.points) == 999)
    assert driver.execute_script(focused) == ["p12", "true"]
    ActionChains(driver).send_keys(Keys.END, Keys.ENTER).perform()
    assert _state(driver, "chosen") == "p999"
    until(lambda: _state(driver, "shown") == 0)
    ActionChains(driver).send_keys(Keys.ARROW_UP, Keys.ENTER).perform()
    until(lambda: _state(driver, "shown") == 998 % 3)
    ActionChains(driver).send_keys(Keys.F2).perform()
    assert driver.switch_to.active_element.get_attribute("id") == "name"


def test_what_was_deleted_and_brought_back_can_be_corrected(page, tmp_path, until):
    driver, _ = page
    with PickServer(_fake(tmp_path)) as server:
        driver.get(server.url)
        _loaded(driver, until)
        _click(driver, 30, 20)
        driver.find_element("id", "track").click()
        until(lambda: "1 point" in _message(driver) and "tracked through" in _message(driver))
        _scrub(driver, until, 6)
        driver.find_element("id", "remove").click()
        until(lambda: _state(driver, "points") == [])
        driver.find_element("id", "undo").click()
        until(lambda: len(_state(driver, "points")) == 1)
        driver.find_element("id", "tool-move").click()
        _drag(driver, (36, 23), (40, 25), (46, 30))
        until(lambda: _message(driver) == "0 corrected on frame 6.")
        np.testing.assert_allclose(server.session.tracks.tracks[6, 0], [46, 30], atol=0.3)


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

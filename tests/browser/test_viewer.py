"""The viewer in a browser, from disk: every frame shown is the frame said, and points can be picked and lassoed."""

from __future__ import annotations

import numpy as np
import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from ptrack.video import open_source
from ptrack.viz.html import write_viewer
from tests.viz.scenes import H, W, make_tracks, numbered_frame, write_clip

T = 40
READ = """
const c = document.getElementById('view'), p = c.getContext('2d'), W = 96, n = 6, k = c.width / W;
let v = 0;
for (let b = 0; b < n; b++) if (p.getImageData((b + .5) * 16 * k, c.height * .93, 1, 1).data[0] > 127) v |= 1 << b;
return [v, ptrackViewer.state.shown, ptrackViewer.state.frame];
"""


@pytest.fixture(scope="module", params=[True, False], ids=["embedded", "beside"])
def page(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewer")
    write_clip(folder / "clip.mp4", [numbered_frame(i) for i in range(T)])
    name = "v.html" if request.param else "take #2? 50% a:b.html"  # the video beside it has the same name
    write_viewer(make_tracks(T), open_source(str(folder / "clip.mp4")), folder / name, embed=request.param)
    return (folder / name).as_uri(), request.param


@pytest.fixture
def viewer(browser, page, until, severe):
    browser.get(page[0])
    until(lambda: browser.execute_script("return !!window.ptrackViewer && ptrackViewer.state.ready"))
    assert severe() == []
    return browser


def _go(driver, until, i):
    driver.execute_script(f"ptrackViewer.goTo({i})")
    until(lambda: driver.execute_script("return ptrackViewer.state.shown") == i)


def test_every_frame_shown_is_the_frame_said(viewer, page, until):
    if not page[1]:  # a file beside the page may be looked at but not read back by a script
        _go(viewer, until, 17)
        assert "frame 17 " in viewer.find_element("id", "where").text
        return
    order = np.random.default_rng(0).permutation(T)
    for i in order.tolist():
        _go(viewer, until, i)
        until(lambda i=i: viewer.execute_script(READ) == [i, i, i])
    viewer.execute_script("ptrackViewer.goTo(0); document.getElementById('play').click()")
    seen = set()
    until(lambda: seen.add(tuple(viewer.execute_script(READ))) or len(seen) > 8)
    assert all(number == shown for number, shown, _ in seen), seen


def test_keys(viewer, until):
    body = viewer.find_element("tag name", "body")
    _go(viewer, until, 5)
    for key, frame in ((Keys.ARROW_RIGHT, 6), (Keys.END, T - 1), (Keys.HOME, 0)):
        body.send_keys(key)
        until(lambda frame=frame: viewer.execute_script("return ptrackViewer.state.shown") == frame)
    ActionChains(viewer).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    until(lambda: viewer.execute_script("return ptrackViewer.state.shown") == 10)
    assert viewer.execute_script("return ptrackViewer.state.drawn") == 6
    body.send_keys("o", "o")  # always, never
    assert viewer.execute_script("return ptrackViewer.state.drawn") == 5  # point 1 is occluded from frame 6 on
    body.send_keys("o")  # fading: for 8 frames
    _go(viewer, until, 13)
    assert viewer.execute_script("return ptrackViewer.state.drawn") == 6
    _go(viewer, until, 14)
    assert viewer.execute_script("return ptrackViewer.state.drawn") == 5
    theme = viewer.execute_script("return document.documentElement.dataset.theme")
    body.send_keys("d")
    assert viewer.execute_script("return document.documentElement.dataset.theme") != theme
    body.send_keys("a")
    assert viewer.find_element("id", "count").text == "6 of 6 selected"
    body.send_keys(Keys.ESCAPE)
    assert viewer.find_element("id", "count").text == "0 of 6 selected"
    body.send_keys(" ")
    until(lambda: viewer.find_element("id", "play").text == "Pause")
    body.send_keys(" ")
    until(lambda: viewer.find_element("id", "play").text == "Play")


def test_colours_that_are_numbers_have_a_scale(viewer):
    def scale(mode):
        viewer.execute_script(
            "const c = document.getElementById('colour'); c.value = arguments[0]; c.dispatchEvent(new Event('input'))",
            mode,
        )
        return viewer.find_element("id", "scale").text.split("\n")

    assert scale("start") == [""]
    assert scale("confidence") == ["confidence 0", "1"]
    assert scale("motion") == ["motion 0", "1.58+ px/frame"]
    bar = viewer.find_element("id", "scale-bar").value_of_css_property("background-image")
    assert bar.startswith("linear-gradient")


def _at(driver, x, y):
    """Offset of a video pixel from the centre of the canvas, in CSS pixels."""
    box = driver.find_element("id", "view").size
    return round((x / W - 0.5) * box["width"]), round((y / H - 0.5) * box["height"])


def test_click_hover_and_lasso(viewer, until):
    tracks, view = make_tracks(T), viewer.find_element("id", "view")
    _go(viewer, until, 8)
    x, y = tracks.tracks[8, 3]
    ActionChains(viewer).move_to_element_with_offset(view, *_at(viewer, x, y)).click().perform()
    assert viewer.execute_script("return [...ptrackViewer.state.selected]") == [3]
    tip = viewer.find_element("id", "tip").text
    assert f"x {x:.2f}" in tip
    assert "visible (0.90)" in tip
    assert viewer.find_element("css selector", ".row[data-id='p3']").get_attribute("aria-selected") == "true"

    low, high = tracks.tracks[8, :3].min(axis=0) - 3, tracks.tracks[8, :3].max(axis=0) + 3
    corners = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]
    viewer.find_element("id", "lasso").click()
    chain = ActionChains(viewer).move_to_element_with_offset(view, *_at(viewer, *corners[0])).click_and_hold()
    for corner in corners[1:]:
        chain = chain.move_to_element_with_offset(view, *_at(viewer, *corner))
    chain.release().perform()
    inside = ((tracks.tracks[8] >= low) & (tracks.tracks[8] <= high)).all(axis=1)
    chosen = viewer.execute_script("return [...ptrackViewer.state.selected].sort()")
    assert chosen == np.flatnonzero(inside).tolist()
    assert 3 <= len(chosen) < 6


def test_the_list_is_one_tab_stop_with_arrow_keys(viewer):
    stops = "return document.querySelectorAll('#list [tabindex=\\'0\\']').length"
    assert viewer.execute_script(stops) == 1
    viewer.execute_script("document.querySelector('#list [tabindex=\\'0\\']').focus()")
    ActionChains(viewer).send_keys(Keys.ARROW_DOWN, Keys.SPACE, Keys.ARROW_DOWN, Keys.SPACE).perform()
    assert viewer.execute_script("return [...ptrackViewer.state.selected].sort()") == [1, 2]
    ActionChains(viewer).send_keys(Keys.END, Keys.ENTER).perform()
    assert viewer.execute_script("return [...ptrackViewer.state.selected]") == [5]
    assert viewer.execute_script(stops) == 1
    ActionChains(viewer).send_keys(Keys.ESCAPE).perform()


def test_the_list_can_be_searched(viewer, severe):
    viewer.find_element("id", "find").send_keys("p4")
    shown = [r.get_attribute("data-id") for r in viewer.find_elements("class name", "row") if r.is_displayed()]
    assert shown == ["p4"]
    assert severe() == []

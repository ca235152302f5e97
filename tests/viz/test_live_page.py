"""The live page: news of the newest frame, its picture, and nothing for anybody else."""

import io
import json
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from ptrack.viz.pick.live import KEPT, LiveServer, LiveView
from tests.live.test_publish import made


@pytest.fixture
def served():
    view = LiveView()
    with LiveServer(view) as server:
        yield view, server


def get(server, route):
    with urllib.request.urlopen(server.url + route, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read()


def test_news_and_pictures(served):
    view, server = served
    for number in range(KEPT + 2):
        view.show(np.full((48, 64, 3), 40 * number, np.uint8), made(number))
    kind, body = get(server, "poll?after=2")
    news = json.loads(body)
    assert kind == "application/json"
    assert (news["frame"], news["width"], news["dropped"], news["over"]) == (KEPT + 1, 64, 1, False)
    assert news["points"] == [["p 0", 1.2, 1.2, True, 0.5]]  # the other one's place is unknown
    kind, body = get(server, f"frame?i={KEPT + 1}")
    picture = np.asarray(Image.open(io.BytesIO(body)))
    assert kind == "image/jpeg"
    assert picture.shape == (48, 64, 3)
    assert abs(int(picture[0, 0, 0]) - 40 * (KEPT + 1)) < 4
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server, "frame?i=0")


def test_a_waiting_page_hears_of_the_next_frame_and_of_the_end(served):
    view, server = served
    threading.Timer(0.1, view.show, (np.zeros((48, 64, 3), np.uint8), made(0))).start()
    assert json.loads(get(server, "poll?after=-1")[1])["frame"] == 0
    threading.Timer(0.1, view.close).start()
    assert json.loads(get(server, "poll?after=0")[1]) == {"frame": None, "over": True}


def test_large_pictures_are_reduced_only_for_the_page(served):
    view, server = served
    view.show(np.zeros((30, 3000, 3), np.uint8), made(0))
    assert Image.open(io.BytesIO(get(server, "frame?i=0")[1])).size == (1000, 10)


@pytest.mark.parametrize("route", ["", "live.js", "style.css"])
def test_the_page_and_its_files(served, route):
    assert len(get(served[1], route)[1]) > 300


@pytest.mark.parametrize("route", ["about", "pick.js", "../live.html", "poll", "frame?i=x"])
def test_nothing_else_is_served(served, route):
    with pytest.raises(urllib.error.HTTPError, match="40[04]"):
        get(served[1], route)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{served[1].port}/poll?after=-1")
    order = urllib.request.Request(served[1].url + "track", b"{}", {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError, match="40[34]"):
        urllib.request.urlopen(order)

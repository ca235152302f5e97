"""The picking server over HTTP: what it answers, and above all what it refuses."""

from __future__ import annotations

import functools
import http.client
import json
import socket
import threading

import pytest

import ptrack
from ptrack.errors import InputError
from ptrack.viz.pick import PickServer, PickSession

POINTS = [{"id": "a", "t": 0, "x": 30, "y": 20}, {"id": "b", "t": 2, "x": 50, "y": 30}]

pytestmark = pytest.mark.usefixtures("one_thread")


@functools.cache
def _tracker():
    return ptrack.load("matching", device="cpu")


@pytest.fixture
def server(moving_clip, tmp_path):
    with PickServer(PickSession(moving_clip, _tracker, tmp_path / "t.h5", tmp_path / "q.csv")) as made:
        yield made


def _ask(server, path, body=None, *, token=None, method=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    data = None
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{server.port}", **headers}
    prefix = server.token if token is None else token
    connection.request(method or ("GET" if data is None else "POST"), f"/{prefix}/{path}", data, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.headers.get_content_type() == "application/json":
        content = json.loads(content)
    return answer.status, content, answer.headers


def test_the_page_and_its_parts(server):
    for path, kind, words in (("", "text/html", b"<canvas"), ("pick.js", "text/javascript", b"fetch("),
                              ("style.css", "text/css", b".point")):  # fmt: skip
        status, body, headers = _ask(server, path)
        assert (status, headers.get_content_type()) == (200, kind)
        assert words in body
        assert b"http://" not in body
        assert b"https://" not in body
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Access-Control-Allow-Origin"] is None
    status, body, headers = _ask(server, "frame?i=3")
    assert (status, headers.get_content_type(), body[:2]) == (200, "image/jpeg", b"\xff\xd8")


def test_pick_track_correct_save_done(server, tmp_path):
    status, answer, _ = _ask(server, "track", {"points": POINTS})
    assert status == 200
    rows = []
    while True:
        _, news, _ = _ask(server, f"poll?job={answer['job']}&row={len(rows)}")
        rows += news["rows"]
        if not news["running"]:
            break
    assert len(rows) == 24
    status, answer, _ = _ask(server, "correct", {"id": "a", "t": 5, "x": 40.5, "y": 22})
    assert status == 200
    while _ask(server, f"poll?job={answer['job']}&row=100")[1]["running"]:
        pass
    assert _ask(server, "rename", {"from": "b", "to": "tail"})[0] == 200
    named = [POINTS[0], {**POINTS[1], "id": "tail"}]
    status, answer, _ = _ask(server, "save", {"points": named})
    assert (status, len(answer["saved"])) == (200, 3)
    tracks = ptrack.load_tracks(tmp_path / "t.h5")
    assert tracks.tracks[5, 0].tolist() == [40.5, 22]
    assert tracks.ids.tolist() == ["a", "tail"]
    assert _ask(server, "undo", {})[1]["id"] == "a"
    assert _ask(server, "stop", {})[0] == 200
    assert _ask(server, "done", {})[0] == 200
    server.wait()


@pytest.mark.parametrize("host", ["evil.example", "localhost", "127.0.0.1", "127.0.0.1.evil.example:80", "[::1]", ""])
def test_other_hosts_are_refused(server, host):
    assert _ask(server, "about", Host=host)[0] == 403


def test_two_hosts_are_refused(server):
    own = f"127.0.0.1:{server.port}"
    request = f"GET /{server.token}/about HTTP/1.1\r\nHost: {own}\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plug:
        plug.sendall(request.encode())
        assert b"403" in plug.recv(1000).split(b"\r\n")[0]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1:{port}"])
def test_other_origins_are_refused(server, origin):
    origin = origin.format(port=server.port)
    assert _ask(server, "about", Origin=origin)[0] == 403
    assert _ask(server, "done", {}, Origin=origin)[0] == 403
    assert not server.done.is_set()


def test_changes_without_an_origin_and_cross_site_reads_are_refused(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", f"/{server.token}/done", b"{}", {"Content-Type": "application/json"})
    assert connection.getresponse().status == 403
    connection.close()
    for site in ("cross-site", "same-site"):
        assert _ask(server, "frame?i=0", Sec_Fetch_Site=site)[0] == 403
    assert _ask(server, "frame?i=0", Sec_Fetch_Site="same-origin")[0] == 200
    assert not server.done.is_set()


@pytest.mark.parametrize("token", ["", "wrong", "x" * 32, "%00", "..", "ä"])
def test_without_the_token_there_is_nothing(server, token):
    from urllib.parse import quote

    for path in ("", "about", "frame?i=0", "pick.js", "poll?job=0&row=0"):
        status, body, _ = _ask(server, path, token=quote(token, safe="%"))
        assert status == 404
        assert server.token not in str(body)
    assert _ask(server, "done", {}, token=quote(token, safe="%"))[0] == 404
    assert not server.done.is_set()


def test_tokens_are_long_and_differ(server, moving_clip, tmp_path):
    session = PickSession(moving_clip, lambda: None, tmp_path / "t2.h5", tmp_path / "q2.csv")
    with PickServer(session) as other:
        assert other.token != server.token
        assert len(other.token) == 32


@pytest.mark.parametrize(
    "path",
    ["../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "..\\..\\etc",
     "pick.html", "session.py", "./pick.js", "style.css/../session.py", "frame?i=../../etc/passwd", "frame/0",
     "pick.js%00.html", "viewer.css"],
)  # fmt: skip
def test_no_path_leads_to_a_file(server, path):
    status, body, _ = _ask(server, path)
    assert status in (400, 404)
    assert "root:" not in str(body)
    assert isinstance(body, dict)


def test_it_listens_on_this_machine_only(server):
    assert server._server.socket.getsockname()[0] == "127.0.0.1"
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        own = "127.0.0.2"  # another loopback address must not answer either
    with socket.socket() as plug:
        plug.settimeout(2)
        assert plug.connect_ex((own, server.port)) != 0


@pytest.mark.parametrize(
    ("route", "body", "status", "words"),
    [
        ("track", b"not json", 400, "not JSON"),
        ("track", [1], 400, "must be an object"),
        ("track", {"points": []}, 400, "no point yet"),
        ("track", {"points": [{"id": "a", "t": 0, "x": 1e9, "y": 0}]}, 400, "outside"),
        ("correct", {"id": "a", "t": 0, "x": "1", "y": 2}, 400, "'x' must be a number"),
        ("correct", {"id": "a", "t": 0, "x": True, "y": 2}, 400, "'x' must be a number"),
        ("correct", {"id": "a", "t": 0, "x": 1, "y": 2}, 400, "finished"),
        ("undo", {}, 400, "no correction"),
        ("nothing", {}, 404, "nothing here"),
        ("about", {}, 404, "nothing here"),
    ],
)
def test_bad_requests_get_a_sentence(server, route, body, status, words):
    got, answer, _ = _ask(server, route, body)
    assert got == status
    assert words in answer["error"]


def test_size_type_and_numbers_are_limited(server):
    assert _ask(server, "track", {}, Content_Type="text/plain")[0] == 415
    assert _ask(server, "track", {}, Content_Length="999999999999")[0] == 413
    assert _ask(server, "track", {}, Content_Length="-5")[0] == 413
    assert _ask(server, "frame?i=abc")[0] == 400
    assert _ask(server, "frame")[0] == 400
    assert _ask(server, "frame?i=100000")[0] == 404
    assert _ask(server, "frame?i=-1")[0] == 404
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE"):
        assert _ask(server, "about", method=method)[0] == 501


def test_a_used_port_is_a_sentence(server, moving_clip, tmp_path):
    session = PickSession(moving_clip, lambda: None, tmp_path / "t2.h5", tmp_path / "q2.csv")
    with pytest.raises(InputError, match=f"Port {server.port} cannot be used"):
        PickServer(session, server.port)


def test_nothing_runs_on_after_close(moving_clip, tmp_path):
    before = set(threading.enumerate())

    session = PickSession(moving_clip, _tracker, tmp_path / "t.h5", tmp_path / "q.csv")
    with PickServer(session) as made:
        port = made.port
        _ask(made, "track", {"points": POINTS})
    left = [t for t in threading.enumerate() if t not in before and t.name.startswith("ptrack-pick")]
    assert left == []
    with socket.socket() as plug:
        assert plug.connect_ex(("127.0.0.1", port)) != 0

"""The picking server over HTTP: what it answers, and above all what it refuses."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time

import pytest

import ptrack
from ptrack.errors import InputError
from ptrack.tracking.tracker import Tracker
from ptrack.viz.pick import PickServer, PickSession
from tests.fakes import DriftModel

POINTS = [{"id": "a", "t": 0, "x": 30, "y": 20}, {"id": "b", "t": 2, "x": 50, "y": 30}]

pytestmark = pytest.mark.usefixtures("one_thread")


def _tracker():
    return Tracker(DriftModel())


@pytest.fixture
def server(moving_clip, tmp_path):
    with PickServer(PickSession(moving_clip, _tracker, tmp_path / "t.h5", tmp_path / "q.csv")) as made:
        yield made


def _ask(server, path, body=None, *, token=None, method=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    data = None
    if body is not None:
        body = {"tab": "t", **body} if isinstance(body, dict) else body
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
                              ("shared.js", "text/javascript", b"ptrackPage"),
                              ("look.js", "text/javascript", b"ptrackPick"),
                              ("style.css", "text/css", b"#status")):  # fmt: skip
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
    assert _ask(server, "edit", {"points": POINTS})[0] == 200
    status, answer, _ = _ask(server, "track", {})
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
    assert _ask(server, "rows?first=5&last=5")[1]["rows"][0][1][0][:2] == [40.5, 22]
    assert _ask(server, "rename", {"from": "b", "to": "tail"})[0] == 200
    status, answer, _ = _ask(server, "save", {})
    assert (status, len(answer["saved"]), answer["unsaved"]) == (200, 3, False)
    tracks = ptrack.load_tracks(tmp_path / "t.h5")
    assert tracks.tracks[5, 0].tolist() == [40.5, 22]
    assert tracks.ids.tolist() == ["a", "tail"]
    assert _ask(server, "undo", {})[1]["note"] == "The correction of a is undone."
    assert _ask(server, "stop", {})[0] == 200
    assert _ask(server, "done", {})[0] == 200
    server.wait()


def test_suggestions_places_and_collected_corrections(server):
    assert _ask(server, "suggest", {"frames": "many"})[0] == 400
    assert _ask(server, "suggest", {"frames": 2})[0] == 200
    while (answer := _ask(server, "watch?tab=t&revision=-1")[1]["suggested"])["running"]:
        time.sleep(0.02)
    assert len(answer["frames"]) == 2
    status, body, headers = _ask(server, f"thumb?i={answer['frames'][0][0]}")
    assert (status, headers.get_content_type(), body[:2]) == (200, "image/jpeg", b"\xff\xd8")
    assert _ask(server, "thumb?i=99")[0] == 404
    assert _ask(server, "places")[1]["places"] == []
    _ask(server, "edit", {"points": POINTS})
    for _ in range(2):
        job = _ask(server, "track", {})[1]["job"]
        while _ask(server, f"poll?job={job}&row=0")[1]["running"]:
            pass
    assert _ask(server, "correct", {"id": "a", "t": 5, "x": 40.5, "y": 22, "wait": True})[1]["waiting"]
    assert _ask(server, "again", {})[1]["job"] == job + 1
    while _ask(server, f"poll?job={job + 1}&row=0")[1]["running"]:
        pass
    assert _ask(server, "rows?first=5&last=5")[1]["rows"][0][1][0][:2] == [40.5, 22]
    assert _ask(server, "again", {})[0] == 400


def test_a_second_tab_gets_the_session_and_may_not_change_it(server):
    assert _ask(server, "edit", {"points": POINTS})[0] == 200
    seen = _ask(server, "claim", {"tab": "second"})[1]
    assert [p["id"] for p in seen["points"]] == ["a", "b"]
    assert not seen["writer"]
    for route in ("edit", "track", "rename", "undo", "save", "done", "stop", "correct", "again", "suggest"):
        status, answer, _ = _ask(server, route, {"tab": "second", "points": []})
        assert (status, answer["error"][:11]) == (409, "Another tab")
    assert not server.done.is_set()
    assert _ask(server, "claim", {"tab": "second", "force": True})[1]["writer"]
    assert _ask(server, "edit", {"points": []})[0] == 409
    assert _ask(server, "leave", {"tab": "second"})[0] == 200
    assert _ask(server, "edit", {"points": []})[0] == 200


def test_the_watch_answers_when_something_changes(server):
    first = _ask(server, "watch?tab=t&revision=-1")[1]
    done = []
    waiting = threading.Thread(target=lambda: done.append(_ask(server, f"watch?tab=t&revision={first['revision']}")[1]))
    waiting.start()
    _ask(server, "edit", {"points": POINTS})
    waiting.join(timeout=20)
    assert [p["id"] for p in done[0]["points"]] == ["a", "b"]


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
        ("track", b"[" * 100_000, 400, "not JSON"),
        ("edit", b'{"points": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400, "not JSON, or too deep"),
        ("edit", b'{"points": [{"id": "a", "t": 1' + b"0" * 5000 + b', "x": 1, "y": 2}]}', 400, "not JSON"),
        ("edit", {"points": [{"id": "a", "t": 10**400, "x": 1, "y": 0}]}, 400, "'t' of point a must be a number"),
        ("edit", {"points": [{"id": "\ud83d", "t": 0, "x": 1, "y": 0}]}, 400, "half a character"),
        ("edit", {"points": "many"}, 400, "must be a list"),
        ("edit", {"points": [{"id": "a", "t": 0, "x": 1e9, "y": 0}]}, 400, "outside"),
        ("track", [1], 400, "must be an object"),
        ("track", {}, 400, "no point yet"),
        ("rename", {"from": "a", "to": "\udc00"}, 400, "half a character"),
        ("rename", {"from": "a", "to": {}}, 400, "1 to 200 characters"),
        ("correct", {"id": "a", "t": 0, "x": "1", "y": 2}, 400, "'x' must be a number"),
        ("correct", {"id": "a", "t": 0, "x": True, "y": 2}, 400, "'x' must be a number"),
        ("correct", {"id": "a", "t": 10**400, "x": 1, "y": 2}, 400, "'t' must be a number"),
        ("correct", {"id": "a", "t": 0, "x": 1, "y": 2}, 400, "finished"),
        ("undo", {}, 400, "nothing to undo"),
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
    for number in ("9" * 4000, "1" + "0" * 300, "-" + "9" * 400):
        for path in (f"frame?i={number}", f"rows?first={number}&last={number}"):
            assert _ask(server, path)[0] in (200, 400, 404)
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE"):
        assert _ask(server, "about", method=method)[0] == 501


def _raw(server, request):
    """Send bytes and break the connection off, with a reset."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plug:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        plug.sendall(request)


def test_connections_that_break_off_leave_no_traceback(server, capfd):
    host = f"Host: 127.0.0.1:{server.port}\r\nOrigin: http://127.0.0.1:{server.port}\r\n".encode()
    path = f"/{server.token}/".encode()
    json_head = b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    for _ in range(3):
        _raw(server, b"GET " + path + b"pick.js HTTP/1.1\r\n" + host + b"\r\n")
        _raw(server, b"GET " + path + b"frame?i=0 HTTP/1.1\r\n" + host + b"\r\n")
        _raw(server, b"POST " + path + b"edit HTTP/1.1\r\n" + host + json_head + b'{"tab": "t", ')
        _raw(server, b"GET / HT")
        _raw(server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # somebody speaks TLS
    assert _ask(server, "about")[0] == 200
    time.sleep(0.2)
    assert capfd.readouterr().err == ""


def test_a_fault_of_its_own_is_a_sentence(server, monkeypatch, capfd):
    monkeypatch.setattr(server.session, "about", lambda: 1 / 0)
    status, answer, _ = _ask(server, "about")
    assert (status, answer["error"]) == (500, "ptrack failed here: ZeroDivisionError: division by zero.")
    assert "Traceback" not in capfd.readouterr().err


def test_a_used_port_is_a_sentence(server, moving_clip, tmp_path):
    session = PickSession(moving_clip, lambda: None, tmp_path / "t2.h5", tmp_path / "q2.csv")
    with pytest.raises(InputError, match=f"Port {server.port} cannot be used"):
        PickServer(session, server.port)


def test_nothing_runs_on_after_close(moving_clip, tmp_path):
    before = set(threading.enumerate())

    session = PickSession(moving_clip, _tracker, tmp_path / "t.h5", tmp_path / "q.csv")
    with PickServer(session) as made:
        port = made.port
        _ask(made, "edit", {"points": POINTS})
        _ask(made, "track", {})
    left = [t for t in threading.enumerate() if t not in before and t.name.startswith("ptrack-pick")]
    assert left == []
    with socket.socket() as plug:
        assert plug.connect_ex(("127.0.0.1", port)) != 0

"""The server of the picking page. It listens on 127.0.0.1 only and answers only to who knows the token.

Why every check is there:
- loopback address: no other machine can connect;
- random token as the first part of every path: no other user of this machine, and no web page, can guess an address;
- ``Host`` must be this address: a web page whose name is made to point at 127.0.0.1 (DNS rebinding) is refused;
- ``Origin`` and ``Sec-Fetch-Site`` must be this page's: other pages' scripts and forms are refused;
- paths are a fixed list, never file names: there is nothing to traverse.

One tab writes at a time: a request that changes something names its tab, and is refused while another one has the seat.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ptrack.errors import InputError, PTrackError
from ptrack.viz.html.builder import asset
from ptrack.viz.pick.seat import TakenError
from ptrack.viz.pick.session import PickSession

ADDRESS = "127.0.0.1"
MAX_BODY = 8 << 20  # bytes of a request: about 100 000 points
MAX_INDEX = 1 << 40  # of frames, rows and revisions; larger ones overflow what counts them
POLL_SECONDS = 10.0
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class RequestError(Exception):
    """A request that is not answered: status and a sentence."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is the page's business: it went away. Anything else is one line, no traceback."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"ptrack pick: a request failed: {type(error).__name__}: {error}", file=sys.stderr)


class PageHandler(BaseHTTPRequestHandler):
    """Answers the requests of the page, and of nobody else."""

    owner: PickServer
    protocol_version = "HTTP/1.1"
    server_version = "ptrack"
    sys_version = ""
    timeout = 60  # seconds without a byte until a connection is dropped

    files: Mapping[str, tuple[str, ...]] = {}  # route: kind of text, and the packaged files that it is made of
    answers: Mapping[str, Callable[[Any, dict[str, str]], Any]] = {}  # route: what the session answers to a query
    pictures: Mapping[str, Callable[[Any, int], bytes | None]] = {}  # route: a JPEG by its number

    def do_GET(self) -> None:
        """Answer a request for a file, a frame or news."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Answer a request that changes something."""
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the terminal belongs to the command."""

    # -- one request

    def _answer(self, work: Callable[[str, dict[str, str]], tuple[str, bytes]]) -> None:
        try:
            kind, body = work(*self._checked())
        except RequestError as error:
            self._fail(error.status, str(error))
        except TakenError as error:
            self._fail(HTTPStatus.CONFLICT, str(error))
        except PTrackError as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))
        except ConnectionError:
            self.close_connection = True  # the page went away
        except Exception as error:
            self._fail(HTTPStatus.INTERNAL_SERVER_ERROR, f"ptrack failed here: {type(error).__name__}: {error}.")
        else:
            self._send(HTTPStatus.OK, kind, body)

    def _fail(self, status: HTTPStatus, sentence: str) -> None:
        self.close_connection = True  # an unread body must not be taken for the next request
        self._send(status, "application/json", json.dumps({"error": sentence}).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _checked(self) -> tuple[str, dict[str, str]]:
        """Return the route behind the token and its query; raise RequestError for anybody but the page."""
        if self.owner.closed:  # a connection from before
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "ptrack pick has stopped.")
        here = f"{ADDRESS}:{self.owner.port}"
        if self.headers.get_all("Host", []) != [here]:
            raise RequestError(HTTPStatus.FORBIDDEN, "This server answers to its own address only.")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{here}":
            raise RequestError(HTTPStatus.FORBIDDEN, "Requests from other pages are refused.")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise RequestError(HTTPStatus.FORBIDDEN, "Requests from other pages are refused.")
        if self.command == "POST" and origin is None:
            raise RequestError(HTTPStatus.FORBIDDEN, "A request that changes something must say where it comes from.")
        parts = urlsplit(self.path)
        token, _, route = parts.path.lstrip("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.owner.token.encode()):
            raise RequestError(HTTPStatus.NOT_FOUND, "Nothing is here. Use the whole address that ptrack printed.")
        return route, {name: values[0] for name, values in parse_qs(parts.query).items()}

    def _get(self, route: str, query: dict[str, str]) -> tuple[str, bytes]:
        session = self.owner.session
        if route in self.files:
            kind, *names = self.files[route]
            return f"text/{kind}; charset=utf-8", "".join(map(asset, names)).encode()
        if route in self.answers:
            return document(self.answers[route](session, query))
        if route not in self.pictures:
            raise RequestError(HTTPStatus.NOT_FOUND, "There is nothing here.")
        data = self.pictures[route](session, number(query, "i"))
        if data is None:
            raise RequestError(HTTPStatus.NOT_FOUND, "There is no such frame.")
        return "image/jpeg", data

    def _post(self, route: str, query: dict[str, str]) -> tuple[str, bytes]:
        raise RequestError(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _body(self) -> dict[str, Any]:
        if self.headers.get_content_type() != "application/json":
            raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send application/json.")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Send at most {MAX_BODY} bytes, and say how many.")
        try:
            body = json.loads(self.rfile.read(int(length)) or b"{}")
        except (ValueError, RecursionError):  # the latter where brackets lie too deep
            raise RequestError(HTTPStatus.BAD_REQUEST, "The body is not JSON, or too deep.") from None
        if not isinstance(body, dict):
            raise RequestError(HTTPStatus.BAD_REQUEST, "The body must be an object.")
        return body


def document(data: Any) -> tuple[str, bytes]:
    """Return a JSON answer."""
    return "application/json", json.dumps(data, allow_nan=False).encode()


def number(query: dict[str, str], name: str) -> int:
    """Return a whole number of a query; raises RequestError."""
    try:
        value = int(query[name])
    except (KeyError, ValueError):
        raise RequestError(HTTPStatus.BAD_REQUEST, f"'{name}' must be a whole number.") from None
    return max(-1, min(value, MAX_INDEX))


def _correct(session: PickSession, body: dict[str, Any]) -> int:
    place = (body.get("t"), body.get("x"), body.get("y"))
    return session.correct(str(body.get("id")), *place, wait=body.get("wait") is True)


# What a page may ask for: the field of the answer that holds the result, "" for none, and what is done.
_COMMANDS: dict[str, tuple[str, Callable[[PickSession, dict[str, Any]], Any]]] = {
    "edit": ("", lambda session, body: session.edit(body.get("points"), remember=body.get("remember") is not False)),
    "rename": ("", lambda session, body: session.rename(str(body.get("from")), body.get("to"))),
    "correct": ("job", _correct),
    "again": ("job", lambda session, _: session.again()),
    "suggest": ("", lambda session, body: session.suggest(body.get("frames"))),
    "stop": ("", lambda session, _: session.stop()),
    "undo": ("note", lambda session, _: session.undo()),
    "track": ("job", lambda session, _: session.start()),
    "save": ("note", lambda session, _: session.save()),
    "done": ("", lambda session, _: None),
}


class PickHandler(PageHandler):
    """Answers the picking page."""

    files: Mapping[str, tuple[str, ...]] = {
        "": ("html", "pick/pick.html"),
        "shared.js": ("javascript", "html/shared.js"),
        "pick.js": ("javascript", "pick/pick.js"),
        "look.js": ("javascript", "pick/look.js"),
        "style.css": ("css", "html/viewer.css", "pick/pick.css"),
    }
    answers: Mapping[str, Callable[[PickSession, dict[str, str]], Any]] = {
        "about": lambda session, _: session.about(),
        "watch": lambda session, q: session.watch(q.get("tab", ""), number(q, "revision"), POLL_SECONDS),
        "poll": lambda session, q: session.poll(number(q, "job"), number(q, "row"), POLL_SECONDS),
        "rows": lambda session, q: session.rows(number(q, "first"), number(q, "last")),
        "places": lambda session, _: session.places(),
    }
    pictures: Mapping[str, Callable[[PickSession, int], bytes | None]] = {
        "frame": lambda session, i: session.frames.get(i),
        "thumb": lambda session, i: session.suggester.picture(i),
    }

    def _post(self, route: str, _: dict[str, str]) -> tuple[str, bytes]:
        body = self._body()
        tab, session = str(body.get("tab", "")), self.owner.session
        if route == "claim":
            return document(session.claim(tab, force=body.get("force") is True))
        if route == "leave":
            session.seat.leave(tab)
            return document({})
        if route not in _COMMANDS:
            raise RequestError(HTTPStatus.NOT_FOUND, "There is nothing here.")
        session.seat.require(tab)
        field, command = _COMMANDS[route]
        result = command(session, body)
        if route == "done":
            self.close_connection = True
            threading.Timer(0.2, self.owner.done.set).start()  # after the answer is out
        return document({**({field: result} if field else {}), **session.state(tab)})


class PickServer:
    """Serves one session until ``wait`` returns: the page reported "done", or ``close`` was called.

    Args:
        session: what the page works on; a ``PickSession``, or what a page of another kind needs.
        port: 0 for any free one.

    Raises:
        InputError: the port is in use; the session is closed then.
    """

    page: type[PageHandler] = PickHandler  # what answers the requests

    def __init__(self, session: Any, port: int = 0) -> None:
        self.session = session
        self.token = secrets.token_urlsafe(24)
        self.done = threading.Event()
        self.closed = False
        handler = type("Handler", (self.page,), {"owner": self})
        try:
            self._server = _QuietServer((ADDRESS, port), handler)
        except OSError as error:
            session.close()
            raise InputError(
                f"Port {port} cannot be used ({error.strerror}); leave --port out for a free one."
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="ptrack-pick-server")
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        """The page's address, token included."""
        return f"http://{ADDRESS}:{self.port}/{self.token}/"

    def wait(self) -> None:
        """Wait until the page reports that it is done. Ctrl-C comes through as KeyboardInterrupt."""
        while not self.done.wait(0.2):
            pass

    def close(self) -> None:
        """Stop listening and end the session's threads."""
        self.done.set()
        self.closed = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.session.close()

    def __enter__(self) -> PickServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

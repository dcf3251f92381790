"""The console's server: on loopback, for one browser at a time.

The URL that the command prints has a token, which is good once: the browser gets a cookie for it.
Pages of other sites can't use the console: the host must be loopback with this port (against DNS
rebinding), and so must the origin of a request that changes something.
"""

import hashlib
import hmac
import json
import mimetypes
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, get_origin
from urllib.parse import parse_qsl, urlsplit

from pydantic import ValidationError

from jobplane.console import api, audit
from jobplane.console.backend import Backend, ProblemError
from jobplane.console.routes import ROUTES
from jobplane.terminal.console import note

HOST = "127.0.0.1"
MAX_BODY_BYTES = 1_000_000
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
OPEN_AGAIN = "open the URL that `jobplane console` prints; it is good once, so start it again"


class ConsoleServer(ThreadingHTTPServer):
    """Serves one stage. `page` is the folder of the built page."""

    daemon_threads = True

    def __init__(self, backend: Backend, page: Path, port: int = 0) -> None:
        super().__init__((HOST, port), Handler)
        self.backend = backend
        self.page = page.resolve()
        self.cookie = f"jobplane_console_{self.server_port}"
        self.session = secrets.token_urlsafe(32)
        self._token: str | None = secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        self.hosts = frozenset(f"{name}:{self.server_port}" for name in (HOST, "localhost"))

    def server_bind(self) -> None:
        """Without the look-up of a host name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    @property
    def url(self) -> str:
        """The URL with the token."""
        return f"http://{HOST}:{self.server_port}/?token={self._token}"

    def redeem(self, token: str) -> bool:
        """Whether the token is the right one, which has not been used."""
        with self._lock:
            is_good = self._token is not None and hmac.compare_digest(
                token.encode(), self._token.encode()
            )
            if is_good:
                self._token = None
        return is_good


@contextmanager
def serving(server: ConsoleServer) -> Iterator[ConsoleServer]:
    """Answer requests in a thread within the block."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def unauthorized() -> ProblemError:
    return ProblemError(401, "UNAUTHORIZED", f"no session; {OPEN_AGAIN}")


def forbidden(what: str) -> ProblemError:
    return ProblemError(403, "FORBIDDEN", f"requests with {what} are refused")


def asked_of(model: type[api.Asked] | None, query: str) -> api.Asked | None:
    """The query parameters as their model; a list is one parameter with commas."""
    if model is None:
        return None
    given: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=False))
    for name, found in model.model_fields.items():
        if get_origin(found.annotation) is list and name in given:
            given[name] = [part for part in given[name].split(",") if part]
    return model.model_validate(given)


def problem_of(error: Exception, backend: Backend) -> ProblemError:
    """An exception as the page gets it; one that is not expected is printed for the operator."""
    if isinstance(error, ValidationError):
        faults = [
            f"{'.'.join(map(str, part['loc'])) or 'request'}: {part['msg']}"
            for part in error.errors(include_url=False, include_input=False)[:5]
        ]
        return ProblemError(400, "VALIDATION_ERROR", "; ".join(faults))
    if (known := backend.problem_of(error)) is not None:
        return known
    note(f"console: {type(error).__name__}: {error}")
    text = f"{type(error).__name__}: {error}; the console's terminal has it too"
    return ProblemError(500, "INTERNAL_ERROR", text)


class Handler(BaseHTTPRequestHandler):
    """One request. Every answer has a length, so that connections are kept."""

    server: ConsoleServer
    protocol_version = "HTTP/1.1"
    server_version = "jobplane"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, respond: Callable[[], None]) -> None:
        try:
            self._check_host()
            respond()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as error:
            problem = problem_of(error, self.server.backend)
            if self.command == "POST":
                # Its body may not have been read.
                self.close_connection = True
            if urlsplit(self.path).path.startswith("/api/"):
                text = api.ProblemText.model_validate(
                    {"code": problem.code, "message": str(problem)}
                )
                self._send_json(problem.status, api.Problem(error=text).model_dump())
            else:
                self._send(problem.status, f"{problem}\n".encode(), "text/plain; charset=utf-8")

    def _check_host(self) -> None:
        """Refuse names that lead here from elsewhere, and pages of other sites."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host not in self.server.hosts:
            raise forbidden("another host than loopback")
        if origin is not None and origin != f"http://{host}":
            raise forbidden("another origin")
        if origin is None and self.command == "POST":
            raise forbidden("no origin")
        if self.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise forbidden("another site")

    def _require_session(self) -> None:
        try:
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            raise unauthorized() from None
        given = cookies.get(self.server.cookie)
        session = self.server.session
        if given is None or not hmac.compare_digest(given.value.encode(), session.encode()):
            raise unauthorized()

    def _get(self) -> None:
        url = urlsplit(self.path)
        token = dict(parse_qsl(url.query)).get("token")
        if url.path == "/" and token is not None:
            self._begin(token)
            return
        self._require_session()
        if not url.path.startswith("/api/"):
            self._send_page(url.path)
            return
        name = url.path.removeprefix("/api/")
        if name not in api.GETS:
            raise ProblemError(404, "NOT_FOUND", f"no path {url.path}")
        asked = asked_of(api.GETS[name][0], url.query)
        self.server.backend.refresh()
        self._send_answer(ROUTES[name](self.server.backend, asked))

    def _post(self) -> None:
        self._require_session()
        path = urlsplit(self.path).path
        name = path.removeprefix("/api/")
        if not path.startswith("/api/") or name not in api.POSTS:
            raise ProblemError(404, "NOT_FOUND", f"no path {path}")
        if self.headers.get_content_type() != "application/json":
            raise ProblemError(400, "VALIDATION_ERROR", "the body must be application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            text = f"the body must have a Content-Length of at most {MAX_BODY_BYTES}"
            raise ProblemError(400, "VALIDATION_ERROR", text)
        asked = api.POSTS[name][0].model_validate_json(self.rfile.read(int(length)))
        backend = self.server.backend
        backend.refresh()
        if name not in api.HARMLESS or not getattr(asked, "dry_run", True):
            backend.require_writable()
        answer = audit.audited(backend, name, asked, lambda: ROUTES[name](backend, asked))
        self._send_json(200, answer.model_dump(mode="json"))

    def _begin(self, token: str) -> None:
        """Give the session's cookie for the token, once."""
        if not self.server.redeem(token):
            self._require_session()
        cookie = f"{self.server.cookie}={self.server.session}; Path=/; HttpOnly; SameSite=Strict"
        self._send(303, b"", "text/plain", {"Location": "/", "Set-Cookie": cookie})

    def _send_answer(self, shown: api.Shown) -> None:
        content = shown.model_dump(mode="json")
        # The time of an answer does not count as a change.
        same = {name: value for name, value in content.items() if name != "now"}
        digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:32]
        tag = {"ETag": f'"{digest}"'}
        if self.headers.get("If-None-Match") == tag["ETag"]:
            self._send(304, b"", None, tag)
        else:
            self._send_json(200, content, tag)

    def _send_page(self, path: str) -> None:
        """A file of the built page; other paths are the page's own, so they get its index."""
        file = (self.server.page / path.lstrip("/")).resolve()
        if not file.is_relative_to(self.server.page) or not file.is_file():
            if Path(path).suffix:
                raise ProblemError(404, "NOT_FOUND", f"no file {path}")
            file = self.server.page / "index.html"
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        text = "; charset=utf-8" if kind.startswith("text/") or "javascript" in kind else ""
        # Names of files below assets/ have a digest of their content.
        age = "max-age=31536000, immutable" if "assets" in file.parts else "no-cache"
        self._send(200, file.read_bytes(), kind + text, {"Cache-Control": age})

    def _send_json(
        self, status: int, content: Any, headers: Mapping[str, str] | None = None
    ) -> None:
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        self._send(status, body, "application/json", headers)

    def _send(
        self,
        status: int,
        body: bytes,
        kind: str | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response(HTTPStatus(status))
        for name, value in {"Cache-Control": "no-store", **HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        if kind is not None:
            self.send_header("Content-Type", kind)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: an operator's terminal is for results."""

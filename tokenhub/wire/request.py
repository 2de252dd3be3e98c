"""HTTP/1 requests on their way from a socket to a WSGI environ.

gunicorn's parser and body readers decide what a request is, and so keep request smuggling out; this
module feeds them from a socket with a deadline, turns what they found into an environ, and has the
answers for what they refuse. Knows nothing of processes, greenlets or responses.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

import orjson
from gunicorn.http import errors as refused
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.message import HeaderPolicy, Request
from gunicorn.http.unreader import Unreader
from gunicorn.http.wsgi import base_environ

from tokenhub.errors import ClientClosed, InvalidRequest, RequestTimeout, TokenHubError

RECV_BYTES = 16 * 1024
RECV_BYTES_MAX = 1024 * 1024

Environ = dict[str, Any]


class Socket(Protocol):
    """What is used of a gevent socket."""

    timeout: float | None

    def recv(self, size: int, flags: int = ...) -> bytes: ...


def freeze_settings(cfg: Any) -> SimpleNamespace:
    """gunicorn's settings as plain attributes, for its parser.

    The parser looks up some twenty settings for each request, and gunicorn's own Config object
    finds each by a chain of calls.
    """
    frozen = SimpleNamespace(**{name: setting.get() for name, setting in cfg.settings.items()})
    frozen.is_ssl = False
    frozen.forwarded_allow_networks = cfg.forwarded_allow_networks
    return frozen


class Reader(Unreader):  # type: ignore[misc]  # gunicorn has no types
    """A client's bytes, as gunicorn's parser and body readers want to be fed.

    `held` is what came from the socket and nobody has consumed yet; `deadline` is the moment, in
    seconds of the monotonic clock, from which on nobody waits for more.
    """

    def __init__(self, sock: Socket, trusted_schemes: dict[str, str]) -> None:
        # Not the parent's: its buffer is a BytesIO, ours are plain bytes.
        self.sock = sock
        self.trusted_schemes = trusted_schemes
        self.held = b""
        self.deadline = 0.0

    def read(self, size: int | None = None, read_ahead: int | None = None) -> bytes:
        """`size` bytes exactly; without it whatever there is, at least one byte.

        `read_ahead` is how much the caller may use in all: the socket may be asked for that much.

        Raises:
            TimeoutError: the deadline passed. NoMoreData (an OSError): the client has closed.
        """
        held = self.held
        if size is None:
            self.held = b""
            return held or self.receive(read_ahead or 0)
        missing = size - len(held)
        if missing > 0:
            parts = [held]
            while missing > 0:
                parts.append(self.receive(max(read_ahead or 0, size) - size + missing))
                missing -= len(parts[-1])
            held = b"".join(parts)
        self.held = held[size:]
        return held[:size]

    def unread(self, data: bytes) -> None:
        """Give back what was read too far."""
        self.held = data + self.held if self.held else data

    def receive(self, size: int) -> bytes:
        """At least one byte from the socket, waiting until the deadline. Raises like `read`."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.timeout = left
        data = self.sock.recv(min(max(size, RECV_BYTES), RECV_BYTES_MAX))
        if not data:
            raise refused.NoMoreData(b"")
        return data


class HubRequest(Request):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's request, with the question whom to believe answered once for a connection, and
    without compressed bodies, which gunicorn hands on as if they were plain."""

    def set_body_reader(self) -> None:
        super().set_body_reader()
        if self.must_close:  # there was a coding besides chunked
            raise refused.UnsupportedTransferCoding("")

    def _peer_trusted_for_forwarded(self) -> tuple[dict[str, str], tuple[str, ...]]:
        # No forwarder headers: nobody may set SCRIPT_NAME or PATH_INFO from outside.
        return self.unreader.trusted_schemes, ()


def find_trusted_schemes(settings: SimpleNamespace, peer: Any) -> dict[str, str]:
    """The headers by which this peer may say that it was reached by https (gunicorn's
    `secure_scheme_headers` for peers in `forwarded_allow_ips`, else none)."""
    who = SimpleNamespace(cfg=settings, peer_addr=peer)
    if HeaderPolicy._peer_is_trusted_proxy(who):
        return dict(settings.secure_scheme_headers)
    return {}


class BodyInput:
    """`wsgi.input` of a body that was still on its way when the request began.

    A thin layer on gunicorn's Body: calls `on_start` before the first read and `on_end` when the
    last byte is in. A failed read fails again when repeated: a broken body must never look whole.

    Raises, out of every read:
        RequestTimeout: the deadline passed. InvalidRequest: the chunks are malformed.
        ClientClosed: there is nobody at the other end any more.
    """

    def __init__(
        self, body: Body, on_start: Callable[[], None], on_end: Callable[[], None]
    ) -> None:
        self._body = body
        self._on_start = on_start
        self._on_end = on_end
        self._failure: BaseException | None = None
        self.is_started = False
        self.is_whole = False

    @property
    def left_bytes(self) -> int | None:
        """How much is still to come; None when nobody can know."""
        if self.is_whole:
            return 0
        if self._failure is None and isinstance(self._body.reader, LengthReader):
            return int(self._body.reader.length)
        return None

    def read(self, size: int | None = None) -> bytes:
        """Up to `size` bytes; all when it is None or negative; b"" at the end."""
        return self._take(self._body.read, size)

    def readline(self, size: int | None = None) -> bytes:
        """One line, of `size` bytes at most."""
        return self._take(self._body.readline, size)

    def readlines(self, hint: int | None = None) -> list[bytes]:
        """All lines; WSGI lets us ignore the hint."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def drop(self) -> bool:
        """Read the rest and forget it, until the reader's deadline; False if no end was seen."""
        self.is_started = True  # nobody is asked to go on, no new deadline is set
        try:
            while self.read(RECV_BYTES_MAX):
                pass
        except (TokenHubError, ClientClosed):
            return False
        return True

    def _take(self, method: Callable[[int | None], bytes], size: int | None) -> bytes:
        if self._failure is not None:
            raise self._failure
        if not self.is_started:
            self.is_started = True
            self._on_start()
        try:
            data = method(size)
        except TimeoutError:
            self._failure = RequestTimeout("the request body did not arrive in time")
        except refused.ParseException:
            self._failure = InvalidRequest("the request body is malformed", code="bad_request")
        except OSError:
            self._failure = ClientClosed()
        if self._failure is not None:
            raise self._failure
        if not self.is_whole and self._is_exhausted():
            self.is_whole = True
            self._on_end()
        return data

    def _is_exhausted(self) -> bool:
        reader = self._body.reader
        if isinstance(reader, LengthReader):
            return reader.length == 0  # type: ignore[no-any-return]
        return reader.parser is None


def find_body_in_hand(request: HubRequest) -> io.BytesIO | None:
    """The whole body, if it came with the head, as it mostly does."""
    reader = request.body.reader
    if isinstance(reader, LengthReader) and reader.length <= len(request.unreader.held):
        return io.BytesIO(reader.read(reader.length))
    return None


def worker_environ(cfg: Any) -> Environ:
    """What is the same in every environ of a worker."""
    return {**base_environ(cfg), "wsgi.multithread": True, "SCRIPT_NAME": ""}


def connection_environ(base: Environ, sock: Any, peer: Any, listener: Any) -> Environ:
    """What is the same in every environ of a connection.

    Args:
        peer, listener: socket addresses; strings for Unix sockets, which have no ports.
    """
    environ = base.copy()
    environ["gunicorn.socket"] = sock
    if isinstance(peer, tuple):
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = peer[0], str(peer[1])
    else:
        environ["REMOTE_ADDR"] = peer.decode() if isinstance(peer, bytes) else peer
    here = listener if isinstance(listener, tuple) else ("localhost", "")
    environ["SERVER_NAME"], environ["SERVER_PORT"] = here[0], str(here[1])
    return environ


def request_environ(template: Environ, request: HubRequest, body: Any) -> Environ:
    """The environ of one request: PEP 3333, with gunicorn's keys and meanings but for
    `wsgi.early_hints`; headers that repeat are joined by commas."""
    environ = template.copy()
    environ["REQUEST_METHOD"] = request.method
    environ["QUERY_STRING"] = request.query
    environ["RAW_URI"] = request.uri
    environ["SERVER_PROTOCOL"] = "HTTP/1.0" if request.version == (1, 0) else "HTTP/1.1"
    environ["wsgi.url_scheme"] = request.scheme
    environ["wsgi.input"] = body
    path = request.path
    environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
    for name, value in request.headers:
        # The parser lets one Content-Type and one Content-Length through.
        if name == "CONTENT-TYPE":
            environ["CONTENT_TYPE"] = value
        elif name == "CONTENT-LENGTH":
            environ["CONTENT_LENGTH"] = value
        else:
            key = "HTTP_" + name.replace("-", "_")
            environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


def wants_close(request: HubRequest, environ: Environ) -> bool:
    """Whether the connection ends with this request (RFC 9112 section 9.3)."""
    options = environ.get("HTTP_CONNECTION", "").lower()
    if request.version < (1, 1):
        return "keep-alive" not in options or "close" in options
    return "close" in options or request.method == "CONNECT"


class Refusal(NamedTuple):
    """An answer to what never got past us, or fell out of the application."""

    status: str
    type: str
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()

    def render(self, request_id: str, *, is_anthropic: bool) -> bytes:
        """The body, in the envelope that callers of this path expect."""
        if is_anthropic:
            error = {"type": self.type, "message": self.message}
            return orjson.dumps({"type": "error", "error": error, "request_id": request_id})
        openai = {"message": self.message, "type": self.type, "param": None, "code": self.code}
        return orjson.dumps({"error": openai})


INVALID = "invalid_request_error"
BAD_REQUEST = Refusal("400 Bad Request", INVALID, "bad_request", "this is not a valid request")
TOO_SLOW = Refusal(
    "408 Request Timeout", "timeout_error", "request_timeout", "the request did not arrive in time"
)
FAILED = Refusal(
    "500 Internal Server Error", "server_error", "internal_error", "something went wrong here"
)
REFUSALS: tuple[tuple[type[Exception], Refusal], ...] = (
    (TimeoutError, TOO_SLOW),
    (
        refused.LimitRequestLine,
        Refusal("414 URI Too Long", INVALID, "uri_too_long", "the request line is too long"),
    ),
    (
        refused.LimitRequestHeaders,
        Refusal(
            "431 Request Header Fields Too Large",
            INVALID,
            "headers_too_large",
            "there are too many headers, or one is too long",
        ),
    ),
    (
        refused.ExpectationFailed,
        Refusal(
            "417 Expectation Failed", INVALID, "expectation_failed", "we only know 100-continue"
        ),
    ),
    (
        refused.UnsupportedTransferCoding,
        Refusal(
            "501 Not Implemented",
            INVALID,
            "unsupported_transfer_coding",
            "the only transfer coding accepted is chunked",
        ),
    ),
)


def refusal_of(error: Exception) -> Refusal:
    """What to tell the client; never in its own words, which may be an attack on somebody."""
    if isinstance(error, TokenHubError):
        headers = tuple(error.headers.items())
        status = f"{error.status} {HTTPStatus(error.status).phrase}"
        return Refusal(status, error.type, error.code, error.message, headers)
    for kind, refusal in REFUSALS:
        if isinstance(error, kind):
            return refusal
    return BAD_REQUEST

"""The built-in simulator: a provider for demos and tests, with faults on demand.

It speaks OpenAI's, Anthropic's and vLLM's dialects, as strictly as they do. Deterministic: the
answer follows from the prompt. It knows nothing of the gateway, needs no patching (it names
gevent's sockets) and listens on loopback only. See docs/simulator.md for models and faults.

    POST /v1/chat/completions       whole or streamed, as OpenAI or vLLM
    POST /v1/messages               whole or streamed, as Anthropic
    POST /v1/messages/count_tokens
    POST /v1/completions            whole or streamed, as OpenAI or vLLM
    POST /v1/responses              the same
    POST /v1/embeddings             as OpenAI or vLLM
    GET  /v1/models                 as Anthropic when `anthropic-version` is sent
    GET  /health                    as vLLM: the status alone
    GET  /stats                     counters: see Stats
    GET  /last, /last/v1/models …   the last request to a model, or to that path
    POST /control                   see Controls
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import gevent
import gevent.pool
import gevent.server
import orjson

from tokenhub.providers.simulator import faults
from tokenhub.providers.simulator.client import Client, Gone, HangUp, Request
from tokenhub.providers.simulator.controls import Controls
from tokenhub.providers.simulator.dialect import Answer, Dialect
from tokenhub.providers.simulator.endpoints import ASKED, MESSAGES, spoken
from tokenhub.providers.simulator.errors import Refused
from tokenhub.providers.simulator.faults import Fault
from tokenhub.providers.simulator.memory import Memory

MODELS_COUNTED_MAX = 1000
MODELS, HEALTH = "/v1/models", "/health"
PATHS = (*ASKED, MODELS, HEALTH)
SECRET_HEADERS = ("authorization", "x-api-key", "api-key")
SECRET_CHARS_SHOWN = 4


@dataclass(slots=True)
class Stats:
    """Counters; all but the open ones only grow. `requests` are those to a model."""

    requests: int = 0
    open_requests: int = 0
    streams: int = 0
    open_streams: int = 0
    aborted_streams: int = 0
    open_connections: int = 0
    connections: int = 0
    by_model: Counter[str] = field(default_factory=Counter)
    by_path: Counter[str] = field(default_factory=Counter)


class Simulator:
    """A simulator on a loopback port: `start()` serves in the background, `stop()` hangs up on all.

    Args:
        port: 0 takes a free one; see `url`.

    Raises:
        ValueError: the host is not a loopback address.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError("the simulator listens on loopback only")
        self.stats = Stats()
        self.controls = Controls()
        self.last_request: Request | None = None
        self._last: dict[str, Request] = {}
        self._memory = Memory()
        self._server = gevent.server.StreamServer(
            (host, port), self._serve, backlog=4096, spawn=gevent.pool.Pool()
        )

    @property
    def port(self) -> int:
        """The port, once started."""
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        """The base URL, once started."""
        host = self._server.server_host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop(timeout=0)

    def serve_forever(self) -> None:
        self._server.serve_forever()

    def set_fault(
        self, model: str, fault: str, *, times: int = 0, retry_after_secs: float | None = None
    ) -> None:
        """Make a model fail: see Controls.set_fault.

        Raises:
            ValueError: there is no such fault.
        """
        self.controls.set_fault(model, fault, times=times, retry_after_secs=retry_after_secs)

    def _serve(self, sock: Any, _address: object) -> None:
        client = Client(sock)
        self.stats.connections += 1
        self.stats.open_connections += 1
        try:
            while True:
                self._handle(client, client.read())
        except (Gone, HangUp):
            pass
        finally:
            self.stats.open_connections -= 1
            client.close()

    def _handle(self, client: Client, request: Request) -> None:
        path = request.path
        if path in PATHS:
            self.stats.by_path[path] += 1
            self._last[path] = request
        dialect = self._dialect(request)
        try:
            match request.method, path:
                case "POST", path if path in ASKED:
                    self._ask(client, request, dialect)
                case "GET", "/v1/models":
                    dialect.authenticate(request, self.controls.api_key)
                    body = dialect.models(self.controls.models)
                    client.answer(200, body, extra=dialect.extra)
                case "GET", "/health":
                    client.answer(self.controls.health_status, b"")
                case _:
                    self._manage(client, request)
        except Refused as refused:
            _refuse(client, dialect, refused)

    def _manage(self, client: Client, request: Request) -> None:
        """What no provider has."""
        match request.method, request.path.removeprefix("/last"):
            case "GET", "/stats":
                client.answer(200, orjson.dumps(self.stats))
            case "POST", "/control":
                try:
                    self.controls.apply(_json_object(request.body))
                except (ValueError, TypeError) as error:
                    raise Refused(str(error)) from None
                client.answer(200, b'{"status":"ok"}')
            case "GET", path if path != request.path:
                last = self._last.get(path) if path else self.last_request
                if last is None:
                    raise Refused("nothing was asked there", status=404)
                client.answer(200, _shown(last))
            case _, path if path in PATHS:
                raise Refused("Method Not Allowed", status=405)
            case _:
                raise Refused("no such path", status=404)

    def _dialect(self, request: Request, model: str = "") -> Dialect:
        """By path and headers, and where the path has several by the model."""
        name = self.controls.dialect
        if "anthropic-version" in request.headers and request.path not in ASKED:
            return spoken(name, MESSAGES, self._count())
        if name == "openai" and model.startswith(("vllm-", "sim-reason")):
            name = "vllm"
        return spoken(name, request.path, self._count())

    def _ask(self, client: Client, request: Request, dialect: Dialect) -> None:
        self.stats.requests += 1
        self.stats.open_requests += 1
        self.last_request = request
        try:
            body = _json_object(request.body)
            dialect = self._dialect(request, str(body.get("model")))
            self._answer(client, request, body, dialect)
        except Refused as refused:
            _refuse(client, dialect, refused)
        finally:
            self.stats.open_requests -= 1

    def _answer(
        self, client: Client, request: Request, body: dict[str, Any], dialect: Dialect
    ) -> None:
        dialect.authenticate(request, self.controls.api_key)
        dialect.check(request, body)
        model: str = body["model"]
        if model in self.stats.by_model or len(self.stats.by_model) < MODELS_COUNTED_MAX:
            self.stats.by_model[model] += 1
        try:
            header = request.headers.get("x-simulator-fault", "")
            fault = self.controls.find_fault(model, header)
            answer = dialect.answer(body, self.controls.pacing, self._memory)
        except (ValueError, TypeError, AttributeError, LookupError) as error:  # an odd schema, say
            raise Refused(str(error)) from None
        if answer.latency_ms:
            client.pause(answer.latency_ms)
        if fault is not None and faults.fail_before(client, fault, dialect, body):
            return
        if body.get("stream") is True:
            self._stream(client, answer, fault, dialect)
        else:
            faults.send_whole(client, answer, fault, dialect)

    def _stream(
        self, client: Client, answer: Answer, fault: Fault | None, dialect: Dialect
    ) -> None:
        self.stats.streams += 1
        self.stats.open_streams += 1
        try:
            faults.send_stream(client, answer, fault, dialect)
        except Gone:
            self.stats.aborted_streams += 1
            raise
        finally:
            self.stats.open_streams -= 1

    def _count(self) -> int:
        """The requests so far, which number them."""
        return sum(self.stats.by_path.values())


def serve(host: str, port: int) -> None:
    """Serve until the process ends.

    Raises:
        ValueError: the host is not a loopback address.
        OSError: the port is taken.
    """
    Simulator(host, port).serve_forever()


def _refuse(client: Client, dialect: Dialect, refused: Refused) -> None:
    extra = dialect.extra
    if refused.retry_after_secs is not None:
        extra += f"Retry-After: {refused.retry_after_secs:g}\r\n"
    client.answer(refused.status, dialect.error(refused), extra=extra)


def _shown(request: Request) -> bytes:
    """A request as the provider got it, all but its key."""
    headers = {
        name: _masked(value) if name in SECRET_HEADERS else value
        for name, value in request.headers.items()
    }
    body: object = _json_object(request.body) or request.body.decode(errors="replace")
    seen = {"method": request.method, "path": request.path, "headers": headers, "body": body}
    return orjson.dumps(seen)


def _masked(secret: str) -> str:
    scheme, space, key = secret.rpartition(" ")
    shown = key[-SECRET_CHARS_SHOWN:] if len(key) > 2 * SECRET_CHARS_SHOWN else ""
    return f"{scheme}{space}***{shown}"


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}

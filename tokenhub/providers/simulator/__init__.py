"""The built-in simulator: an OpenAI-compatible provider for demos and tests, with faults on demand.

Deterministic: the answer follows from the prompt. It knows nothing of the gateway, needs no
patching (it names gevent's sockets) and listens on loopback only.

    POST /v1/chat/completions   whole or streamed; max_tokens, n, tools, include_usage are honoured
    GET  /v1/models             the healthy models
    GET  /health
    GET  /stats                 counters: see Stats
    POST /control               {"model", "fault", "times", "retry_after"}: fail a model's next
                                requests (model "*": all; fault "": heal);
                                {"chunks", "interval_ms", "latency_ms"}: pacing, null to reset

Any model name is answered. `stream-<chunks>-<interval_ms>` paces one request, and `fault-<fault>`
or the header `X-Simulator-Fault: <fault>` makes it fail. Faults:

    400 … 599, context, quota, policy   an error answer
    slow-<ms>, hang, drop               late, never, or closed without a byte
    cut, silent-after-<n>               closed after 3 chunks, silent after n (whole: mid-body)
    error-frame-<n>                     an error event after n chunks (whole: an error with 200)
    malformed, content-type, redirect, huge
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import gevent
import gevent.pool
import gevent.server
import orjson

from tokenhub.providers.simulator import faults
from tokenhub.providers.simulator.answers import CREATED_AT, MODELS, Chat, Pacing, answer
from tokenhub.providers.simulator.client import Client, Gone, HangUp, Request
from tokenhub.providers.simulator.faults import Fault, error_body

MODELS_COUNTED_MAX = 1000
PACES = ("chunks", "interval_ms", "latency_ms")


@dataclass(slots=True)
class Stats:
    """Counters; all but the open ones only grow."""

    requests: int = 0
    open_requests: int = 0
    streams: int = 0
    open_streams: int = 0
    aborted_streams: int = 0
    open_connections: int = 0
    connections: int = 0
    by_model: Counter[str] = field(default_factory=Counter)


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
        self.last_request: Request | None = None
        self._faults: dict[str, Fault] = {}
        self._pacing = Pacing()
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
        """Make a model ("*": every model) fail; "" heals it.

        Args:
            times: how many of its next requests; 0 is all.

        Raises:
            ValueError: there is no such fault.
        """
        self._faults.pop(model, None)
        if fault and len(self._faults) < MODELS_COUNTED_MAX:
            self._faults[model] = faults.parse(fault)
            self._faults[model].times = times
            self._faults[model].retry_after_secs = retry_after_secs

    def set_pacing(self, **pacing: int | None) -> None:
        """Set `chunks`, `interval_ms`, `latency_ms` of all requests; None: as the model does."""
        self._pacing = replace(self._pacing, **pacing)

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
        match request.method, request.path:
            case "POST", "/v1/chat/completions":
                self._chat(client, request)
            case "GET", "/v1/models":
                client.answer(200, _models())
            case "GET", "/health":
                client.answer(200, b'{"status":"ok"}')
            case "GET", "/stats":
                client.answer(200, orjson.dumps(self.stats))
            case "POST", "/control":
                self._control(client, request)
            case _:
                client.answer(404, error_body("invalid_request_error", None, "no such path"))

    def _control(self, client: Client, request: Request) -> None:
        wanted = _json_object(request.body)
        try:
            if "fault" in wanted:
                self.set_fault(
                    str(wanted.get("model", "*")),
                    str(wanted["fault"] or ""),
                    times=int(wanted.get("times") or 0),
                    retry_after_secs=wanted.get("retry_after"),
                )
            paces = {name: wanted[name] for name in PACES if name in wanted}
            self.set_pacing(**{k: None if v is None else max(int(v), 0) for k, v in paces.items()})
        except (ValueError, TypeError) as error:
            client.answer(400, error_body("invalid_request_error", None, str(error)))
        else:
            client.answer(200, b'{"status":"ok"}')

    def _chat(self, client: Client, request: Request) -> None:
        self.stats.requests += 1
        self.stats.open_requests += 1
        self.last_request = request
        try:
            self._answer(client, request)
        except (ValueError, TypeError, AttributeError) as error:  # fields of the wrong type
            client.answer(400, error_body("invalid_request_error", None, str(error)))
        finally:
            self.stats.open_requests -= 1

    def _answer(self, client: Client, request: Request) -> None:
        body = _json_object(request.body)
        model = body.get("model")
        if not isinstance(model, str) or not isinstance(body.get("messages"), list):
            raise ValueError("model and messages are required")
        if model in self.stats.by_model or len(self.stats.by_model) < MODELS_COUNTED_MAX:
            self.stats.by_model[model] += 1
        fault = self._find_fault(model, request.headers.get("x-simulator-fault", ""))
        chat = answer(body, self._pacing)
        if chat.latency_ms:
            client.pause(chat.latency_ms)
        if fault is not None and faults.fail_before(client, fault):
            return
        if body.get("stream") is True:
            self._stream(client, chat, fault)
        else:
            faults.send_whole(client, chat, fault)

    def _stream(self, client: Client, chat: Chat, fault: Fault | None) -> None:
        self.stats.streams += 1
        self.stats.open_streams += 1
        try:
            faults.send_stream(client, chat, fault)
        except Gone:
            self.stats.aborted_streams += 1
            raise
        finally:
            self.stats.open_streams -= 1

    def _find_fault(self, model: str, header: str) -> Fault | None:
        if header:
            return faults.parse(header)
        name = model if model in self._faults else "*"
        fault = self._faults.get(name)
        if fault is not None:
            if fault.times == 1:
                del self._faults[name]
            fault.times -= 1 if fault.times else 0
            return fault
        if model.startswith("fault-"):
            return faults.parse(model.removeprefix("fault-"))
        return None


def serve(host: str, port: int) -> None:
    """Serve until the process ends.

    Raises:
        ValueError: the host is not a loopback address.
        OSError: the port is taken.
    """
    Simulator(host, port).serve_forever()


def _models() -> bytes:
    data = [
        {"id": name, "object": "model", "created": CREATED_AT, "owned_by": "simulator"}
        for name in MODELS
    ]
    return orjson.dumps({"object": "list", "data": data})


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}

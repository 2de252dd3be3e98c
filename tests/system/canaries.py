"""Canaries: strings like no others, put where secrets go, and looked for where none may be.

Here are the canaries, a provider that repeats in every answer what it was sent, and a driver that
asks every operation of the API description, as it should be asked and as it should not.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.system.harness import Gateway, Pinned, Reply
from tests.web.conftest import PASSWORD, Json
from tests.web.openapi import Description
from tests.web.openapi_cases import ADMIN, CASES, KEY, METRICS, Ask

API = Description()
SECRET_FIELDS = {"api_key", "token", "admin_password", "old_password", "new_password", "value"}
ISSUED_FIELDS = {"key", "token", "secret"}
ISSUED_CHARS_MIN = 32
CLIENTS = "/v1/"
READ_SECRET = "GET /admin/v1/vault/secrets/{id}"


@dataclass(frozen=True)
class Canary:
    """A secret of ours.

    Args:
        allowed: operations that may answer with it, or how their paths begin.
    """

    name: str
    text: str
    allowed: tuple[str, ...] = ()

    def may_answer(self, operation: str) -> bool:
        path = operation.partition(" ")[2]
        return any(each in (operation, path) or path.startswith(each) for each in self.allowed)


class Canaries:
    """All that were planted."""

    def __init__(self) -> None:
        self.planted: list[Canary] = []

    def new(self, name: str, *allowed: str, prefix: str = "") -> str:
        """A fresh one; 64 hex digits after a prefix that says where it was put."""
        return self.add(name, prefix + secrets.token_hex(32), *allowed)

    def add(self, name: str, text: str, *allowed: str) -> str:
        """One that is there already."""
        if all(each.text != text for each in self.planted):
            self.planted.append(Canary(name, text, allowed))
        return text

    def find_in(self, data: bytes) -> list[Canary]:
        return [each for each in self.planted if each.text.encode() in data]


class Parrot(BaseHTTPRequestHandler):
    """A provider that repeats the headers and a text of its own in every failure.

    The model's name says how it fails: `parrot-<status>`, `parrot-text` (no JSON), `parrot-stream`
    (an error inside the stream), `parrot-cut` (in the middle). Any other is answered. Its models
    are listed to who has the `known` key.
    """

    protocol_version = "HTTP/1.1"
    text = ""
    answer = ""
    known = ""

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        if self.known in self._echo():
            self._send(200, b'{"object": "list", "data": [{"id": "m"}]}', "application/json")
        else:
            self._fail(401)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        how = str(asked["model"]).removeprefix("parrot-")
        if how.isdigit():
            self._fail(int(how))
        elif how == "text":
            self._send(200, self._echo().encode(), "text/plain")
        elif how == "stream":
            self._send(200, f"data: {json.dumps(self._error())}\n\n".encode(), "text/event-stream")
        elif how == "cut":
            self._send(200, b'{"id": "' + self.text.encode(), "application/json", more=100)
            self.close_connection = True
        else:
            self._answer()

    def _answer(self) -> None:
        message = {"role": "assistant", "content": self.answer}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [choice], "usage": usage,
                "type": "message", "role": "assistant", "stop_reason": "end_turn",
                "content": [{"type": "text", "text": self.answer}]}  # fmt: skip
        self._send(200, json.dumps(body).encode(), "application/json")

    def _fail(self, status: int) -> None:
        self._send(status, json.dumps(self._error()).encode(), "application/json")

    def _error(self) -> Json:
        error = {"type": "invalid_request_error", "message": self._echo(), "code": self._echo()}
        return {"type": "error", "error": error}

    def _echo(self) -> str:
        return f"{self.text} {dict(self.headers)}"

    def _send(self, status: int, body: bytes, kind: str, *, more: int = 0) -> None:
        self.send_response(status, self._echo().replace("\n", " "))
        self.send_header("Content-Type", kind)
        self.send_header("X-Echo", self._echo())
        self.send_header("Content-Length", str(len(body) + more))
        self.end_headers()
        self.wfile.write(body)


class Cage(ThreadingHTTPServer):
    """Where the parrot sits."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Callers that hang up are none of its business."""


class Provider:
    """The parrot, on loopback."""

    def __init__(self, text: str, *, answer: str, known: str) -> None:
        words = {"text": text, "answer": answer, "known": known}
        handler = type("Handler", (Parrot,), words)
        self._server = Cage(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Driver:
    """Asks, keeps what was answered, and takes what was issued for a canary.

    Args:
        tokens: by the names that the cases know their callers by.
    """

    gateway: Gateway
    canaries: Canaries
    tokens: dict[str, str]
    answers: list[tuple[str, Reply]] = field(default_factory=list)

    def ask(
        self, operation: str, ask: Ask, body: Any = None, *, query: str = "", **headers: str
    ) -> Reply | None:
        """Ask once, over a connection of its own; None if there was no answer.

        Args:
            body: instead of the case's.
        """
        names = defaultdict(lambda: "none", key=self.gateway.key_id)
        token = self.tokens.get(ask.who)
        if token:
            headers.setdefault("Authorization", f"Bearer {token}")
        connection = Pinned(self.gateway.port, timeout=10)
        try:
            reply = connection.ask(
                ask.method or operation.partition(" ")[0],
                ask.path.format_map(names) + query,
                ask.body if body is None else body,
                **{**ask.headers, **headers},
            )
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()
        self.answers.append((operation, reply))
        self._take_issued(operation, reply)
        return reply

    def ask_everything(self) -> set[str]:
        """Every operation in every way; returns those that were answered with success."""
        succeeded = set()
        for operation in sorted(API.operations, key=_harm):
            asks = CASES[operation]
            self._reopen()
            for ask in asks:
                reply = self.ask(operation, ask)
                if reply is not None and reply.status < 300:
                    succeeded.add(operation)
            self._ask_with_wrong_credentials(operation, asks[0])
            self._ask_with_wrong_bodies(operation, asks[0])
        return succeeded

    def find_leaks(self) -> Iterator[str]:
        """What was answered that should not have been."""
        for operation, reply in self.answers:
            for canary in self.canaries.find_in(repr(reply.headers).encode() + reply.body):
                if not canary.may_answer(operation):
                    yield f"{canary.name} in the answer to {operation} ({reply.status})"

    def _ask_with_wrong_credentials(self, operation: str, ask: Ask) -> None:
        new, nobody = self.canaries.new, Ask(ask.path, body=ask.body)
        self.ask(operation, nobody, Authorization=f"Bearer {new('bearer')}")
        self.ask(operation, nobody, Authorization=f"Basic {new('basic')}")
        self.ask(operation, nobody, Authorization=new("authorization"))
        self.ask(operation, nobody, X_Api_Key=new("x-api-key"), Proxy_Authorization=new("proxy"))
        self.ask(
            operation, nobody, Cookie=f"tokenhub_session={new('cookie')}", X_CSRF_Token=new("csrf")
        )
        query = f"{'&' if '?' in ask.path else '?'}key={new('query')}&token={new('query')}"
        self.ask(operation, ask, query=query, Cookie=f"a={new('cookie')}", X_Api_Key=new("extra"))

    def _ask_with_wrong_bodies(self, operation: str, ask: Ask) -> None:
        schema, new = API.body_schema(operation), self.canaries.new
        if schema is None:
            return
        given = ask.body if isinstance(ask.body, dict) else {}
        malformed = new("malformed").encode()
        self.ask(operation, ask, b'{"x": "' + malformed)
        self.ask(operation, ask, b'"' + malformed + b'"')
        self.ask(operation, ask, {**given, "no_such_field": new("unknown field")})
        for name in SECRET_FIELDS & schema["properties"].keys():
            # What is read back, and what its owner has made up, may be in the answer.
            allowed = {"value": (READ_SECRET,), "token": (operation,)}.get(name, ())
            place = f"{operation} {name}"
            for value in (
                new(place, *allowed),
                new(f"long {place}", *allowed) * 300,
                new(f"two lines {place}", *allowed) + "\n\x07",
                [new(f"list {place}")],
                {"a": [new(f"object {place}")]},
            ):
                self.ask(operation, ask, {**given, name: value})

    def _take_issued(self, operation: str, reply: Reply) -> None:
        """A secret that the gateway has made up is for this answer alone."""
        cookie = reply.headers.get("set-cookie", "").partition("=")[2].partition(";")[0]
        found = {"cookie": cookie}
        with suppress(ValueError):
            parsed = reply.json
            if isinstance(parsed, dict):
                found |= {name: parsed[name] for name in ISSUED_FIELDS & parsed.keys()}
        for name, value in found.items():
            if isinstance(value, str) and len(value) >= ISSUED_CHARS_MIN:
                self.canaries.add(f"{name} of {operation}", value, operation)
        if operation.endswith("/admin-token/rotate") and reply.status == 200:
            self.tokens[ADMIN] = reply.json["token"]

    def _reopen(self) -> None:
        """Whatever was asked before: the vault is open, as far as its password is known."""
        info = Ask("/admin/v1/info")
        reply = self.ask("GET /admin/v1/info", info)
        if reply is not None and reply.status == 200 and reply.json["vault_locked"]:
            unlock = "POST /admin/v1/vault/unlock"
            self.ask(unlock, Ask(unlock.partition(" ")[2], body={"admin_password": PASSWORD}))


def _harm(operation: str) -> int:
    """What must be asked after all others: it takes away what they need."""
    if operation.startswith("DELETE"):
        return 2
    return 1 if operation.endswith(("/lock", "/rotate")) else 0


def callers(gateway: Gateway, admin_token: str, metrics_token: str) -> dict[str, str]:
    """Who asks."""
    return {ADMIN: admin_token, KEY: gateway.key, METRICS: metrics_token}

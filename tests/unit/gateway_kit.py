"""A gateway whose providers follow a script, with a real board and a real journal to read back."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
from gevent.event import Event

from tokenhub import journal, store
from tokenhub.board import Board
from tokenhub.budgets import Budget, Subject
from tokenhub.catalog import Snapshot
from tokenhub.db import Database
from tokenhub.dialects.openai import StreamMeter, ends_stream, opens_stream
from tokenhub.dialects.sse import events
from tokenhub.domain import (
    ApiKey,
    Caller,
    ChatRequest,
    Model,
    Policy,
    Price,
    Provider,
    RoutingDefaults,
    Usage,
)
from tokenhub.errors import ProviderError
from tokenhub.escrow import Escrow
from tokenhub.gateway import Exchange, Gateway, Relay, begin
from tokenhub.journal import Journal
from tokenhub.limiter import Ticket
from tokenhub.providers.base import Answer, ModelListing, Stream, Target, Timeouts
from tokenhub.providers.chat_completions import CHAT
from tokenhub.recorder import Recorder
from tokenhub.records import parse_request

PRICE = Price(1_000_000, 2_000_000, version=7)  # one and two nano-dollars a token
TIMEOUTS = Timeouts(1, 1, 1, 1)
KEY = "sk-the-providers-key"
PROMPT = 12
DONE = b"data: [DONE]\n\n"
ANYTHING = Policy()

Step = Any
"""An Answer, a list of stream pieces (bytes or exceptions), an exception, or a function."""


def event(**chunk: object) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def delta(text: str, **choice: object) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, **choice}])


STOP = delta("", finish_reason="stop")
USAGE = event(choices=[], usage={"prompt_tokens": 10, "completion_tokens": 5})


def answer(prompt: int = 10, completion: int = 5) -> Answer:
    body = {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}
    return Answer(orjson.dumps(body), body, Usage(prompt, completion), 3)


def fault(error_class: str = "server_error", **more: Any) -> ProviderError:
    return ProviderError("it failed", error_class=error_class, **{"sent": False, **more})


def rate_limited(wait_secs: float | None = None) -> ProviderError:
    return fault("rate_limited", next_step="cooldown", status=429, retry_after_seconds=wait_secs)


class ScriptedSource:
    """A body that arrives in the given pieces."""

    def __init__(self, pieces: Sequence[Step]) -> None:
        self._pieces = list(pieces)
        self.is_closed = False

    def read(self, longest_secs: float | None = None) -> bytes:
        piece = self._pieces.pop(0) if self._pieces and not self.is_closed else b""
        return bytes(_play(piece))

    def wait(self, longest_secs: float) -> float:
        return longest_secs

    def close(self) -> None:
        self.is_closed = True


class ScriptedAdapter:
    """Answers for each model from a list of steps."""

    def __init__(self, scripts: Mapping[str, Sequence[Step]]) -> None:
        self._scripts = {name: list(steps) for name, steps in scripts.items()}
        self.asked: list[str] = []
        self.asked_at: list[str] = []
        self.sources: list[ScriptedSource] = []

    def send(
        self, target: Target, request: ChatRequest, timeouts: Timeouts, request_id: str
    ) -> Answer:
        found: Answer = _play(self._next(target))
        return found

    def stream(
        self, target: Target, request: ChatRequest, timeouts: Timeouts, request_id: str
    ) -> Stream:
        source = ScriptedSource(_play(self._next(target)))
        self.sources.append(source)
        meter = StreamMeter(split=events, hide_usage=not request.wants_usage)
        stream = Stream(
            source, fault_of=CHAT.fault_of, opens=opens_stream, ends=ends_stream, meter=meter
        )
        stream.begin()
        return stream

    def health_url(self, base_url: str) -> str:
        return base_url

    def check(self, target: Target, timeouts: Timeouts) -> int:
        return 200

    def count_tokens(
        self, target: Target, request: ChatRequest, timeouts: Timeouts, request_id: str
    ) -> Mapping[str, Any] | None:
        return None

    def list_models(self, target: Target, timeouts: Timeouts) -> list[ModelListing]:
        return []

    def _next(self, target: Target) -> Step:
        self.asked.append(target.model)
        self.asked_at.append(target.base_url)
        return self._scripts[target.model].pop(0)


class Hang:
    """A step that says nothing until it is told to.

    Attributes:
        calls: how often it was asked.
        has_ended: the last one that asked got an answer, or was stopped.
    """

    def __init__(self, step: Step = None) -> None:
        self._step = answer() if step is None else step
        self._released = Event()
        self.calls = 0
        self.has_ended = False

    def __call__(self) -> Any:
        self.calls += 1
        try:
            self._released.wait()
        finally:
            self.has_ended = True
        return _play(self._step)

    def release(self) -> None:
        self._released.set()


def _play(step: Step) -> Any:
    if isinstance(step, BaseException):
        raise step
    return step() if callable(step) else step


class World:
    """A worker with one model for each script; those named first weigh most."""

    def __init__(self, directory: Path, scripts: Mapping[str, Sequence[Step]]) -> None:
        self.adapter = ScriptedAdapter(scripts)
        self.board = Board(slots=1)
        numbers = itertools.count(1)
        self._directory = directory / "journal"
        self.journal = Journal(
            self._directory, "w", lambda: next(numbers), bytes_max=1 << 30, segment_bytes=1 << 20
        )
        self.recorder = Recorder(journal=self.journal, board=self.board)
        self.models = {
            name: Model(name, f"p-{name}", name, weight=20 - number, price=PRICE)
            for number, name in enumerate(scripts)
        }
        self.endpoints: dict[str, tuple[str, ...]] = {}
        self.locked: dict[str, Exception] = {}
        self.budgets: dict[Subject, tuple[Budget, ...]] = {}
        self.gateway = Gateway(
            board=self.board,
            recorder=self.recorder,
            escrow=Escrow(database=cast(Database, None), board=self.board, host_id="h"),
            adapters={"openai": self.adapter},
            secret_of=self._secret_of,
            whole_timeouts=TIMEOUTS,
            stream_timeouts=TIMEOUTS,
            rng=random.Random(7),
        )
        self.exchange: Exchange | None = None

    def serve(self, policy: Policy = ANYTHING, **fields: Any) -> Answer:
        with self.begin() as exchange:
            return exchange.serve(make_request(**fields), policy)

    def stream(self, policy: Policy = ANYTHING, **fields: Any) -> Relay:
        with self.begin() as exchange:
            return exchange.stream(make_request(stream=True, **fields), policy)

    def hedge(self, after_secs: float = 0.001, *, lanes_max: int = 3) -> None:
        """Ask others as well after so long."""
        self.gateway = replace(self.gateway, hedge_after_secs=after_secs, hedged_max=lanes_max)

    @property
    def records(self) -> list[tuple[bytes, Any]]:
        """Everything in the journal: kind and payload."""
        return [
            (record.kind, parse_request(record.payload))
            for segment in journal.list_segments(self._directory)
            for record in journal.read(segment.path, 0)[0]
        ]

    @property
    def row(self) -> dict[str, Any]:
        """The one row of the one request, which has ended."""
        [(row, *_)] = [payload for kind, payload in self.records if kind == journal.END]
        assert self.board.in_flight == 0
        assert self.journal._admitted == 0
        return dict(zip(store.LOG_COLUMNS, row, strict=True))

    @property
    def attempts(self) -> list[dict[str, Any]]:
        [(_, attempts, *_)] = [payload for kind, payload in self.records if kind == journal.END]
        return [dict(zip(store.ATTEMPT_COLUMNS, each, strict=True)) for each in attempts]

    @property
    def failures(self) -> dict[str, int]:
        """How many failures count against each model."""
        vitals = self.board.vitals.list_all()
        return {each.id: each.failures for each in vitals if each.kind == "model"}

    def begin(self, ticket: Ticket | None = None) -> Exchange:
        self.recorder.admit()
        caller = Caller(ApiKey("key_1", "k", "tok", b"", ""), "10.0.0.9", "req_1", "theirs")
        snapshot = Snapshot(
            version=3,
            providers={
                model.provider_id: Provider(
                    model.provider_id,
                    "openai",
                    "http://127.0.0.1",
                    endpoints=self.endpoints.get(model.provider_id, ()),
                )
                for model in self.models.values()
            },
            models=self.models,
            keys={},
            defaults=RoutingDefaults(),
            routable=tuple(sorted(self.models.values(), key=lambda model: model.id)),
            usable=frozenset(model.provider_id for model in self.models.values()),
            budgets=self.budgets,
        )
        self.exchange = begin(self.gateway, caller, snapshot, "/v1/chat/completions", ticket=ticket)
        return self.exchange

    def _secret_of(self, provider: Provider) -> str | None:
        if provider.id in self.locked:
            raise self.locked[provider.id]
        return KEY


def make_request(**fields: Any) -> ChatRequest:
    given = {
        "body": {"messages": [{"role": "user", "content": "hi"}]},
        "model": "",
        "stream": False,
        "input_tokens": PROMPT,
    }
    return ChatRequest(**{**given, **fields})

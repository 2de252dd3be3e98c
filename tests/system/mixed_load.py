"""Every kind of request that there is, with a tally of what its clients were told of each.

Every model costs a dollar per million tokens read and two per million written, cached or not, so
that a client can add up its own bill from the usage that it is told.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from tests.system.harness import Gateway, Reply, chat_body

READ_NANOUSD, WRITTEN_NANOUSD = 1000, 2000
"""For each token."""

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
DOOMED = {"X-TokenHub-Tags": "doomed"}
"""Asks for those only that fail."""

GOOD = frozenset({"answered", "rescued"})

TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
          "reasoning_tokens")  # fmt: skip

MODELS: dict[str, dict[str, Any]] = {
    # OpenAI's words, Anthropic's, and OpenAI's with its own /v1/responses
    "fast": {"provider_id": "open", "upstream_model": "sim-fast"},
    "claude": {"provider_id": "anth", "upstream_model": "sim-fast"},
    "native": {"provider_id": "resp", "upstream_model": "sim-fast"},
    "long": {"provider_id": "open", "upstream_model": "stream-40-20"},
    "vectors": {"provider_id": "open", "upstream_model": "sim-embed",
                "capabilities": ["embeddings"]},
    "broken": {"provider_id": "bad", "upstream_model": "fault-503", "fallbacks": ["fast"]},
    "cut": {"provider_id": "bad", "upstream_model": "fault-cut", "tags": ["doomed"]},
    "dead": {"provider_id": "bad", "upstream_model": "fault-500", "tags": ["doomed"]},
    "strict": {"provider_id": "bad", "upstream_model": "fault-policy"},
}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """What the client of one request knows of it.

    Args:
        endings: words of which its row must have one.
        tokens: by kind, as `TOKENS`; None = nobody told.
        nanousd: what it cost; None = nobody told.
    """

    kind: str
    endings: frozenset[str]
    tokens: tuple[int, ...] | None = None
    nanousd: int | None = None


@dataclass
class Tally:
    """What all clients know, by request id; replays are none."""

    said: dict[str, Said] = field(default_factory=dict)
    replays: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, reply: Reply, said: Said) -> None:
        with self.lock:
            self.kinds[said.kind] += 1
            if "idempotency-replay" in reply.headers:
                self.replays += 1
                return
            request_id = reply.headers["x-request-id"]
            assert request_id not in self.said
            self.said[request_id] = said


def set_up_models(gateway: Gateway) -> None:
    """The providers and models that `MixedLoad` asks."""
    url = f"http://127.0.0.1:{gateway.simulator_port}"
    providers: dict[str, dict[str, Any]] = {
        "open": {"type": "openai"},
        "anth": {"type": "anthropic"},
        "resp": {"type": "openai", "native_responses": True},
        "bad": {"type": "openai"},
    }
    for name, fields in providers.items():
        gateway.admin("POST", "providers", {"id": name, "base_url": url, **fields})
    read, written = READ_NANOUSD / 1e6, WRITTEN_NANOUSD / 1e6
    prices = {"input_per_1k": read, "cache_read_per_1k": read, "cache_write_per_1k": read,
              "output_per_1k": written}  # fmt: skip
    for name, more in MODELS.items():
        gateway.add_model(name, **prices, **more)


class MixedLoad:
    """So many requests of every kind, in the same order always.

    Args:
        gateways: who is asked, in turn.
        key: whose requests they are.
    """

    def __init__(self, gateways: Sequence[Gateway], key: str, *, clients: int = 6) -> None:
        self._gateways = gateways
        self._key = key
        self._clients = clients
        self.tally = Tally()

    def run(self, count: int) -> Tally:
        """Ask them all; returns when every client has its answer."""
        kinds = list(KINDS)
        rng = random.Random(7)
        order = [kinds[number % len(kinds)] for number in range(count)]
        rng.shuffle(order)
        with ThreadPoolExecutor(self._clients) as pool:
            for done in [pool.submit(self._ask, *each) for each in enumerate(order)]:
                done.result()
        return self.tally

    def _ask(self, number: int, kind: str) -> None:
        KINDS[kind](Client(self, number, kind))

    def send(self, number: int, path: str, body: Any, headers: Mapping[str, str]) -> Reply:
        gateway = self._gateways[number % len(self._gateways)]
        return gateway.ask(
            "POST", path, body, token=self._key, **{"Connection": "close", **headers}
        )

    def send_and_leave(self, number: int, path: str, body: Any) -> Reply:
        """Read the beginning of a stream and hang up."""
        port = self._gateways[number % len(self._gateways)].port
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read(60)
            time.sleep(0.02)
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, b"")


class Client:
    """Who asks one request, and notes what it was told."""

    def __init__(self, load: MixedLoad, number: int, kind: str) -> None:
        self._load, self.number, self._kind = load, number, kind
        self.text = f"question {number}"

    def whole(self, path: str, body: Any, usage: Usage, **headers: str) -> Reply:
        """A whole answer, which says what it used and cost."""
        reply = self._load.send(self.number, path, body, headers)
        assert reply.status == 200, reply.body
        nanos = round(float(reply.headers["x-tokenhub-cost-usd"]) * 1e9)
        self._note(reply, GOOD, usage(reply.json), nanos)
        return reply

    def stream(self, path: str, body: Any, usage: Usage, **headers: str) -> None:
        """A stream that is read to its end, and says there what was used."""
        reply = self._load.send(self.number, path, {**body, "stream": True}, headers)
        assert reply.status == 200, reply.body
        told = [usage(each) for each in data_of(reply)]
        tokens = tuple(max(kind) for kind in zip(*told, strict=True))
        self._note(reply, GOOD, tokens, bill(tokens))

    def fail(self, path: str, body: Any, endings: set[str], **headers: str) -> None:
        """A request that comes to nothing; what was used meanwhile nobody says."""
        reply = self._load.send(self.number, path, body, headers)
        is_told = reply.status == 200 and b"error" in reply.body
        assert reply.status >= 400 or is_told, reply.body
        self._note(reply, frozenset(endings))

    def leave(self, path: str, body: Any) -> None:
        """A stream whose reader goes away."""
        reply = self._load.send_and_leave(self.number, path, {**body, "stream": True})
        assert reply.status == 200
        self._note(reply, frozenset({"client_closed"}))

    def _note(
        self,
        reply: Reply,
        endings: frozenset[str],
        tokens: tuple[int, ...] | None = None,
        nanousd: int | None = None,
    ) -> None:
        self._load.tally.note(reply, Said(self._kind, endings, tokens, nanousd))


Usage = Callable[[Any], tuple[int, ...]]


def bill(tokens: Sequence[int]) -> int:
    """What these tokens cost, whoever answered."""
    return tokens[0] * READ_NANOUSD + tokens[1] * WRITTEN_NANOUSD


def data_of(reply: Reply) -> list[Any]:
    """What the events of a stream carry."""
    lines = [line for line in reply.body.splitlines() if line.startswith(b"data: {")]
    return [json.loads(line[6:]) for line in lines]


def of_chat(answer: Any) -> tuple[int, ...]:
    found = answer.get("usage") or {}
    cached = (found.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    thought = (found.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    read, written = found.get("prompt_tokens", 0), found.get("completion_tokens", 0)
    return read, written, cached, 0, thought


def of_messages(answer: Any) -> tuple[int, ...]:
    found = (answer.get("message") or answer).get("usage") or {}
    cached = found.get("cache_read_input_tokens") or 0
    kept = found.get("cache_creation_input_tokens") or 0
    read = (found.get("input_tokens") or 0) + cached + kept
    return read, found.get("output_tokens") or 0, cached, kept, 0


def of_responses(answer: Any) -> tuple[int, ...]:
    found = (answer.get("response") or answer).get("usage") or {}
    cached = (found.get("input_tokens_details") or {}).get("cached_tokens") or 0
    thought = (found.get("output_tokens_details") or {}).get("reasoning_tokens") or 0
    return found.get("input_tokens", 0), found.get("output_tokens", 0), cached, 0, thought


def of_native(answer: Any) -> tuple[int, ...]:
    return of_chat(answer["response"])


def of_plan(answer: Any) -> tuple[int, ...]:
    return answer["usage"]["input_tokens"], answer["usage"]["output_tokens"], 0, 0, 0


def _chat(client: Client, model: str = "fast", **fields: Any) -> dict[str, Any]:
    return chat_body(model, client.text, max_tokens=12, **fields)


def _cached(client: Client) -> dict[str, Any]:
    """A prompt of Anthropic's kind that others have asked before, or ask again."""
    text = {"type": "text", "text": f"a long story of {client.number % 3}" * 20}
    content = [{**text, "cache_control": {"type": "ephemeral"}}]
    messages = [{"role": "user", "content": content}]
    return {"model": "claude", "max_tokens": 12, "messages": messages}


def _input(client: Client, model: str) -> dict[str, Any]:
    return {"model": model, "input": client.text, "max_output_tokens": 16}


def _asked(client: Client) -> dict[str, Any]:
    messages = [{"role": "user", "content": client.text}]
    return {"messages": messages, "model_hint": "fast", "parameters": {"max_tokens": 12}}


def _plan(client: Client) -> dict[str, Any]:
    asked = {"mode": "refine", "iterations": 1, "primary_model_id": "fast"}
    return {"request": _asked(client), "orchestration": asked}


def _twice(client: Client) -> None:
    """The second is a replay, which costs nothing and has no row."""
    key = {"Idempotency-Key": f"key-{client.number}"}
    first, again = (client.whole(CHAT, _chat(client), of_chat, **key) for _ in range(2))
    assert first.body == again.body
    assert "idempotency-replay" not in first.headers


WITH_USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}
NO_MODEL = {"model": "nobody-s", "messages": [{"role": "user", "content": "x"}]}

KINDS: dict[str, Callable[[Client], object]] = {
    "chat": lambda it: it.whole(CHAT, _chat(it), of_chat),
    "chat of our choice": lambda it: it.whole(
        CHAT, _chat(it, "*"), of_chat, **{"X-TokenHub-Exclude": "bad,long"}
    ),
    "chat, cached": lambda it: it.whole(
        CHAT, _chat(it, prompt_cache_key=f"cache-{it.number % 3}"), of_chat
    ),
    "chat, thought over": lambda it: it.whole(CHAT, _chat(it, reasoning_effort="low"), of_chat),
    "chat, streamed": lambda it: it.stream(CHAT, _chat(it, **WITH_USAGE), of_chat),
    "chat, translated": lambda it: it.whole(CHAT, _chat(it, "claude"), of_chat),
    "chat, translated and streamed": lambda it: it.stream(
        CHAT, _chat(it, "claude", **WITH_USAGE), of_chat
    ),
    "messages": lambda it: it.whole(MESSAGES, _chat(it, "claude"), of_messages),
    "messages, cached": lambda it: it.whole(MESSAGES, _cached(it), of_messages),
    "messages, streamed": lambda it: it.stream(MESSAGES, _chat(it, "claude"), of_messages),
    "messages, translated": lambda it: it.whole(MESSAGES, _chat(it, "fast"), of_messages),
    "messages, translated and streamed": lambda it: it.stream(
        MESSAGES, _chat(it, "fast"), of_messages
    ),
    "responses": lambda it: it.whole(RESPONSES, _input(it, "native"), of_responses),
    "responses, streamed": lambda it: it.stream(RESPONSES, _input(it, "native"), of_responses),
    "responses, translated": lambda it: it.whole(RESPONSES, _input(it, "claude"), of_responses),
    "embeddings": lambda it: it.whole(
        "/v1/embeddings", {"model": "vectors", "input": it.text}, of_chat
    ),
    "native": lambda it: it.whole("/v1/chat", {"request": _asked(it)}, of_native),
    "plan": lambda it: it.whole("/v1/plan", _plan(it), of_plan),
    "failing over": lambda it: it.whole(CHAT, _chat(it, "broken"), of_chat),
    "cut": lambda it: it.fail(
        CHAT, _chat(it, "cut", stream=True), {"cut", "failed", "refused"}, **DOOMED
    ),
    "failed": lambda it: it.fail(CHAT, _chat(it, "dead"), {"failed", "refused"}, **DOOMED),
    "refused by the provider": lambda it: it.fail(CHAT, _chat(it, "strict"), {"refused"}),
    "refused": lambda it: it.fail(CHAT, NO_MODEL, {"refused"}),
    "left": lambda it: it.leave(CHAT, _chat(it, "long")),
    "sent twice": _twice,
}

"""Slow providers: others are asked as well, or the caller's time ends; what that costs.

All models are of the simulator, which knows how often it was asked and who hung up.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.system.budget_kit import CENT, Payer, make_payer, settled
from tests.system.harness import Gateway, Pinned, Reply, chat_body, running, wait_until
from tests.system.load import Row, rows_by_id

pytestmark = pytest.mark.system

HEDGE_SECS = 0.15
SLOW_SECS = 3.0
TOKENS = 10
PER_TOKEN = 0.001
"""Dollars, of the slow model's input; its output is free. The quick one's are the other way round,
and its answer is as long as it may be."""


class Tried(NamedTuple):
    model_id: str
    error_class: str
    cost_usd: float
    input_tokens: int


@pytest.fixture(scope="module")
def hedging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two workers; a slow model, and a quick one of another provider."""
    directory: Path = tmp_path_factory.mktemp("hedging")
    extra = {"TOKENHUB_HEDGE_AFTER_MS": str(round(HEDGE_SECS * 1000))}
    with running(directory, f"sqlite:///{directory / 'hub.sqlite'}", extra=extra) as found:
        url = f"http://127.0.0.1:{found.simulator_port}"
        found.admin("POST", "providers", {"id": "other", "type": "openai", "base_url": url})
        found.add_model("slow", upstream_model=f"fault-slow-{round(SLOW_SECS * 1000)}", weight=9,
                        input_per_1k=1000 * PER_TOKEN, output_per_1k=0)  # fmt: skip
        found.add_model("quick", upstream_model="sim-fast", provider_id="other", weight=1,
                        input_per_1k=0, output_per_1k=1000 * PER_TOKEN)  # fmt: skip
        for name in ("sim-fast", "sim-smart", "sim-cheap"):
            found.admin("PATCH", f"models/{name}", {"enabled": False})
        yield found


def ask(to: Pinned | Gateway, payer: Payer, **sent: Any) -> Reply:
    headers = sent.pop("headers", {})
    body = chat_body("slow", max_tokens=TOKENS, **sent)
    return to.ask("POST", "/v1/chat/completions", body, token=payer.key, **headers)


def asked_upstream(gateway: Gateway) -> dict[str, int]:
    found: dict[str, int] = gateway.simulator_stats()["by_model"]
    return found


def row_of(gateway: Gateway, reply: Reply) -> Row:
    request_id = reply.headers["x-request-id"]
    [row] = wait_until(lambda: rows_by_id(gateway).get(request_id), what="its row")
    return dict(row)


def attempts_of(gateway: Gateway, row: Row) -> list[Tried]:
    """The attempts of a request, as they are written down."""
    query = (
        "SELECT model_id, error_class, cost_nanousd, input_tokens FROM attempts"
        " WHERE request_id = ? ORDER BY seq"
    )
    with closing(sqlite3.connect(gateway.dsn.removeprefix("sqlite:///"))) as connection:
        found = connection.execute(query, (row["request_id"],)).fetchall()
    return [Tried(model, word, cost / 10**9, tokens) for model, word, cost, tokens in found]


def hung_up_on(gateway: Gateway) -> bool:
    return int(gateway.simulator_stats()["open_requests"]) == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_slow_provider_is_overtaken_hung_up_on_and_paid_for_its_input(hedging, stream):
    payer = make_payer(hedging, 10_000)
    before = sum(asked_upstream(hedging).values())
    costs = 0.0
    for number, worker in enumerate(hedging.each_worker(), 1):
        began = time.monotonic()
        reply = ask(worker, payer, stream=stream)
        assert HEDGE_SECS <= time.monotonic() - began < 1.5  # the slow one takes twice as long
        wait_until(lambda: hung_up_on(hedging), 1, "the slow one to be hung up on")
        assert sum(asked_upstream(hedging).values()) == before + 2 * number
        assert reply.status == 200
        assert reply.headers["x-negotiated-model"] == "quick"
        assert reply.headers["x-tokenhub-reason"] == "hedged"
        assert reply.headers["x-tokenhub-attempts"] == "2"
        row = row_of(hedging, reply)
        assert row["outcome"] == "answered"
        slow, quick = attempts_of(hedging, row)
        assert slow[:3] == ("slow", "hedge_lost", slow.input_tokens * PER_TOKEN)
        assert slow.input_tokens > 0
        assert quick[:3] == ("quick", "", TOKENS * PER_TOKEN)
        costs += slow.cost_usd + quick.cost_usd
        worker.close()
    settled(hedging, payer, costs / CENT)


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_ends_the_request_and_whoever_is_at_work_for_it(hedging, stream):
    payer = make_payer(hedging, 10_000)
    hedging.admin("PATCH", "models/quick", {"upstream_model": f"fault-slow-{SLOW_SECS:.0f}001"})
    try:
        before = sum(asked_upstream(hedging).values())
        began = time.monotonic()
        reply = ask(hedging, payer, stream=stream, headers={"X-TokenHub-Max-Latency-Ms": "400"})
        assert 0.4 <= time.monotonic() - began < 0.7
        wait_until(lambda: hung_up_on(hedging), 1, "both to be hung up on")
    finally:
        hedging.admin("PATCH", "models/quick", {"upstream_model": "sim-fast"})
    assert (reply.status, reply.json["error"]["code"]) == (504, "deadline_exceeded")
    assert reply.headers["x-tokenhub-attempts"] == "2"
    assert sum(asked_upstream(hedging).values()) == before + 2
    row = row_of(hedging, reply)
    assert (row["outcome"], row["error_class"]) == ("failed", "deadline_exceeded")
    slow, quick = attempts_of(hedging, row)
    assert slow[:3] == ("slow", "deadline", slow.input_tokens * PER_TOKEN)
    assert quick[:3] == ("quick", "deadline", 0)
    settled(hedging, payer, slow.cost_usd / CENT)
    health = hedging.admin("GET", "health")
    assert all(each["total_errors"] == 0 for each in health["models"])

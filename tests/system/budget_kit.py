"""Keys with money for so many requests, and what the books say of them.

The model's input is free and the simulator answers with as many tokens as it may, so a request
costs exactly what was set aside for it: a cent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from tests.postgres import PostgresServer
from tests.system.harness import ADMIN_TOKEN, Gateway, Reply, chat_body, running, wait_until

MODEL = "sim-cent"
TOKENS = 10
CENT = 0.01


class Books(NamedTuple):
    """A subject's total, as `GET /admin/v1/budgets` says it."""

    spent_usd: float
    reserved_usd: float
    remaining_usd: float


class Payer(NamedTuple):
    """A key, and whose budget it draws on."""

    key: str
    key_id: str
    kind: str = "key"
    subject_id: str = ""

    @property
    def subject(self) -> tuple[str, str]:
        return self.kind, self.subject_id or self.key_id


def add_models(gateway: Gateway) -> None:
    """The model that costs a cent, and slow ones at the same price."""
    for name in (MODEL, "stream-10-200", "fault-slow-3000"):
        gateway.add_model(name, input_per_1k=0, output_per_1k=CENT / TOKENS * 1000)


@contextmanager
def two_hosts(directory: Path, server: PostgresServer, **extra: str) -> Iterator[list[Gateway]]:
    """Two gateways of two workers each on one Postgres; what one is told, the other soon hears."""
    first, second = directory / "first", directory / "second"
    for each in (first, second):
        each.mkdir()
    dsn = server.create_database()
    with psycopg.connect(dsn.replace("+psycopg", ""), autocommit=True) as connection:
        # What the tests' server leaves out: without it, a stop at once would lose a commit.
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = on").format(name))
    with running(first, dsn, extra=extra) as one:
        add_models(one)
        two = Gateway(second, one.dsn, simulator_port=one.simulator_port, extra=extra)
        try:
            two.start()
            one.peers.append(two)
            yield [one, two]
        finally:
            two.stop()


def make_payer(gateway: Gateway, cents: float | None, **fields: Any) -> Payer:
    """A key with money for so many requests altogether; None = no budget."""
    made = gateway.admin("POST", "apikeys", {"name": "payer", **fields})
    payer = Payer(made["key"], made["id"])
    if cents is not None:
        set_budget(gateway, payer, cents)
    return payer


def set_budget(gateway: Gateway, payer: Payer, cents: float, **fields: Any) -> None:
    """Set what a payer may spend, altogether unless `period` says otherwise."""
    kind, id_ = payer.subject
    period = fields.pop("period", "total")
    gateway.admin("PUT", f"budgets/{kind}/{id_}/{period}", {"limit_usd": cents * CENT, **fields})
    gateway.wait_for_peers()


def ask(gateway: Gateway, payer: Payer, model: str = MODEL, **fields: Any) -> Reply:
    """One whole request of a cent; with `max_tokens=None` without a limit."""
    body = chat_body(model, **{"max_tokens": TOKENS, **fields})
    body = {name: value for name, value in body.items() if value not in (None, "")}
    return gateway.ask("POST", "/v1/chat/completions", body, token=payer.key)


def ask_many(gateways: Sequence[Gateway], payers: Sequence[Payer], count: int) -> list[Reply]:
    """So many requests at once, spread over the gateways and the payers."""
    with ThreadPoolExecutor(count) as pool:
        asked = [
            pool.submit(ask, gateways[n % len(gateways)], payers[n // 2 % len(payers)])
            for n in range(count)
        ]
        return [each.result() for each in asked]


@contextmanager
def in_flight(gateway: Gateway, payer: Payer, count: int) -> Iterator[list[Future[Reply | None]]]:
    """So many slow requests that a provider is at work for; None = cut off."""

    def ask_slowly() -> Reply | None:
        try:
            return ask(gateway, payer, "fault-slow-3000")
        except (OSError, HTTPException):
            return None

    with ThreadPoolExecutor(count) as pool:
        before = gateway.simulator_stats()["requests"]
        asked = [pool.submit(ask_slowly) for _ in range(count)]
        wait_until(lambda: gateway.simulator_stats()["requests"] >= before + count, 5, "at work")
        yield asked


def code_of(reply: Reply) -> str:
    """The code of a refusal; "" of an answer."""
    return "" if reply.status == 200 else str(reply.json["error"]["code"])


def books(gateway: Gateway, payer: Payer, period: str = "total") -> Books:
    """What a gateway says was spent and is reserved."""
    kind, id_ = payer.subject
    path = f"budgets?subject_kind={kind}&subject_id={id_}"
    [found] = [each for each in gateway.admin("GET", path)["budgets"] if each["period"] == period]
    return Books(*(round(found[name], 9) for name in Books._fields))


def settled(gateway: Gateway, payer: Payer, cents: float, secs: float = 15) -> Books:
    """The books once so much was spent and nothing is reserved."""

    def look() -> Books | None:
        found = books(gateway, payer)
        return found if found[:2] == (round(cents * CENT, 9), 0) else None

    try:
        found: Books = wait_until(look, secs)
    except AssertionError:
        raise AssertionError(f"expected {cents} cents, found {books(gateway, payer)}") from None
    return found


def spend(gateway: Gateway, payer: Payer) -> float:
    """What a gateway says was spent altogether, budget or none."""
    kind, id_ = payer.subject
    rows = gateway.admin("GET", f"spend?by={kind}&period=total&id={id_}")["spend"]
    return float(round(sum(each["spent_usd"] for each in rows), 9))


def host_id(gateway: Gateway) -> str:
    """What a gateway's host is called in the tables."""
    reply = gateway.ask("GET", "/admin/v1/info", token=ADMIN_TOKEN)
    return str(reply.json["host_id"])

"""Duplicates over real workers and hosts: one call, one row, the same bytes for all."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from tests.system.harness import Gateway, Reply, chat_body, kill, running, wait_until
from tests.system.load import rows_by_id
from tokenhub.idempotency import LEASE_SECS, LOST_SECS

pytestmark = pytest.mark.system

CHAT = "/v1/chat/completions"
DUPLICATES = 20


def send(gateway: Gateway, name: str, text: str = "twice", **fields: Any) -> Reply:
    body = chat_body("sim-fast", text, **fields)
    return gateway.ask("POST", CHAT, body, token=gateway.key, Idempotency_Key=name)


def send_all(gateways: list[Gateway], name: str, **fields: Any) -> list[Reply]:
    with ThreadPoolExecutor(DUPLICATES) as pool:
        asked = [
            pool.submit(send, gateways[number % len(gateways)], name, **fields)
            for number in range(DUPLICATES)
        ]
        return [each.result() for each in asked]


def calls(gateway: Gateway) -> int:
    return int(gateway.simulator_stats()["requests"])


def check_one_of(replies: list[Reply]) -> Reply:
    """All are the same answer, and all but one say that they are replays; returns that one."""
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    [first] = [each for each in replies if "idempotency-replay" not in each.headers]
    originals = {each.headers.get("x-tokenhub-original-request-id") for each in replies}
    assert originals == {None, first.headers["x-request-id"]}
    return first


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("idempotency")
    with running(directory, f"sqlite:///{directory / 'hub.sqlite'}") as found:
        yield found


@pytest.mark.parametrize("stream", [False, True])
def test_twenty_at_once_are_one_call_and_one_row(gateway, stream):
    gateway.simulate(latency_ms=300)
    before, rows_before = calls(gateway), set(rows_by_id(gateway))
    replies = send_all([gateway], f"many-{stream}", stream=stream)
    first = check_one_of(replies)
    assert calls(gateway) - before == 1
    wait_until(lambda: first.headers["x-request-id"] in rows_by_id(gateway), 5)
    assert set(rows_by_id(gateway)) - rows_before == {first.headers["x-request-id"]}
    assert not stream or first.body.endswith(b"data: [DONE]\n\n")


def test_a_killed_owner_is_told_of_before_anybody_pays_again(gateway):
    gateway.simulate(latency_ms=30_000)
    before = calls(gateway)
    workers = gateway.each_worker()
    owner, other = workers
    body = chat_body("sim-fast", "killed")

    def ask_owner() -> None:
        with suppress(OSError, http.client.HTTPException):
            owner.ask("POST", CHAT, body, token=gateway.key, Idempotency_Key="killed")

    with ThreadPoolExecutor(2) as pool:
        pool.submit(ask_owner)
        wait_until(lambda: calls(gateway) == before + 1, 5)
        waiting = pool.submit(
            other.ask, "POST", CHAT, body, token=gateway.key, Idempotency_Key="killed"
        )
        time.sleep(0.3)
        kill(owner.worker_pid)
        began = time.monotonic()
        refused = waiting.result()
    assert time.monotonic() - began < LEASE_SECS + 2
    assert (refused.status, refused.json["error"]["code"]) == (409, "idempotency_owner_lost")
    assert "retry-after" in refused.headers
    assert calls(gateway) == before + 1
    gateway.simulate(latency_ms=0)
    time.sleep(LOST_SECS + 0.1)
    assert send(gateway, "killed", "killed").status == 200
    assert calls(gateway) == before + 2
    for each in workers:
        each.close()


@pytest.mark.postgres
def test_duplicates_on_two_hosts_are_one_call(tmp_path_factory, postgres_server):
    first, second = (tmp_path_factory.mktemp(name) for name in ("first", "second"))
    with running(first, postgres_server.create_database()) as one:
        two = Gateway(second, one.dsn, simulator_port=one.simulator_port, key=one.key)
        try:
            two.start()
            one.peers.append(two)
            one.wait_for_peers()
            one.simulate(latency_ms=500)
            before = calls(one)
            check_one_of(send_all([one, two], "hosts"))
            assert calls(one) - before == 1
        finally:
            two.stop()

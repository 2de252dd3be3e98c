"""Aliases over two workers: turns are everybody's, and a change is in force on each at once."""

from __future__ import annotations

from itertools import cycle

import pytest

from tests.system.harness import chat_body, wait_until

pytestmark = pytest.mark.system

CHAT = "/v1/chat/completions"


def alias(gateway, **weights):
    variants = [{"model_id": model_id, "weight": weight} for model_id, weight in weights.items()]
    gateway.admin("PUT", "aliases/x", {"variants": variants, "sticky_by": "round_robin"})


def test_workers_share_the_turns_and_hear_of_a_change_at_once(gateway):
    alias(gateway, **{"sim-fast": 2, "sim-cheap": 1})
    workers = gateway.each_worker()
    assert len({worker.worker_pid for worker in workers}) == 2
    try:

        def ask(worker):
            reply = worker.ask("POST", CHAT, chat_body("x"), token=gateway.key)
            assert reply.status == 200
            assert reply.headers["x-alias-from"] == "x"
            return reply.headers["x-negotiated-model"]

        turns = [ask(worker) for worker, _ in zip(cycle(workers), range(12), strict=False)]
        assert turns == ["sim-fast", "sim-fast", "sim-cheap"] * 4
        for name in ("sim-smart", "sim-cheap"):
            alias(gateway, **{name: 1})
            assert [ask(worker) for worker in workers] == [name] * 2
    finally:
        for worker in workers:
            worker.close()

    def rows():
        found = gateway.admin("GET", "logs?limit=100")["logs"]
        return found if len(found) == 16 else None

    assert {row["alias_from"] for row in wait_until(rows, what="rows")} == {"x"}

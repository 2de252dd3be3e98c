"""Limits hold for all workers of a host together, and change without a restart."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.system.harness import ADMIN_TOKEN, Gateway, Pinned, kill, running, wait_until
from tests.system.test_clients_and_signals import open_request

pytestmark = pytest.mark.system

LIMITED = {"TOKENHUB_RATE_LIMIT_RPS": "0.001", "TOKENHUB_RATE_LIMIT_BURST": "50"}


def ask_all_at_once(gateway: Gateway, workers: list[Pinned], times: int) -> list[int]:
    """Each worker is asked `times` times, all workers at once."""
    statuses: list[int] = []

    def ask(worker: Pinned) -> None:
        replies = (worker.ask("GET", "/v1/models", token=gateway.key) for _ in range(times))
        statuses.extend(reply.status for reply in replies)

    threads = [threading.Thread(target=ask, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return statuses


def passes(gateway: Gateway, worker: Pinned) -> bool:
    return ask_all_at_once(gateway, [worker], 1) == [200]


def test_two_workers_let_exactly_the_burst_of_an_address_pass_until_told_otherwise(tmp_path: Path):
    dsn = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    with running(tmp_path, dsn, extra=LIMITED) as gateway:
        workers = gateway.each_worker()
        statuses = ask_all_at_once(gateway, workers, 40)
        assert (statuses.count(200), statuses.count(429)) == (50, 30)
        metrics = gateway.ask("GET", "/metrics", token=ADMIN_TOKEN).body.decode()
        assert 'tokenhub_rate_limited_total{scope="address"} 30.0' in metrics

        (tmp_path / "data" / "settings.env").write_text("TOKENHUB_RATE_LIMIT_RPS=0\n")
        assert gateway.process is not None
        os.kill(gateway.process.popen.pid, signal.SIGHUP)
        for worker in workers:
            wait_until(partial(passes, gateway, worker), what="the new settings")
            worker.close()


def test_what_a_killed_worker_had_in_flight_is_free_again(gateway: Gateway):
    gateway.add_model("stream-400-50")  # twenty seconds
    gateway.admin("PATCH", f"apikeys/{gateway.key_id}", {"max_parallel": 1})
    reading = open_request(gateway, "stream-400-50", stream=True)
    reading.getresponse()
    refused = gateway.chat()
    assert (refused.status, refused.json["error"]["limit"]) == (429, "max_parallel")
    for pid in gateway.worker_pids():  # one of them has it
        kill(pid)
    wait_until(gateway.is_up, 20, "new workers")
    wait_until(lambda: gateway.chat().status == 200, what="the place to be free")
    reading.close()

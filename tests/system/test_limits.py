"""Limits hold for all workers of a host together, and change without a restart."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from tests.system.harness import ADMIN_TOKEN, Gateway, Pinned, chat_body, kill, running, wait_until
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


def keep_asking(gateway: Gateway, workers: list[Pinned], secs: float) -> tuple[int, int, float]:
    """All workers are asked for so long, as fast as they answer; returns how many requests passed,
    how many did not, and how long it really took."""
    statuses: list[int] = []
    body = chat_body("sim-fast")

    def ask(worker: Pinned) -> None:
        while time.monotonic() < began + secs:
            reply = worker.ask("POST", "/v1/chat/completions", body, token=gateway.key)
            statuses.append(reply.status)

    threads = [threading.Thread(target=ask, args=(worker,)) for worker in workers]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(statuses) <= {200, 429}
    return statuses.count(200), statuses.count(429), time.monotonic() - began


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


def test_four_workers_keep_what_a_key_may_ask_of_a_model_to_a_percent(tmp_path: Path):
    dsn, secs = f"sqlite:///{tmp_path / 'hub.sqlite'}", 2.0
    with running(tmp_path, dsn, workers=4) as gateway:
        workers = gateway.each_worker()
        key = f"apikeys/{gateway.key_id}"
        gateway.admin("PATCH", key, {"model_limits": {"sim-fast": {"rate_limit_rps": 50}}})
        wait_until(lambda: keep_asking(gateway, workers, 1.0)[1], what="the burst is spent")
        passed, _, took = keep_asking(gateway, workers, secs)
        assert 50 * secs * 0.99 <= passed <= (50 * took + 1) * 1.01
        for limits in ({"model_limits": {"sim-fast": {"rpm": 30}}}, {"rpm": 30}):
            gateway.admin("PATCH", key, {"model_limits": None, **limits})
            assert keep_asking(gateway, workers, 0.7)[0] == 30
        for worker in workers:
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

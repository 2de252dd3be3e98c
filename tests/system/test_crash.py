"""Whatever dies, every answered request is in the log exactly once."""

from __future__ import annotations

import random
import time

import pytest

from tests.system.harness import Gateway, can_connect, kill, running, wait_until
from tests.system.load import Load, Row, rows_by_id

pytestmark = pytest.mark.system


def settle(gateway: Gateway) -> dict[str, list[Row]]:
    """The log once nothing is added to it any more."""
    last = -1
    for _ in range(60):
        rows = rows_by_id(gateway)
        if len(rows) == last and not list((gateway.directory / "data/journal").glob("*.orphan")):
            return rows
        last = len(rows)
        time.sleep(1.0)
    raise AssertionError("the log never came to rest")


def check(gateway: Gateway, tally) -> None:
    rows = settle(gateway)
    missing = [each for each in tally.answered if each not in rows]
    doubled = [each for each, found in rows.items() if len(found) > 1]
    assert not missing
    assert not doubled
    for request_id in tally.answered:
        assert rows[request_id][0]["outcome"] in ("answered", "rescued", "interrupted")
    for request_id in tally.aborted & set(rows):
        assert rows[request_id][0]["outcome"] in ("client_closed", "answered", "interrupted")
    assert all(found[0]["estimated_cost_usd"] is not None for found in rows.values())


def restart_after_arbiter_kill(gateway: Gateway) -> None:
    assert gateway.process is not None
    workers = gateway.worker_pids()
    gateway.process.popen.kill()
    gateway.process.popen.wait()
    wait_until(lambda: not can_connect(gateway.port), 15, "the port to be free")
    assert workers
    gateway.start()


def chaos(gateway: Gateway, secs: float, seed: int) -> None:
    rng = random.Random(seed)
    gateway.add_model("stream-8-10")
    with Load(gateway) as tally:
        deadline = time.monotonic() + secs
        while time.monotonic() < deadline:
            time.sleep(rng.uniform(0.5, 1.5))
            if rng.random() < 0.2:
                restart_after_arbiter_kill(gateway)
            else:
                pids = wait_until(lambda: pids_or_none(gateway), 20, "workers")
                kill(rng.choice(pids))  # as likely the leader as not
    wait_until(gateway.is_up, 20)
    assert len(tally.answered) > 20
    assert not tally.refused, tally.refused[:3]
    check(gateway, tally)


def pids_or_none(gateway: Gateway) -> list[int] | None:
    try:
        return gateway.worker_pids()
    except OSError:
        return None


def test_workers_leader_and_arbiter_killed_under_load_lose_and_double_nothing(tmp_path, dsn):
    with running(tmp_path, dsn) as gateway:
        chaos(gateway, 12, seed=1)


@pytest.mark.rehearse
def test_a_minute_of_killing_loses_and_doubles_nothing(tmp_path, dsn):
    with running(tmp_path, dsn, workers=3) as gateway:
        chaos(gateway, 60, seed=2)


@pytest.fixture
def gateway(tmp_path, dsn):
    with running(tmp_path, dsn) as found:
        yield found


def test_a_stream_cut_by_the_death_of_its_worker_becomes_an_interrupted_row(gateway):
    gateway.add_model("stream-200-50")
    [worker, other] = gateway.each_worker()
    worker._connection.request(
        "POST", "/v1/chat/completions",
        b'{"model":"stream-200-50","stream":true,"messages":[{"role":"user","content":"x"}]}',
        {"Authorization": f"Bearer {gateway.key}"},
    )  # fmt: skip
    answer = worker._connection.getresponse()
    request_id = answer.getheader("X-Request-Id")
    answer.read(50)
    kill(worker.worker_pid)
    rows = wait_until(lambda: rows_by_id(gateway).get(request_id), what="interrupted row")
    assert [row["outcome"] for row in rows] == ["interrupted"]
    assert rows[0]["estimated_cost_usd"] > 0
    answer.close()
    for connection in (worker, other):
        connection.close()


def test_a_second_gateway_on_the_same_directory_refuses_to_start(gateway):
    second = Gateway(gateway.directory, gateway.dsn)
    second.start(wait=False)
    assert second.process is not None
    assert second.process.popen.wait(20) != 0
    assert "another gateway is using" in gateway.log_text()
    assert gateway.chat().status == 200

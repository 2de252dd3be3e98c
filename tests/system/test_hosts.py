"""Two hosts on one Postgres: a change on one holds on every worker of both within a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.system.harness import ADMIN_TOKEN, VAULT_PASSWORD, Gateway, Pinned, running, wait_until

pytestmark = [pytest.mark.system, pytest.mark.postgres]

PROMISE_SECS = 1.0


class Cluster:
    """Two gateways of two workers each, and a connection to each worker of the second."""

    def __init__(self, one: Gateway, two: Gateway) -> None:
        self.one, self.two = one, two
        self.workers: list[Pinned] = two.each_worker()
        self.dsn = one.dsn.replace("+psycopg", "")

    def close(self) -> None:
        for worker in self.workers:
            worker.close()

    def seen_within(self, look: Callable[[Pinned], Any]) -> float:
        """Seconds until every worker of the second host shows it."""
        began = time.monotonic()
        for worker in self.workers:
            while not look(worker):
                assert time.monotonic() - began < 5, "not seen at all"
                time.sleep(0.01)
        return time.monotonic() - began

    def query(self, statement: str) -> list[Any]:
        """Something that only the database's owner would do."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(statement.encode()).fetchall()

    def hosts(self) -> dict[str, Any]:
        """What the first host says of both, by id."""
        return {each["id"]: each for each in self.one.admin("GET", "hosts")["hosts"]}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, postgres_server) -> Iterator[Cluster]:
    first, second = (tmp_path_factory.mktemp(name) for name in ("first", "second"))
    with running(first, postgres_server.create_database()) as one:
        two = Gateway(second, one.dsn, simulator_port=one.simulator_port, key=one.key)
        try:
            two.start()
            with closing(Cluster(one, two)) as found:
                yield found
        finally:
            two.stop()


def asks(key: str, status: int) -> Callable[[Pinned], bool]:
    """Whether a worker answers the key so; the listing of models needs no provider."""
    return lambda worker: worker.ask("GET", "/v1/models", token=key).status == status


def is_at(version: int) -> Callable[[Pinned], bool]:
    """Whether a worker has caught up with a version of the catalog, without being asked to."""

    def look(worker: Pinned) -> bool:
        shown = worker.ask("GET", "/admin/v1/info", token=ADMIN_TOKEN).json["catalog_version"]
        return bool(shown >= version)

    return look


def test_a_key_works_and_ends_on_every_worker_of_the_other_host_within_a_second(cluster):
    made = cluster.one.admin("POST", "apikeys", {"name": "new"})
    assert cluster.seen_within(asks(made["key"], 200)) < PROMISE_SECS
    cluster.one.admin("DELETE", f"apikeys/{made['id']}")
    assert cluster.seen_within(asks(made["key"], 401)) < PROMISE_SECS


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "models/sim-cheap", {"weight": 4}),
        ("PATCH", "providers/sim", {"api_key": "sk-another-canary"}),
        ("PUT", "routing-config", {"default_mode": "cheap"}),
    ],
    ids=["config", "vault", "routing"],
)
def test_every_kind_of_change_reaches_the_other_host_within_a_second(cluster, method, path, body):
    before = cluster.one.admin("GET", "info")["catalog_version"]
    cluster.one.admin(method, path, body)
    assert cluster.seen_within(is_at(before + 1)) < PROMISE_SECS
    assert cluster.two.chat("sim-fast").status == 200


def test_a_change_made_while_nobody_listens_is_seen_all_the_same(cluster):
    """The server ends the sessions that listen, as it does when it is restarted for a moment."""
    for number in range(3):
        ended = cluster.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        assert len(ended) == 2, "one session of each host listens"
        made = cluster.one.admin("POST", "apikeys", {"name": f"meanwhile {number}"})
        assert cluster.seen_within(asks(made["key"], 200)) < PROMISE_SECS
        wait_until(lambda: count_listeners(cluster) == 2, 5, "both listen again")


def count_listeners(cluster: Cluster) -> int:
    found = cluster.query(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )
    return int(found[0][0])


def test_all_sessions_ended_at_once_cost_no_request_and_no_row(cluster):
    answered = []
    for _ in range(3):
        cluster.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        answered += [each.chat() for _ in range(5) for each in (cluster.one, cluster.two)]
    assert {reply.status for reply in answered} == {200}
    ids = {reply.headers["x-request-id"] for reply in answered}

    def logged() -> bool:
        rows = cluster.one.ask("GET", "/admin/v1/logs?limit=1000", token=ADMIN_TOKEN)
        return rows.status == 200 and ids <= {each["request_id"] for each in rows.json["logs"]}

    wait_until(logged, 15, "all rows")
    wait_until(lambda: count_listeners(cluster) == 2, 5, "both listen again")


def test_hosts_are_known_to_each_other_until_they_say_goodbye(cluster, tmp_path):
    third = Gateway(tmp_path, cluster.one.dsn, simulator_port=cluster.one.simulator_port)
    third.start()
    try:
        wait_until(lambda: len(cluster.hosts()) == 3, 5, "all three have beaten")
        found = cluster.hosts()
        assert all(each["is_live"] and each["workers"] == 2 for each in found.values())
        mine = third.admin("GET", "info")["host_id"]
    finally:
        third.stop()
    found = cluster.hosts()
    assert not found[mine]["is_live"]
    assert found[mine]["ended_at"]
    assert sum(each["is_live"] for each in found.values()) == 2


def test_a_vault_is_opened_by_each_host_and_closed_by_each(cluster):
    cluster.two.admin("POST", "vault/lock")
    assert cluster.two.admin("GET", "info")["vault_locked"]
    assert not cluster.one.admin("GET", "info")["vault_locked"]
    cluster.two.admin("POST", "vault/unlock", {"admin_password": VAULT_PASSWORD})
    assert cluster.two.chat().status == 200

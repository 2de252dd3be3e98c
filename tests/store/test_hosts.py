"""Hosts are alive, gone or dead by the database's clock, whatever their own says."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
from sqlalchemy import update

from tokenhub import store
from tokenhub.db.traffic_tables import hosts
from tokenhub.store.hosts import CLUSTER, LIVE_SECS


@pytest.fixture
def beat(database):
    """Has a host beat; returns how many hosts live."""

    def one(host_id: str, **fields: Any) -> int:
        values = {"name": "n", "version": "1", "workers": 2, "started_at": 5, **fields}
        return int(database.write(partial(store.beat_host, host_id=host_id, **values)))

    return one


@pytest.fixture
def listed(database):
    """All hosts by id."""

    def read() -> dict[str, Any]:
        rows, total = database.read(partial(store.list_hosts, limit=10, offset=0))
        assert total == len(rows)
        return {row["id"]: row for row in rows}

    return read


@pytest.fixture
def set_seen(database):
    """Moves the moment at which a host was last seen, in seconds."""

    def move(host_id: str, secs: float) -> None:
        moved = update(hosts).where(hosts.c.id == host_id)
        database.write(
            lambda connection: connection.execute(
                moved.values(seen_at=hosts.c.seen_at + int(secs * 1000))
            )
        )

    return move


def test_a_host_is_as_it_said_last(beat, listed):
    beat("a", version="1", workers=1)
    beat("a", version="2", workers=4, started_at=9)
    row = listed()["a"]
    assert (row["name"], row["version"], row["workers"], row["started_at"]) == ("n", "2", 4, 9)
    assert abs(row["seen_at"] - time.time() * 1000) < 5000
    assert (row["ended_at"], row["is_live"], row["is_leader"]) == (None, True, False)


def test_each_beat_tells_how_many_hosts_live(beat, set_seen):
    assert beat("a") == 1
    assert beat("b") == 2
    assert beat("a") == 2
    set_seen("b", -LIVE_SECS - 1)
    assert beat("a") == 1


def test_a_host_that_was_not_seen_for_a_while_is_dead_until_it_beats_again(beat, listed, set_seen):
    beat("a")
    set_seen("a", 2 - LIVE_SECS)
    assert listed()["a"]["is_live"]
    set_seen("a", -2)
    assert not listed()["a"]["is_live"]
    beat("a")
    assert listed()["a"]["is_live"]


def test_a_host_that_has_said_goodbye_is_not_waited_for(database, beat, listed):
    beat("a")
    beat("b")
    database.write(partial(store.end_host, host_id="b"))
    found = listed()
    assert [found[each]["is_live"] for each in "ab"] == [True, False]
    assert found["b"]["ended_at"] >= found["b"]["seen_at"]
    assert beat("a") == 1
    assert beat("b") == 2
    assert listed()["b"]["ended_at"] is None


def test_the_holder_of_the_clusters_lease_leads_it_until_that_expires(database, beat, listed):
    beat("a")
    beat("b")
    database.write(partial(store.take_lease, name=CLUSTER, holder="b", seconds=60))
    assert [listed()[each]["is_leader"] for each in "ab"] == [False, True]
    database.write(partial(store.take_lease, name=CLUSTER, holder="b", seconds=0))
    assert not listed()["b"]["is_leader"]

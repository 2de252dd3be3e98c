"""One host leads the cluster and runs each job once in its slot; another follows when it dies."""

from __future__ import annotations

from contextlib import closing

import gevent
import pytest
from sqlalchemy import select

from tokenhub import cluster
from tokenhub.cluster import Cluster
from tokenhub.db import Database, DatabaseAway
from tokenhub.db.traffic_tables import job_runs
from tokenhub.errors import Unavailable

DAY_SECS = 86_400.0


class World:
    """Two hosts on one database, and what their jobs have done."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database = database
        self.monkeypatch = monkeypatch
        self.ran: list[str] = []
        monkeypatch.setitem(cluster.TERM_SECS, database.dialect, 0.4)
        self.first, self.second = (Cluster(database, name) for name in ("host-1", "host-2"))

    def run(self, which: Cluster, every_secs: float = DAY_SECS) -> None:
        name = "first" if which is self.first else "second"
        which.run_due("job", every_secs, lambda: self.ran.append(name))

    def runs(self) -> list[tuple[object, ...]]:
        """host, tries, whether it has ended, error."""
        found = self.database.read(
            lambda connection: connection.execute(
                select(job_runs).order_by(job_runs.c.slot)
            ).mappings().all()
        )  # fmt: skip
        return [
            (row["host_id"], row["tries"], row["finished_at"] is not None, row["error"])
            for row in found
        ]


@pytest.fixture
def world(database, monkeypatch):
    return World(database, monkeypatch)


def fail() -> None:
    raise Unavailable("on purpose", code="price_source_failed")


def test_only_the_leader_runs_jobs_and_once_in_a_slot(world):
    world.first.renew()
    world.second.renew()
    for _ in range(3):
        world.run(world.second)
        world.run(world.first)
    assert (world.first.is_leading, world.second.is_leading) == (True, False)
    assert world.ran == ["first"]
    assert world.runs() == [("host-1", 1, True, None)]


def test_without_the_lease_nothing_is_run(world):
    world.run(world.first)
    assert world.ran == []


def test_another_takes_over_when_the_lease_has_run_out_and_repeats_nothing(world):
    world.first.renew()
    world.run(world.first)
    gevent.sleep(0.3)
    world.second.renew()
    assert not world.second.is_leading
    gevent.sleep(0.2)  # host-1 has died
    world.second.renew()
    world.run(world.second)
    assert (world.first.is_leading, world.second.is_leading) == (False, True)
    assert world.ran == ["first"]


def test_a_renewed_lease_stays_where_it_is(world):
    for _ in range(6):
        world.first.renew()
        world.second.renew()
        gevent.sleep(0.1)
    assert (world.first.is_leading, world.second.is_leading) == (True, False)


def test_a_lease_that_is_given_back_is_free_at_once(world):
    world.first.renew()
    world.first.release()
    world.second.renew()
    assert world.second.is_leading


def test_what_a_dead_host_has_begun_is_done_by_the_next_at_once(world):
    world.first.renew()
    stuck = gevent.spawn(world.first.run_due, "job", DAY_SECS, lambda: gevent.sleep(1000))
    gevent.sleep(0.1)
    world.monkeypatch.setattr(world.first, "_finish", lambda *_: None)  # as if killed
    stuck.kill()
    assert world.runs() == [("host-1", 1, False, None)]
    gevent.sleep(0.4)
    world.second.renew()
    world.run(world.second)
    assert world.ran == ["second"]
    assert world.runs() == [("host-2", 2, True, None)]


def test_another_worker_of_the_same_host_leads_at_once_and_does_it_again(world):
    world.first.renew()
    stuck = gevent.spawn(world.first.run_due, "job", DAY_SECS, lambda: gevent.sleep(1000))
    gevent.sleep(0.1)
    successor = Cluster(world.database, "host-1")
    successor.renew()
    assert successor.is_leading
    world.run(successor)
    assert world.runs() == [("host-1", 2, True, None)]
    world.first.release()  # so late that it has nothing more to say
    stuck.join(1)
    assert world.runs() == [("host-1", 2, True, None)]


def test_a_host_that_was_asleep_finds_that_another_leads(world):
    world.first.renew()
    world.monkeypatch.setattr(world.first, "_leads_until", float("inf"))  # it has not noticed
    gevent.sleep(0.5)
    world.second.renew()
    world.run(world.first)
    assert world.ran == []
    world.run(world.second)
    assert world.ran == ["second"]


def test_a_job_is_cut_off_when_another_host_leads(world):
    world.first.renew()
    job = gevent.spawn(world.first.run_due, "job", DAY_SECS, lambda: gevent.sleep(1000))
    gevent.sleep(0.5)
    world.second.renew()
    world.first.renew()
    job.join(1)
    assert job.ready()
    assert world.runs() == [("host-1", 1, True, "cut off")]
    world.run(world.second)
    assert world.ran == ["second"]


def test_a_failed_job_is_tried_again_soon_and_says_why(world):
    world.monkeypatch.setattr(cluster, "RETRY_SECS", 0.3)
    world.first.renew()
    with pytest.raises(Unavailable):
        world.first.run_due("job", DAY_SECS, fail)
    assert world.runs() == [("host-1", 1, True, "price_source_failed")]
    world.run(world.first)
    assert world.ran == []
    for _ in range(100):
        gevent.sleep(0.05)
        world.first.renew()
        world.run(world.first)
        if world.ran:
            break
    assert world.ran == ["first"]
    assert world.runs() == [("host-1", 2, True, None)]


def test_each_slot_has_its_run_and_what_nobody_could_run_is_left_out(world):
    world.first.renew()
    for _ in range(12):
        world.run(world.first, every_secs=0.1)
        world.first.renew()
        gevent.sleep(0.02)
    assert 2 <= len(world.ran) == len(world.runs())
    before = len(world.ran)
    gevent.sleep(0.5)
    world.second.renew()
    world.run(world.second, every_secs=0.1)
    assert world.ran[before:] == ["second"]


def test_without_the_database_the_leader_stops_when_its_lease_has_run_out(world):
    def away(*_: object, **__: object) -> None:
        raise DatabaseAway("on purpose")

    world.first.renew()
    with world.monkeypatch.context() as patch:
        patch.setattr(world.database, "write", away)
        world.first.renew()
        assert world.first.is_leading
        world.run(world.first)
        gevent.sleep(0.5)
        world.first.renew()
        assert not world.first.is_leading
    assert world.ran == []
    world.first.renew()
    world.run(world.first)
    assert world.ran == ["first"]


@pytest.mark.postgres
def test_of_two_hosts_with_connections_of_their_own_one_leads(postgres_server, postgres_template):
    dsn = postgres_server.create_database(template=postgres_template)
    with closing(Database(dsn)) as one, closing(Database(dsn)) as other:
        hosts = [Cluster(one, "host-1"), Cluster(other, "host-2")]
        ran: list[str] = []

        def live(host: Cluster, name: str) -> None:
            for _ in range(20):
                host.renew()
                host.run_due("job", DAY_SECS, lambda: ran.append(name))
                gevent.sleep(0.01)

        workers = [gevent.spawn(live, host, str(n)) for n, host in enumerate(hosts)]
        gevent.joinall(workers, raise_error=True)
        assert len(ran) == 1
        assert [host.is_leading for host in hosts].count(True) == 1

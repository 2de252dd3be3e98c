"""A change made elsewhere is heard of, announced or not, also after the line was cut."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent import monkey
from sqlalchemy import text

from tokenhub import store
from tokenhub.catalog import follower
from tokenhub.catalog.follower import ASK_SECS, CATCH_UP_SECS, RECONNECT_SECS, Follower
from tokenhub.db import DatabaseAway


class Elsewhere:
    """Stands for the catalog and for a database that announces what changes in it."""

    can_listen = True

    def __init__(self) -> None:
        self.generation = 1
        self.asked = 0
        self.heard: list[bool | Exception] = []
        self.is_open = True

    def poll(self) -> int:
        self.asked += 1
        return self.generation

    @contextmanager
    def listen(self, channel: str) -> Iterator[Callable[[float], bool]]:
        assert channel == store.CHANNEL
        if not self.is_open:
            raise DatabaseAway("closed")
        yield self.wait

    def wait(self, secs: float) -> bool:
        if not self.heard:
            raise DatabaseAway("cut")
        found = self.heard.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def elsewhere():
    return Elsewhere()


@pytest.fixture
def ear(elsewhere):
    anything: Any = elsewhere
    return Follower(anything, anything)


def while_listening(ear: Follower, elsewhere: Elsewhere, look: Callable[[], None]) -> None:
    """Runs `look` while the line stands and nothing is announced."""

    def wait(secs: float) -> bool:
        look()
        raise DatabaseAway("cut")

    elsewhere.wait = wait  # type: ignore[method-assign]
    assert ear.listen() == RECONNECT_SECS


def test_where_nothing_is_announced_we_ask_often(ear):
    assert ear.poll() == ASK_SECS


def test_while_changes_are_announced_we_ask_seldom(ear, elsewhere):
    pauses: list[float] = []
    while_listening(ear, elsewhere, lambda: pauses.extend(ear.poll() for _ in range(3)))
    assert pauses == [CATCH_UP_SECS] * 3
    assert ear.poll() == ASK_SECS


def test_as_soon_as_the_line_stands_and_at_each_announcement_the_generation_is_read(ear, elsewhere):
    elsewhere.heard = [True, False, True]
    assert ear.listen() == RECONNECT_SECS
    assert elsewhere.asked == 3


def test_without_a_line_the_caller_is_told_so(ear, elsewhere):
    elsewhere.is_open = False
    with pytest.raises(DatabaseAway):
        ear.listen()
    assert ear.poll() == ASK_SECS


def test_who_misses_an_announcement_asks_often_again_until_one_comes(ear, elsewhere, caplog):
    pauses: list[float] = []

    def look() -> None:
        ear.poll()
        elsewhere.generation += 1
        pauses.append(ear.poll())  # found here: its announcement may still be on its way
        pauses.append(ear.poll())

    while_listening(ear, elsewhere, look)
    assert pauses == [CATCH_UP_SECS, ASK_SECS]
    assert [each.message for each in caplog.records] == ["changes are not announced"]
    # A line that says nothing is not trusted only because it is new.
    while_listening(ear, elsewhere, lambda: pauses.append(ear.poll()))
    assert pauses[-1] == ASK_SECS
    del elsewhere.wait
    elsewhere.heard = [True]
    ear.listen()
    while_listening(ear, elsewhere, lambda: pauses.append(ear.poll()))
    assert pauses[-1] == CATCH_UP_SECS


# On a real server


pg = pytest.mark.postgres
patched_only = pytest.mark.skipif(
    not monkey.is_module_patched("select"), reason="nothing runs beside it in a plain process"
)


@pytest.fixture
def postgres(postgres_server, postgres_template, open_database):
    return open_database(postgres_server.create_database(template=postgres_template))


def change(connection) -> int:
    return store.record_change(connection, "key", "k", 1)


def fail(connection) -> None:
    change(connection)
    raise KeyError("on purpose")


@pg
def test_a_change_is_announced_when_it_is_committed_and_not_at_all_if_it_is_not(postgres):
    with postgres.listen(store.CHANNEL) as wait:
        assert not wait(0.05)
        postgres.write(change)
        assert wait(2)
        with pytest.raises(KeyError):
            postgres.write(fail)
        assert not wait(0.1)


@pg
def test_many_changes_at_once_are_one_announcement_or_a_few(postgres):
    with postgres.listen(store.CHANNEL) as wait:
        for _ in range(20):
            postgres.write(change)
        heard = 0
        while wait(0.1):
            heard += 1
        assert 1 <= heard <= 20


@pg
def test_a_line_that_is_cut_is_an_outage_and_leaves_nothing_behind(postgres):
    def listeners(connection) -> int:
        found = connection.scalar(
            text("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        )
        return int(found)

    cut = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        " AND datname = current_database()"
    )
    with pytest.raises(DatabaseAway), postgres.listen(store.CHANNEL) as wait:
        assert postgres.read(listeners) == 1
        postgres.write(lambda connection: connection.execute(cut).all())
        wait(5)
    assert postgres.read(listeners) == 0
    with postgres.listen(store.CHANNEL) as wait:
        postgres.write(change)
        assert wait(2)


@pg
@patched_only
def test_who_listens_holds_up_nobody_and_can_be_sent_away(postgres, monkeypatch):
    monkeypatch.setattr(follower, "LINE_SECS", 30)
    polls: list[float] = []

    class Catalog:
        def poll(self) -> int:
            polls.append(time.monotonic())
            return len(polls)

    anything: Any = Catalog()
    listening = gevent.spawn(Follower(anything, postgres).listen)
    gevent.sleep(0.3)
    assert len(polls) == 1
    began = time.monotonic()
    postgres.write(change)
    while len(polls) < 2:
        gevent.sleep(0.001)
    assert polls[1] - began < 0.5
    listening.kill(timeout=1)
    assert listening.dead
    assert listening.successful()

"""The feed is complete and in order, whichever of two hosts commits first, and resumes anywhere."""

from __future__ import annotations

import time
from functools import partial
from hashlib import sha256
from typing import Any

import gevent
import pytest
from sqlalchemy import delete, func, insert, select

from tests.store.test_ingest import log_row, make_batch
from tokenhub import rotation_alerts, store
from tokenhub.board import Board
from tokenhub.board.board import unix_ms
from tokenhub.db import Database, DatabaseAway
from tokenhub.db.traffic_tables import events, request_logs
from tokenhub.domain import ApiKey
from tokenhub.events import Feed, Reader, Wants, fields_text
from tokenhub.events import feed as feeds
from tokenhub.store.events import SOURCES
from tokenhub.store.keys import DAY_MS
from tokenhub.store.logs import IDENTITY, LOG_COLUMNS

COLUMNS = (*IDENTITY, *LOG_COLUMNS)


def add_logs(database: Database, host_id: str, *numbers: int, **changes: Any) -> None:
    rows = [(host_id, *log_row(number, **changes)[1:]) for number in numbers]
    database.write(lambda connection: store.ingest(connection, make_batch(logs=rows)))


def add_events(database: Database, *rows: tuple[Any, ...]) -> None:
    database.write(lambda connection: store.ingest(connection, make_batch(events=list(rows))))


def begin(database: Database) -> Reader:
    return Reader.begin(database, str.upper)


def resume(place: str) -> Reader:
    return Reader.resume(place, str.upper)


def ids(batch: Any) -> list[str]:
    return [item.event["request_id"] for item in batch.items]


def test_a_reader_sees_what_comes_after_it_began(database):
    add_logs(database, "a", 1)
    reader = begin(database)
    assert reader.read(database, 100).items == []
    add_logs(database, "a", 2, 3)
    batch = reader.read(database, 100)
    assert ids(batch) == ["req_2", "req_3"]
    assert reader.read(database, 100).items == []
    assert resume(batch.items[0].id).read(database, 100).items == batch.items[1:]
    assert resume(batch.items[1].id).read(database, 100).items == []


def test_what_a_request_came_to_is_told_in_the_fields_of_the_original(database):
    reader = begin(database)
    add_logs(database, "a", 1, cost_nanousd=1_500_000, output_tokens=5, alias_from="fast")
    add_logs(database, "a", 2, ending="cut", error_class="stream_broken", status_code=200)
    good, bad = [item.event for item in reader.read(database, 100).items]
    assert good["type"] == "route_success" and bad["type"] == "route_error"
    assert good.items() >= {
        "model_id": "m", "provider_id": "p", "latency_ms": 812, "cost_usd": 0.0015,
        "input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "reason": "cheapest",
        "request_id": "req_1", "api_key_id": "key_1", "api_key_name": "KEY_1", "mode": "normal",
        "outcome": "answered", "attempts": 2, "endpoint": "chat.completions", "host_id": "a",
        "timestamp": "2023-11-14T22:13:20.813Z", "alias_from": "fast",
    }.items()  # fmt: skip
    assert bad["error_class"] == "stream_broken" and bad["outcome"] == "cut"
    assert "cost_usd" not in bad and "ttft_ms" not in bad  # unknown


def test_published_events_and_changes_are_in_the_feed(database):
    reader = begin(database)
    add_events(database, ("a", 9000, "health_change", "", '{"model_id":"m","new_state":"down"}'))

    def change(connection: Any) -> None:
        store.insert_audit(
            connection, at=5000, actor="ann", client_ip="", action="model.patch", resource="m",
            detail="", request_id="req_9",
        )  # fmt: skip
        store.record_change(connection, "model", "m", 5000)
        store.record_change(connection, "key", "key_1", 5001)

    database.write(change)
    health, first, second = [item.event for item in reader.read(database, 100).items]
    assert health == {
        "type": "health_change", "timestamp": "1970-01-01T00:00:09.000Z", "model_id": "m",
        "new_state": "down", "host_id": "a",
    }  # fmt: skip
    assert first.items() >= {
        "type": "config_change", "kind": "model", "entity_id": "m", "model_id": "m",
        "action": "model.patch", "actor": "ann", "request_id": "req_9",
    }.items()  # fmt: skip
    assert second["version"] == first["version"] + 1
    assert second["api_key_name"] == "KEY_1" and "actor" not in second


@pytest.fixture
def out_of_order(database):
    """Two hosts whose rows become visible in another order than they are numbered in."""
    if database.dialect == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    return database


class Slow:
    """A host in the middle of a transaction."""

    def __init__(self, database: Database, host_id: str) -> None:
        backend: Any = database._backend
        self._connection = backend._engine.connect()
        self._host_id = host_id

    def add(self, *numbers: int) -> Slow:
        rows = [
            dict(zip(COLUMNS, (self._host_id, *log_row(number)[1:]), strict=True))
            for number in numbers
        ]
        self._connection.execute(insert(request_logs), rows)
        return self

    def commit(self) -> None:
        self._connection.commit()
        self._connection.close()

    def give_up(self) -> None:
        self._connection.rollback()
        self._connection.close()


def test_rows_that_are_committed_late_are_neither_lost_nor_told_twice(out_of_order):
    database = out_of_order
    add_logs(database, "a", 1)
    reader = begin(database)
    slow = Slow(database, "b").add(10, 11)
    add_logs(database, "a", 2, 3)
    first = reader.read(database, 100)
    assert ids(first) == ["req_2", "req_3"]
    assert reader.read(database, 100).items == []
    between = [resume(item.id) for item in first.items]  # on another worker
    newcomer = begin(database)
    slow.commit()
    add_logs(database, "a", 4)
    add_logs(database, "b", 12)
    assert ids(reader.read(database, 100)) == ["req_10", "req_11", "req_4", "req_12"]
    assert reader.read(database, 100).items == []
    assert reader.place.count("~") == 0  # nothing is missing any more
    assert ids(between[0].read(database, 100)) == ["req_10", "req_11", "req_3", "req_4", "req_12"]
    assert ids(between[1].read(database, 100)) == ["req_10", "req_11", "req_4", "req_12"]
    assert ids(newcomer.read(database, 100)) == ["req_10", "req_11", "req_4", "req_12"]


def test_a_few_rows_at_a_time_are_as_good_as_all(out_of_order):
    database = out_of_order
    reader = begin(database)
    slow = [Slow(database, "b").add(10, 11, 12), Slow(database, "c").add(20)]
    add_logs(database, "a", 1, 2, 3)
    slower = Slow(database, "d").add(30)
    add_logs(database, "a", 4)
    seen = ids(reader.read(database, 2))
    for each in slow:
        each.commit()
    place = reader.place
    for _ in range(10):
        seen += ids(reader.read(database, 2))
    slower.commit()
    seen += ids(reader.read(database, 2))
    expected = {f"req_{number}" for number in (10, 11, 12, 20, 1, 2, 3, 4, 30)}
    assert len(seen) == len(expected) and set(seen) == expected
    again = ids(resume(place).read(database, 100))
    assert sorted(again) == sorted(expected - {"req_1", "req_2"})


def test_what_was_rolled_back_is_not_waited_for_for_ever(out_of_order, monkeypatch):
    database = out_of_order
    reader = begin(database)
    Slow(database, "b").add(10, 11).give_up()
    add_logs(database, "a", 1)
    assert ids(reader.read(database, 100)) == ["req_1"]
    assert "~" in reader.place
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert reader.read(database, 100).items == []
    assert "~" not in reader.place


def test_a_database_that_was_set_back_is_told_of(database):
    add_logs(database, "a", 1, 2, 3)
    reader = begin(database)
    place = reader.place
    highest = select(func.max(request_logs.c.id)).scalar_subquery()
    database.write(
        lambda each: each.execute(delete(request_logs).where(request_logs.c.id == highest))
    )
    assert reader.read(database, 100).is_reset
    assert not reader.read(database, 100).is_reset
    assert resume(place).read(database, 100).is_reset


def test_a_table_that_became_empty_is_nothing_to_tell_of(database):
    add_events(database, ("a", 1, "feedback", "", "{}"))
    reader = begin(database)
    database.write(lambda each: each.execute(delete(events)))
    assert not reader.read(database, 100).is_reset
    add_events(database, ("a", 2, "feedback", "", '{"label":"new"}'))
    [item] = reader.read(database, 100).items
    assert item.event["label"] == "new"


def test_whoever_is_too_far_behind_goes_on_from_the_end(database):
    place = begin(database).place
    add_logs(database, "a", *range(1, 30))
    batch = resume(place).read(database, 10, behind_max=20)
    assert (batch.items, batch.is_reset) == ([], True)
    assert len(resume(place).read(database, 10, behind_max=40).items) == 10


@pytest.mark.parametrize(
    "text", ["", "1", "1.0.0", "2.0.0.0", "1.0.0.-1", "1.0.0.0~x", "é", "1" * 5000]
)
def test_what_is_no_place_is_refused(text):
    with pytest.raises(ValueError):
        resume(text)


@pytest.fixture
def feed(database):
    found = Feed(database=database, board=Board(slots=1), name_of=str)
    yield found
    found.stop()


def taken(feed: Feed, listener: Any, count: int) -> list[str]:
    found: list[str] = []
    deadline = time.monotonic() + 5
    while len(found) < count and time.monotonic() < deadline:
        listener.wait(0.1)
        found += [item.event["request_id"] for item in listener.take(64)]
    return found


def test_all_listeners_are_told_what_they_want(feed, database):
    everything = feed.join(Wants())
    some = feed.join(Wants(outcome="failed", api_key_id="key_2"))
    assert feed.wait_ready(5)
    add_logs(database, "a", 1, 2)
    add_logs(database, "a", 3, ending="failed", api_key_id="key_2")
    add_logs(database, "a", 4, ending="failed")
    assert taken(feed, everything, 4) == ["req_1", "req_2", "req_3", "req_4"]
    assert taken(feed, some, 1) == ["req_3"]
    feed.leave(some)
    feed.leave(everything)


def test_who_comes_back_has_what_was_missed_and_then_what_comes(feed, database, monkeypatch):
    monkeypatch.setattr(feeds, "REPLAY_ROWS", 3)
    place = begin(database).place
    add_logs(database, "a", *range(10))
    listener = feed.join(Wants())
    assert feed.wait_ready(5)
    found = []
    for number, items in enumerate(feed.replay(listener, place)):
        found += [item.event["request_id"] for item in items]
        if number == 1:  # while it is still being told
            add_logs(database, "a", 10)
            gevent.sleep(0.4)
    add_logs(database, "a", 11)
    found += taken(feed, listener, 12 - len(found))
    assert found == [f"req_{number}" for number in range(12)]
    feed.leave(listener)


def test_while_the_database_is_away_nothing_is_lost(feed, database, monkeypatch):
    monkeypatch.setattr(feeds, "AWAY_SECS", 0.05)
    listener = feed.join(Wants())
    assert feed.wait_ready(5)
    read = database.read

    def away(*_: object, **__: object) -> None:
        raise DatabaseAway("away")

    monkeypatch.setattr(database, "read", away)
    deadline = time.monotonic() + 5
    while not feed.is_away and time.monotonic() < deadline:
        listener.wait(0.05)
        gevent.sleep(0.01)
    assert feed.is_away
    add_logs(database, "a", 1)
    monkeypatch.setattr(database, "read", read)
    assert taken(feed, listener, 1) == ["req_1"]
    assert not feed.is_away
    feed.leave(listener)


def test_every_query_of_a_look_goes_by_an_index(database):
    if database.dialect == "postgresql":
        pytest.skip("its plans depend on how many rows there are")
    plans = []

    def explain(connection: Any) -> None:
        for source in SOURCES.values():
            query = source.rows.where(source.id.between(40, 2**62)).order_by(source.id).limit(10)
            text = query.compile(connection.engine, compile_kwargs={"literal_binds": True})
            found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")
            plans.append(" ".join(str(row) for row in found))

    database.read(explain)
    assert len(plans) == 3
    assert all("SEARCH" in plan and "TEMP B-TREE" not in plan for plan in plans)


def test_transitions_are_found_by_provider_and_model(database):
    def event(at: int, **fields: str) -> tuple[Any, ...]:
        return ("a", at, "health_change", "", fields_text(fields))

    add_events(
        database,
        event(1, provider_id="acme", new_state="down"),
        event(2, provider_id="acme", model_id="m", new_state="down"),
        event(3, provider_id="other", model_id="M", new_state="down"),
        ("a", 4, "feedback", "", "{}"),
    )

    def find(limit: int = 10, **filters: Any) -> list[int]:
        part = store.Part(limit)
        found = database.read(
            lambda connection: store.find_transitions(
                connection, store.TransitionFilters(**filters), part, is_late=lambda: False
            )
        )
        return [row["at"] for row in found.rows]

    assert find() == [3, 2, 1]
    assert find(provider_id="acme") == [2, 1]
    assert find(model_id="m") == [2] and find(model_id="M") == [3]
    assert find(from_at=2, to_at=3) == [2]
    assert find(provider_id='ac"me') == []


def test_an_event_can_be_written_with_what_it_is_about(database):
    reader = begin(database)
    database.write(
        lambda connection: store.insert_event(
            connection,
            "budgets",
            at=1,
            type_="budget_alert",
            api_key_id="key_1",
            fields='{"percent":80}',
        )
    )
    [item] = reader.read(database, 10).items
    assert (item.event["percent"], item.event["api_key_name"]) == (80, "KEY_1")


def test_a_key_that_should_have_been_rotated_is_told_of_once(database):
    reader, now = begin(database), unix_ms()
    for number, age_ms in enumerate((DAY_MS + 60_000, DAY_MS - 60_000, 3 * DAY_MS)):
        key = ApiKey(f"key_{number}", "n", "th_", sha256(bytes([number])).digest(), "")
        row = store.KeyRow(key, created_at=now - age_ms, rotation_days=1)
        database.write(partial(store.save_key, row=row))
    for _ in range(2):
        rotation_alerts.tell(database)
    [item] = [each for each in reader.read(database, 10).items if each.source == "events"]
    assert item.event["type"] == "key_rotation_expired"
    assert (item.event["api_key_id"], item.event["api_key_name"]) == ("key_0", "KEY_0")

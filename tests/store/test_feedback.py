"""What was said of answers counts when it comes from whoever may say it, whatever came first."""

from __future__ import annotations

from itertools import count
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from tests.store.test_ingest import log_row, make_batch
from tokenhub import store
from tokenhub.db.traffic_tables import events
from tokenhub.store.feedback import TELL_WITHIN_MS, Feedback, find_feedback

NOW = 1_700_000_000_000


class Sink:
    """Rows as an ingester brings them."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.positions = count(1)

    def ask(self, request_id: str = "req_1", key: str = "key_1", at: int = NOW) -> None:
        row = log_row(next(self.positions), request_id=request_id, api_key_id=key, started_at=at)
        self.ingest(logs=[row])

    def say(self, score: float, key: str = "key_1", *, at: int = NOW, of: str = "req_1") -> None:
        who = f"key:{key}" if key else "admin"
        self.ingest(feedback=[(at, of, key, who, score, "")])

    def ingest(self, **parts: Any) -> None:
        batch = make_batch(**parts)
        self.database.write(lambda connection: store.ingest(connection, batch))

    def counts(self, *request_ids: str) -> dict[str, Feedback]:
        found: dict[str, Feedback] = self.database.read(
            lambda connection: find_feedback(connection, request_ids or ("req_1",))
        )
        return found

    def score(self) -> float | None:
        found = self.counts().get("req_1")
        return found.score if found else None

    def events(self) -> list[Any]:
        query = select(events).order_by(events.c.id)
        rows: list[Any] = self.database.read(lambda each: each.execute(query).all())
        return rows


@pytest.fixture
def sink(database):
    return Sink(database)


@pytest.mark.parametrize("comes_first", ["request", "feedback"])
def test_it_counts_and_makes_one_event_whichever_comes_first(sink, comes_first):
    steps = [sink.ask, lambda: sink.say(0.25)]
    for step in steps if comes_first == "request" else steps[::-1]:
        step()
    sink.ask("req_2")
    assert sink.counts() == {"req_1": Feedback(0.25, "", NOW, "key:key_1", False)}
    [event] = sink.events()
    assert (event.type, event.at, event.api_key_id) == ("feedback", NOW, "key_1")
    said = {"request_id": "req_1", "score": 0.25, "label": "", "by": "key"}
    assert orjson.loads(event.fields) == said


def test_what_another_key_says_counts_for_nothing(sink):
    sink.ask()
    sink.say(1.0, "key_2")
    assert sink.score() is None
    assert sink.events() == []


def test_what_is_said_of_nothing_waits(sink):
    sink.say(1.0)
    assert sink.score() is None
    assert sink.events() == []


def test_the_last_word_of_each_counts_and_an_administrators_before_the_keys(sink):
    sink.ask()
    sink.say(0.1)
    sink.say(0.2, at=NOW + 1)
    assert sink.score() == 0.2
    sink.say(0.9, "", at=NOW - 5)
    sink.say(0.3, at=NOW + 2)
    assert sink.counts() == {"req_1": Feedback(0.9, "", NOW - 5, "admin", True)}
    sink.say(0.8, "", at=NOW + 3)
    assert sink.score() == 0.8
    assert len(sink.events()) == 5


def test_the_last_is_the_one_that_was_said_last_not_the_one_that_came_last(sink):
    sink.ask()
    sink.say(0.9, at=NOW + 1)
    sink.say(0.1, at=NOW)
    assert sink.score() == 0.9


def test_only_what_was_asked_for_is_found(sink):
    for name in ("req_1", "req_2"):
        sink.ask(name)
        sink.say(0.5, of=name)
    assert sink.counts("req_2", "req_3").keys() == {"req_2"}


def test_a_row_that_comes_much_later_counts_but_is_no_news(sink):
    sink.say(0.5, at=NOW - TELL_WITHIN_MS - 1)
    sink.ask()
    assert sink.score() == 0.5
    assert sink.events() == []


def test_what_waits_is_found_by_an_index(database_dsn, database):
    if not database_dsn.startswith("sqlite"):
        pytest.skip("Postgres reads small tables whole")
    query = "EXPLAIN QUERY PLAN SELECT id FROM feedback WHERE feedback.told_at = 0 AND at >= ?"
    plan = database.read(lambda each: each.exec_driver_sql(query, (1,)).all())
    assert "ix_feedback_untold" in plan[0].detail

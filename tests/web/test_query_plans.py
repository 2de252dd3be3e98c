"""No view reads a large table through: what the database says of every query that is made."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from tests.big_questions import QUESTIONS, address_of
from tests.big_tables import Size, fill

ROWS = 200_000
LARGE = "request_logs|attempts|rollup_hours|buckets"

NEWEST = re.compile(r"FROM (\w+)\s+ORDER BY \1\.id DESC\s+LIMIT")
"""The last rows of a table, which SQLite finds without an index."""

# In the order of an index until there is enough is no reading through.
SCANS = {
    "sqlite": re.compile(rf"^SCAN ({LARGE})(?! USING)"),
    "postgresql": re.compile(rf"Seq Scan on ({LARGE})\b"),
}

Asked = dict[str, Any]


@pytest.fixture
def environ(environ, database_dsn):
    return {**environ, "TOKENHUB_DB_DSN": database_dsn}


@pytest.fixture
def size(database_dsn) -> Size:
    found = Size(ROWS, int(time.time() * 1000), keys=20)
    fill(database_dsn, found)
    return found


@contextmanager
def listening() -> Iterator[Asked]:
    """Every query that is made meanwhile, with its parameters."""
    found: Asked = {}

    def note(*said: Any) -> None:
        statement, parameters = said[2:4]
        if re.match(r"\s*(SELECT|WITH)", statement):
            found.setdefault(statement, parameters)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_every_question_is_answered_by_an_index(size, app, client, admin):
    services = app.services
    rng = random.Random(5)
    found = []
    for name in QUESTIONS:
        with listening() as asked:
            response = client.get(address_of(name, rng, size), headers=admin.headers)
        assert response.status_code == 200, (name, response.text)
        assert asked, name
        for statement, parameters in asked.items():
            if NEWEST.search(statement):
                continue
            plan = services.database.read(lambda each: explain(each, statement, parameters))  # noqa: B023
            found += [f"{name}: {line}: {statement}" for line in plan]
    assert found == []


def explain(connection: Any, statement: str, parameters: Any) -> list[str]:
    """The lines of a query's plan that say that a large table is read through."""
    dialect = connection.dialect.name
    word = "EXPLAIN QUERY PLAN" if dialect == "sqlite" else "EXPLAIN"
    rows = connection.exec_driver_sql(f"{word} {statement}", parameters)
    lines = [str(row[-1]) for row in rows]
    return [line.strip() for line in lines if SCANS[dialect].search(line)]

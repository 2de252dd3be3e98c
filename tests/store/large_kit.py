"""A database with hundreds of thousands of rows, which the tests of a module share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Connection

from tokenhub.db import Database

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


def large_database(fill: Callable[[Connection], None]) -> Any:
    """A fixture for a module: a database at head, on each of both, after `fill`."""

    @pytest.fixture(scope="module", params=DATABASES)
    def large(
        request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Database]:
        if request.param == "sqlite":
            template = request.getfixturevalue("sqlite_template")
            path = tmp_path_factory.mktemp("large") / "hub.sqlite"
            path.write_bytes(template.read_bytes())
            dsn = f"sqlite:///{path}"
        else:
            server = request.getfixturevalue("postgres_server")
            dsn = server.create_database(template=request.getfixturevalue("postgres_template"))
        with closing(Database(dsn)) as database:
            database.write(fill, timeout_secs=60)
            if request.param == "postgresql":  # as autovacuum does; SQLite gets none from us
                database.write(lambda c: c.exec_driver_sql("ANALYZE"), timeout_secs=60)
            yield database

    return large

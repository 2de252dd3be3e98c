"""Databases for tests: a SQLite file and a throw-away Postgres server, both at head."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from tests.postgres import PostgresServer, find_binaries
from tokenhub.db import Database

ROOT = Path(__file__).resolve().parents[1]

BOTH = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


def alembic_config(dsn: str) -> Config:
    """What `alembic.ini` says, for another database."""
    config = Config(ROOT / "alembic.ini")
    config.attributes["dsn"] = dsn
    return config


def migrated(dsn: str) -> str:
    """Bring a database to head."""
    command.upgrade(alembic_config(dsn), "head")
    return dsn


@pytest.fixture(autouse=True)
def _logging_stays_as_it_was() -> Iterator[None]:
    """Commands that run in this process set up logging for good; the next test captures it."""
    logger = logging.getLogger("tokenhub")
    handlers, propagate, level = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A Postgres server of this test run, alone in a temporary directory."""
    binaries = find_binaries()
    if binaries is None:
        if os.environ.get("TOKENHUB_TEST_REQUIRE") == "all":
            pytest.fail("Postgres is not installed")
        pytest.skip("Postgres is not installed")
    server = PostgresServer(binaries)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a database at head."""
    dsn = postgres_server.create_database()
    return migrated(dsn).partition("?")[0].rpartition("/")[2]


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file at head."""
    path = tmp_path_factory.mktemp("template") / "head.sqlite"
    migrated(f"sqlite:///{path}")
    return path


@pytest.fixture(params=BOTH)
def empty_dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.sqlite'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database()


@pytest.fixture(params=BOTH)
def database_dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database at head and without rows, of this test alone."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        path = tmp_path / "hub.sqlite"
        shutil.copy(template, path)
        return f"sqlite:///{path}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database(template=request.getfixturevalue("postgres_template"))


@pytest.fixture
def open_database() -> Iterator[Callable[[str], Database]]:
    """Opens databases and closes them after the test."""
    opened: list[Database] = []

    def open_one(dsn: str) -> Database:
        opened.append(Database(dsn))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def database(database_dsn: str) -> Iterator[Database]:
    """A database at head and without rows, of this test alone."""
    with closing(Database(database_dsn)) as found:
        yield found

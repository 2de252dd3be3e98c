"""The database of a run: made before it, counted during it, dropped after it.

Knows one table of TokenHub, `request_logs`. SQLite is a file in the directory of the run; on a
Postgres server, which must be on this machine, a database of its own is created.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from benchmarks.meter import read_stats
from benchmarks.processes import BenchmarkFailed

_COUNT = "SELECT count(*) FROM request_logs"


@dataclass(frozen=True)
class Database:
    """Where TokenHub writes, and how to look."""

    kind: str
    dsn: str
    count_rows: Callable[[], int]
    server_pid: int | None = None  # of Postgres: its CPU is shown apart


@contextlib.contextmanager
def database(wanted: str, directory: Path) -> Iterator[Database]:
    """`wanted` is `sqlite` or the DSN of a Postgres server of this machine."""
    if wanted == "sqlite":
        yield _sqlite(directory / "tokenhub.sqlite")
        return
    parts = urlsplit(wanted)
    if parts.hostname not in (None, "127.0.0.1", "::1", "localhost"):
        raise BenchmarkFailed("the Postgres server must be on this machine")
    name = f"tokenhub_bench_{secrets.token_hex(6)}"
    create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    with psycopg.connect(wanted, autocommit=True) as server:
        server.execute(create)
        try:
            yield _postgres(urlunsplit(parts._replace(path=f"/{name}")))
        finally:
            server.execute(drop)


def _sqlite(path: Path) -> Database:
    def count_rows() -> int:
        # Read-only: the benchmark must not take part in what it watches.
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as opened:
            rows: int = opened.execute(_COUNT).fetchone()[0]
            return rows

    return Database("sqlite", f"sqlite:///{path}", count_rows)


def _postgres(dsn: str) -> Database:
    def count_rows() -> int:
        with psycopg.connect(dsn) as opened:
            found = opened.execute(_COUNT).fetchone()
            assert found is not None
            rows: int = found[0]
            return rows

    with psycopg.connect(dsn) as opened:
        backend = opened.info.backend_pid
        # The server is the parent of each backend; unknown when it runs in a container.
        stat = read_stats().get(backend)
    return Database("postgres", dsn, count_rows, stat.parent_pid if stat else None)

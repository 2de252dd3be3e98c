"""How SQLite is opened and how work runs on it.

In a monkey-patched process nothing runs on the hub: one thread writes, through a connection that
stays open, and a few threads read. A greenlet that waited for SQLite's lock on the hub would freeze
the whole worker for as long as the lock is held.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import gevent
from gevent import monkey
from gevent.threadpool import ThreadPool
from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event

from tokenhub.db.work import Job, Wait

BUSY_MS = 5000
INCREMENTAL = "auto_vacuum=INCREMENTAL"
CACHE_KB = 16_000
"""Of pages that a connection keeps, and of what it sorts in memory: sums of a day are some."""

WAL_KEPT_BYTES = 8 << 20
"""How large the write-ahead log may stay when all of it has been carried over."""
READERS = 4

PROGRESS_STEPS = 10_000
"""SQLite's virtual machine steps between two looks at the clock: well under 1 ms of work."""

# Primary result codes, https://sqlite.org/rescode.html. READONLY: the disk was remounted.
_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
DAMAGED = (
    "the database file is damaged: stop the gateway and restore a backup "
    "with `python -m tokenhub restore`"
)

T = TypeVar("T")


@dataclass(frozen=True)
class _Returned(Generic[T]):
    value: T


@dataclass(frozen=True)
class _Raised:
    error: BaseException


_Outcome = _Returned[T] | _Raised


class SQLite:
    """A database file that the processes of one host share.

    Raises:
        sqlalchemy.exc.DBAPIError: the file cannot be opened.
        OSError: its directory cannot be made.
    """

    dialect = "sqlite"
    driver_error: type[Exception] = sqlite3.Error

    def __init__(self, url: URL) -> None:
        make_file(url)
        with closing(sqlite3.connect(url.database or "", timeout=BUSY_MS / 1000)) as connection:
            # Properties of the file, not of ours; the first only as long as it has no table.
            connection.execute(f"PRAGMA {INCREMENTAL}")
            connection.execute("PRAGMA journal_mode=WAL")
        self._wal = Path(f"{url.database}-wal")
        # With one connection in it, the pool is also what makes the writers of a plain process
        # take turns.
        self._writer = _open(
            url, "BEGIN IMMEDIATE", "synchronous=FULL", poolclass=QueuePool, pool_size=1,
            max_overflow=0, pool_timeout=BUSY_MS / 1000,
        )  # fmt: skip
        self._readers = _open(url, "BEGIN", "query_only=ON", poolclass=NullPool)
        # Here rather than in two threads at once: SQLAlchemy looks at a database when it first
        # connects.
        self._readers.connect().close()
        self._pools: dict[bool, ThreadPool] = {}
        if monkey.is_module_patched("threading"):
            self._pools = {True: ThreadPool(1), False: ThreadPool(READERS)}

    def run(self, job: Job[T]) -> T:
        """See `Backend.run`."""
        if not self._pools:
            return self._transact(job)
        timeout = gevent.Timeout.start_new(job.timeout_secs)
        try:
            # What the thread raises is carried as a value: gevent would print a traceback.
            pool = self._pools[job.is_write]
            outcome: _Outcome[T] = pool.spawn(_outcome_of, self._transact, job).get()
        except gevent.Timeout as expired:
            if expired is not timeout:
                raise
            raise TimeoutError from expired
        finally:
            job.abandon()
            timeout.close()
        if isinstance(outcome, _Raised):
            raise outcome.error
        return outcome.value

    def is_away(self, error: BaseException | None) -> bool:
        """See `Backend.is_away`."""
        return _code_of(error) in _AWAY

    @staticmethod
    def find_remedy(error: BaseException | None) -> str | None:
        """See `Backend.find_remedy`."""
        return DAMAGED if _code_of(error) in _DAMAGED else None

    def listen(self, channel: str) -> AbstractContextManager[Wait]:
        """SQLite announces nothing; a file has one host anyway."""
        raise NotImplementedError(channel)

    @property
    def wal_bytes(self) -> int:
        """See `Database.wal_bytes`."""
        try:
            return self._wal.stat().st_size
        except FileNotFoundError:
            return 0

    def checkpoint(self, wait_ms: int) -> bool:
        """See `Database.checkpoint`."""
        if not self._pools:
            return self._checkpoint(wait_ms)
        done: _Outcome[bool] = (
            self._pools[False].spawn(_outcome_of, self._checkpoint, wait_ms).get()
        )
        if isinstance(done, _Raised):
            raise done.error
        return done.value

    def _checkpoint(self, wait_ms: int) -> bool:
        with closing(self._readers.raw_connection()) as connection:
            raw: Any = connection.driver_connection
            # Most of it while others write; only the rest keeps them waiting.
            raw.execute("PRAGMA wal_checkpoint(PASSIVE)")
            raw.execute(f"PRAGMA busy_timeout={wait_ms}")
            is_busy = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            return not is_busy

    def close(self) -> None:
        """Close the connections; work that is running is waited for."""
        if self._pools:
            self._pools[True].spawn(self._writer.dispose).get()
            for pool in self._pools.values():
                pool.kill()
        else:
            self._writer.dispose()
        self._readers.dispose()

    def _transact(self, job: Job[T]) -> T:
        if job.is_abandoned:
            raise TimeoutError
        engine = self._writer if job.is_write else self._readers
        with engine.connect() as connection:
            _limit(connection, job)
            with connection.begin():
                value = job.work(connection)
                job.begin_commit()
            return value


def make_file(url: URL) -> None:
    """Make the database file, readable by its owner alone, if it does not exist."""
    path = Path(url.database or "")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Never opened if it exists: closing a file drops all locks that the process has on it. SQLite
    # gives its -wal and -shm files the mode of this one.
    if not path.exists():
        path.touch(mode=0o600)


def _code_of(error: BaseException | None) -> int | None:
    """SQLite's primary result code."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _outcome_of(run: Callable[[Job[T]], T], job: Job[T]) -> _Outcome[T]:
    try:
        return _Returned(run(job))
    except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
        return _Raised(error)


def _open(url: URL, begin: str, pragma: str, **options: Any) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,
        # Autocommit as far as the driver is concerned: `begin` says when a transaction begins.
        connect_args={"isolation_level": None, "check_same_thread": False},
        **options,
    )

    def set_up(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KB}")
        connection.execute(f"PRAGMA journal_size_limit={WAL_KEPT_BYTES}")
        connection.execute(f"PRAGMA {pragma}")

    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", begin_transaction)
    return engine


def _limit(connection: Connection, job: Job[T]) -> None:
    """Have SQLite itself give up when nobody waits any more: its thread cannot be stopped."""
    raw: Any = connection.connection.driver_connection
    raw.execute(f"PRAGMA busy_timeout={min(BUSY_MS, int(job.seconds_left * 1000))}")
    raw.set_progress_handler(lambda: job.is_over, PROGRESS_STEPS)

"""How Postgres is reached and how work runs on it.

psycopg waits through the selectors that gevent patches, so in a monkey-patched process a query
stops its greenlet alone and nothing needs a thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import gevent
from gevent import monkey
from sqlalchemy import URL, Connection, NullPool, QueuePool, create_engine
from sqlalchemy.exc import DBAPIError

from tokenhub.db.work import Job, Wait

CHECKOUT_SECS = 5
CONNECT_SECS = 5
RECYCLE_SECS = 1800
CONNECT_ARGS = {"connect_timeout": CONNECT_SECS, "application_name": "tokenhub"}

RACE_STATES = frozenset({"40001", "40P01"})
"""SQLSTATE of a serialization failure and of a deadlock."""

LACKS_RIGHTS = "42501"
"""SQLSTATE of insufficient_privilege."""

# A connection that was refused has no SQLSTATE in psycopg, only the server's words. A server that
# speaks another language is waited for, as if it were away, and its words are in the log.
_REFUSED = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|not permitted to log in"
    r'|(role|database) "[^"]*" does not exist|permission denied for database'
)
REFUSED = (
    "the database server refuses us: check the user, the password, the database's name and the "
    "user's rights in TOKENHUB_DB_DSN"
)

_READING = (
    "SELECT set_config('statement_timeout', %s, true), set_config('jit', 'off', true), "
    "set_config('max_parallel_workers_per_gather', '0', true), "
    "set_config('random_page_cost', '1.1', true)"
)
"""Settings of one transaction, all in one round trip."""

KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""Seconds, seconds, tries: a server that is gone without a word is noticed within half a minute."""

T = TypeVar("T")


class Postgres:
    """A Postgres server and a pool of connections to it.

    Args:
        pool_size: most connections, and so most transactions at once, of this process.
    """

    dialect = "postgresql"

    def __init__(self, url: URL, *, pool_size: int) -> None:
        self._url = url
        self._engine = create_engine(
            url,
            hide_parameters=True,
            poolclass=QueuePool,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=CHECKOUT_SECS,
            pool_recycle=RECYCLE_SECS,
            pool_use_lifo=True,
            # A transaction's statements all see one moment, and of two that change what both have
            # read the second fails and is run again: as on SQLite, nothing is lost in between.
            isolation_level="REPEATABLE READ",
            connect_args=CONNECT_ARGS,
        )
        self._reader = self._engine.execution_options(postgresql_readonly=True)
        self._is_cooperative = monkey.is_module_patched("select")
        driver = self._engine.dialect.loaded_dbapi
        self.driver_error: type[Exception] = driver.Error
        self._away_errors = (driver.OperationalError, driver.InterfaceError)

    def run(self, job: Job[T]) -> T:
        """See `Backend.run`."""
        if not self._is_cooperative:
            return self._transact(job)
        timeout = gevent.Timeout.start_new(job.timeout_secs)
        try:
            return self._transact(job)
        except gevent.Timeout as expired:
            if expired is not timeout:
                raise
            raise TimeoutError from expired
        finally:
            timeout.close()

    def is_away(self, error: BaseException | None) -> bool:
        """See `Backend.is_away`.

        psycopg puts under OperationalError lost connections and the SQLSTATE classes 40 (rolled
        back), 53 (no resources), 55 (not in that state), 57 (intervention) and 58 (system error).
        """
        return isinstance(error, self._away_errors) or _sqlstate_of(error) == LACKS_RIGHTS

    @staticmethod
    def find_remedy(error: BaseException | None) -> str | None:
        """See `Backend.find_remedy`."""
        is_refused = _sqlstate_of(error) == LACKS_RIGHTS or _REFUSED.search(str(error or ""))
        return REFUSED if is_refused else None

    @contextmanager
    def listen(self, channel: str) -> Iterator[Wait]:
        """See `Database.listen`."""
        engine = create_engine(
            self._url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={**CONNECT_ARGS, **KEEPALIVE},
        )
        with engine.connect() as connection:
            try:
                connection.exec_driver_sql(f"LISTEN {channel}")
                raw: Any = connection.connection.driver_connection

                def wait(secs: float) -> bool:
                    return any([*raw.notifies(timeout=secs, stop_after=1)])

                yield wait
            finally:
                connection.invalidate()  # closed as it is: there is nothing to roll back

    @property
    def wal_bytes(self) -> int:
        """See `Database.wal_bytes`."""
        return 0

    def checkpoint(self, wait_ms: int) -> bool:
        """See `Database.checkpoint`."""
        return True

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()

    def _transact(self, job: Job[T]) -> T:
        may_reconnect = True
        while True:
            job.has_begun = False
            try:
                return self._attempt(job)
            except DBAPIError as error:
                is_harmless = not (job.is_write and job.has_begun)
                if error.connection_invalidated and is_harmless and may_reconnect:
                    # It had died in the pool. The pool has given up all others of its age, so the
                    # next one is fresh.
                    may_reconnect = False
                elif not _lost_race(error.orig) or job.is_committing or not job.seconds_left:
                    raise

    def _attempt(self, job: Job[T]) -> T:
        engine = self._engine if job.is_write else self._reader
        with engine.connect() as connection:
            try:
                _limit(connection, job)
                job.has_begun = True
                value = job.work(connection)
                job.begin_commit()
                connection.commit()
            except BaseException as error:
                # Stopped in the midst of the protocol (a timeout, a caller who left): what the
                # server still has to say would be taken for the answer to the next statement.
                if not isinstance(error, Exception):
                    connection.invalidate(error)
                raise
            return value


def _limit(connection: Connection, job: Job[T]) -> None:
    """Have the server itself give up when nobody waits any more, and read as suits our tables.

    Sums of fifty columns take tens of milliseconds. To compile them, or to hand them from one
    process of the server to another, takes longer than that and a second core. And what is of one
    time lies together, as it was written: by an index it costs little more than in a row, whereas
    the server would rather read months through for the sake of a week.
    """
    milliseconds = max(1, int(job.seconds_left * 1000))
    if job.is_write:  # no query: its moment is that of the work's first statement
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
        return
    connection.exec_driver_sql(_READING, (str(milliseconds),))


def _lost_race(error: BaseException | None) -> bool:
    """Whether Postgres rolled this back for the sake of another transaction."""
    return _sqlstate_of(error) in RACE_STATES


def _sqlstate_of(error: BaseException | None) -> str | None:
    return getattr(error, "sqlstate", None)

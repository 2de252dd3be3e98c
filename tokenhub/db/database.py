"""The database: one place where transactions begin, end and time out.

`work` functions are handed a Connection and run SQL; they know nothing of threads, retries or
drivers. Knows no table.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tokenhub.db.postgres import Postgres
from tokenhub.db.sqlite import SQLite
from tokenhub.db.work import Backend, DatabaseAway, DatabaseUnusable, Job, Wait

POOL_SIZE = 5

T = TypeVar("T")
log = logging.getLogger("tokenhub.db")


class Database:
    """A database and this process's connections to it. Make one in each process, after fork.

    `work` may be run in another thread, so it must neither use gevent nor call the database again;
    and it may be run more than once, each time from scratch: what it did before was rolled back.

    Args:
        dsn: an SQLAlchemy URL, `sqlite:///path` or `postgresql+psycopg://…`. A missing SQLite file
            is made (0600), as is its directory (0700).
        pool_size: most Postgres connections of this process.

    Raises:
        DatabaseAway: the SQLite file cannot be used. Postgres is not contacted yet.
        DatabaseUnusable: likewise, and waiting will not help.
    """

    def __init__(self, dsn: str, *, pool_size: int = POOL_SIZE) -> None:
        url = make_url(dsn)
        self._ways_away: set[bool] = set()
        self._is_remedy_told = False
        if url.get_backend_name() == "postgresql":
            self._find_remedy = Postgres.find_remedy
            self._backend: Backend = Postgres(url, pool_size=pool_size)
            return
        self._find_remedy = SQLite.find_remedy
        try:
            self._backend = SQLite(url)
        except (SQLite.driver_error, DBAPIError, OSError) as error:
            found = error.orig if isinstance(error, DBAPIError) else error
            raise self._away(found, "the database file cannot be opened") from error

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._backend.dialect

    @property
    def can_listen(self) -> bool:
        """Whether the database announces things, see `listen`."""
        return self.dialect == "postgresql"

    def read(self, work: Callable[[Connection], T], *, timeout_secs: float = 5.0) -> T:
        """Run `work` in a read-only transaction; all its statements see one moment.

        A connection that had died is replaced, once.

        Raises:
            DatabaseAway: no connection, a lock not given, or `timeout_secs` passed.
        """
        return self._run(Job(work, is_write=False, timeout_secs=timeout_secs))

    def write(self, work: Callable[[Connection], T], *, timeout_secs: float = 5.0) -> T:
        """Run `work` in one transaction, which is committed when this returns.

        Of two that change what both have read, the second sees what the first has changed: on
        SQLite it waits for its turn, on Postgres it is run again.

        Raises:
            DatabaseAway: no connection, a lock not given, no disk space, or `timeout_secs` passed,
                the wait for our turn included. Nothing was changed and nothing will be, even if
                the work is still running: it can no longer commit. Only with `is_outcome_unknown`
                had the commit begun, and the change may be there or not.
            sqlalchemy.exc.IntegrityError: a constraint was broken; nothing was changed.
            Exception: whatever `work` raised; nothing was changed.
        """
        return self._run(Job(work, is_write=True, timeout_secs=timeout_secs))

    @contextmanager
    def listen(self, channel: str) -> Iterator[Wait]:
        """Hear what is announced on a channel, over a connection beside the pool's.

        What is announced from the first moment inside on is heard; what was before is not.

        Yields: `wait(secs)`, True as soon as there is at least one announcement, else False.

        Raises:
            DatabaseAway: there is no connection, or, from `wait`, not any more.
        """
        driver_error = self._backend.driver_error
        try:
            with self._backend.listen(channel) as wait:
                yield wait
        except (DBAPIError, driver_error) as error:
            found = error.orig if isinstance(error, DBAPIError) else error
            raise self._away(found, "the database is away") from error

    @property
    def wal_bytes(self) -> int:
        """How large SQLite's write-ahead log is; Postgres looks after its own."""
        return self._backend.wal_bytes

    def checkpoint(self, wait_ms: int) -> bool:
        """Carry SQLite's write-ahead log over into the file and empty it.

        Args:
            wait_ms: how long readers of an older state, and with them all who want to write, are
                waited for.

        Returns: False if somebody still reads an older state.

        Raises:
            DatabaseAway: it could not be done.
        """
        try:
            return self._backend.checkpoint(wait_ms)
        except self._backend.driver_error as error:
            raise self._away(error, "the database is away") from error

    def close(self) -> None:
        """Close all connections. What runs in a thread is waited for."""
        self._backend.close()

    def _run(self, job: Job[T]) -> T:
        driver_error = self._backend.driver_error
        try:
            value = self._backend.run(job)
        except TimeoutError as error:
            raise self._away(error, "the database did not answer in time", job) from error
        except PoolTimeout as error:
            raise self._away(error, "all database connections are in use", job) from error
        except DBAPIError as error:
            if error.connection_invalidated or self._backend.is_away(error.orig):
                raise self._away(error.orig, "the database is away", job) from error
            raise
        except driver_error as error:  # from work that speaks to the driver itself, as COPY does
            if self._backend.is_away(error):
                raise self._away(error, "the database is away", job) from error
            raise DBAPIError.instance(None, None, error, driver_error) from error
        self._ways_away.discard(job.is_write)
        return value

    def _away(
        self, error: BaseException | None, message: str, job: Job[T] | None = None
    ) -> DatabaseAway:
        # Once for each time that it goes away: whoever polls would fill the log. Reading and
        # writing apart: a full disk can still be read.
        is_write = job is not None and job.is_write
        reason, remedy = str(error) or message, self._find_remedy(error)
        if remedy is not None and not self._is_remedy_told:
            self._is_remedy_told = True
            log.error("database is unusable", extra={"reason": reason, "remedy": remedy})
        else:
            level = logging.DEBUG if is_write in self._ways_away else logging.WARNING
            log.log(level, "database is away", extra={"reason": reason, "is_write": is_write})
        self._ways_away.add(is_write)
        kind = DatabaseAway if remedy is None else DatabaseUnusable
        is_unknown = job is not None and job.is_committing
        return kind(remedy or message, is_outcome_unknown=is_unknown)

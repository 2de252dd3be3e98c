"""One transaction's worth of work, and what becomes of it when its caller stops waiting.

Knows neither database: `sqlite.py` and `postgres.py` run it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")
Wait = Callable[[float], bool]
"""Waits so many seconds for an announcement; whether there was one."""


class DatabaseAway(Exception):
    """The database cannot do this now; trying again later may work.

    Args:
        message: our own words, safe to show; what the driver said is in the log.
        is_outcome_unknown: the commit had begun, so the write may or may not have happened.
    """

    def __init__(self, message: str, *, is_outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.is_outcome_unknown = is_outcome_unknown


class DatabaseUnusable(DatabaseAway):
    """The database will not work until somebody does something about it.

    For a gateway that runs this is an outage like any other; one that is about to start refuses.
    """


class Job(Generic[T]):
    """What is to be done in one transaction, and until when.

    Args:
        work: runs the statements. It must not wait for anything but the database.
        is_write: whether it may change anything.
        timeout_secs: how long the caller waits, from now, the commit included.
    """

    def __init__(
        self, work: Callable[[Connection], T], *, is_write: bool, timeout_secs: float
    ) -> None:
        self.work = work
        self.is_write = is_write
        self.timeout_secs = timeout_secs
        self.deadline = time.monotonic() + timeout_secs
        self.has_begun = False
        self.is_committing = False
        self._claim = [None]

    @property
    def is_abandoned(self) -> bool:
        return not self._claim

    @property
    def is_over(self) -> bool:
        """Whether it can only be in vain to go on."""
        is_late = time.monotonic() > self.deadline
        return (is_late or self.is_abandoned) and not self.is_committing

    @property
    def seconds_left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def begin_commit(self) -> None:
        """Say that from here on it may happen.

        Raises:
            TimeoutError: time is up, or the caller has stopped waiting and must be right that
                nothing happened.
        """
        if not self.seconds_left or not self._take():
            raise TimeoutError
        self.is_committing = True

    def abandon(self) -> None:
        """Stop waiting: unless the commit has begun it will not begin any more."""
        self._take()

    def _take(self) -> bool:
        # One item and an atomic pop: of the caller and the thread that commits, one gets it.
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True


class Backend(Protocol):
    """How one kind of database runs a job."""

    dialect: str
    driver_error: type[Exception]

    def run(self, job: Job[T]) -> T:
        """Run a job in one transaction.

        Raises:
            TimeoutError: time was up.
            Exception: whatever the work or the driver raised.
        """

    def is_away(self, error: BaseException | None) -> bool:
        """Whether the driver's error means that the database cannot work now."""

    def find_remedy(self, error: BaseException | None) -> str | None:
        """What is wrong, and what somebody must do, if waiting does not help."""

    @property
    def wal_bytes(self) -> int:
        """See `Database.wal_bytes`."""

    def checkpoint(self, wait_ms: int) -> bool:
        """See `Database.checkpoint`."""

    def listen(self, channel: str) -> AbstractContextManager[Wait]:
        """See `Database.listen`; only where announcements are made."""

    def close(self) -> None: ...

"""What is done once for all hosts: a lease says who leads, a claim says what has been done.

The leader of the cluster is the host that holds the lease; in it, the worker that leads the host.
Time is cut into slots, and each job is run once in each: at once when a slot begins, or when there
is somebody again to lead, and then the last one only. A slot whose job failed, or whose host has
died, is tried again while it is the current one. So a job must bear to be done again, but never has
to bear a second time after a good end.

Knows no job.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

import gevent
from sqlalchemy import Connection

from tokenhub.board.board import unix_ms
from tokenhub.db import Database, DatabaseAway
from tokenhub.errors import TokenHubError
from tokenhub.store import hosts, job_runs
from tokenhub.store.job_runs import Claim

TERM_SECS = {"postgresql": 12.0, "sqlite": 300.0}
"""How long a lease is good for without being renewed. A file has one host: nobody waits for it."""

WAIT_SECS = 1.0
"""How often whoever does not lead looks whether the lease is free."""

RETRY_SECS = 60.0
"""How soon a job is tried again that has failed."""

SQL_SECS = 3.0

log = logging.getLogger("tokenhub.cluster")


class Cluster:
    """One host's part in the cluster. For the worker that leads the host.

    Args:
        host_id: holds the lease.
    """

    def __init__(self, database: Database, host_id: str) -> None:
        self._database = database
        self._host_id = host_id
        self._term_secs = TERM_SECS[database.dialect]
        self._fence = 0
        self._leads_until = float("-inf")
        self._ahead_ms = 0
        self._next_try: dict[tuple[str, int], float] = {}
        self._running: set[gevent.Greenlet[..., None]] = set()

    @property
    def is_leading(self) -> bool:
        return time.monotonic() < self._leads_until

    def renew(self) -> float:
        """Take the lease, or keep it; returns the seconds to wait before the next time."""
        asked_at, was_leading = time.monotonic(), self.is_leading

        def work(connection: Connection) -> tuple[int | None, int]:
            if not was_leading:  # what this host has done before is no longer ours
                hosts.release_lease(connection, hosts.CLUSTER, self._host_id)
            fence = hosts.take_lease(connection, hosts.CLUSTER, self._host_id, self._term_secs)
            return fence, hosts.now_ms(connection)

        try:
            fence, now = self._database.write(work, timeout_secs=SQL_SECS)
        except DatabaseAway:
            self._stop_unless_leading()
            return WAIT_SECS
        self._leads_until = float("-inf") if fence is None else asked_at + self._term_secs
        self._ahead_ms = now - unix_ms()
        if fence is not None and fence != self._fence:
            self._fence = fence
            log.info("leading the cluster", extra={"host_id": self._host_id, "fence": fence})
        self._stop_unless_leading()
        return WAIT_SECS if fence is None else self._term_secs / 4

    def run_due(self, job: str, every_secs: float, work: Callable[[], object]) -> None:
        """Run a job if this host leads and nobody has run it in the current slot.

        Args:
            work: is cut off when another host leads.

        Raises:
            Exception: whatever `work` raised. It is tried again later.
        """
        if not self.is_leading:
            return
        every_ms = max(1, int(every_secs * 1000))
        slot = (unix_ms() + self._ahead_ms) // every_ms * every_ms
        if time.monotonic() < self._next_try.get((job, slot), 0.0):
            return
        self._next_try = {key: at for key, at in self._next_try.items() if key[0] != job}
        claim = Claim(job, slot, self._host_id, self._fence)
        try:
            is_ours, is_done = self._database.write(lambda c: _claim(c, claim))
        except DatabaseAway:
            return
        self._next_try[job, slot] = float("inf") if is_done else time.monotonic() + RETRY_SECS
        if is_ours:
            self._run(claim, work)

    def release(self) -> None:
        """Cut off what runs and let another host lead."""
        self._leads_until = float("-inf")
        gevent.killall([*self._running], timeout=SQL_SECS)
        if not self._fence:
            return
        with suppress(DatabaseAway):  # then it runs out
            self._database.write(
                lambda c: hosts.release_lease(c, hosts.CLUSTER, self._host_id),
                timeout_secs=SQL_SECS,
            )

    def _run(self, claim: Claim, work: Callable[[], object]) -> None:
        this = gevent.getcurrent()
        self._running.add(this)
        error: str | None = "cut off"
        try:
            work()
            error = None
            self._next_try[claim.job, claim.slot] = float("inf")
        except gevent.GreenletExit:
            log.warning("job was cut off", extra={"job": claim.job})
        except gevent.Timeout:
            error = "not done in time"
            raise
        except Exception as failure:
            error = failure.code if isinstance(failure, TokenHubError) else type(failure).__name__
            raise
        finally:
            self._running.discard(this)
            self._finish(claim, error)

    def _finish(self, claim: Claim, error: str | None) -> None:
        try:
            self._database.write(lambda c: job_runs.finish_slot(c, claim, error))
        except DatabaseAway:  # it is done again, by us or by another
            log.warning("end of a job was not written down", extra={"job": claim.job})

    def _stop_unless_leading(self) -> None:
        if not self.is_leading:
            gevent.killall([*self._running], block=False)


def _claim(connection: Connection, claim: Claim) -> tuple[bool, bool]:
    """Whether the slot is ours to run, and whether it was run already."""
    if job_runs.claim_slot(connection, claim):
        return True, False
    return False, job_runs.is_slot_done(connection, claim.job, claim.slot)

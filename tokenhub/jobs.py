"""What runs beside the requests: the journal's sync in each worker, the leader's work in one.

The leader's work that must keep up with the requests has a greenlet of its own; what is done every
so often is a `Job`, run by APScheduler in whichever worker leads, on every host or on one of them.

The leader of a host is whoever holds a kernel lock on a file, opened after the fork, so the lock is
free the moment its holder dies. Everything the leader does can be done again by the next one.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import gevent
from apscheduler.schedulers.gevent import GeventScheduler
from gevent.event import Event
from sqlalchemy import Connection

from tokenhub import __version__, store
from tokenhub.board import Board
from tokenhub.catalog import Catalog, Follower
from tokenhub.cluster import Cluster
from tokenhub.db import Database, DatabaseAway
from tokenhub.errors import TokenHubError, Unavailable
from tokenhub.ingest import ROWS_MAX, Ingester
from tokenhub.journal import Journal
from tokenhub.steward import Steward

ELECTION_SECS = 0.25
FOLLOW_SECS = 0.25
INGEST_SECS = 0.2
AWAY_SECS = 1.0
BEAT_SECS = 5.0
DUE_SECS = 2.0
"""How often the leader looks whether a job of the cluster is due."""
DEADLINE_SECS = 600.0
INHERIT_SECS = 1.0
"""How long a worker of a host that ends waits for its leader to be gone."""
STOP_SECS = 3.0
"""Most that each part of the end may take: what is left undone is done by whoever leads next."""

log = logging.getLogger("tokenhub.jobs")
_quiet = logging.getLogger("tokenhub.jobs.scheduler")
_quiet.setLevel(logging.CRITICAL)  # it tells of every round that was left out; jobs have their own


@dataclass(frozen=True)
class Job:
    """Something the leader does at once and then every so often; never twice at a time.

    Args:
        run: a plain function that may also be called by hand; what it returns is only shown then.
        scope: whether each host does it, or one for all. See `Cluster` for what that means.
        deadline_secs: when it is given up.
    """

    name: str
    every_secs: float
    run: Callable[[], object]
    scope: Literal["host", "cluster"] = "host"
    deadline_secs: float = DEADLINE_SECS


class Leader:
    """The work that one worker does for its host.

    Args:
        lock_path: whoever holds it leads.
        state: how this host stands.
    """

    def __init__(
        self,
        *,
        lock_path: Path,
        catalog: Catalog,
        ingester: Ingester,
        steward: Steward,
        database: Database,
        board: Board,
        host_id: str,
        state: Callable[[], store.HostState],
    ) -> None:
        self._lock_path = lock_path
        self._follower = Follower(catalog, database)
        self._ingester = ingester
        self._steward = steward
        self._database = database
        self._board = board
        self._host_id = host_id
        self._state = state
        self._fd = -1

    @property
    def is_leading(self) -> bool:
        return self._fd >= 0

    @property
    def can_listen(self) -> bool:
        return self._database.can_listen

    def try_to_lead(self) -> bool:
        """Take the host's lock if nobody has it."""
        fd = -1
        try:
            fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, BlockingIOError):  # no descriptor left: there may be soon
                log.warning("cannot stand for election", extra={"reason": error.strerror})
            if fd >= 0:
                os.close(fd)
            return False
        self._fd = fd
        log.info("leading this host", extra={"host_id": self._host_id})
        return True

    def step_down(self) -> None:
        """Let another worker lead."""
        if self.is_leading:
            os.close(self._fd)
            self._fd = -1

    def ingest(self) -> float:
        """Carry what is in the journal over; returns the seconds to wait before the next time."""
        try:
            # A full batch has more behind it; otherwise let the next one grow: a transaction for
            # every few rows costs more than the rows.
            while self._ingester.step() >= ROWS_MAX:
                gevent.sleep(0)
        except DatabaseAway:
            return AWAY_SECS
        return INGEST_SECS

    def tend_shares(self) -> float:
        """Give back money that is not used; returns the seconds to wait before the next time."""
        try:
            return self._steward.tick()
        except DatabaseAway:
            return AWAY_SECS

    def poll(self) -> float:
        """Look for changes made elsewhere; returns the seconds to wait."""
        try:
            return self._follower.poll()
        except DatabaseAway:
            return AWAY_SECS

    def listen(self) -> float:
        """Follow changes as they are announced; returns, when the line is cut, the seconds until
        it is tried again."""
        try:
            return self._follower.listen()
        except DatabaseAway:
            return AWAY_SECS

    def beat(self) -> float:
        """Say that this host lives, and hear how many do; returns the seconds to wait."""

        def work(connection: Connection) -> int:
            return store.beat_host(
                connection,
                self._host_id,
                name=os.uname().nodename,
                version=__version__,
                workers=len(self._board.worker_pids()),
                started_at=self._board.started_at,
                state=state,
            )

        state = self._state()
        try:
            self._board.live_hosts = self._database.write(work)
        except DatabaseAway:
            return AWAY_SECS
        return BEAT_SECS

    def say_goodbye(self) -> None:
        """If all of this host ends, others need not wait until they take it for dead."""
        if not self._board.is_ending:
            return
        with suppress(DatabaseAway):
            self._steward.leave()
            self._database.write(lambda connection: store.end_host(connection, self._host_id))


class Background:
    """The greenlets of one worker.

    Args:
        cluster: this host's part in it, while this worker leads the host.
        on_reload: called in each worker after SIGHUP.
        sync_secs: how often the journal is forced to disk.
        scheduled: what this worker does from time to time while it leads.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        catalog: Catalog,
        leader: Leader,
        board: Board,
        cluster: Cluster,
        on_reload: Callable[[], None],
        sync_secs: float,
        scheduled: Sequence[Job] = (),
    ) -> None:
        self._journal = journal
        self._catalog = catalog
        self._leader = leader
        self._cluster = cluster
        self._board = board
        self._on_reload = on_reload
        self._sync_secs = sync_secs
        self._scheduled = scheduled
        self._scheduler = GeventScheduler(timezone=UTC, logger=_quiet)
        self._stopping = Event()
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._listening: gevent.Greenlet[..., None] | None = None
        # Settings are the arbiter's until the first reload: a worker that comes after one reads
        # them again, as the others did.
        self._reloads = 0

    def start(self) -> None:
        """Start; after the fork, never before."""
        self._spawn("journal sync", self._sync)
        self._spawn("reload", self._watch_reloads)
        self._spawn("follow", self._follow)
        self._greenlets.append(gevent.spawn(self._stand_for_election))

    def stop(self) -> None:
        """Finish: what is in the journal is safe, and is ingested by whoever leads next."""
        self._stopping.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        if self._listening is not None:
            self._listening.kill(timeout=STOP_SECS)  # it waits for others, who may never say a word
        gevent.joinall(self._greenlets, timeout=STOP_SECS)
        # Nothing may go on beside what follows. A transaction that is cut off is done again.
        gevent.killall(self._greenlets, timeout=STOP_SECS)
        try:
            self._journal.close()
        finally:
            self._inherit()
            self._finish("last ingest", self._leader.ingest)
            self._finish("lease", self._cluster.release)
            self._finish("goodbye", self._leader.say_goodbye)
            self._leader.step_down()

    def _inherit(self) -> None:
        """If all of this host ends, its last worker does what the leader could not do for it."""
        deadline = time.monotonic() + INHERIT_SECS
        while self._board.is_ending and not self._leader.is_leading:
            if self._leader.try_to_lead() or time.monotonic() > deadline:
                return
            gevent.sleep(0.05)

    def _finish(self, name: str, work: Callable[[], object]) -> None:
        if not self._leader.is_leading:
            return
        with gevent.Timeout(STOP_SECS, False):
            try:
                work()
            except Exception:  # whatever it is, the next leader meets it as well
                log.exception("job failed", extra={"job": name})

    def _stand_for_election(self) -> None:
        while not self._stopping.is_set():
            if self._leader.try_to_lead():
                self._spawn("ingest", self._leader.ingest)
                self._spawn("budgets", self._leader.tend_shares)
                self._spawn("poll", self._leader.poll)
                if self._leader.can_listen:
                    self._listening = self._spawn("listen", self._leader.listen)
                self._spawn("beat", self._leader.beat)
                self._spawn("lease", self._cluster.renew)
                self._schedule()
                return
            self._stopping.wait(ELECTION_SECS)

    def _schedule(self) -> None:
        for job in self._scheduled:
            run, every_secs = job.run, job.every_secs
            if job.scope == "cluster":
                run = partial(self._cluster.run_due, job.name, every_secs, job.run)
                every_secs = min(every_secs, DUE_SECS)
            self._scheduler.add_job(
                partial(_guarded, job, run),
                "interval",
                seconds=every_secs,
                id=job.name,
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
                next_run_time=datetime.now(UTC),
            )
        self._scheduler.start()

    def _sync(self) -> float:
        self._journal.sync()
        return self._sync_secs

    def _follow(self) -> float:
        """Catch up without waiting for a request: without a model none would be sent here."""
        with suppress(Unavailable):
            self._catalog.current()
        return FOLLOW_SECS

    def _watch_reloads(self) -> float:
        if self._board.reloads != self._reloads:
            self._reloads = self._board.reloads
            self._on_reload()
        return ELECTION_SECS

    def _spawn(self, name: str, work: Callable[[], float]) -> gevent.Greenlet[..., None]:
        def run() -> None:
            while not self._stopping.is_set():
                try:
                    pause = work()
                except Exception:  # a bug in one round must not end the job for good
                    log.exception("job failed", extra={"job": name})
                    pause = AWAY_SECS
                self._stopping.wait(pause)

        greenlet = gevent.spawn(run)
        self._greenlets.append(greenlet)
        return greenlet


def _guarded(job: Job, run: Callable[[], object]) -> None:
    """Run a job: neither a bug in one round nor one that hangs may keep the next from running."""
    deadline = gevent.Timeout.start_new(job.deadline_secs)
    try:
        run()
    except (DatabaseAway, TokenHubError) as error:
        reason = error.code if isinstance(error, TokenHubError) else "database_away"
        log.warning("job failed", extra={"job": job.name, "reason": reason})
    except gevent.Timeout as expired:
        if expired is not deadline:
            raise
        log.error("job given up", extra={"job": job.name, "deadline_secs": job.deadline_secs})
    except Exception:  # whatever it is, it is tried again
        log.exception("job failed", extra={"job": job.name})
    finally:
        deadline.close()

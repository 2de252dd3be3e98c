"""Which jobs of the cluster have run, and who runs them.

A slot is a job's stretch of time, named by its beginning. Whoever leads the cluster claims it, and
one that was run to its good end is never claimed again.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, func, select, text, update

from tokenhub.db.traffic_tables import job_runs
from tokenhub.store.hosts import CLUSTER, now_ms

# With the lease in its hands, and only then: a host that was asleep finds another fence. What
# another leader has begun and not ended is over, because its lease is.
_CLAIM = """
INSERT INTO job_runs (job, slot, host_id, fence, tries, started_at)
SELECT :job, :slot, holder, fence, 1, :now FROM leases
WHERE name = :lease AND holder = :host_id AND fence = :fence AND expires_at > :now
ON CONFLICT (job, slot) DO UPDATE SET
    host_id = excluded.host_id, fence = excluded.fence, tries = job_runs.tries + 1,
    started_at = excluded.started_at, finished_at = NULL, error = NULL
WHERE job_runs.error IS NOT NULL
   OR (job_runs.finished_at IS NULL AND job_runs.fence < excluded.fence)
RETURNING tries
"""


@dataclass(frozen=True)
class Claim:
    """A slot that somebody runs.

    Args:
        slot: when it begins.
        fence: of the lease that it was claimed under.
    """

    job: str
    slot: int
    host_id: str
    fence: int


def claim_slot(connection: Connection, claim: Claim) -> bool:
    """Claim a slot for the cluster's leader.

    Returns: False if it was run, is being run, or we do not lead.
    """
    values = {
        "job": claim.job, "slot": claim.slot, "host_id": claim.host_id, "fence": claim.fence,
        "now": now_ms(connection), "lease": CLUSTER,
    }  # fmt: skip
    return connection.execute(text(_CLAIM), values).one_or_none() is not None


def finish_slot(connection: Connection, claim: Claim, error: str | None) -> None:
    """Write down how it ended, if it is still ours; with an error it can be claimed again."""
    where = (
        job_runs.c.job == claim.job,
        job_runs.c.slot == claim.slot,
        job_runs.c.host_id == claim.host_id,
        job_runs.c.fence == claim.fence,
    )
    values = {"finished_at": now_ms(connection), "error": error}
    connection.execute(update(job_runs).where(*where).values(values))


def is_slot_done(connection: Connection, job: str, slot: int) -> bool:
    """Whether a slot was run to its good end."""
    query = select(job_runs.c.slot).where(
        job_runs.c.job == job,
        job_runs.c.slot == slot,
        job_runs.c.finished_at.is_not(None),
        job_runs.c.error.is_(None),
    )
    return connection.execute(query).one_or_none() is not None


def list_last_runs(connection: Connection) -> list[RowMapping]:
    """The last run of each job, by name, all columns."""
    last = (
        select(job_runs.c.job, func.max(job_runs.c.slot).label("slot"))
        .group_by(job_runs.c.job)
        .subquery()
    )
    same = (job_runs.c.job == last.c.job) & (job_runs.c.slot == last.c.slot)
    query = select(job_runs).join(last, same).order_by(job_runs.c.job)
    return list(connection.execute(query).mappings())

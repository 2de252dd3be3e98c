"""Which hosts live, and which of them leads the cluster."""

from __future__ import annotations

from sqlalchemy import Connection, text

from tokenhub.db.traffic_tables import hosts
from tokenhub.store.statements import insert_into

# The database's clock: the hosts' own need not agree. 2440587.5 is 1970-01-01 as a Julian day.
_NOW_MS = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
}

# Only a lease that its holder renews in time keeps its fence: with any other number, what the last
# holder still does late can be told apart and refused.
_TAKE = """
INSERT INTO leases (name, holder, fence, expires_at)
VALUES (:name, :holder, 1, {now} + :term)
ON CONFLICT (name) DO UPDATE SET
    fence = leases.fence + CASE
        WHEN leases.holder = :holder AND leases.expires_at > {now} THEN 0 ELSE 1 END,
    holder = :holder,
    expires_at = {now} + :term
WHERE leases.holder = :holder OR leases.expires_at <= {now}
RETURNING fence
"""


def beat_host(connection: Connection, host_id: str, name: str, version: str, at: int) -> None:
    """Say that a host lives; `started_at` is when it was first heard of."""
    values = {"name": name, "version": version, "seen_at": at}
    statement = insert_into(connection, hosts).values(id=host_id, started_at=at, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


def take_lease(connection: Connection, name: str, holder: str, seconds: float) -> int | None:
    """Take a lease that is free or has expired, or renew our own.

    Returns: its fence, which grows whenever it may have been without a holder; None if another
    holds it.
    """
    statement = text(_TAKE.format(now=_NOW_MS[connection.dialect.name]))
    term = int(seconds * 1000)
    fence: int | None = connection.scalar(statement, {"name": name, "holder": holder, "term": term})
    return fence

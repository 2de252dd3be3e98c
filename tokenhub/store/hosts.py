"""Which hosts live, and which of them leads the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    func,
    literal_column,
    select,
    text,
    update,
)

from tokenhub.db.traffic_tables import hosts, leases
from tokenhub.store.statements import page_of, upsert

LIVE_SECS = 30
"""A host that was not seen for so long is taken for dead."""

CLUSTER = "cluster"
"""The lease of whoever leads the cluster."""

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


@dataclass(frozen=True, slots=True)
class HostState:
    """What only a host's own memory knows, as it was when the host last said that it lives.

    Args:
        lag_secs: no record that its journal holds and the database does not is older.
        waiting_bytes: how much those are.
        set_aside: records of this run that the database would not take.
        vault_locked: whether it has no key to open the vault with.
        prices_at: when its price table was read, unix ms; 0 = never.
        prices_error: why the last try to read it failed.
        provider_answers: whether a provider that is no demo has answered it, if only a probe.
    """

    lag_secs: float = 0.0
    waiting_bytes: int = 0
    set_aside: int = 0
    vault_locked: bool = False
    prices_at: int = 0
    prices_error: str = ""
    provider_answers: bool = False


def host_state_of(row: RowMapping) -> HostState | None:
    """A host's state out of its row; None if it was one of another version, which said nothing."""
    found = orjson.loads(row["state"])
    known = {each.name: found[each.name] for each in fields(HostState) if each.name in found}
    return HostState(**known) if known else None


def beat_host(
    connection: Connection,
    host_id: str,
    *,
    name: str,
    version: str,
    workers: int,
    started_at: int,
    state: HostState | None = None,
) -> int:
    """Say that a host lives, since when by its own clock, and how it stands.

    Returns: how many hosts live, this one included.
    """
    values = {
        "name": name, "version": version, "workers": workers, "started_at": started_at,
        "seen_at": _now(connection), "ended_at": None,
        "state": "{}" if state is None else orjson.dumps(asdict(state)).decode(),
    }  # fmt: skip
    upsert(connection, hosts, {"id": host_id}, values)
    found = connection.scalar(select(func.count()).where(_is_live(connection)))
    return int(found or 0)


def end_host(connection: Connection, host_id: str) -> None:
    """Say that a host has ended and need not be waited for."""
    ended = update(hosts).where(hosts.c.id == host_id).values(ended_at=_now(connection))
    connection.execute(ended)


def list_hosts(connection: Connection, limit: int, offset: int) -> tuple[Sequence[RowMapping], int]:
    """One page of the hosts there have been, those seen last first, and how many there are.

    `is_live` and `is_leader` are by the database's clock; the latter is of the cluster.
    """
    leads = select(leases.c.holder).where(
        leases.c.name == CLUSTER, leases.c.expires_at > _now(connection)
    )
    query = select(
        hosts,
        _is_live(connection).label("is_live"),
        hosts.c.id.in_(leads).label("is_leader"),
    ).order_by(hosts.c.seen_at.desc(), hosts.c.id)
    return page_of(connection, query, limit, offset)


def is_host_seen(connection: Connection, host_id: str, secs: int) -> bool:
    """Whether a host has been seen so lately, also if it has ended since."""
    seen = select(hosts.c.id).where(
        hosts.c.id == host_id, hosts.c.seen_at > _now(connection) - secs * 1000
    )
    return connection.scalar(seen) is not None


def take_lease(connection: Connection, name: str, holder: str, seconds: float) -> int | None:
    """Take a lease that is free or has expired, or renew our own.

    Returns: its fence, which grows whenever it may have been without a holder; None if another
    holds it.
    """
    statement = text(_TAKE.format(now=_NOW_MS[connection.dialect.name]))
    term = int(seconds * 1000)
    fence: int | None = connection.scalar(statement, {"name": name, "holder": holder, "term": term})
    return fence


def release_lease(connection: Connection, name: str, holder: str) -> None:
    """Give a lease of ours back, or forget that we had it: its fence grows when it is taken."""
    ours = (leases.c.name == name, leases.c.holder == holder)
    connection.execute(update(leases).where(*ours).values(expires_at=0))


def now_ms(connection: Connection) -> int:
    """What the database's clock says."""
    return connection.execute(select(_now(connection))).scalar_one()


def _now(connection: Connection) -> ColumnElement[int]:
    return literal_column(_NOW_MS[connection.dialect.name], BigInteger)


def _is_live(connection: Connection) -> ColumnElement[bool]:
    return and_(hosts.c.ended_at.is_(None), hosts.c.seen_at > _now(connection) - LIVE_SECS * 1000)

"""Who serves a request that may be sent twice, and what it was answered.

A row is `in_flight` while somebody serves it, until `expires_at` at the latest unless that is put
off; then it is `done` (the answer is there), `unkept` (there is none to be had) or gone. One whose
owner has not been heard of is `lost` for a moment, so that whoever asks learns of it before anybody
serves it again. Times are the database's. Knows nothing of what is in an answer.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, delete, func, or_, select, update

from tokenhub.db.traffic_tables import idempotency_keys as table
from tokenhub.store.hosts import now_ms
from tokenhub.store.statements import insert_new
from tokenhub.store.turns import see_newest

IN_FLIGHT, DONE, UNKEPT, LOST = "in_flight", "done", "unkept", "lost"

TRIES = 3
"""How often a row is looked for that was there a moment ago."""


class Turn(NamedTuple):
    """Somebody's wish to serve a request.

    Args:
        name: of the request, whoever sends it again.
        owner: who would serve it, for people to read.
        request_id: of this sending; tells it from all others.
        digest: of what was asked.
    """

    name: str
    owner: str
    request_id: str
    digest: bytes


class Found(NamedTuple):
    """What there was of a request.

    Args:
        left_ms: until `expires_at`.
    """

    state: str
    request_id: str
    digest: bytes
    answer: bytes
    left_ms: int


def claim(connection: Connection, turn: Turn, lease_ms: int, rest_ms: int) -> Found | None:
    """Begin to serve a request, unless somebody does or did.

    Args:
        lease_ms: for how long, unless it is renewed.
        rest_ms: how long one is `lost` before another may serve it.

    Returns: None if it is ours, else what there is.
    """
    see_newest(connection)
    now = now_ms(connection)
    values = {**turn._asdict(), "state": IN_FLIGHT, "expires_at": now + lease_ms, "size": 0,
              "answer": b""}  # fmt: skip
    for _ in range(TRIES):
        if insert_new(connection, table, **values):
            return None
        query = select(table).where(table.c.name == turn.name).with_for_update()
        row = connection.execute(query).mappings().one_or_none()
        if row is not None:
            break
    else:  # it comes and goes: whoever serves it now is waited for
        return Found(IN_FLIGHT, turn.request_id, turn.digest, b"", lease_ms)
    state, left_ms = row["state"], row["expires_at"] - now
    ours = update(table).where(table.c.name == turn.name)
    if left_ms <= 0:
        if state != IN_FLIGHT:
            connection.execute(ours.values(values))
            return None
        state, left_ms = LOST, rest_ms
        connection.execute(ours.values(state=LOST, expires_at=now + rest_ms))
    return Found(state, row["request_id"], row["digest"], row["answer"], left_ms)


def renew(connection: Connection, request_ids: Collection[str], lease_ms: int) -> None:
    """Say that these are still served; also those that were taken for lost."""
    now = now_ms(connection)
    ours = and_(table.c.request_id.in_(request_ids), table.c.state.in_((IN_FLIGHT, LOST)))
    renewed = update(table).where(ours).values(state=IN_FLIGHT, expires_at=now + lease_ms)
    connection.execute(renewed)


def finish(connection: Connection, turn: Turn, answer: bytes | None, keep_ms: int) -> None:
    """Keep what a request of ours was answered; nothing if another serves it by now.

    Args:
        answer: None = it is not kept, but nobody shall serve the request again.
    """
    values: dict[str, Any] = {"state": UNKEPT, "expires_at": now_ms(connection) + keep_ms}
    if answer is not None:
        values |= {"state": DONE, "answer": answer, "size": len(answer)}
    connection.execute(update(table).where(_is_of(turn)).values(**values))


def release(connection: Connection, turn: Turn) -> None:
    """A request of ours came to nothing: the next who sends it is served."""
    connection.execute(delete(table).where(_is_of(turn)))


def list_waiting(connection: Connection, names: Collection[str]) -> set[str]:
    """Which of these are still being served."""
    served = and_(
        table.c.name.in_(names),
        table.c.state == IN_FLIGHT,
        table.c.expires_at > now_ms(connection),
    )
    return set(connection.scalars(select(table.c.name).where(served)))


def trim(connection: Connection, entries_max: int, bytes_max: int) -> int:
    """Let what is too old go, and the oldest of what is too much; returns how many."""
    now = now_ms(connection)
    age = (table.c.expires_at.desc(), table.c.name)
    ranked = (
        select(
            table.c.name,
            func.row_number().over(order_by=age).label("rank"),
            func.sum(table.c.size).over(order_by=age).label("total"),
        )
        .where(table.c.state != IN_FLIGHT)
        .subquery()
    )
    too_many = select(ranked.c.name).where(
        or_(ranked.c.rank > entries_max, ranked.c.total > bytes_max)
    )
    is_old = and_(table.c.state != IN_FLIGHT, table.c.expires_at <= now)
    return connection.execute(delete(table).where(or_(is_old, table.c.name.in_(too_many)))).rowcount


def _is_of(turn: Turn) -> Any:
    return and_(table.c.name == turn.name, table.c.request_id == turn.request_id)

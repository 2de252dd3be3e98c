"""API keys as rows: what the Snapshot needs of them, and what only administrators see.

When a key was last used is not in its row, which nobody but an administrator changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, RowMapping, Select, and_, delete, func, select

from tokenhub.db.budget_tables import budget_credits, budgets
from tokenhub.db.catalog_tables import api_keys, key_uses
from tokenhub.db.sums_tables import buckets
from tokenhub.db.traffic_tables import events
from tokenhub.domain import ApiKey, Limits
from tokenhub.store.statements import insert_into, page_of

DAY_MS = 86_400_000

LATE_MS = 600_000
"""How much later than another host's the sums of a host may come and be looked at all the same."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key with its administration.

    Args:
        key: its `expires_at` and `rotation_due_at` are worked out when the row is read; what is
            saved are the `expires_at` and the `rotation_days` here.
        expires_at: when an administrator wanted it to end; None = never.
        rotation_days: how long a secret serves; 0 = for ever.
        monthly_budget_nanousd: that of its budget for the month, which is kept as one; 0 = none.
        budget_reset_at: when it was last allowed to spend more than its budget.
    """

    key: ApiKey
    created_at: int
    rotated_at: int | None = None
    expires_at: int | None = None
    rotation_days: int = 0
    monthly_budget_nanousd: int = 0
    budget_reset_at: int | None = None
    last_used_at: int | None = field(default=None, compare=False)

    @property
    def rotation_due_at(self) -> int | None:
        """When its secret must have been replaced; None = it need not be."""
        return _rotation_due_at(self.created_at, self.rotated_at, self.rotation_days)


def find_key(connection: Connection, key_id: str) -> ApiKey | None:
    """A key as the Snapshot knows it; None also for one that has no digest."""
    query = select(api_keys).where(api_keys.c.id == key_id, api_keys.c.sha256.is_not(None))
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _api_key_from(row)


def load_keys(connection: Connection) -> dict[bytes, ApiKey]:
    """All keys by their digests; those that have none, because only their bcrypt hash was imported,
    are not among them."""
    rows = connection.execute(select(api_keys).where(api_keys.c.sha256.is_not(None))).mappings()
    return {digest: key for key in map(_api_key_from, rows) for digest in key.digests}


def find_key_row(connection: Connection, key_id: str) -> KeyRow | None:
    """A key with its administration."""
    row = connection.execute(_rows().where(api_keys.c.id == key_id)).mappings().one_or_none()
    return None if row is None else _key_row_from(row)


def list_keys(connection: Connection, limit: int, offset: int) -> tuple[list[KeyRow], int]:
    """A page of the keys, newest first, and how many there are."""
    query = _rows().order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
    rows, total = page_of(connection, query, limit, offset)
    return [_key_row_from(row) for row in rows], total


def count_keys_of(connection: Connection, team_id: str) -> int:
    """How many keys belong to a team."""
    query = select(func.count()).select_from(api_keys).where(api_keys.c.team_id == team_id)
    return connection.scalar(query) or 0


def find_key_names(connection: Connection, ids: Collection[str]) -> dict[str, str]:
    """The names of those of these keys that there are, by id."""
    names = connection.execute(select(api_keys.c.id, api_keys.c.name))
    return {row.id: row.name for row in names if row.id in ids}


def find_key_tags(connection: Connection) -> dict[str, tuple[str, ...]]:
    """The tags of those keys that have any, by id."""
    found = connection.execute(select(api_keys.c.id, api_keys.c.tags))
    tags = {row.id: tuple(orjson.loads(row.tags)) for row in found}
    return {id_: each for id_, each in tags.items() if each}


def save_key(connection: Connection, row: KeyRow) -> None:
    """Create or replace a key, and count its revision; when it was made stays.

    Raises:
        sqlalchemy.exc.IntegrityError: its digest is another one's.
    """
    values = _columns_of(row)
    statement = insert_into(connection, api_keys).values(
        id=row.key.id, created_at=row.created_at, revision=1, **values
    )
    changed = {**values, "revision": api_keys.c.revision + 1}
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed))


def delete_key(connection: Connection, key_id: str) -> bool:
    """Delete a key; False if there was none."""
    connection.execute(delete(key_uses).where(key_uses.c.key_id == key_id))
    return connection.execute(delete(api_keys).where(api_keys.c.id == key_id)).rowcount > 0


def note_key_uses(connection: Connection) -> None:
    """Take from the newest sums of requests when each key was last used; none goes back.

    To within ten seconds, as far as the sums can tell.
    """
    newest: int | None = connection.scalar(select(func.max(key_uses.c.last_used_at)))
    uses = (
        select(buckets.c.api_key_id, func.max(buckets.c.start_at))
        .join(api_keys, api_keys.c.id == buckets.c.api_key_id)  # not one that is gone
        .where(buckets.c.start_at >= (newest or 0) - LATE_MS)
        .group_by(buckets.c.api_key_id)
    )
    insert = insert_into(connection, key_uses).from_select(["key_id", "last_used_at"], uses)
    given = insert.excluded.last_used_at
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["key_id"],
            set_={"last_used_at": given},
            where=key_uses.c.last_used_at < given,
        )
    )


def _rows() -> Select[Any]:
    monthly = and_(
        budgets.c.subject_kind == "key",
        budgets.c.subject_id == api_keys.c.id,
        budgets.c.period == "month",
    )
    credited = select(func.max(budget_credits.c.at)).where(
        budget_credits.c.subject_kind == "key", budget_credits.c.subject_id == api_keys.c.id
    )
    with_more = api_keys.outerjoin(key_uses, key_uses.c.key_id == api_keys.c.id).outerjoin(
        budgets, monthly
    )
    return select(
        api_keys,
        key_uses.c.last_used_at,
        func.coalesce(budgets.c.limit_nanousd, 0).label("monthly_budget_nanousd"),
        credited.scalar_subquery().label("budget_reset_at"),
    ).select_from(with_more)


def _columns_of(row: KeyRow) -> dict[str, Any]:
    key = row.key
    return {
        "name": key.name,
        "key_prefix": key.prefix,
        "sha256": key.sha256 or None,
        "bcrypt_hash": key.bcrypt_hash,
        "previous_sha256": key.previous_sha256 or None,
        "previous_bcrypt_hash": key.previous_bcrypt_hash,
        "previous_until": key.previous_until,
        "scopes": _json(sorted(key.scopes)),
        "enabled": key.enabled,
        "rotated_at": row.rotated_at,
        "expires_at": row.expires_at,
        "rotation_days": row.rotation_days,
        "owner": key.owner,
        "team_id": key.team_id,
        "tags": _json(key.tags),
        "models": _json(key.models),
        "networks": _json(key.networks),
        "directives": key.directives,
        "policy": _json(dict(key.policy)),
        "rate_limit_rps": key.limits.rps,
        "rpm": key.limits.rpm,
        "tpm": key.limits.tpm,
        "max_parallel": key.limits.parallel,
        "model_limits": _json({name: asdict(each) for name, each in key.model_limits.items()}),
    }


def _api_key_from(row: RowMapping) -> ApiKey:
    due_at = _rotation_due_at(row["created_at"], row["rotated_at"], row["rotation_days"])
    return ApiKey(
        id=row["id"],
        name=row["name"],
        prefix=row["key_prefix"],
        sha256=row["sha256"] or b"",
        bcrypt_hash=row["bcrypt_hash"],
        scopes=frozenset(orjson.loads(row["scopes"])),
        enabled=row["enabled"],
        expires_at=min(filter(None, (row["expires_at"], due_at)), default=None),
        rotation_due_at=due_at,
        revision=row["revision"],
        previous_sha256=row["previous_sha256"] or b"",
        previous_bcrypt_hash=row["previous_bcrypt_hash"],
        previous_until=row["previous_until"],
        owner=row["owner"],
        team_id=row["team_id"],
        tags=tuple(orjson.loads(row["tags"])),
        models=tuple(orjson.loads(row["models"])),
        networks=tuple(orjson.loads(row["networks"])),
        directives=row["directives"],
        policy=orjson.loads(row["policy"]),
        limits=limits_from(row),
        model_limits={
            name: Limits(**each) for name, each in orjson.loads(row["model_limits"]).items()
        },
    )


def list_overdue_keys(connection: Connection, from_at: int, to_at: int) -> list[tuple[str, str]]:
    """Keys, by id and name, whose rotation was due in a time and of which nobody was told.

    Args:
        from_at, to_at: unix ms.
    """
    row = api_keys.c
    due_at = func.coalesce(row.rotated_at, row.created_at) + row.rotation_days * DAY_MS
    is_told = (
        select(events.c.id)
        .where(
            events.c.type == "key_rotation_expired",
            events.c.at >= due_at,
            events.c.api_key_id == row.id,
        )
        .exists()
    )
    query = select(row.id, row.name).where(
        row.rotation_days > 0, due_at > from_at, due_at <= to_at, row.enabled, ~is_told
    )
    return [(each.id, each.name) for each in connection.execute(query)]


def limits_from(row: RowMapping) -> Limits:
    """The limits of a key's or a team's row."""
    return Limits(row["rate_limit_rps"], row["rpm"], row["tpm"], row["max_parallel"])


def _key_row_from(row: RowMapping) -> KeyRow:
    return KeyRow(
        key=_api_key_from(row),
        created_at=row["created_at"],
        rotated_at=row["rotated_at"],
        expires_at=row["expires_at"],
        rotation_days=row["rotation_days"],
        monthly_budget_nanousd=row["monthly_budget_nanousd"],
        budget_reset_at=row["budget_reset_at"],
        last_used_at=row["last_used_at"],
    )


def _rotation_due_at(created_at: int, rotated_at: int | None, days: int) -> int | None:
    return (rotated_at or created_at) + days * DAY_MS if days else None


def _json(value: Iterable[str] | dict[str, Any]) -> str:
    return orjson.dumps(value).decode()

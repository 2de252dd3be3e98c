"""How far the first setup has got: five steps, each done as soon as it was true once.

Read from what is kept (the vault, the catalog, sums by the day for ever), so a step stays done
while that is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from tokenhub import store
from tokenhub.catalog import Snapshot
from tokenhub.db.sums_tables import ATTEMPTS, REQUESTS
from tokenhub.store.series import Query, read_series


@dataclass(frozen=True)
class Setup:
    """Args:
    steps: whether each is done, in the order in which they are.
    demo: the ids of demo providers that there still are.
    """

    steps: Mapping[str, bool]
    demo: tuple[str, ...]


def read(connection: Connection, snapshot: Snapshot, now: int) -> Setup:
    """The steps as they stand."""
    real = {each.id for each in snapshot.providers.values() if not each.demo}
    demo = tuple(sorted(set(snapshot.providers) - real))
    tried = _providers(connection, now)
    answered = any(id_ in real for id_ in tried)
    hosts, _ = store.list_hosts(connection, 1000, 0)
    states = [store.host_state_of(row) for row in hosts if row["is_live"]]
    priced = any(
        each.provider_id in real and each.price.is_known for each in snapshot.models.values()
    )
    steps = {
        "vault_ready": snapshot.vault is not None,
        "provider_answers": answered or any(each and each.provider_answers for each in states),
        "model_with_price": priced,
        "key_created": bool(snapshot.keys),
        "first_request": answered and _has_answered(connection, now, tuple(real)),
    }
    return Setup(steps, demo)


def _providers(connection: Connection, now: int) -> set[str]:
    """Providers that have ever answered."""
    query = Query(
        ATTEMPTS, 0, now, None, ("provider_id",), {"error_class": ("",)}, {}, ("attempts",)
    )  # fmt: skip
    return {each.group[0] for each in read_series(connection, query, now)}


def _has_answered(connection: Connection, now: int, providers: tuple[str, ...]) -> bool:
    where = {"ending": ("answered", "rescued"), "provider_id": providers}
    query = Query(REQUESTS, 0, now, None, (), where, {}, ("requests",))
    return bool(read_series(connection, query, now))

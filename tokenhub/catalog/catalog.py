"""What may be routed to and by whom: the Snapshot, how it follows the database, how it is changed.

The request path reads one immutable `Snapshot`. A change is a transaction that also moves the
catalog's generation; the board carries the new number to the other workers of this host, the
leader's poll carries it to other hosts, and each worker catches up, once, before it serves its next
request, or soon when there is none. Secrets are never in a Snapshot.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import gevent
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.board import Board
from tokenhub.board.board import unix_ms
from tokenhub.catalog.snapshot import Parts, Snapshot, assemble, is_gone, reload
from tokenhub.db import Database, DatabaseAway
from tokenhub.domain import RoutingDefaults
from tokenhub.errors import Unavailable

PATIENCE_SECS = 2.0
"""How long a request waits for the Snapshot to catch up before keys fail closed: on a busy machine
a refresh may take a second, and whoever asks prefers waiting to asking again. A database that is
known to be away keeps nobody waiting."""

FAILURE_SECS = 0.25
"""How long nobody tries again after a refresh has failed."""

LOAD_SECS = 10.0
"""How long loading may take, whether or not anybody still waits for it."""

CHANGES_MAX = 500
"""Past this many changes everything is loaded anew; it is cheaper."""

T = TypeVar("T")
log = logging.getLogger("tokenhub.catalog")


@dataclass(frozen=True)
class Change:
    """One administrative change, as it is written down.

    Args:
        kind: provider, model, alias, key, team, admin, routing, log_level, drain, vault: what
            workers must load again (the vault itself has no id); health: what they must forget;
            secret, probe: what is nothing to them.
        entity_id: which one.
        action: the audit's word, such as `provider.upsert`.
        detail: before and after, secrets masked.
    """

    kind: str
    entity_id: str
    action: str
    actor: str = "admin"
    client_ip: str = ""
    request_id: str = ""
    detail: str = ""


class Catalog:
    """One worker's view of the catalog, and the way to change it.

    Args:
        defaults: routing defaults from the settings; those saved through the API win.
        adapter_types: provider types that we can speak to.
        with_demo: whether demo providers count.
        wildcard: models that a request for `*` is spread over, where no alias of that name is.
        on_vault_change: called when a stored secret has changed.
        on_applied: told of each change that was made here; must not raise.
        on_log_level: called with the level that was saved, "" for none, when it is another one.
    """

    def __init__(
        self,
        *,
        database: Database,
        board: Board,
        defaults: RoutingDefaults,
        adapter_types: Collection[str],
        with_demo: bool,
        wildcard: Sequence[str] = (),
        on_vault_change: Callable[[], None] = lambda: None,
        on_applied: Callable[[Change], None] = lambda _: None,
        on_log_level: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._board = board
        self._defaults = defaults
        self._adapter_types = frozenset(adapter_types)
        self._with_demo = with_demo
        self._wildcard = tuple(wildcard)
        self._on_vault_change = on_vault_change
        self._on_applied = on_applied
        self._on_log_level = on_log_level
        self._loading: gevent.Greenlet[..., None] | None = None
        self._failed_at = float("-inf")
        self._snapshot = self._load_all()
        if self._snapshot.log_level:
            on_log_level(self._snapshot.log_level)

    def current(self, patience_secs: float = PATIENCE_SECS) -> Snapshot:
        """The Snapshot, caught up with every change that this host has heard of.

        Args:
            patience_secs: how long to wait for that.

        Raises:
            Unavailable: there is a newer catalog and the database did not hand it over in time; to
                serve an older one could serve a key that was just revoked.
        """
        heard = self._board.generation
        if heard != self._snapshot.version:
            self._catch_up(heard, patience_secs)
        return self._snapshot

    def latest(self) -> Snapshot:
        """The Snapshot as it is, perhaps a change behind: for readiness and metrics."""
        return self._snapshot

    def set_defaults(self, defaults: RoutingDefaults) -> None:
        """Routing defaults from re-read settings; saved ones still win."""
        self._defaults = defaults
        saved = self._snapshot.saved_defaults
        self._snapshot = replace(self._snapshot, defaults=saved or defaults)

    def apply(self, change: Change, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction with its change-log row and its audit row.

        Raises:
            Unavailable: the database is away; nothing was changed, as far as is known.
        """
        now = unix_ms()

        def transaction(connection: Connection) -> tuple[T, int]:
            result = work(connection)
            # Last, so that it is the newest of the versions that `work` may have made.
            return result, write_down(connection, change, now)

        try:
            result, version = self._database.write(transaction)
        except DatabaseAway as error:
            raise Unavailable("the database is away", code="database_away") from error
        self._board.advance(version)
        self._on_applied(change)
        return result

    def poll(self) -> int:
        """Ask the database how far the catalog is, and tell the host. The leader's to call.

        Returns: the generation.

        Raises:
            DatabaseAway: nobody was told anything.
        """
        heard = self._board.generation
        generation = self._database.read(store.load_generation, timeout_secs=2.0)
        self._board.saw_database()
        self._tell(heard, generation)
        return generation

    def _tell(self, heard: int, generation: int) -> None:
        """Tell the host how far the database is.

        Args:
            heard: the board's generation before the database was asked, which had it then.
        """
        if generation < heard:
            log.error("catalog went back", extra={"heard": heard, "generation": generation})
            self._board.set_back(heard, generation)
        else:
            self._board.advance(generation)

    def _show(self, snapshot: Snapshot) -> None:
        """Serve from `snapshot` from now on; what was read from the old one is dropped after."""
        is_vault_changed = snapshot.sealed != self._snapshot.sealed
        if snapshot.log_level != self._snapshot.log_level:
            self._on_log_level(snapshot.log_level)
        self._snapshot = snapshot
        if is_vault_changed:
            self._on_vault_change()

    def _catch_up(self, wanted: int, patience_secs: float) -> None:
        """Wait until the Snapshot shows `wanted`. One greenlet loads, for all who wait and also
        when nobody does any more; all share its failure instead of trying one after another."""
        deadline = time.monotonic() + patience_secs
        while self._is_behind(wanted):
            now = time.monotonic()
            if now >= deadline or now - self._failed_at < FAILURE_SECS:
                raise Unavailable(
                    "the gateway's catalog is being refreshed",
                    code="catalog_stale",
                    headers={"Retry-After": "1"},
                )
            if self._loading is None:
                self._loading = gevent.spawn(self._load)
            self._loading.join(deadline - now)

    def _is_behind(self, wanted: int) -> bool:
        shown, heard = self._snapshot.version, self._board.generation
        # Ahead of the board: the database was set back, and its numbers begin again.
        return shown > heard or shown < min(wanted, heard)

    def _load(self) -> None:
        try:
            self._show(self._load_changes())
        except DatabaseAway:
            self._failed_at = time.monotonic()
            log.warning("catalog is behind", extra={"version": self._snapshot.version})
        except Exception:  # whoever waits is refused, and the next one tries again
            self._failed_at = time.monotonic()
            log.exception("catalog cannot be loaded")
        finally:
            self._loading = None

    def _load_all(self) -> Snapshot:
        heard = self._board.generation
        loaded = self._database.read(store.load_all, timeout_secs=LOAD_SECS)
        self._board.saw_database()
        self._tell(heard, loaded.generation)
        return self._assemble(loaded.generation, Parts.loaded(loaded))

    def _load_changes(self) -> Snapshot:
        old, heard = self._snapshot, self._board.generation

        def work(connection: Connection) -> tuple[list[store.Change], Parts]:
            changes = store.changes_since(connection, old.version)
            parts = Parts.of(old)
            if len(changes) <= CHANGES_MAX:
                for kind, entity_id in {(each.kind, each.entity_id) for each in changes}:
                    reload(connection, kind, entity_id, parts)
            parts.routing = store.find_routing(connection)
            return changes, parts

        changes, parts = self._database.read(work, timeout_secs=LOAD_SECS)
        self._clear_health(changes, parts)
        version = max([old.version, *(change.version for change in changes)])
        has_gap = version - old.version != len(changes)  # the log was pruned under us
        if has_gap or len(changes) > CHANGES_MAX or not old.version < heard <= version:
            return self._load_all()  # or it is too many, or set back
        self._board.advance(version)
        return self._assemble(version, parts)

    def _clear_health(self, changes: list[store.Change], parts: Parts) -> None:
        """Do what operators asked for, here or on another host, and forget what is gone: who
        comes in its place begins anew."""
        old = self._snapshot
        for change in changes:
            id_ = change.entity_id
            if change.kind == "health":
                provider, models = parts.providers.get(id_), list(parts.models.values())
            elif change.kind == "provider" and id_ in old.providers:
                # Whoever changes a provider, or its key, wants it tried again.
                has_gone = is_gone(old.providers, parts.providers, id_)
                provider, models = old.providers[id_], list(old.models.values()) if has_gone else []
            elif change.kind == "model" and is_gone(old.models, parts.models, id_):
                provider, models = None, []
            else:
                continue
            subjects = [id_, *(m.id for m in models if provider and m.provider_id == id_)]
            urls = (provider.base_url, *provider.endpoints) if provider else ()
            self._board.clear_health(subjects, change.version, urls=urls)

    def _assemble(self, version: int, parts: Parts) -> Snapshot:
        return assemble(
            version,
            parts,
            defaults=self._defaults,
            adapter_types=self._adapter_types,
            with_demo=self._with_demo,
            wildcard=self._wildcard,
        )


def write_down(connection: Connection, change: Change, at: int) -> int:
    """Record a change for the workers and for the audit, in the transaction that makes it.

    Returns: the new generation.
    """
    store.insert_audit(
        connection,
        at=at,
        actor=change.actor,
        client_ip=change.client_ip,
        action=change.action,
        resource=change.entity_id,
        detail=change.detail,
        request_id=change.request_id,
    )
    return store.record_change(connection, change.kind, change.entity_id, at)

"""What one worker changes the other serves from its next request on, or says that it cannot."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import gevent
import pytest
from gevent import monkey
from sqlalchemy import Connection, delete, update

from tests.newest import list_audit
from tokenhub import catalog, store
from tokenhub.board import Board
from tokenhub.catalog import CHANGES_MAX, Catalog, Change
from tokenhub.db import Database, DatabaseAway
from tokenhub.db.catalog_tables import changes, generation
from tokenhub.domain import ApiKey, Model, Provider, RoutingDefaults, Team
from tokenhub.errors import Unavailable

patched_only = pytest.mark.skipif(
    not monkey.is_module_patched("threading"), reason="a plain process cannot wait"
)

DEFAULTS = RoutingDefaults()


class Slow:
    """A database that takes its time, or is away, when told."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.is_away = False
        self.delay_secs = 0.0
        self.reads = 0

    def read(self, work: Callable[[Connection], Any], *, timeout_secs: float = 5.0) -> Any:
        self.reads += 1
        if self.is_away or self.delay_secs > timeout_secs:
            gevent.sleep(min(self.delay_secs, timeout_secs))
            raise DatabaseAway("on purpose")
        gevent.sleep(self.delay_secs)
        return self._database.read(work, timeout_secs=timeout_secs)

    def write(self, work: Callable[[Connection], Any], *, timeout_secs: float = 5.0) -> Any:
        if self.is_away:
            raise DatabaseAway("on purpose")
        return self._database.write(work, timeout_secs=timeout_secs)


class Two:
    """Two workers of one host."""

    def __init__(self, database: Database) -> None:
        self.board = Board(slots=2)
        self.database = database
        self.slow = Slow(database)
        self.vault_changes: list[dict[str, bytes]] = []
        self.one = self.open(database)
        self.other = self.open(self.slow)

    def open(self, database: Any, *, with_demo: bool = True) -> Catalog:
        found: list[Catalog] = []
        found.append(
            Catalog(
                database=database,
                board=self.board,
                defaults=DEFAULTS,
                adapter_types=["openai"],
                with_demo=with_demo,
                on_vault_change=lambda: self.vault_changes.append(dict(found[0].latest().sealed)),
            )
        )
        return found[0]

    def apply(self, kind: str, entity_id: str, work: Callable[[Connection], Any]) -> None:
        self.one.apply(Change(kind, entity_id, f"{kind}.test"), work)

    def save_provider(self, name: str = "acme", **fields: Any) -> None:
        provider = Provider(name, "openai", "http://127.0.0.1:1", **fields)
        self.apply("provider", name, lambda each: store.save_provider(each, provider, 1))

    def save_model(self, name: str = "small", provider_id: str = "acme", **fields: Any) -> None:
        model = Model(name, provider_id, name, **fields)
        self.apply("model", name, lambda each: store.save_model(each, model, 1))

    def save_key(self, name: str, digest: bytes, **fields: Any) -> None:
        key = ApiKey(name, name, "tokenhub_", digest, "", **fields)
        self.apply("key", name, lambda each: store.save_key(each, store.KeyRow(key, 1)))

    def fresh(self) -> catalog.Snapshot:
        """What a worker sees that has just been started."""
        return self.open(self.database).latest()

    def check(self) -> None:
        """Whoever follows sees what whoever loads anew sees."""
        fresh = self.fresh()
        for each in (self.one, self.other):
            assert each.current() == fresh


@pytest.fixture
def two(database):
    return Two(database)


def test_a_change_is_seen_by_the_other_worker_at_its_next_look(two):
    assert two.other.current().routable == ()
    two.save_provider()
    two.save_model()
    two.save_key("key_1", b"1" * 32)
    seen = two.other.current()
    assert [model.id for model in seen.routable] == ["small"]
    assert set(seen.keys) == {b"1" * 32}
    assert seen.version == 3 == two.board.generation
    two.check()


def test_nothing_is_asked_of_the_database_while_nothing_changes(two):
    two.save_provider()
    two.other.current()
    before = two.slow.reads
    for _ in range(10):
        two.other.current()
    assert two.slow.reads == before


def test_a_revoked_key_is_gone_and_a_changed_one_has_changed(two):
    two.save_key("key_1", b"1" * 32)
    two.save_key("key_2", b"2" * 32)
    two.check()
    two.apply("key", "key_1", lambda each: store.delete_key(each, "key_1"))
    two.save_key("key_2", b"3" * 32)
    assert set(two.other.current().keys) == {b"3" * 32}
    two.save_key("key_2", b"3" * 32, enabled=False)
    assert not two.other.current().keys[b"3" * 32].enabled
    two.check()


def test_a_key_is_found_by_both_secrets_and_then_by_neither(two):
    two.save_key("key_1", b"1" * 32)
    two.save_key("key_1", b"2" * 32, previous_sha256=b"1" * 32, previous_until=2**41)
    assert set(two.other.current().keys) == {b"1" * 32, b"2" * 32}
    two.check()
    two.save_key("key_1", b"3" * 32, previous_sha256=b"2" * 32, previous_until=2**41)
    assert set(two.other.current().keys) == {b"2" * 32, b"3" * 32}
    two.check()
    two.apply("key", "key_1", lambda each: store.delete_key(each, "key_1"))
    assert two.other.current().keys == {}
    two.check()


def test_a_team_that_was_changed_has_changed_and_one_that_is_gone_is_gone(two):
    team = Team("team_1", "Ops")
    for each in (team, replace(team, enabled=False)):
        two.apply("team", "team_1", lambda c, team=each: store.save_team(c, team, 1))
        assert two.other.current().teams["team_1"].enabled == each.enabled
        two.check()
    two.apply("team", "team_1", lambda each: store.delete_team(each, "team_1"))
    assert two.other.current().teams == {}
    two.check()


def test_models_go_with_their_provider_also_when_it_is_there_again(two):
    two.save_provider()
    two.save_model()
    two.check()
    two.apply("provider", "acme", lambda each: store.delete_provider(each, "acme"))
    two.save_provider()
    assert two.other.current().models == {}
    two.check()


def test_a_model_that_moves_to_another_provider_survives_the_first(two):
    two.save_provider()
    two.save_model()
    two.check()
    two.save_provider("second")
    two.save_model(provider_id="second")
    two.apply("provider", "acme", lambda each: store.delete_provider(each, "acme"))
    assert two.other.current().models["small"].provider_id == "second"
    two.check()


def test_disabled_and_unspeakable_providers_are_not_routed_to(two):
    two.save_provider()
    two.save_provider("off", enabled=False)
    strange = Provider("strange", "telepathy", "http://127.0.0.1:1")
    two.apply("provider", "strange", lambda each: store.save_provider(each, strange, 1))
    for name in ("off", "strange", "acme"):
        two.save_model(f"{name}-model", name)
    two.save_model("off-model-2", enabled=False)
    seen = two.other.current()
    assert seen.usable == {"acme"}
    assert [model.id for model in seen.routable] == ["acme-model"]


def test_demo_providers_hide_as_soon_as_there_is_a_real_one(two):
    two.save_provider("demo", demo=True)
    two.save_model("demo-model", "demo")
    assert [model.id for model in two.other.current().routable] == ["demo-model"]
    assert two.open(two.database, with_demo=False).current().routable == ()
    two.save_provider()
    assert two.other.current().routable == ()
    two.apply("provider", "acme", lambda each: store.delete_provider(each, "acme"))
    assert [model.id for model in two.other.current().routable] == ["demo-model"]


@pytest.mark.parametrize("count", [CHANGES_MAX, CHANGES_MAX + 1])
def test_many_changes_at_once_are_caught_up_with(two, count):
    def work(connection: Connection) -> None:
        for number in range(count - 1):
            store.record_change(connection, "model", f"gone-{number}", 1)
        store.save_provider(connection, Provider("acme", "openai", "http://127.0.0.1:1"), 1)

    two.apply("provider", "acme", work)
    assert set(two.other.current().providers) == {"acme"}
    assert two.other.current().version == count
    two.check()


def test_changes_whose_record_was_pruned_are_seen_all_the_same(two):
    two.save_provider()
    two.save_model()
    two.database.write(lambda connection: connection.execute(delete(changes)))
    assert set(two.other.current().models) == {"small"}
    two.check()


def test_nor_is_anything_missed_when_a_part_of_the_record_was_pruned(two):
    two.save_provider()
    two.save_model()
    version = changes.c.version
    two.database.write(lambda connection: connection.execute(delete(changes).where(version == 1)))
    assert set(two.other.current().providers) == {"acme"}
    two.check()


def test_saved_defaults_win_over_those_of_the_settings_which_need_no_database(two):
    fresh = replace(DEFAULTS, mode="cheap")
    two.slow.is_away = True
    two.other.set_defaults(fresh)
    assert two.other.current().defaults == fresh
    two.slow.is_away = False
    saved = replace(DEFAULTS, mode="planning")
    two.apply("routing", "", lambda each: store.save_routing(each, saved, 1))
    assert two.other.current().defaults == saved
    two.other.set_defaults(replace(DEFAULTS, mode="thompson"))
    assert two.other.current().defaults == saved


def test_settings_read_again_during_a_load_are_not_lost(two, monkeypatch):
    real = store.changes_since
    fresh = replace(DEFAULTS, mode="cheap")

    def changes_since(connection: Connection, version: int) -> Any:
        two.other.set_defaults(fresh)
        return real(connection, version)

    two.save_provider()
    monkeypatch.setattr(store, "changes_since", changes_since)
    assert two.other.current().defaults == fresh
    assert set(two.other.current().providers) == {"acme"}


def test_a_secret_is_read_anew_after_the_snapshot_that_has_it(two):
    two.apply("vault", "name", lambda each: store.save_entry(each, "name", b"sealed", 1))
    two.save_provider()
    two.other.current()
    assert two.vault_changes == [{"name": b"sealed"}]
    two.apply("vault", "name", lambda each: store.delete_entry(each, "name"))
    two.other.current()
    assert two.vault_changes == [{"name": b"sealed"}, {}]


def test_a_catalog_that_cannot_catch_up_refuses_rather_than_serve_a_revoked_key(two):
    two.save_key("key_1", b"1" * 32)
    two.other.current()
    two.apply("key", "key_1", lambda each: store.delete_key(each, "key_1"))
    two.slow.is_away = True
    before = two.slow.reads
    for _ in range(20):  # all at once: one of them asks
        with pytest.raises(Unavailable) as refused:
            two.other.current()
    assert refused.value.code == "catalog_stale"
    assert refused.value.headers == {"Retry-After": "1"}
    assert two.slow.reads == before + 1
    assert two.other.latest().keys
    two.slow.is_away = False
    time.sleep(catalog.FAILURE_SECS)
    assert not two.other.current().keys


@patched_only
def test_a_slow_database_is_caught_up_with_by_one_load_for_all_who_ask(two):
    two.save_provider()
    two.slow.delay_secs = 3 * catalog.FAILURE_SECS
    before = two.slow.reads

    def ask() -> str:
        try:
            found = two.other.current(patience_secs=catalog.FAILURE_SECS)
            return "served" if found.providers else "stale"
        except Unavailable:
            return "refused"

    began = time.monotonic()
    asked = [gevent.spawn(ask) for _ in range(50)]
    gevent.joinall(asked, timeout=5)
    assert {each.value for each in asked} == {"refused"}
    assert time.monotonic() - began < 2 * catalog.FAILURE_SECS
    gevent.sleep(3 * catalog.FAILURE_SECS)
    assert ask() == "served"
    assert two.slow.reads == before + 1


def test_after_a_bug_while_loading_the_next_one_tries_again(two, monkeypatch):
    two.save_provider()
    with monkeypatch.context() as patch:
        patch.setattr(store, "changes_since", lambda *_: 1 / 0)
        with pytest.raises(Unavailable):
            two.other.current()
    time.sleep(catalog.FAILURE_SECS)
    assert two.other.current().providers


def test_changes_of_other_hosts_come_with_the_poll(two):
    elsewhere = Two(two.database)
    elsewhere.save_provider()
    assert two.other.current().providers == {}
    two.one.poll()
    assert set(two.other.current().providers) == {"acme"}


def test_a_database_that_was_set_back_is_followed_from_there(two):
    two.save_provider()
    two.save_model()
    two.save_key("key_1", b"1" * 32)
    two.check()

    def restore(connection: Connection) -> None:
        connection.execute(delete(changes))
        connection.execute(update(generation).values(value=1))
        store.delete_key(connection, "key_1")

    two.database.write(restore)
    two.one.poll()
    assert two.board.generation == 1
    assert not two.other.current().keys
    two.apply("model", "small", lambda each: store.delete_model(each, "small"))
    assert not two.other.current().models
    two.check()


def test_a_change_whose_outcome_nobody_knows_is_found_by_the_poll(two):
    class Unsure(Slow):
        def write(self, work: Callable[[Connection], Any], *, timeout_secs: float = 5.0) -> Any:
            super().write(work, timeout_secs=timeout_secs)
            raise DatabaseAway("on purpose", is_outcome_unknown=True)

    unsure = two.open(Unsure(two.database))
    provider = Provider("acme", "openai", "http://127.0.0.1:1")
    with suppress(Unavailable):
        unsure.apply(
            Change("provider", "acme", "test"), lambda each: store.save_provider(each, provider, 1)
        )
    two.one.poll()
    assert set(two.other.current().providers) == {"acme"}


def test_a_change_and_its_audit_are_one(two):
    with pytest.raises(ZeroDivisionError):
        two.apply("provider", "acme", lambda _: 1 / 0)
    two.save_provider()
    audit = two.database.read(lambda connection: list_audit(connection, 10, 0))
    assert [(row["action"], row["resource"]) for row in audit] == [("provider.test", "acme")]

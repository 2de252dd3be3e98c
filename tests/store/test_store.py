"""What is stored comes back as it was, on both databases; changes are seen in order."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from tests.newest import list_audit
from tokenhub import store
from tokenhub.db.catalog_tables import price_versions, vault
from tokenhub.domain import ApiKey, Model, Price, Provider, RoutingDefaults, VaultRow

PROVIDER = Provider("p", "openai", "http://127.0.0.1:9", cred_store="vault", native_responses=True)
PRICE = Price(150_000_000, 600_000_000, None, 0)
MODEL = Model(
    id="vendor/m-1", provider_id="p", upstream_model="m-1", price=PRICE, enabled=False,
    capabilities=("chat", "tools"), tool_name_map={"a": "ä"}, gemma4_output=True,
)  # fmt: skip
KEY = ApiKey(
    id="key_1", name="büro", prefix="th_abc", sha256=b"\x00" * 32, bcrypt_hash="$2b$",
    scopes=frozenset({"chat"}), expires_at=2**41,
)  # fmt: skip


@pytest.fixture
def write(database):
    """Calls a function of the store in a transaction of its own."""
    return lambda function, *args, **named: database.write(
        lambda connection: function(connection, *args, **named)
    )


@pytest.fixture
def read(database):
    """Calls a function of the store in a transaction that only reads."""
    return lambda function, *args: database.read(lambda connection: function(connection, *args))


def test_an_empty_database_loads_as_generation_zero(read):
    assert read(store.load_all) == store.Loaded(0, {}, {}, {}, None, {})


def test_everything_that_was_saved_is_loaded_at_once(write, read):
    provider = write(store.save_provider, PROVIDER, 1000)
    model = write(store.save_model, MODEL, 1000)
    routing = RoutingDefaults("cheap", 10**12, 5)
    write(store.save_routing, RoutingDefaults(), 1000)
    write(store.save_routing, routing, 1001)
    write(store.save_key, store.KeyRow(KEY, 1000, expires_at=KEY.expires_at))
    write(store.save_entry, "provider:p", b"\x00sealed", 1000)
    generation = write(store.record_change, "provider", "p", 1000)
    loaded = read(store.load_all)
    assert loaded == store.Loaded(
        generation, {"p": provider}, {model.id: model}, {KEY.sha256: KEY}, routing,
        {"provider:p": b"\x00sealed"},
    )  # fmt: skip
    assert (provider, model.price.is_known) == (PROVIDER, True)
    assert replace(model, price=MODEL.price, created_at=0) == MODEL
    assert read(store.find_provider, "p") == provider
    assert read(store.find_model, MODEL.id) == model
    assert read(store.find_key, KEY.id) == KEY
    assert read(store.find_routing) == routing


def test_a_save_counts_revisions_and_keeps_the_place_in_the_list(write, read):
    write(store.save_provider, replace(PROVIDER, id="z"), 1)
    write(store.save_provider, replace(PROVIDER, id="a"), 2)
    again = write(store.save_provider, replace(PROVIDER, id="z", enabled=False), 3)
    assert (again.revision, again.enabled) == (2, False)
    found, total = read(store.list_providers, 10, 0)
    assert ([each.id for each in found], total) == (["z", "a"], 2)
    assert found[0] == again


def test_a_price_gets_a_version_when_it_differs_and_only_then(write, read):
    write(store.save_provider, PROVIDER, 1)
    first = write(store.save_model, MODEL, 1)
    same = write(store.save_model, replace(first, weight=9), 2)
    dearer = replace(PRICE, cache_read_per_mtok=0)  # unknown is not free
    changed = write(store.save_model, replace(same, price=dearer, pricing_source="file"), 3)
    assert same.price == first.price
    assert changed.price.version > first.price.version
    assert changed == read(store.find_model, MODEL.id)
    assert write(store.delete_model, MODEL.id)
    rows = read(lambda connection: connection.execute(select(price_versions)).all())
    prices = (*[150_000_000, 600_000_000], 0)
    assert [tuple(row) for row in rows] == [
        (first.price.version, MODEL.id, *prices[:2], None, 0, "manual", 1),
        (changed.price.version, MODEL.id, *prices[:2], 0, 0, "file", 3),
    ]


def test_a_model_of_no_provider_is_refused(write, read):
    with pytest.raises(IntegrityError):
        write(store.save_model, MODEL, 1)
    assert read(store.list_models, 10, 0) == ([], 0)


def test_a_provider_takes_its_models_along(write, read):
    write(store.save_provider, PROVIDER, 1)
    write(store.save_model, MODEL, 1)
    assert write(store.delete_provider, "p")
    assert read(store.find_model, MODEL.id) is None
    assert not write(store.delete_provider, "p")
    assert not write(store.delete_model, MODEL.id)


def test_pages_say_how_many_there_are_in_all(write, read):
    write(store.save_provider, PROVIDER, 1)
    for number in range(5):
        write(store.save_model, replace(MODEL, id=f"m{number}"), 1)
    found, total = read(store.list_models, 2, 3)
    assert ([model.id for model in found], total) == (["m3", "m4"], 5)
    assert read(store.list_models, 2, 9) == ([], 5)


def test_changes_are_numbered_by_the_generation(write, read):
    assert [write(store.record_change, "key", each, 1) for each in "abc"] == [1, 2, 3]
    assert read(store.load_generation) == 3
    assert read(store.changes_since, 1) == [(2, "key", "b"), (3, "key", "c")]
    assert read(store.changes_since, 3) == []


def test_a_change_that_failed_takes_no_number(database, write, read):
    def work(connection):
        store.record_change(connection, "key", "a", 1)
        raise KeyError

    with pytest.raises(KeyError):
        database.write(work)
    assert write(store.record_change, "key", "b", 1) == 1
    assert read(store.changes_since, 0) == [(1, "key", "b")]


def test_the_vault_is_set_up_once(write, read):
    assert read(store.find_vault) is None
    row = VaultRow("vault_1", "{}", b"salt", b"wrapped")
    assert write(store.insert_vault, row, 1)
    assert not write(store.insert_vault, replace(row, id="vault_2"), 2)
    assert read(store.find_vault) == row


def test_the_vaults_row_is_replaced_only_by_who_has_read_it_last(write, read):
    row = VaultRow("vault_1", "{}", b"salt", b"wrapped")
    write(store.insert_vault, row, 1)
    first, second = (
        VaultRow("vault_1", '{"n":1}', b"salt " + name, b"wrapped " + name) for name in (b"1", b"2")
    )
    assert write(store.replace_vault, row, first)
    assert not write(store.replace_vault, row, second)
    assert not write(store.replace_vault, replace(first, id="vault_2"), second)
    assert read(store.find_vault) == first
    assert read(lambda each: each.scalar(select(vault.c.generation))) == 2
    assert read(store.load_all).vault == first


def test_operators_own_secrets_are_listed_apart_and_are_in_no_snapshot(write, read):
    names = ["secret:b", "provider:p:api_key", "secret:a/b", "secret:secret:", "secret:Ä"]
    for name in names:
        write(store.save_entry, name, b"sealed", 1)
    assert read(store.list_secrets, 9, 0) == (["a/b", "b", "secret:", "Ä"], 4)
    assert read(store.list_secrets, 2, 1) == (["b", "secret:"], 4)
    assert read(store.load_all).sealed == {"provider:p:api_key": b"sealed"}


def test_sealed_entries_are_replaced_and_deleted_by_name(write, read):
    assert read(store.find_entry, "b") is None
    for name, sealed in (("b", b"1"), ("a", b"2"), ("b", b"3")):
        write(store.save_entry, name, sealed, 1)
    assert read(store.list_entries) == ["a", "b"]
    assert read(store.find_entry, "b") == b"3"
    assert write(store.delete_entry, "b")
    assert not write(store.delete_entry, "b")
    assert read(store.list_entries) == ["a"]


def test_the_audit_is_listed_newest_first(write, read):
    audit = partial(
        write, store.insert_audit, actor="admin", client_ip="::1", action="key.create",
        detail="{}", request_id="r",
    )  # fmt: skip
    for at, resource in ((5, "a"), (7, "b"), (7, "c"), (6, "d")):
        audit(at=at, resource=resource)
    found = read(list_audit, 3, 0)
    assert [row["resource"] for row in found] == ["c", "b", "d"]
    assert found[0] == {
        "id": 3, "at": 7, "actor": "admin", "client_ip": "::1", "action": "key.create",
        "resource": "c", "detail": "{}", "request_id": "r",
    }  # fmt: skip


def test_a_lease_has_one_holder_until_it_expires(write):
    assert write(store.take_lease, "jobs", "a", 60) == 1
    assert write(store.take_lease, "jobs", "a", 60) == 1
    assert write(store.take_lease, "jobs", "b", 60) is None
    assert write(store.take_lease, "other", "b", 60) == 1
    assert write(store.take_lease, "jobs", "a", 0) == 1
    assert write(store.take_lease, "jobs", "b", 60) == 2
    assert write(store.take_lease, "jobs", "a", 60) is None


def test_a_holder_who_lost_its_lease_for_a_while_gets_a_new_fence(write):
    assert write(store.take_lease, "jobs", "a", 0) == 1
    assert write(store.take_lease, "jobs", "a", 60) == 2

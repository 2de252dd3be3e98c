"""Aliases, tags and fallbacks come back as they were stored, and other workers hear of them."""

from __future__ import annotations

from dataclasses import replace

from tests.store.test_catalog import Two
from tokenhub import store
from tokenhub.domain import Alias, Model, Provider, Variant

ALIAS = Alias(
    "team/büro",
    (Variant("gpt-x", 80), Variant("vendor/y", 20)),
    enabled=False,
    sticky_by="api_key",
)


def test_an_alias_comes_back_as_it_was_and_keeps_its_beginning(database):
    made = database.write(lambda each: store.save_alias(each, ALIAS, 5))
    assert made == replace(ALIAS, created_at=5, updated_at=5, revision=1)
    later = replace(ALIAS, variants=(Variant("z", 1),), sticky_by="round_robin")
    changed = database.write(lambda each: store.save_alias(each, later, 9))
    assert changed == replace(later, created_at=5, updated_at=9, revision=2)
    assert database.read(lambda each: store.find_alias(each, ALIAS.name)) == changed


def test_aliases_are_listed_by_name_in_pages_and_can_go(database):
    def work(connection):
        for name in ("c", "*", "a"):
            store.save_alias(connection, replace(ALIAS, name=name), 1)

    database.write(work)
    rows, total = database.read(lambda each: store.list_aliases(each, 2, 1))
    assert ([row.name for row in rows], total) == (["a", "c"], 3)
    assert database.write(lambda each: store.delete_alias(each, "a"))
    assert not database.write(lambda each: store.delete_alias(each, "a"))
    assert database.read(store.load_aliases).keys() == {"c", "*"}


def test_tags_and_fallbacks_of_a_model_come_back(database):
    model = Model("m", "p", "m", tags=("eu", "on site"), fallbacks=("b", "x/y"))

    def work(connection):
        store.save_provider(connection, Provider("p", "openai", "http://127.0.0.1:9"), 1)
        return store.save_model(connection, model, 1)

    saved = database.write(work)
    found = database.read(lambda each: store.find_model(each, "m"))
    assert found == saved
    assert (found.tags, found.fallbacks) == (model.tags, model.fallbacks)


def test_an_alias_that_was_changed_has_changed_on_the_other_worker_and_one_that_is_gone_is_gone(
    database,
):
    two = Two(database)
    two.save_provider()
    two.save_model("gpt-x")

    def save(alias):
        two.apply("alias", "*", lambda each: store.save_alias(each, alias, 1))

    for alias in (replace(ALIAS, name="*"), replace(ALIAS, name="*", enabled=True)):
        save(alias)
        seen = two.other.current()
        assert seen.aliases["*"].enabled == alias.enabled
        assert seen.pool == (seen.aliases["*"] if alias.enabled else None)
        two.check()
    two.apply("alias", "*", lambda each: store.delete_alias(each, "*"))
    assert (two.other.current().aliases, two.other.current().pool) == ({}, None)
    two.check()

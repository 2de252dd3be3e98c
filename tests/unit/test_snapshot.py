"""A key sees the models that it and its team are allowed; allowed all, it pays nothing for that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tokenhub.catalog import Snapshot
from tokenhub.domain import ApiKey, Model, RoutingDefaults, Team

NAMES = ("gpt-4o", "gpt-4o-mini", "llama", "off", "vendor/gpt-4o")
MODELS = {name: Model(name, "p", name, enabled=name != "off") for name in NAMES}
KEY = ApiKey("key_1", "tests", "", b"1", "")


def snapshot(**fields: Any) -> Snapshot:
    routable = tuple(model for model in MODELS.values() if model.enabled)
    return Snapshot(7, {}, MODELS, {}, RoutingDefaults(), routable=routable, **fields)


def seen(models: tuple[str, ...] = (), of_team: tuple[str, ...] = ()) -> list[str]:
    teams = {"team_1": Team("team_1", "Ops", models=of_team)}
    found = snapshot(teams=teams).seen_by(replace(KEY, models=models, team_id="team_1"))
    return [model.id for model in found.routable]


@pytest.mark.parametrize(
    ("of_key", "of_team", "expected"),
    [
        (("llama",), (), ["llama"]),
        (("gpt-*",), (), ["gpt-4o", "gpt-4o-mini"]),
        (("gpt-4o",), (), ["gpt-4o"]),
        (("*",), (), ["gpt-4o", "gpt-4o-mini", "llama", "vendor/gpt-4o"]),
        ((), ("vendor/*", "llama"), ["llama", "vendor/gpt-4o"]),
        (("gpt-*", "llama"), ("*-mini", "gpt-4o*"), ["gpt-4o", "gpt-4o-mini"]),
        (("gpt-*",), ("llama",), []),
        (("none",), (), []),
        (("off",), (), []),
        (("GPT-*",), (), []),
    ],
)
def test_the_lists_of_key_and_team_both_hold(of_key, of_team, expected):
    assert seen(of_key, of_team) == expected


def test_what_is_not_routable_may_be_allowed_all_the_same():
    found = snapshot().seen_by(replace(KEY, models=("off", "unheard-of")))
    assert found.allowed == frozenset({"off"})


@pytest.mark.parametrize("team_id", ["", "team_1", "unknown"])
def test_a_key_that_is_allowed_all_sees_the_catalog_itself(team_id):
    whole = snapshot(teams={"team_1": Team("team_1", "Ops")})
    assert whole.seen_by(replace(KEY, team_id=team_id)) is whole
    assert whole.allowed is None


def test_what_a_key_sees_is_worked_out_once_for_each_catalog():
    first, key = snapshot(), replace(KEY, models=("llama",))
    view = first.seen_by(key)
    assert first.seen_by(key) is view
    assert view == replace(first, routable=(MODELS["llama"],), allowed=frozenset({"llama"}))
    later = replace(first, version=8)
    assert later.seen_by(key).version == 8
    other = replace(key, id="key_2", models=("gpt-4o",))
    assert later.seen_by(other).allowed == frozenset({"gpt-4o"})

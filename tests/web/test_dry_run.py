"""A dry run of a deletion says who would miss the thing, and changes nothing."""

from __future__ import annotations

import pytest


@pytest.fixture
def world(admin):
    admin.unlock()
    admin.provider(api_key="sk-planted-provider-key")
    admin.model("a")
    admin.model("b", fallbacks=["a"])
    admin.provider("other")
    admin.model("c", provider_id="other", fallbacks=["b", "fast"])
    a, c = ({"model_id": id_, "weight": 1} for id_ in ("a", "c"))
    admin.ok("PUT", "aliases/fast", {"variants": [a, c]})
    admin.ok("PUT", "aliases/lone", {"variants": [a]})
    team = admin.ok("POST", "teams", {"name": "Ops", "models": ["a"]})["team"]["id"]
    key = admin.ok("POST", "apikeys", {"name": "n", "team_id": team, "models": ["a", "c"]})["id"]
    admin.ok("PUT", f"budgets/key/{key}/day", {"limit_usd": 1})
    admin.ok("PUT", f"budgets/team/{team}/month", {"limit_usd": 1})
    return {"key": key, "team": team}


CASES = {
    "providers/acme": {
        ("model", "a", "removed"), ("model", "b", "removed"), ("credential", "acme", "removed"),
        ("alias", "fast", "names_it"), ("alias", "lone", "cannot_serve"),
        ("model", "c", "names_it"), ("key", "{key}", "names_it"),
        ("team", "{team}", "cannot_serve"),
    },
    "models/a": {
        ("alias", "fast", "names_it"), ("alias", "lone", "cannot_serve"),
        ("model", "b", "names_it"), ("key", "{key}", "names_it"),
        ("team", "{team}", "cannot_serve"),
    },
    "aliases/fast": {("model", "c", "names_it")},
    "apikeys/{key}": {("budget", "key/{key}/day", "removed")},
    "teams/{team}": {("key", "{key}", "prevents"), ("budget", "team/{team}/month", "removed")},
}  # fmt: skip


@pytest.mark.parametrize(("path", "expected"), CASES.items())
def test_who_depends_on_it_is_listed_and_nothing_is_changed(admin, world, app, path, expected):
    version = app.services.catalog.current().version
    rows = len(admin.ok("GET", "audit")["logs"])
    said = admin.ok("DELETE", path.format(**world) + "?dry_run=true")
    found = {(each["kind"], each["id"], each["effect"]) for each in said["dependents"]}
    assert found == {(kind, id_.format(**world), effect) for kind, id_, effect in expected}
    assert (said["dry_run"], said["exists"], said["total"]) == (True, True, len(expected))
    assert said["would_be_refused"] is path.startswith("teams")
    assert app.services.catalog.current().version == version
    assert len(admin.ok("GET", "audit")["logs"]) == rows


def test_nobody_depends_on_what_is_not_there(admin):
    for noun in ("providers", "models", "aliases", "apikeys", "teams"):
        said = admin.ok("DELETE", f"{noun}/none?dry_run=true")
        assert (said["exists"], said["dependents"], said["total"]) == (False, [], 0)


def test_a_dry_run_keeps_to_the_revision_and_the_words(admin, world):
    assert admin.send("DELETE", "models/a?dry_run=true", If_Match='"9"').status_code == 412
    for query in ("dry_run=yes", "dry_run=", "dryrun=true", "dry_run=true&dry_run=false"):
        assert admin.send("DELETE", f"models/a?{query}").status_code == 400
    assert admin.find("models", "a") is not None
    assert admin.ok("DELETE", "models/a?dry_run=false") == {"ok": True}


def test_what_knows_no_dry_run_is_not_removed_by_one(admin, world):
    key = world["key"]
    for path in (f"budgets/key/{key}/day", "tokens/none", "vault/secrets/none", "sessions/none"):
        assert admin.refused("DELETE", f"{path}?dry_run=true") == (400, "unknown_field", "dry_run")
    assert admin.ok("GET", f"budgets?subject_kind=key&subject_id={key}")["total"] == 1

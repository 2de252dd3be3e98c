"""Teams through the admin API: made, changed, and kept as long as keys belong to them."""

from __future__ import annotations

import pytest

LIMITS = {"rate_limit_rps": 5, "rpm": 60, "tpm": 9000, "max_parallel": 3}


@pytest.fixture
def team(admin):
    """Makes a team; returns it."""
    return lambda name="Ops", **fields: admin.ok("POST", "teams", {"name": name, **fields})["team"]


def test_a_team_is_shown_as_it_was_made(admin, team):
    made = team(models=["gpt-*"], enabled=False, **LIMITS)
    assert made.pop("created_at").endswith("Z")
    id_ = made.pop("id")
    assert made == {
        "name": "Ops", "models": ["gpt-*"], "enabled": False, "revision": 1, **LIMITS,
    }  # fmt: skip
    shown = admin.ok("GET", f"teams/{id_}")
    assert shown.items() > made.items()
    assert admin.ok("GET", "teams")["teams"] == [shown]


def test_a_team_of_which_little_is_said_is_enabled_and_has_no_limits(team):
    made = team()
    assert (made["enabled"], made["models"]) == (True, [])
    assert {name: made[name] for name in LIMITS} == dict.fromkeys(LIMITS, 0)


def test_teams_are_listed_by_name_in_pages(admin, team):
    for name in ("c", "a", "b"):
        team(name)
    page = admin.ok("GET", "teams?limit=2&offset=1")
    assert [each["name"] for each in page["teams"]] == ["b", "c"]
    assert (page["total"], page["limit"], page["offset"]) == (3, 2, 1)


def test_a_patch_changes_what_it_names_and_is_written_down(admin, team):
    made = team(**LIMITS)
    path = f"teams/{made['id']}"
    after = admin.ok("PATCH", path, {"name": "Dev", "rpm": 0, "models": ["m"]})["team"]
    assert after == made | {"name": "Dev", "rpm": 0, "models": ["m"], "revision": 2}
    assert admin.ok("PATCH", path, {"name": "Dev"})["team"] == after | {"revision": 3}
    actions = [row["action"] for row in admin.ok("GET", "audit")["logs"]]
    assert actions == ["team.update", "team.update", "team.create"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"name": " "}, "name"),
        ({"name": 1}, "name"),
        ({"enabled": "yes"}, "enabled"),
        ({"models": ["a*b"]}, "models"),
        ({"models": [1]}, "models"),
        ({"rate_limit_rps": -2}, "rate_limit_rps"),
        ({"rpm": 1.5}, "rpm"),
        ({"tpm": "many"}, "tpm"),
        ({"max_parallel": -1}, "max_parallel"),
        ({"budget": 1}, "budget"),
        ({"id": "ops"}, "id"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(admin, team, change, param):
    made = team()
    for method, path in (("POST", "teams"), ("PATCH", f"teams/{made['id']}")):
        status, _, named = admin.refused(method, path, {"name": "Dev"} | change)
        assert (status, named) == (400, param)
    assert admin.ok("GET", "teams")["teams"] == [made]


def test_two_teams_cannot_have_one_name(admin, team):
    first, second = team("Ops"), team("Dev")
    assert admin.refused("POST", "teams", {"name": "Ops"}) == (409, "name_taken", "name")
    path = f"teams/{second['id']}"
    assert admin.refused("PATCH", path, {"name": "Ops"}) == (409, "name_taken", "name")
    assert admin.ok("PATCH", f"teams/{first['id']}", {"name": "Ops"})["ok"]


def test_a_team_stays_while_keys_belong_to_it(admin, team):
    made = team()
    key = admin.ok("POST", "apikeys", {"name": "ci", "team_id": made["id"]})
    path = f"teams/{made['id']}"
    assert admin.refused("DELETE", path) == (409, "team_in_use", "id")
    admin.ok("PATCH", f"apikeys/{key['id']}", {"team_id": ""})
    for _ in range(2):
        assert admin.ok("DELETE", path) == {"ok": True}
    assert admin.refused("GET", path)[0] == 404
    given = {"team_id": made["id"]}
    assert admin.refused("PATCH", f"apikeys/{key['id']}", given)[::2] == (400, "team_id")


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("PATCH", {"name": "x"})])
def test_an_unknown_team_is_404(admin, method, body):
    assert admin.refused(method, "teams/nobody", body)[0] == 404

"""Aliases through the admin API: what is stored, what is refused, whose name is taken already."""

from __future__ import annotations

import orjson
import pytest

AB = [{"model_id": "a", "weight": 80}, {"model_id": "with/slash", "weight": 20}]


@pytest.fixture(autouse=True)
def models(admin):
    admin.provider()
    admin.model("small")


def shown(record):
    """An alias without its times and its revision."""
    rest = {name: value for name, value in record.items() if not name.endswith("_at")}
    rest.pop("revision")
    return rest


@pytest.mark.parametrize("name", ["fast", "team/fast:1", "*", "büro"])
def test_what_is_put_is_what_is_shown_listed_and_served_from(admin, app, name):
    made = admin.ok("PUT", f"aliases/{name}", {"variants": AB})
    assert shown(made) == {
        "name": name, "variants": AB, "enabled": True, "sticky_by": "request",
    }  # fmt: skip
    assert made["created_at"] == made["updated_at"]
    assert admin.ok("GET", f"aliases/{name}") == made
    assert admin.ok("GET", "aliases") == {"items": [made], "total": 1, "limit": 1000, "offset": 0}
    assert [tuple(each) for each in app.services.catalog.current().aliases[name].variants] == [
        ("a", 80), ("with/slash", 20),
    ]  # fmt: skip


def test_a_slash_may_be_written_in_either_way(admin):
    admin.ok("PUT", "aliases/team%2Ffast", {"variants": AB})
    assert admin.ok("GET", "aliases/team/fast")["name"] == "team/fast"


def test_putting_again_replaces_everything_and_a_patch_what_is_given(admin):
    first = admin.ok("PUT", "aliases/x", {"variants": AB, "enabled": False, "sticky_by": "api_key"})
    patched = admin.ok("PATCH", "aliases/x", {"sticky_by": "round_robin"})
    assert shown(patched) == {**shown(first), "sticky_by": "round_robin"}
    assert patched["created_at"] == first["created_at"]
    assert shown(admin.ok("PUT", "aliases/x", {"variants": AB[:1], "sticky_by": ""})) == {
        "name": "x", "variants": AB[:1], "enabled": True, "sticky_by": "request",
    }  # fmt: skip


def test_to_delete_is_well_whether_it_is_there_or_not(admin, app):
    admin.ok("PUT", "aliases/x", {"variants": AB})
    assert [admin.ok("DELETE", "aliases/x") for _ in range(2)] == [{"ok": True}] * 2
    assert admin.refused("GET", "aliases/x") == (404, "not_found", "name")
    assert admin.refused("PATCH", "aliases/x", {"enabled": True}) == (404, "not_found", "name")
    assert app.services.catalog.current().aliases == {}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"variants": []}, "variants"),
        ({"variants": None}, "variants"),
        ({"variants": "a"}, "variants"),
        ({"variants": ["a"]}, "variants"),
        ({"variants": [{"model_id": "a"}]}, "variants"),
        ({"variants": [{"model_id": "a", "weight": 1, "height": 1}]}, "variants"),
        ({"variants": [{"model_id": 1, "weight": 1}]}, "variants"),
        ({"variants": [{"model_id": "*", "weight": 1}]}, "variants"),
        ({"variants": [{"model_id": "a", "weight": 0}]}, "variants"),
        ({"variants": [{"model_id": "a", "weight": -1}]}, "variants"),
        ({"variants": [{"model_id": "a", "weight": 1.5}]}, "variants"),
        ({"variants": [{"model_id": "a", "weight": True}]}, "variants"),
        ({"variants": [{"model_id": "a", "weight": "1"}]}, "variants"),
        ({"variants": [{"model_id": "a", "weight": 10**7}]}, "variants"),
        ({"variants": [AB[0], AB[0]]}, "variants"),
        ({"variants": [{"model_id": "x", "weight": 1}]}, "variants"),
        (
            {"variants": [{"model_id": f"m{number}", "weight": 1} for number in range(51)]},
            "variants",
        ),
        ({"variants": [{"model_id": "other", "weight": 1}]}, "variants"),
        ({"sticky_by": "mood"}, "sticky_by"),
        ({"sticky_by": None}, "sticky_by"),
        ({"enabled": 1}, "enabled"),
        ({"name": "y"}, "name"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name_and_nothing_changes(admin, change, param):
    admin.ok("PUT", "aliases/other", {"variants": AB})
    made = admin.ok("PUT", "aliases/x", {"variants": AB})
    for method in ("PUT", "PATCH"):
        status, _, found = admin.refused(method, "aliases/x", {"variants": AB, **change})
        assert (status, found) == (400, param)
    assert admin.ok("GET", "aliases/x") == made


@pytest.mark.parametrize("name", ["a//b", "a/..", "x" * 151, "%20a"])
def test_a_name_that_no_id_could_have_is_refused(admin, name):
    status, _, param = admin.refused("PUT", f"aliases/{name}", {"variants": AB})
    assert (status, param) in {(400, "name"), (404, None)}


def test_variants_are_required_of_a_new_one(admin):
    assert admin.refused("PUT", "aliases/x", {}) == (400, "missing_field", "variants")


def test_a_model_and_an_alias_cannot_have_the_same_name(admin):
    body = {"variants": AB}
    assert admin.refused("PUT", "aliases/small", body) == (409, "name_taken", "name")
    admin.ok("PUT", "aliases/x", {**body, "enabled": False})
    model = {"id": "x", "provider_id": "acme"}
    assert admin.refused("POST", "models", model) == (409, "name_taken", "id")
    admin.ok("DELETE", "aliases/x")
    admin.ok("POST", "models", model)
    assert admin.ok("POST", "models", {**model, "weight": 7})["ok"]


def test_every_change_is_in_the_audit_with_before_and_after(admin):
    admin.ok("PUT", "aliases/x", {"variants": AB})
    admin.ok("PATCH", "aliases/x", {"enabled": False})
    admin.ok("DELETE", "aliases/x")
    rows = [row for row in admin.ok("GET", "audit")["logs"] if row["resource"] == "x"]
    assert [row["action"] for row in rows] == ["alias.delete", "alias.patch", "alias.upsert"]
    details = [orjson.loads(row["detail"]) for row in reversed(rows)]
    after = [each["after"] and each["after"]["enabled"] for each in details]
    before = [each["before"] and each["before"]["enabled"] for each in details]
    assert (before, after) == ([None, True, False], [True, False, None])
    assert details[0]["after"]["variants"] == AB

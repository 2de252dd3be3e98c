"""`If-Match`: of two who change the same thing, the second learns that it is another one now."""

from __future__ import annotations

import pytest

VARIANTS = [{"model_id": "small", "weight": 1}]
THINGS = {
    "providers/acme": {"enabled": True},
    "models/small": {"weight": 7},
    "aliases/fast": {"enabled": True},
    "apikeys/{key}": {"rpm": 7},
    "teams/{team}": {"rpm": 7},
}


@pytest.fixture
def path_of(admin):
    """The path of a thing, and all of them made."""
    admin.provider()
    admin.model()
    admin.ok("PUT", "aliases/fast", {"variants": VARIANTS})
    ids = {
        "key": admin.ok("POST", "apikeys", {"name": "ci"})["id"],
        "team": admin.ok("POST", "teams", {"name": "Ops"})["team"]["id"],
    }
    return lambda path: path.format(**ids)


def listed(admin, path):
    noun, _, id_ = path.partition("/")
    page = admin.ok("GET", noun)
    rows = next(rows for rows in page.values() if isinstance(rows, list))
    return next(row for row in rows if row.get("id", row.get("name")) == id_)["revision"]


@pytest.mark.parametrize(("thing", "change"), THINGS.items())
def test_a_change_that_is_meant_for_another_revision_is_refused(admin, path_of, thing, change):
    path = path_of(thing)
    before = listed(admin, path)
    first = admin.send("PATCH", path, change, If_Match=f'"{before}"')
    assert (first.status_code, first.headers["ETag"]) == (200, f'"{before + 1}"')
    assert listed(admin, path) == before + 1
    second = admin.send("PATCH", path, change, If_Match=f'"{before}"')
    assert second.status_code == 412
    error = second.get_json()["error"]
    assert (error["code"], error["param"]) == ("revision_mismatch", "If-Match")
    assert error["revision"] == before + 1
    assert listed(admin, path) == before + 1
    assert admin.send("DELETE", path, If_Match=f'"{before}"').status_code == 412
    assert admin.send("DELETE", path, If_Match=f'"{before + 1}"').status_code == 200


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("*", 200), ('"1"', 200), ('W/"1"', 200), ('"7", "1"', 200), (' "1" ', 200),
        ('"7"', 412), ('"01"', 412), ('""', 412), ('"None"', 412),
        ("1", 400), ("", 400), ('"1', 400), ("*, \"1\"", 400), ('"1" "1"', 400),
    ],
)  # fmt: skip
def test_what_the_header_may_say(admin, path_of, given, status):
    response = admin.send("PATCH", path_of("models/small"), {"weight": 3}, If_Match=given)
    assert response.status_code == status
    if status != 200:
        assert response.get_json()["error"]["param"] == "If-Match"


def test_what_is_not_there_matches_nothing(admin, path_of):
    new = {"id": "new", "provider_id": "acme"}
    for given in ("*", '"1"', '"None"'):
        refused = admin.send("POST", "models", new, If_Match=given)
        assert (refused.status_code, refused.get_json()["error"]["revision"]) == (412, None)
    assert admin.send("PATCH", "models/none", {}, If_Match='"1"').status_code == 404
    assert admin.send("DELETE", "models/none", If_Match='"1"').status_code == 200


def test_what_has_no_revisions_does_not_pretend_to_keep_them(admin):
    refused = admin.send("PUT", "routing-config", {"default_mode": "cheap"}, If_Match='"1"')
    error = refused.get_json()["error"]
    assert (refused.status_code, error["code"]) == (400, "unsupported_parameter")
    assert admin.ok("GET", "routing-config")["saved"] is False


def test_what_is_made_or_read_says_its_revision(admin, path_of):
    answers = [
        admin.send("POST", "providers", {"id": "b", "base_url": "https://b.example.com"}),
        admin.send("POST", "models", {"id": "b", "provider_id": "acme"}),
        admin.send("PUT", "aliases/other", {"variants": VARIANTS}),
        admin.send("POST", "apikeys", {"name": "b"}),
        admin.send("POST", "teams", {"name": "b"}),
        admin.send("GET", "aliases/fast"),
        admin.send("GET", path_of("teams/{team}")),
    ]
    assert [each.headers["ETag"] for each in answers] == ['"1"'] * 7
    for each in answers[:6]:
        said = each.get_json()
        assert said.get("revision", said.get("team", {}).get("revision")) == 1
    rotated = admin.send("POST", path_of("apikeys/{key}/rotate"), If_Match='"1"')
    assert (rotated.headers["ETag"], rotated.get_json()["revision"]) == ('"2"', 2)
    assert admin.send("POST", path_of("apikeys/{key}/rotate"), If_Match='"1"').status_code == 412


def test_the_audit_is_about_what_somebody_changed(admin, path_of):
    admin.ok("PATCH", path_of("models/small"), {"weight": 3})
    assert "revision" not in admin.ok("GET", "audit")["logs"][0]["detail"]

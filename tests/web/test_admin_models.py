"""Models through the admin API: prices in and out, ids with slashes, what is refused."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenhub import store

DEFAULTS = {
    "id": "small",
    "provider_id": "acme",
    "upstream_model": "small",
    "weight": 5,
    "max_context_tokens": 0,
    "max_output_tokens": 0,
    "input_per_1k": None,
    "output_per_1k": None,
    "cache_read_per_1k": None,
    "cache_write_per_1k": None,
    "enabled": True,
    "pricing_source": "manual",
    "pricing_origin": "",
    "capabilities": [],
    "tags": [],
    "fallbacks": [],
    "tool_name_map": {},
    "gemma4_output": False,
    "revision": 1,
}
FULL = {
    "id": "openai/gpt-x",
    "provider_id": "acme",
    "upstream_model": "gpt-x-2026",
    "weight": 10,
    "max_context_tokens": 128000,
    "max_output_tokens": 16384,
    "input_per_1k": 0.0025,
    "output_per_1k": 0.01,
    "cache_read_per_1k": 0.00125,
    "cache_write_per_1k": 0,
    "enabled": False,
    "pricing_source": "litellm",
    "capabilities": ["chat", "tools"],
    "tags": ["eu", "on site"],
    "fallbacks": ["small", "later/one"],
    "tool_name_map": {"search": "web_search"},
    "gemma4_output": True,
}


@pytest.fixture(autouse=True)
def acme(admin):
    admin.provider()


def test_what_is_not_given_has_its_default_and_an_unknown_price_is_null(admin):
    assert admin.model() == {"ok": True, "revision": 1}
    assert admin.ok("GET", "models") == {
        "items": [DEFAULTS], "total": 1, "limit": 1000, "offset": 0,
    }  # fmt: skip


STORED = FULL | {"pricing_origin": "", "revision": 1}


def test_what_is_posted_is_what_is_listed_and_routed(admin, app):
    admin.ok("POST", "models", FULL)
    assert admin.find("models", FULL["id"]) == STORED
    price = app.services.catalog.current().models[FULL["id"]].price
    assert (price.input_per_mtok, price.cache_write_per_mtok) == (2_500_000_000, 0)


def test_posting_again_replaces_everything(admin):
    admin.ok("POST", "models", FULL)
    admin.model(FULL["id"])
    expected = DEFAULTS | {"id": FULL["id"], "upstream_model": FULL["id"], "revision": 2}
    assert admin.find("models", FULL["id"]) == expected


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(price=st.one_of(st.none(), st.decimals(0, 1000, places=9).map(float)))
def test_a_price_comes_back_as_it_went_in(admin, price):
    admin.model(input_per_1k=price)
    assert admin.find("models", "small")["input_per_1k"] == price


WRONG = [
    ({"provider_id": 1}, "provider_id"),
    ({"provider_id": "nobody"}, "provider_id"),
    ({"upstream_model": 1}, "upstream_model"),
    ({"weight": 11}, "weight"),
    ({"weight": -1}, "weight"),
    ({"weight": 2.5}, "weight"),
    ({"weight": "5"}, "weight"),
    ({"weight": True}, "weight"),
    ({"max_context_tokens": -1}, "max_context_tokens"),
    ({"max_context_tokens": 10**30}, "max_context_tokens"),
    ({"max_output_tokens": -1}, "max_output_tokens"),
    ({"max_output_tokens": "8k"}, "max_output_tokens"),
    ({"pricing_origin": "table"}, "pricing_origin"),
    ({"input_per_1k": -0.1}, "input_per_1k"),
    ({"output_per_1k": "free"}, "output_per_1k"),
    ({"output_per_1k": 1e9}, "output_per_1k"),
    ({"cache_read_per_1k": []}, "cache_read_per_1k"),
    ({"enabled": 1}, "enabled"),
    ({"pricing_source": "dream"}, "pricing_source"),
    ({"capabilities": "chat"}, "capabilities"),
    ({"capabilities": [1]}, "capabilities"),
    ({"capabilities": [""]}, "capabilities"),
    ({"capabilities": ["chat", "telepathy"]}, "capabilities"),
    ({"capabilities": [["chat"]]}, "capabilities"),
    ({"tags": "eu"}, "tags"),
    ({"tags": [1]}, "tags"),
    ({"tags": [""]}, "tags"),
    ({"fallbacks": {"a": "b"}}, "fallbacks"),
    ({"fallbacks": [f"m{number}" for number in range(21)]}, "fallbacks"),
    ({"tool_name_map": ["a"]}, "tool_name_map"),
    ({"tool_name_map": {"a": 1}}, "tool_name_map"),
    ({"tool_name_map": {"a\x00": "b"}}, "tool_name_map"),
    ({"gemma4_output": "no"}, "gemma4_output"),
    ({"wieght": 3}, "wieght"),
]


@pytest.mark.parametrize(("change", "param"), WRONG)
def test_a_wrong_field_is_refused_by_its_name_when_posted(admin, change, param):
    status, _, named = admin.refused("POST", "models", {"id": "m", "provider_id": "acme"} | change)
    assert (status, named) == (400, param)
    assert admin.ok("GET", "models")["total"] == 0


@pytest.mark.parametrize(("change", "param"), [*WRONG, ({"id": "other"}, "id")])
def test_a_wrong_field_is_refused_by_its_name_when_patched(admin, change, param):
    admin.model()
    status, _, named = admin.refused("PATCH", "models/small", change)
    assert (status, named) == (400, param)
    assert admin.find("models", "small") == DEFAULTS


@pytest.mark.parametrize(
    "model_id",
    [None, "", 1, "*", "/a", "a/", "a//b", "a/../b", ".", " a", "a\n", "x" * 151, "é" * 76],
)
def test_an_id_that_no_path_can_name_is_refused(admin, model_id):
    status, _, param = admin.refused("POST", "models", {"id": model_id, "provider_id": "acme"})
    assert (status, param) == (400, "id")


@pytest.mark.parametrize("missing", ["id", "provider_id"])
def test_a_missing_field_is_refused_by_its_name(admin, missing):
    body = {"id": "small", "provider_id": "acme"}
    del body[missing]
    assert admin.refused("POST", "models", body) == (400, "missing_field", missing)


@pytest.mark.parametrize("spelled", ["org/family/m:1", "org%2Ffamily%2Fm:1"])
def test_an_id_with_slashes_can_be_spelled_either_way(admin, spelled):
    admin.model("org/family/m:1")
    assert admin.ok("PATCH", f"models/{spelled}", {"weight": 7})["model"]["weight"] == 7
    assert admin.ok("DELETE", f"models/{spelled}") == {"ok": True}
    assert admin.ok("GET", "models")["total"] == 0


def test_a_patch_changes_what_is_given_and_answers_with_what_is_stored(admin):
    admin.ok("POST", "models", FULL)
    said = admin.ok("PATCH", f"models/{FULL['id']}", {"weight": 3, "tool_name_map": None})
    expected = STORED | {"weight": 3, "tool_name_map": {}, "revision": 2}
    assert said == {"ok": True, "model": expected}
    assert admin.find("models", FULL["id"]) == expected


def test_a_price_set_by_hand_says_so(admin):
    admin.ok("POST", "models", FULL)
    path = f"models/{FULL['id']}"
    assert admin.ok("PATCH", path, {"weight": 1})["model"]["pricing_source"] == "litellm"
    changed = admin.ok("PATCH", path, {"output_per_1k": None})["model"]
    assert (changed["output_per_1k"], changed["pricing_source"]) == (None, "manual")
    given = {"output_per_1k": 1, "pricing_source": "provider"}
    assert admin.ok("PATCH", path, given)["model"]["pricing_source"] == "provider"


def test_a_price_set_by_hand_forgets_the_table_that_an_imported_one_came_from(admin, app):
    admin.ok("POST", "models", FULL)
    path = f"models/{FULL['id']}"
    stored = app.services.catalog.current().models[FULL["id"]]

    def price_it(connection):
        store.save_model(connection, replace(stored, pricing_origin="table#gpt-x"), 1)

    app.services.database.write(price_it)
    assert admin.ok("PATCH", path, {"weight": 1})["model"]["pricing_origin"] == "table#gpt-x"
    assert admin.ok("PATCH", path, {"input_per_1k": 1})["model"]["pricing_origin"] == ""


KNOWN = {
    "capabilities": ["chat", "vision", "tools", "json"],
    "max_context_tokens": 128_000,
    "max_output_tokens": 16_384,
}
UNKNOWN = {"capabilities": [], "max_context_tokens": 0, "max_output_tokens": 0}


def abilities(shown):
    return {name: shown[name] for name in KNOWN}


@pytest.mark.parametrize(
    ("model_id", "given", "expected"),
    [
        ("openai/gpt-4o", {}, KNOWN),
        ("best", {"upstream_model": "gpt-4o-2024-11-20"}, KNOWN),
        ("gpt-4o", {"upstream_model": "something-else"}, UNKNOWN),
        ("gpt-4o", {"upstream_model": ""}, KNOWN),
        ("gpt-4o", {"max_context_tokens": 9}, KNOWN | {"max_context_tokens": 9}),
        ("gpt-4o", {"capabilities": ["chat", "chat"]}, KNOWN | {"capabilities": ["chat"]}),
        ("gpt-4o", UNKNOWN, UNKNOWN),
    ],
)
def test_what_is_not_given_of_a_well_known_model_is_what_is_known(admin, model_id, given, expected):
    admin.model(model_id, **given)
    assert abilities(admin.find("models", model_id)) == expected


def test_what_a_model_can_do_is_changed_by_hand_and_nothing_else_then(admin):
    admin.model("gpt-4o")
    said = admin.ok("PATCH", "models/gpt-4o", {"capabilities": ["chat"], "max_output_tokens": 7})
    changed = KNOWN | {"capabilities": ["chat"], "max_output_tokens": 7}
    assert abilities(said["model"]) == changed
    said = admin.ok("PATCH", "models/gpt-4o", {"upstream_model": "gpt-3.5-turbo"})
    assert abilities(said["model"]) == changed


def test_an_unknown_model_is_404_when_patched_and_well_when_deleted(admin):
    assert admin.refused("PATCH", "models/nobody", {"weight": 1})[0] == 404
    assert admin.ok("DELETE", "models/nobody") == {"ok": True}


def test_a_disabled_model_is_routed_to_no_more_from_the_next_request_on(admin, app):
    admin.model()
    assert [model.id for model in app.services.catalog.current().routable] == ["small"]
    admin.ok("PATCH", "models/small", {"enabled": False})
    assert app.services.catalog.current().routable == ()


@pytest.mark.parametrize("noun", ["providers", "models", "apikeys", "engine/models"])
def test_lists_come_in_pages(admin, noun):
    for number in range(5):
        admin.provider(f"p{number}")
        admin.model(f"m{number}")
        admin.ok("POST", "apikeys", {"name": f"k{number}"})
    name = {"apikeys": "keys", "engine/models": "models"}.get(noun, "items")
    whole = admin.ok("GET", noun)
    total = len(whole[name])
    assert whole["total"] == total >= 5
    page = admin.ok("GET", f"{noun}?limit=2&offset=1")
    assert page[name] == whole[name][1:3]
    assert (page["total"], page["limit"], page["offset"]) == (total, 2, 1)
    assert admin.ok("GET", f"{noun}?offset=99")[name] == []


BAD_PAGES = [
    "limit=0", "limit=1001", "limit=ten", "limit=10abc", "limit=-1", "limit=", "offset=-1",
    "offset=1.5", "offset=99999999999999999999", "limit=%D9%A1", "limit=00000000000000000001",
]  # fmt: skip


def test_a_bad_page_is_refused(admin):
    for noun in ("providers", "models", "apikeys", "engine/models", "logs", "audit"):
        for query in BAD_PAGES:
            status, _, param = admin.refused("GET", f"{noun}?{query}")
            assert (status, param) == (400, query.partition("=")[0]), (noun, query)

"""Routing defaults, and the simulator: the answer of a real request without making one."""

import pytest

from tests.web.conftest import Admin

EFFECTIVE = {
    "default_mode": "normal",
    "default_max_budget_usd": 0.05,
    "default_max_latency_ms": 120_000,
}


@pytest.fixture
def three_models(admin):
    admin.provider()
    admin.model("cheap", weight=2, input_per_1k=0.0001, output_per_1k=0.0001)
    admin.model("dear", weight=9, input_per_1k=0.01, output_per_1k=0.01)
    admin.model("tiny", weight=5, max_context_tokens=100, input_per_1k=0, output_per_1k=0)


def test_what_is_in_force_is_shown_also_before_anything_was_saved(admin):
    assert admin.ok("GET", "routing-config") == EFFECTIVE | {"saved": False}


def test_what_is_not_given_stays_as_it_is(admin, app):
    assert admin.ok("PUT", "routing-config", {"default_mode": "cheap"}) == {"ok": True}
    expected = EFFECTIVE | {"default_mode": "cheap", "saved": True}
    assert admin.ok("GET", "routing-config") == expected
    admin.ok("PUT", "routing-config", {"default_max_budget_usd": 1.5, "default_mode": ""})
    expected |= {"default_max_budget_usd": 1.5}
    assert admin.ok("GET", "routing-config") == expected
    defaults = app.services.catalog.current().defaults
    assert (defaults.mode, defaults.max_budget_nanousd) == ("cheap", 1_500_000_000)


def test_zero_is_a_value(admin):
    zeros = {"default_max_budget_usd": 0, "default_max_latency_ms": 0}
    admin.ok("PUT", "routing-config", zeros)
    found = admin.ok("GET", "routing-config")
    assert {name: found[name] for name in zeros} == zeros


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"default_mode": "turbo"}, "default_mode"),
        ({"default_mode": None}, "default_mode"),
        ({"default_max_budget_usd": 101}, "default_max_budget_usd"),
        ({"default_max_budget_usd": -1}, "default_max_budget_usd"),
        ({"default_max_budget_usd": "1"}, "default_max_budget_usd"),
        ({"default_max_latency_ms": 300_001}, "default_max_latency_ms"),
        ({"default_max_latency_ms": 1.5}, "default_max_latency_ms"),
        ({"mode": "cheap"}, "mode"),
    ],
)
def test_a_wrong_default_is_refused_by_its_name_and_changes_nothing(admin, change, param):
    status, _, named = admin.refused("PUT", "routing-config", change)
    assert (status, named) == (400, param)
    assert admin.ok("GET", "routing-config")["saved"] is False


def test_the_simulator_says_who_would_answer_and_in_what_order(admin, three_models):
    said = admin.ok("POST", "routing/simulate", {"mode": "cheap"})
    assert said["decision"]["model_id"] == "cheap"
    assert said["decision"]["provider_id"] == "acme"
    assert said["decision"]["reason"] == "routed-weight-2"
    # 500 tokens in and 512 out, at $0.0001 per thousand
    assert said["decision"]["estimated_cost_usd"] == pytest.approx(0.0001012)
    assert [row["id"] for row in said["eligible"]] == ["cheap", "dear"]
    assert [row["selected"] for row in said["eligible"]] == [True, False]
    assert said["eligible"][0]["score"] < said["eligible"][1]["score"]
    assert said["eligible"][1]["input_per_1k"] == 0.01
    assert said["skips"] == {"tiny": "context_overflow"}
    assert said["total"] == 2


def test_the_simulator_minds_mode_tokens_weight_and_hint(admin, three_models):
    def first(**body):
        return admin.ok("POST", "routing/simulate", body)["decision"]["model_id"]

    assert first(mode="high_confidence", max_budget_usd=10) == "dear"
    assert first(mode="cheap", token_count=50) == "tiny"
    assert first(mode="cheap", min_weight=6, max_budget_usd=10) == "dear"
    assert first(model_hint="dear", max_budget_usd=10) == "dear"


def test_a_model_that_is_only_a_last_resort_is_shown_as_one(admin, three_models):
    said = admin.ok("POST", "routing/simulate", {"mode": "cheap", "min_weight": 10})
    assert said["decision"]["reason"] == "last-resort-fallback"
    assert [(row["id"], row["last_resort"]) for row in said["eligible"]] == [
        ("cheap", True), ("dear", True),
    ]  # fmt: skip
    assert said["skips"]["dear"] == "weight_below_minimum"


def test_a_model_that_is_off_is_a_skip_with_its_reason(admin, three_models):
    admin.ok("PATCH", "models/dear", {"enabled": False})
    admin.provider("shut", enabled=False)
    admin.model("behind", provider_id="shut")
    said = admin.ok("POST", "routing/simulate", {"mode": "cheap", "token_count": 10})
    assert said["skips"] == {"dear": "disabled", "behind": "disabled"}


@pytest.mark.parametrize(
    ("body", "code", "skips"),
    [
        ({"token_count": 10**9}, "", {}),
        ({"max_budget_usd": 0.000001}, "over_budget",
         {"cheap": "budget_exceeded", "dear": "budget_exceeded", "tiny": "context_overflow"}),
        ({"model_hint": "nobody"}, "model_not_found", {}),
    ],
)  # fmt: skip
def test_a_request_that_nobody_could_answer_is_no_error_of_the_simulator(
    admin, three_models, body, code, skips
):
    if not code:  # every model has a limit
        for model in ("cheap", "dear"):
            admin.ok("PATCH", f"models/{model}", {"max_context_tokens": 1000})
        code, skips = (
            "no_eligible_model",
            dict.fromkeys(("cheap", "dear", "tiny"), "context_overflow"),
        )
    said = admin.ok("POST", "routing/simulate", body)
    assert said["error"]
    assert (said["code"], said["eligible"], said["skips"]) == (code, [], skips)


def test_the_simulator_says_so_when_there_is_nothing_at_all(admin):
    assert admin.ok("POST", "routing/simulate", {})["code"] == "no_eligible_model"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"mode": "turbo"}, "mode"),
        ({"max_budget_usd": -1}, "max_budget_usd"),
        ({"max_latency_ms": "fast"}, "max_latency_ms"),
        ({"min_weight": 11}, "min_weight"),
        ({"token_count": -1}, "token_count"),
        ({"token_count": 1e300}, "token_count"),
        ({"model_hint": 1}, "model_hint"),
        ({"tokens": 1}, "tokens"),
    ],
)
def test_a_wrong_question_is_refused_by_its_field(admin, body, param):
    status, _, named = admin.refused("POST", "routing/simulate", body)
    assert (status, named) == (400, param)


def test_simulating_leaves_no_trace_and_always_says_the_same(make_app):
    app = make_app(TOKENHUB_EXPLORATION_TEMP="50")
    admin = Admin(app.test_client())
    admin.provider()
    for name in "abcd":
        admin.model(name)
    generator = app.services.gateway.rng.getstate()
    answers = {admin.send("POST", "routing/simulate", {}).text for _ in range(20)}
    assert len(answers) == 1
    assert app.services.gateway.rng.getstate() == generator
    assert admin.ok("GET", "logs")["logs"] == []
    assert admin.ok("GET", "health")["models"] == []
    assert "tokenhub_requests_total{" not in admin.metrics()
    assert app.services.board.in_flight == 0

"""The simulator explains: candidates with what their scores are made of, and whose word counts."""

from __future__ import annotations

import pytest

from tests.web.conftest import Admin


@pytest.fixture
def three(admin):
    admin.provider()
    admin.model("cheap", weight=2, input_per_1k=0.0001, output_per_1k=0.0001)
    admin.model("dear", weight=9, input_per_1k=0.01, output_per_1k=0.01, tags=["eu"])
    admin.model("eyes", weight=5, capabilities=["chat", "vision"], tags=["eu"])
    variants = [{"model_id": "dear", "weight": 1}, {"model_id": "eyes", "weight": 3}]
    admin.ok("PUT", "aliases/fast", {"variants": variants})


def ask(admin, **body):
    return admin.ok("POST", "routing/simulate", body)


def test_a_score_is_the_sum_of_its_parts_and_lower_is_first(admin, three, app):
    for latency in (100, 900):
        app.services.board.vitals.succeed("dear", "acme", latency, 0)
    app.services.board.vitals.fail(
        "cheap", "acme", "server_error", 0, cooldown_seconds=None, is_provider_wide=False
    )
    found = ask(admin, mode="normal")["candidates"]
    for each in found:
        assert sum(each["parts"].values()) == pytest.approx(each["score"])
        assert each["parts"].keys() == {"cost", "latency", "failure", "weight"}
    assert [each["score"] for each in found] == sorted(each["score"] for each in found)
    assert [each["rank"] for each in found] == [1, 2, 3]
    by_id = {each["model_id"]: each for each in found}
    assert by_id["cheap"]["parts"]["failure"] > 0 > by_id["dear"]["parts"]["weight"]
    assert by_id["eyes"]["estimated_cost_usd"] is None
    assert [each["propensity"] for each in found] == [1, 0, 0]


def test_the_chances_are_those_of_exploration_while_the_answer_stays_the_same(make_app):
    admin = Admin(make_app(TOKENHUB_EXPLORATION_TEMP="1").test_client())
    admin.provider()
    for name in "abc":
        admin.model(name)
    found = ask(admin)
    chances = [each["propensity"] for each in found["candidates"]]
    assert chances == pytest.approx([0.665, 0.245, 0.090], abs=1e-3)
    assert all(ask(admin) == found for _ in range(10))
    assert [each["propensity"] for each in ask(admin, model_hint="c")["candidates"]] == [1, 0, 0]


def test_whose_word_counts_is_said_of_each_value(admin, three):
    key = admin.ok(
        "POST",
        "apikeys",
        {"name": "k", "policy": {"mode": "cheap", "min_weight": 3, "max_latency_ms": 900}},
    )["id"]
    assert ask(admin)["policy"]["from"] == {}
    said = ask(admin, key=key, max_budget_usd=2, min_weight=2, max_latency_ms=50, tags=["eu"])
    policy = said["policy"]
    assert policy["from"] == {
        "mode": "key", "min_weight": "key", "max_latency_ms": "body", "max_budget_usd": "body",
        "tags": "body",
    }  # fmt: skip
    assert (policy["mode"], policy["min_weight"], policy["max_latency_ms"]) == ("cheap", 3, 50)
    assert (policy["budget_is_hard"], policy["latency_is_hard"]) == (True, True)
    assert said["skips"]["cheap"] == "tag"


def test_a_key_is_asked_for_with_its_models_limits_and_budgets(admin, three):
    team = admin.ok("POST", "teams", {"name": "Ops", "rpm": 60})["team"]["id"]
    made = admin.ok(
        "POST", "apikeys", {"name": "k", "models": ["dear"], "team_id": team, "tpm": 9}
    )  # fmt: skip
    for kind, id_ in (("key", made["id"]), ("team", team)):
        admin.ok("PUT", f"budgets/{kind}/{id_}/day", {"limit_usd": 0.001, "hard": kind == "key"})
    said = ask(admin, key=made["id"])
    assert [each["model_id"] for each in said["candidates"]] == ["dear"]
    assert said["skips"] == {"cheap": "not_allowed", "eyes": "not_allowed"}
    key = said["key"]
    assert (key["id"], key["usable"], key["models"], key["tpm"]) == (made["id"], True, ["dear"], 9)
    assert [(each["subject_kind"], each["allows"]) for each in key["budgets"]] == [
        ("key", False), ("team", True),
    ]  # fmt: skip
    refused = ask(admin, key=made["id"], model_hint="cheap")
    assert (refused["status"], refused["key"]["id"]) == (403, made["id"])
    admin.ok("PATCH", f"apikeys/{made['id']}", {"enabled": False})
    assert ask(admin, key=made["id"])["key"]["usable"] is False


def test_an_alias_and_what_a_request_needs_are_minded(admin, three):
    said = ask(admin, alias="fast", needs=["vision"])
    assert (said["decision"]["model_id"], said["decision"]["alias_from"]) == ("eyes", "fast")
    assert said["reason"] == "routed-alias"
    # Of the alias's own models nobody knows that `dear` cannot see.
    assert said["skips"] == {"cheap": "capability"}
    assert ask(admin, needs=["vision"])["skips"]["dear"] == "capability"
    assert ask(admin, max_tokens=10)["candidates"][0]["model_id"]


def test_taking_turns_is_not_moved_on(admin, three):
    admin.ok("PATCH", "aliases/fast", {"sticky_by": "round_robin"})
    assert len({ask(admin, alias="fast")["decision"]["model_id"] for _ in range(8)}) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"alias": "slow"}, "alias"),
        ({"alias": "fast", "model_hint": "dear"}, "alias"),
        ({"key": "key_none"}, "key"),
        ({"needs": ["telepathy"]}, "needs"),
        ({"needs": "vision"}, "needs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"mode": "vote"}, "mode"),
    ],
)
def test_a_question_about_nobody_is_refused_by_its_field(admin, three, body, param):
    status, _, named = admin.refused("POST", "routing/simulate", body)
    assert (status, named) == (400, param)

"""`POST /v1/plan` in one process: what it refuses, what it tells, how its answers are shaped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints_kit import PLAN
from tests.web.world_kit import PRICES, TYPES, World, open_world

SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
MODES = ("planning", "adversarial", "vote", "refine")
FAULTY = ("fault-422", "fault-500")
STREAMED = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("plan"), sqlite_template) as found:
        for name in FAULTY:
            found.admin.model(name, provider_id="openai", tags=[name], **PRICES)
        found.app.services.catalog.current()
        yield found


def ask(world: World, mode: str = "planning", *, model: str = "of-openai", **more: Any) -> Any:
    """A plan; `stream` and `policy` are of the request, the rest is the orchestration's."""
    body = PLAN.body(model, stream=more.pop("stream", False))
    if "policy" in more:
        body["policy"] = more.pop("policy")
    if "output_format" in more:
        body["output_format"] = more.pop("output_format")
    return world.post(PLAN, body | {"orchestration": {"mode": mode, **more}})


def last_event(response: Any) -> tuple[str, Any]:
    name, data = response.text.strip().rpartition("\n\n")[2].split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@STREAMED
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_answered_by_providers_of_all_types(world, mode, stream):
    for kind in TYPES:
        response = ask(world, mode, model=f"of-{kind}", stream=stream, policy={"exclude": FAULTY})
        assert response.status_code == 200, response.text
        found = last_event(response)[1] if stream else response.get_json()
        assert found["routing_reason"].startswith(mode)
        assert found["response"]
        assert "partial" not in found
        assert found["estimated_cost_usd"] == pytest.approx(
            sum(each["cost_usd"] for each in found["phases"]), abs=1e-9
        )


@STREAMED
@pytest.mark.parametrize("mode", ["planning", "adversarial", "refine"])
def test_a_providers_verdict_on_the_request_is_told_in_its_words(world, mode, stream):
    response = ask(world, mode, model="fault-422", stream=stream)
    assert response.status_code == (200 if stream else 422)
    name, found = last_event(response) if stream else ("error", response.get_json())
    assert name == "error"
    assert found["error"]["message"].startswith("simulated")
    if stream:  # the phase says why, too
        [phase] = [each for each in response.text.split("\n\n") if '"failed"' in each]
        assert "simulated" in phase


@STREAMED
def test_what_no_provider_answers_is_told_in_our_words(world, stream):
    response = ask(world, model="fault-500", stream=stream, policy={"tags": ["fault-500"]})
    assert response.status_code == (200 if stream else 502)
    found = last_event(response)[1] if stream else response.get_json()
    assert found["error"]["code"] == "all_attempts_failed"
    assert "simulated" not in response.text


@STREAMED
@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"review_model_id": "nobody"}, 404, "model_not_found"),
        ({"primary_model_id": "nobody"}, 404, "model_not_found"),
        ({"policy": {"tags": ["nobody-s"]}}, 503, "no_eligible_model"),
        ({"policy": {"max_budget_usd": 1e-7}}, 400, "over_budget"),
        ({"iterations": -1}, 400, "invalid_request"),
    ],
)
def test_what_cannot_be_has_its_status_whether_it_is_to_be_told_or_not(
    world, stream, asked, status, code
):
    before = world.simulator.stats.requests
    response = ask(
        world, "vote" if "iterations" in asked else "adversarial", stream=stream, **asked
    )
    assert (response.status_code, response.get_json()["error"]["code"]) == (status, code)
    assert world.simulator.stats.requests == before


def test_only_a_key_with_the_scope_may_ask(world):
    token = world.admin.ok("POST", "apikeys", {"name": "chatter", "scopes": ["chat"]})["key"]
    body = PLAN.body("of-openai")
    refused = world.refused(PLAN, body, Authorization=f"Bearer {token}")
    assert refused[:2] == (403, "insufficient_scope")


@pytest.mark.parametrize("mode", ["planning", "vote", "refine"])
def test_an_answer_keeps_to_the_schema_that_is_asked_for(world, mode):
    response = ask(world, mode, output_schema=json.dumps(SCHEMA))
    assert response.status_code == 200, response.text
    found = response.get_json()["response"]
    texts = {
        "planning": lambda: found["choices"][0]["message"]["content"],
        "vote": lambda: found["responses"][found["selected"]]["content"],
        "refine": lambda: found["refined_response"],
    }
    assert isinstance(json.loads(texts[mode]())["a"], int)


def test_an_answer_is_put_in_shape(world):
    response = ask(world, "refine", output_format={"type": "text", "max_tokens": 1})
    text = response.get_json()["response"]["refined_response"]
    assert 0 < len(text) < 10

"""Plans: how many models were asked and which, what that cost, and how long it took.

Two workers; all models are of the simulator, which says as many words as it may and counts who
asked. Every token that is read costs a dollar per thousand, every one that is written two.
"""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.system.budget_kit import CENT, Payer, make_payer, settled
from tests.system.harness import Gateway, Reply, running, wait_until
from tests.system.load import Row, rows_by_id
from tests.system.test_hedging_and_deadlines import Tried, attempts_of

pytestmark = pytest.mark.system

READ_USD, WRITTEN_USD = 0.001, 0.002
WORDS = 10
SLOW_SECS = 4.0
SLOW = f"fault-slow-{SLOW_SECS:.0f}000"
MODELS = {
    # upstream, provider, weight, tags
    "a": ("up-a", "p1", 9, ["quick", "late", "odd"]),
    "b": ("up-b", "p2", 8, ["quick", "late"]),
    "c": ("up-c", "p3", 7, ["quick"]),
    "d": ("up-d", "p1", 1, ["quick", "late"]),
    "slow": (SLOW, "p3", 6, ["late", "stuck"]),
    "slower": (SLOW, "p2", 5, ["stuck"]),
    "odd": ("fault-422", "p2", 5, ["odd"]),
}


class Mode(NamedTuple):
    """What is asked for, and what it must come to.

    Args:
        calls: who is asked how often.
        phases: in the order in which they end; voters are asked at once.
    """

    asked: dict[str, Any]
    calls: dict[str, int]
    phases: list[str]
    reason: str


MODES = {
    "planning": Mode({"primary_model_id": "b"}, {"b": 1}, ["plan"], "planning-orchestration"),
    "adversarial": Mode(
        {"iterations": 2, "primary_model_id": "a", "review_model_id": "c"}, {"a": 3, "c": 2},
        ["plan", "critique", "refine", "critique", "refine"], "adversarial-orchestration",
    ),
    "vote": Mode(
        {"review_model_id": "d"}, {"a": 1, "b": 1, "c": 1, "d": 1},
        ["vote", "vote", "vote", "judge"], "vote-orchestration",
    ),
    "refine": Mode(
        {"iterations": 3, "primary_model_id": "c"}, {"c": 4},
        ["answer", "refine", "refine", "refine"], "refine-orchestration",
    ),
}  # fmt: skip


class Planner:
    """Asks for plans, one after the other, and looks at what they came to."""

    def __init__(self, gateway: Gateway, payer: Payer) -> None:
        self.gateway, self.payer = gateway, payer
        self.settled_usd: dict[str, float] = {}
        self._before = self._counted()

    def body(self, mode: str, tag: str = "quick", **asked: Any) -> dict[str, Any]:
        policy = {"tags": [tag]} | asked.pop("policy", {})
        request = {
            "messages": [{"role": "user", "content": "How do I sail to Tortuga?"}],
            "parameters": {"max_tokens": WORDS}, "stream": asked.pop("stream", False),
        }  # fmt: skip
        return {"request": request, "policy": policy, "orchestration": {"mode": mode, **asked}}

    def ask(self, mode: str, tag: str = "quick", **asked: Any) -> Reply:
        self._before = self._counted()
        body = self.body(mode, tag, **asked)
        return self.gateway.ask("POST", "/v1/plan", body, token=self.payer.key)

    @property
    def calls(self) -> dict[str, int]:
        """Who was asked since, how often, by their names at the provider."""
        return dict(self._counted() - self._before)

    def row(self, request_id: str) -> Row:
        [row] = wait_until(lambda: rows_by_id(self.gateway).get(request_id), what="its row")
        return dict(row)

    def settle(self, reply: Reply) -> tuple[Row, list[Tried]]:
        """Its row and attempts, which say the same."""
        return self.settle_row(self.row(reply.headers["x-request-id"]))

    def settle_row(self, row: Row) -> tuple[Row, list[Tried]]:
        tried = attempts_of(self.gateway, row)
        cost = sum(each.cost_usd for each in tried)
        assert row["attempts"] == len(tried)
        assert row["estimated_cost_usd"] == pytest.approx(cost, abs=1e-9)
        self.settled_usd[row["request_id"]] = cost
        return row, tried

    def open_upstream(self) -> int:
        return int(self.gateway.simulator_stats()["open_requests"])

    def _counted(self) -> Counter[str]:
        return Counter(self.gateway.simulator_stats()["by_model"])


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("plans")
    with running(directory, f"sqlite:///{directory / 'hub.sqlite'}") as found:
        url = f"http://127.0.0.1:{found.simulator_port}"
        for name in ("p1", "p2", "p3"):
            found.admin("POST", "providers", {"id": name, "type": "openai", "base_url": url})
        for name, (upstream, provider, weight, tags) in MODELS.items():
            found.add_model(
                name, upstream_model=upstream, provider_id=provider, weight=weight, tags=tags,
                input_per_1k=1000 * READ_USD, output_per_1k=1000 * WRITTEN_USD,
            )  # fmt: skip
        yield found


@pytest.fixture(scope="module")
def planner(gateway: Gateway) -> Planner:
    return Planner(gateway, make_payer(gateway, 100_000_000, scopes=["plan"]))


class Played(NamedTuple):
    """A plan that was made, and who was asked for it."""

    reply: Reply
    calls: dict[str, int]


@pytest.fixture(scope="module")
def played(planner: Planner) -> dict[tuple[str, bool], Played]:
    """Every mode, whole and told; all of them first, since rows take a moment to be there."""
    found = {}
    for name, mode in MODES.items():
        for stream in (False, True):
            reply = planner.ask(name, stream=stream, **mode.asked)
            found[name, stream] = Played(reply, planner.calls)
    return found


def events_of(reply: Reply) -> list[tuple[str, Any]]:
    """The events of a told plan: their names and data."""
    found = []
    for event in reply.body.decode().strip().split("\n\n"):
        name, data = event.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.mark.parametrize("name", MODES)
def test_each_mode_asks_whom_it_must_and_costs_what_all_of_them_cost(planner, played, name):
    mode, (whole, calls) = MODES[name], played[name, False]
    assert whole.status == 200, whole.body
    assert calls == {f"up-{model}": times for model, times in mode.calls.items()}
    found = whole.json
    assert [each["phase"] for each in found["phases"]] == mode.phases
    assert Counter(each["model"] for each in found["phases"]) == mode.calls
    number = sum(mode.calls.values())
    assert whole.headers["x-tokenhub-attempts"] == str(number)
    row, tried = planner.settle(whole)
    assert Counter(each.model_id for each in tried) == mode.calls
    usage = found["usage"]
    cost = usage["input_tokens"] * READ_USD + usage["output_tokens"] * WRITTEN_USD
    assert usage["input_tokens"] == sum(each.input_tokens for each in tried) > 0
    judged = "judge" in mode.phases  # by as few words as will do
    assert usage["output_tokens"] > WORDS * (number - judged) - 1
    assert found["estimated_cost_usd"] == pytest.approx(cost, abs=1e-9)
    assert sum(each["cost_usd"] for each in found["phases"]) == pytest.approx(cost, abs=1e-9)
    assert row["estimated_cost_usd"] == pytest.approx(cost, abs=1e-9)
    assert (row["outcome"], row["endpoint"], row["attempts"]) == ("answered", "/v1/plan", number)
    assert found["routing_reason"] == row["reason"] == mode.reason


@pytest.mark.parametrize("name", MODES)
def test_a_told_plan_says_each_phase_as_it_comes_and_ends_with_the_whole_answer(
    planner, played, name
):
    mode, (told, calls) = MODES[name], played[name, True]
    assert told.headers["content-type"].startswith("text/event-stream")
    *steps, (last, result) = events_of(told)
    assert {event for event, _ in steps} == {"phase"}
    done = [each["phase"] for _, each in steps if each["status"] == "done"]
    began = [each["phase"] for _, each in steps if each["status"] == "started"]
    assert done == began == mode.phases
    assert last == "result"
    assert calls == {f"up-{model}": times for model, times in mode.calls.items()}
    planner.settle(told)
    whole = played[name, False].reply.json
    assert result.keys() == whole.keys()
    for field in ("estimated_cost_usd", "usage", "routing_reason"):
        assert result[field] == whole[field], field
    assert result["phases"] == [
        {field: value for field, value in each.items() if field != "status"}
        for _, each in steps
        if each["status"] != "started"
    ]


def test_a_slow_voter_is_left_once_there_is_a_quorum_hung_up_on_and_paid_its_input(planner):
    began = time.monotonic()
    reply = planner.ask("vote", "late", review_model_id="d", quorum_wait_ms=50)
    took_secs = time.monotonic() - began
    assert reply.status == 200, reply.body
    assert took_secs < SLOW_SECS / 2
    wait_until(lambda: planner.open_upstream() == 0, 1, "the slow one to be hung up on")
    said = reply.json["response"]
    assert {each["model"] for each in said["responses"]} == {"a", "b"}
    assert said["failures"] == [{"model": "slow", "error": "too_late"}]
    assert planner.calls == {"up-a": 1, "up-b": 1, "up-d": 1, SLOW: 1}
    row, tried = planner.settle(reply)
    by_model = {each.model_id: each for each in tried}
    assert by_model["slow"].error_class == "not_needed"
    assert by_model["slow"].input_tokens > 0
    assert by_model["slow"].cost_usd == by_model["slow"].input_tokens * READ_USD
    assert reply.json["estimated_cost_usd"] == row["estimated_cost_usd"]
    assert row["outcome"] == "answered"
    health = {each["model_id"]: each for each in planner.gateway.admin("GET", "health")["models"]}
    assert health.get("slow", {"total_errors": 0})["total_errors"] == 0


def test_a_deadline_is_that_of_the_whole_plan(planner):
    policy = {"max_latency_ms": 400}
    began = time.monotonic()
    reply = planner.ask("planning", "late", primary_model_id="slow", policy=policy)
    assert 0.4 <= time.monotonic() - began < 1.4
    assert (reply.status, reply.json["error"]["code"]) == (504, "deadline_exceeded")
    row, tried = planner.settle(reply)
    assert [each.error_class for each in tried] == ["deadline"]
    assert row["outcome"] == "failed"
    began = time.monotonic()
    reply = planner.ask(
        "adversarial", "late", primary_model_id="a", review_model_id="slow", policy=policy
    )
    assert 0.4 <= time.monotonic() - began < 1.4
    found = reply.json
    assert (reply.status, found["partial"], found["failed_phase"]) == (200, True, "critique")
    assert found["error"]["code"] == "deadline_exceeded"
    assert found["response"]["initial_plan"]
    assert found["response"]["refined_plan"] == ""
    wait_until(lambda: planner.open_upstream() == 0, 1, "the slow one to be hung up on")
    _, tried = planner.settle(reply)
    assert [each[:2] for each in tried] == [("a", ""), ("slow", "deadline")]


def test_a_budget_is_that_of_the_whole_plan(planner):
    one = planner.ask("planning", primary_model_id="a")
    budget = planner.settle(one)[0]["estimated_cost_usd"] * 3
    asked = {"primary_model_id": "a", "policy": {"max_budget_usd": budget}}
    reply = planner.ask("refine", iterations=9, **asked)
    assert (reply.status, reply.json["partial"]) == (200, True), reply.body
    assert reply.json["error"]["code"] == "over_budget"
    done = reply.json["response"]["iterations"]
    assert planner.calls == {"up-a": done + 1}
    assert done < 3
    row, _ = planner.settle(reply)
    assert row["estimated_cost_usd"] <= budget
    for stream in (False, True):
        reply = planner.ask(
            "refine", stream=stream, primary_model_id="a", policy={"max_budget_usd": 1e-6}
        )
        assert planner.calls == {}
        assert (reply.status, reply.json["error"]["code"]) == (400, "over_budget")


@pytest.mark.parametrize("stream", [False, True])
def test_a_phase_that_fails_leaves_what_was_paid_for_before(planner, stream):
    reply = planner.ask(
        "adversarial", "odd", stream=stream, iterations=3, primary_model_id="a",
        review_model_id="odd",
    )  # fmt: skip
    assert reply.status == 200
    found = events_of(reply)[-1][1] if stream else reply.json
    assert (found["partial"], found["failed_phase"]) == (True, "critique")
    assert found["error"]["message"].startswith("simulated")  # the provider's own verdict
    assert found["response"]["initial_plan"]
    assert found["negotiated_model"] == "a"
    assert planner.calls == {"up-a": 1, "fault-422": 1}
    row, tried = planner.settle(reply)
    assert [each[:2] for each in tried] == [("a", ""), ("odd", "client_error")]
    assert row["estimated_cost_usd"] == found["estimated_cost_usd"] == tried[0].cost_usd
    assert tried[1].cost_usd == 0


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_while_models_vote_lets_all_of_them_go_within_a_second(planner, stream):
    connection = http.client.HTTPConnection("127.0.0.1", planner.gateway.port, timeout=30)
    ident = f"leaving-{stream}"
    connection.request(
        "POST", "/v1/plan", json.dumps(planner.body("vote", "stuck", stream=stream)),
        {"Authorization": f"Bearer {planner.payer.key}", "X-Request-Id": ident},
    )  # fmt: skip
    answer = connection.getresponse() if stream else None
    wait_until(lambda: planner.open_upstream() == 2, what="both to be asked")
    left = time.monotonic()
    connection.close()
    if answer is not None:
        answer.close()
    wait_until(lambda: planner.open_upstream() == 0, 3, "both to be let go")
    assert time.monotonic() - left < 1.0

    def find() -> list[Row]:
        rows = [found[0] for found in rows_by_id(planner.gateway).values()]
        return [row for row in rows if row["client_request_id"] == ident]

    [row] = wait_until(find, what="its row")
    _, tried = planner.settle_row(row)
    assert sorted(each.model_id for each in tried) == ["slow", "slower"]
    assert row["outcome"] == "client_closed"
    assert all(each.cost_usd > 0 for each in tried)


@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_is_refused_by_its_status_before_anybody_is_asked(planner, stream):
    rows: list[tuple[dict[str, Any], int, str]] = [
        ({"review_model_id": "nobody"}, 404, "model_not_found"),
        ({"primary_model_id": "nobody"}, 404, "model_not_found"),
        ({"iterations": 11}, 400, "invalid_request"),
    ]
    for asked, status, code in rows:
        reply = planner.ask("adversarial", stream=stream, **asked)
        assert (reply.status, reply.json["error"]["code"]) == (status, code)
        assert planner.calls == {}
    chatter = make_payer(planner.gateway, None, scopes=["chat"])
    reply = Planner(planner.gateway, chatter).ask("vote", stream=stream)
    assert (reply.status, reply.json["error"]["code"]) == (403, "insufficient_scope")


def test_the_books_have_what_all_of_these_plans_cost_and_nothing_stays_reserved(planner):
    paid = {each["request_id"]: each for [each] in rows_by_id(planner.gateway).values()}
    assert planner.settled_usd.keys() <= paid.keys()
    total = sum(each["estimated_cost_usd"] for each in paid.values())
    assert total >= sum(planner.settled_usd.values()) > 0
    settled(planner.gateway, planner.payer, total / CENT)

"""The log, the audit, rewards and decisions as people look them up: filters, pages, exports."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from tests.store.test_ingest import make_batch
from tests.web.test_admin_views import record
from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.db import DatabaseAway
from tokenhub.domain import Attempt, Candidate, Model, Outcome, Policy, Usage
from tokenhub.recorder import log_row, payload_of
from tokenhub.web.admin import feeds

USAGE = Usage(input_tokens=100, output_tokens=20)
FAILED = Attempt("big", "acme", 1, 900, None, 500, "server_error", Usage(), 0, 1, "", "failover")
SAVED = Attempt("small", "acme", 905, 40, 12, 200, "", USAGE, 10_000_000, 1, "routed", "", 77)


@pytest.fixture
def hour_ago() -> int:
    return unix_ms() - 3_600_000


@pytest.fixture
def ten(app, hour_ago):
    """Requests 0 to 9, a second apart: every third failed."""
    for number in range(10):
        has_failed = number % 3 == 0
        record(
            app,
            request_id=f"req_{number}",
            started_at=hour_ago + number * 1000,
            ending="failed" if has_failed else "answered",
            status=502 if has_failed else 200,
            error_class="all_attempts_failed" if has_failed else "",
            client_request_id=f"theirs-{number}",
            requested_model=f"=m{number}",
        )


def ids(said: dict[str, Any]) -> list[str]:
    return [row["request_id"] for row in said["logs"]]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", range(9, -1, -1)),
        ("outcome=failed,cut", [9, 6, 3, 0]),
        ("outcome=failed&outcome=answered&limit=1", [9]),
        ("status=5xx", [9, 6, 3, 0]),
        ("status=200&error_class=", [8, 7, 5, 4, 2, 1]),
        ("requested_model=%3Dm4&requested_model=%3Dm2", [4, 2]),
        ("request_id=theirs-7", [7]),
        ("request_id=req_7&key=nobody", []),
        ("model=small&provider=acme&key=key_1&team=", range(9, -1, -1)),
        ("endpoint=/v1/chat/completions&limit=1", [9]),
        ("mode=normal", []),
        ("stream=false", []),
        ("min_cost_usd=0.0015&min_latency_ms=42&min_attempts=1&limit=2", [9, 8]),
        ("min_cost_usd=0.0016", []),
        ("limit=2&offset=3", [6, 5]),
    ],
)  # fmt: skip
def test_requests_are_found_by_what_is_asked_of_them(admin, ten, query, numbers):
    assert ids(admin.ok("GET", f"logs?{query}")) == [f"req_{number}" for number in numbers]


def test_times_are_rfc_3339_or_unix_time(admin, ten, hour_ago):
    rows = admin.ok("GET", "logs")["logs"]
    fifth, third = rows[4]["timestamp"], rows[6]["timestamp"]
    assert ids(admin.ok("GET", f"logs?from={third}&to={fifth}")) == ["req_4", "req_3"]
    assert ids(admin.ok("GET", f"logs?from={hour_ago + 9000}")) == ["req_9"]
    assert ids(admin.ok("GET", f"logs?to={hour_ago // 1000}")) == []


def test_a_cursor_goes_through_all_of_it(admin, ten):
    found, query = [], "logs?limit=4"
    while True:
        said = admin.ok("GET", query)
        assert (said["total"], said["total_is_capped"], said["searched_to"]) == (10, False, None)
        found += ids(said)
        if said["next_cursor"] is None:
            break
        query = f"logs?limit=4&cursor={said['next_cursor']}"
    assert found == [f"req_{number}" for number in range(9, -1, -1)]


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("logs?limit=0", "limit"), ("logs?limit=1001", "limit"), ("logs?offset=-1", "offset"),
        ("logs?offset=100001", "offset"), ("logs?cursor=nonsense", "cursor"),
        ("logs?cursor=____________________", "cursor"), ("logs?cursor=ü", "cursor"),
        ("logs?cursor=AAAAAAAAAAAAAAAAAAAAAA&offset=1", "offset"),
        ("logs?colour=red", "colour"), ("logs?outcome=fine", "outcome"),
        ("logs?status=600x", "status"), ("logs?stream=maybe", "stream"),
        ("logs?from=yesterday", "from"), ("logs?from=9&to=8", "to"), ("logs?from=1&from=2", "from"),
        ("logs?model=a%00b", "model"), ("logs?request_id=", "request_id"),
        ("logs?min_cost_usd=-1", "min_cost_usd"), ("logs?min_cost_usd=NaN", "min_cost_usd"),
        ("logs?mode=fast", "mode"), ("logs?format=xml", "format"),
        ("logs?format=csv&limit=3", "limit"), ("logs?" + "&".join(["model=x"] * 51), "model"),
        ("logs/histogram?limit=3", "limit"), ("logs/histogram?step_secs=15", "step_secs"),
        ("logs/histogram?step_secs=10&from=1&to=1700000000000000", "to"),
        ("logs/facets", "field"), ("logs/facets?field=skips", "field"),
        ("audit?model=x", "model"), ("rewards?outcome=failed", "outcome"),
        ("rewards?success=1", "success"), ("rewards?token_bucket=tiny", "token_bucket"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_by_name(admin, path, param):
    status, _, found = admin.refused("GET", path)
    assert status == 400
    if "17000000000000" not in path:
        assert found == param


def test_exports_have_every_row_that_the_log_has(admin, client, ten, monkeypatch):
    monkeypatch.setattr(feeds, "BATCH_ROWS", 3)
    rows = admin.ok("GET", "logs?error_class=")["logs"]
    found = admin.send("GET", "logs?error_class=&format=jsonl")
    assert found.content_type == "application/x-ndjson"
    assert [json.loads(line) for line in found.text.splitlines()] == rows
    headers = {**admin.headers, "Accept": "text/csv"}
    found = client.get("/admin/v1/logs?error_class=", headers=headers)
    assert found.content_type == "text/csv; charset=utf-8"
    assert found.headers["Content-Disposition"].startswith('attachment; filename="tokenhub-logs-')
    table = list(csv.DictReader(io.StringIO(found.text)))
    assert [row["request_id"] for row in table] == [row["request_id"] for row in rows]
    assert sum(float(row["estimated_cost_usd"]) for row in table) == pytest.approx(0.0015 * 6)
    assert table[0]["requested_model"] == "'=m8"  # no formula
    assert json.loads(table[0]["skips"]) == {"big": "cooldown"}
    assert (table[0]["stream"], table[0]["ttft_ms"]) == ("true", "12")


def test_an_export_that_its_reader_leaves_asks_no_further(app, admin, ten, monkeypatch):
    monkeypatch.setattr(feeds, "BATCH_ROWS", 3)
    asked = []
    real = app.services.database.read

    def read(work, **options):
        asked.append(work)
        return real(work, **options)

    monkeypatch.setattr(app.services.database, "read", read)
    response = admin.send("GET", "logs?format=jsonl")
    pieces = iter(response.response)
    next(pieces)
    before = len(asked)
    response.close()
    assert (before, len(asked)) == (1, 1)


def test_an_export_is_broken_off_when_the_database_goes_away(app, admin, ten, monkeypatch):
    monkeypatch.setattr(feeds, "BATCH_ROWS", 3)
    response = admin.send("GET", "logs?format=jsonl")
    pieces = iter(response.response)
    next(pieces)

    def away(*_: object, **__: object) -> None:
        raise DatabaseAway("gone")

    monkeypatch.setattr(app.services.database, "read", away)
    with pytest.raises(Exception, match="the database is away"):
        next(pieces)


@pytest.mark.parametrize("rest", ["", "&stream=true"])
def test_the_histogram_counts_outcomes_by_step_from_sums_or_from_the_log(
    admin, ten, hour_ago, rest
):
    said = admin.ok(
        "GET", f"logs/histogram?from={hour_ago}&to={hour_ago + 10_000}&step_secs=10{rest}"
    )
    total: dict[str, int] = {}
    for bar in said["buckets"]:
        assert bar["total"] == sum(bar["outcomes"].values())
        for ending, count in bar["outcomes"].items():
            total[ending] = total.get(ending, 0) + count
    assert total == {"failed": 4, "answered": 6}
    assert (said["total"], said["step_secs"], said["searched_to"]) == (10, 10, None)
    failed = admin.ok("GET", f"logs/histogram?from={hour_ago}&outcome=failed{rest}")
    assert (failed["total"], failed["step_secs"]) == (4, 300)
    old = admin.ok("GET", "logs/histogram?from=2020-01-01T00:00:00Z&step_secs=10&to=1577840400")
    assert (old["step_secs"], old["total"], old["buckets"]) == (3600, 0, [])


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("outcome", [("answered", 6), ("failed", 4)]),
        ("model", [("small", 10)]),
        ("status", [(200, 6), (502, 4)]),
        ("stream", [(True, 10)]),
    ],
)
def test_facets_are_the_most_frequent_values(admin, ten, hour_ago, field, values):
    said = admin.ok("GET", f"logs/facets?field={field}&from={hour_ago}")
    assert [(each["value"], each["count"]) for each in said["values"]] == values
    assert (said["value_count"], said["total"]) == (len(values), 10)


def test_the_audit_is_found_by_who_did_what_to_what(admin):
    admin.provider("p1")
    changed = admin.send("PATCH", "providers/p1", {"enabled": False})
    admin.provider("p2")
    for query in ("action=provider.patch", "resource=p1&limit=1",
                  f"request_id={changed.headers['X-Request-Id']}"):  # fmt: skip
        rows = admin.ok("GET", f"audit?{query}")["logs"]
        assert [row["action"] for row in rows] == ["provider.patch"], query
    assert admin.ok("GET", "audit?actor=somebody")["total"] == 0
    assert admin.ok("GET", "audit")["total"] == 3
    text = admin.send("GET", "audit?format=csv").text
    assert [row["resource"] for row in csv.DictReader(io.StringIO(text))] == ["p2", "p1", "p1"]


def rescued(app, **fields):
    """A request that was answered by the second model."""
    models = [Model("big", "acme", "big"), Model("small", "acme", "small")]
    candidates = (Candidate(models[0], 0.9, 0.7, 5000), Candidate(models[1], 0.8, 0.3, None))
    policy = Policy(
        mode="cheap", max_budget_nanousd=10**9, max_latency_ms=2000, tags=frozenset("a")
    )
    record(
        app,
        **{
            "request_id": "req_r",
            "ending": "rescued",
            "attempts": [FAILED, SAVED],
            "candidates": candidates,
            "policy": policy,
            "policy_from": {"mode": "header"},
            "skips": {"old": "cooldown"},
            "estimated_input_tokens": 120,
            "trace_id": "ab" * 16,
            **fields,
        },
    )


def test_every_attempt_has_a_reward(admin, app):
    rescued(app)
    said = admin.ok("GET", "rewards")
    assert said["total"] == 2
    last, first = said["rewards"]
    assert (first["success"], first["reward"], first["error_class"]) == (False, 0.0, "server_error")
    # 0.3 · (1 − 0.01 / 0.1) + 0.3 · (1 − 40 / 2000) + 0.4
    assert (last["success"], last["reward"]) == (True, 0.964)
    assert last["timestamp"] == "2025-11-23T12:13:20.123Z"
    assert (last["model_id"], last["latency_ms"], last["cost_usd"]) == ("small", 40, 0.01)
    assert (last["token_bucket"], last["latency_budget_ms"], last["attempt"]) == ("small", 2000, 1)
    assert last["id"] > first["id"]
    page = admin.ok("GET", "rewards?limit=1")
    assert page["rewards"] == [last]
    rest = admin.ok("GET", f"rewards?limit=1&cursor={page['next_cursor']}")
    assert (rest["rewards"], rest["next_cursor"]) == ([first], None)
    for query in ("model=big", "success=false", "error_class=server_error", "offset=1"):
        assert admin.ok("GET", f"rewards?{query}")["rewards"] == [first], query
    assert len(admin.send("GET", "rewards?format=csv&token_bucket=small").text.splitlines()) == 3


def test_who_failed_through_no_fault_of_its_own_has_no_reward(admin, app):
    lost = SAVED._replace(error_class="hedge_lost")
    rescued(app, attempts=[FAILED._replace(error_class="client_error"), lost])
    assert [row["reward"] for row in admin.ok("GET", "rewards")["rewards"]] == [None, None]


def test_the_decision_says_why_a_request_went_where_it_went(admin, app):
    rescued(app, client_request_id="their/own id"[:9])
    said = admin.ok("GET", "decisions/req_r")
    assert admin.ok("GET", "decisions/their/own") == said
    assert (said["state"], said["outcome"], said["trace_id"]) == ("ended", "rescued", "ab" * 16)
    results = [(each["model_id"], each["result"]) for each in said["candidates"]]
    assert results == [("big", "failed"), ("small", "answered")]
    assert said["candidates"][0] == {
        "rank": 1, "model_id": "big", "provider_id": "acme", "score": 0.9, "propensity": 0.7,
        "estimated_cost_usd": 0.000005, "result": "failed",
    }  # fmt: skip
    assert said["skips"] == [{"model_id": "old", "reason": "cooldown"}]
    assert said["skip_counts"] == {"cooldown": 1}
    first, second = said["attempts"]
    assert (first["status"], first["next_step"], first["duration_ms"]) == (500, "failover", 900)
    assert (second["response_bytes"], second["estimated_cost_usd"]) == (77, 0.01)
    assert said["policy"]["mode"] == "cheap"
    assert (said["policy"]["max_budget_usd"], said["policy"]["tags"]) == (1.0, ["a"])
    assert said["policy"]["from"] == {"mode": "header"}
    assert said["who"]["api_key_id"] == "key_1"
    assert said["host"]["id"] == app.services.host_id
    assert [each["reward"] for each in said["rewards"]] == [0.0, 0.964]
    assert (said["feedback"], said["idempotency"]) == ([], None)


def test_a_request_that_runs_is_shown_as_running(admin, app):
    running = Outcome("req_now", "key_1", "/v1/chat/completions", "normal", True, unix_ms())
    payload = payload_of(log_row(running), [], 0, [])
    opened = ("req_now", app.services.host_id, "w", 1, 2, running.started_at, payload)
    batch = make_batch(openings_new=[opened])
    app.services.database.write(lambda connection: store.ingest(connection, batch))
    said = admin.ok("GET", "decisions/req_now")
    assert (said["state"], said["outcome"], said["ended_at"]) == ("running", None, None)
    assert said["asked"]["stream"] is True


def test_a_request_that_nobody_knows_is_not_found(admin):
    status, code, _ = admin.refused("GET", "decisions/req_nobody")
    assert (status, code) == (404, "not_found")
    assert admin.refused("GET", "decisions/a%00b")[0] == 404

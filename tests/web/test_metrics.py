"""/metrics as scrapers ask for it, and what is built on its names."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_open_metrics,
)

from tests.promtool import ROOT, promtool
from tests.web.conftest import METRICS_TOKEN
from tokenhub.domain import Attempt, Ending, Outcome

HEADERS = {"Authorization": f"Bearer {METRICS_TOKEN}"}
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"

KEPT_FROM_THE_ORIGINAL = {
    "tokenhub_requests_total": {"mode", "model", "provider", "status"},
    "tokenhub_request_latency_ms_count": {"mode", "model", "provider"},
    "tokenhub_cost_usd_total": {"model", "provider"},
    "tokenhub_tokens_total": {"model", "provider", "direction"},
    "tokenhub_request_errors_total": {"mode", "model", "provider", "http_status"},
    "tokenhub_rate_limited_total": set(),
    "tokenhub_admin_rate_limited_total": set(),
    "tokenhub_provider_skips_total": {"provider", "reason"},
    "tokenhub_provider_health_state": {"provider"},
    "tokenhub_store_dropped_total": {"op"},
    "tokenhub_heartbeat_total": set(),
}


@pytest.fixture
def busy(app: Any, admin: Any) -> Any:
    """An app that has seen a little of everything."""
    admin.provider()
    admin.model()
    hub = app.services
    hub.catalog.current()
    hub.board.sit_down(0)
    endings: tuple[tuple[Ending, int, str], ...] = (
        ("answered", 200, ""), ("failed", 502, "timeout"),
    )  # fmt: skip
    for ending, status, error_class in endings:
        outcome = Outcome(f"req_{status}", "key_1", "/v1/chat/completions", "cheap", True, 1)
        outcome.ending, outcome.status, outcome.error_class = ending, status, error_class
        outcome.model_id, outcome.provider_id, outcome.ttft_ms = "small", "acme", 7
        outcome.skips = {"small": "cooldown"}
        outcome.attempts = [Attempt("small", "acme", 0, 40, 7, status, error_class)]
        hub.recorder.admit()
        hub.recorder.record(outcome)
    hub.board.vitals.succeed("small", "acme", 40, 0)
    return app


def scrape(app: Any, **headers: str) -> str:
    response = app.test_client().get("/metrics", headers={**HEADERS, **headers})
    assert response.status_code == 200
    return str(response.text)


def names_in(text: str) -> set[str]:
    """Every name that a query may use."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
        ends = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        found |= {name + end for end in ends}
    return found


@pytest.mark.parametrize(("name", "labels"), KEPT_FROM_THE_ORIGINAL.items())
def test_the_originals_metrics_are_there_with_their_labels(busy, name, labels):
    lines = [line for line in scrape(busy).splitlines() if re.match(rf"{name}[{{ ]", line)]
    assert lines
    assert all(labels <= set(re.findall(r'(\w+)="', line)) for line in lines)


def test_what_was_left_out_is_counted_for_its_provider(busy):
    assert 'tokenhub_provider_skips_total{provider="acme",reason="cooldown"} 2.0' in scrape(busy)


def test_what_was_written_down_waits_for_the_database(busy):
    [line] = re.findall(r"^tokenhub_journal_waiting_bytes (.*)$", scrape(busy), re.MULTILINE)
    assert float(line) > 200


@pytest.mark.parametrize(
    "path",
    ["deploy/prometheus/alerts.yaml", "deploy/grafana/dashboard.json"],
)
def test_alerts_and_panels_ask_for_metrics_that_there_are(busy, path):
    asked = set(re.findall(r"\btokenhub_\w+", (ROOT / path).read_text()))
    assert len(asked) > 15
    assert asked - names_in(scrape(busy)) == set()


def test_the_metrics_that_are_explained_are_those_that_there_are(busy):
    text = (ROOT / "docs" / "operations.md").read_text()
    explained = set(re.findall(r"^\| `(tokenhub_\w+)` \|", text, re.MULTILINE))
    assert explained == set(re.findall(r"^# TYPE (\w+) ", scrape(busy), re.MULTILINE))


def test_promtool_finds_nothing_to_complain_of(busy):
    """But of the names in milliseconds, which are the original's."""
    _, said = promtool("check", "metrics", text=scrape(busy))
    complaints = [line for line in said.splitlines() if " " in line]
    assert {line.split()[0] for line in complaints} <= {
        "tokenhub_request_latency_ms", "tokenhub_ttft_ms",
    }, said  # fmt: skip


def test_open_metrics_are_given_to_those_who_ask(busy):
    client = busy.test_client()
    response = client.get("/metrics", headers={**HEADERS, "Accept": OPEN_METRICS})
    assert response.content_type.startswith("application/openmetrics-text")
    families = {family.name for family in read_open_metrics(response.text)}
    assert {"tokenhub_requests", "tokenhub_overhead_seconds"} <= families
    plain = client.get("/metrics", headers=HEADERS)
    assert plain.content_type.startswith("text/plain; version=0.0.4")


def test_head_says_what_get_would_but_the_body(busy):
    client = busy.test_client()
    response = client.head("/metrics", headers=HEADERS)
    assert (response.status_code, response.data) == (200, b"")
    assert response.content_type == client.get("/metrics", headers=HEADERS).content_type
    assert client.head("/metrics").status_code == 401

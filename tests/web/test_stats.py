"""What the statistics say of the last day and of any time, by all that requests are about."""

from __future__ import annotations

import time

import pytest

from tests.web.test_admin_views import record
from tokenhub.domain import ENDINGS, Attempt, Usage

WINDOWS = ["1m", "5m", "1h", "24h"]


def ago(secs: float) -> int:
    return int((time.time() - secs) * 1000)


def row(rows, **words):
    """The one row with these words."""
    [found] = [each for each in rows if all(each[name] == word for name, word in words.items())]
    return found


@pytest.fixture
def traffic(app, admin):
    """A mixed day: answered, rescued after a failed call, failed, refused."""
    admin.unlock()
    admin.provider()
    admin.model()
    key = admin.ok("POST", "apikeys", {"name": "büro"})["id"]
    usage = Usage(input_tokens=100, output_tokens=20)
    record(app, request_id="a", key_id=key, started_at=ago(5))
    tries = [
        Attempt("big", "other", 0, 900, None, 500, "server_error"),
        Attempt("small", "acme", 1, 40, 12, 200, "", usage, None, 1),
    ]
    record(app, request_id="b", key_id=key, started_at=ago(200), ending="rescued", attempts=tries,
           latency_ms=950, ttft_ms=920, alias_from="fast")  # fmt: skip
    failed = [Attempt("small", "acme", 0, 900, None, 500, "server_error")]
    record(app, request_id="c", key_id="gone", started_at=ago(2000), ending="failed", status=502,
           attempts=failed, error_class="server_error", latency_ms=901, ttft_ms=None,
           mode="normal", endpoint="/v1/messages")  # fmt: skip
    record(app, request_id="d", key_id="gone", started_at=ago(40_000), ending="refused",
           status=400, attempts=[], model_id="", provider_id="", latency_ms=1,
           ttft_ms=None)  # fmt: skip
    return key


def test_nothing_has_happened_yet(admin):
    said = admin.ok("GET", "stats")
    assert [each["window"] for each in said["global"]] == WINDOWS
    assert {each["request_count"] for each in said["global"]} == {0}
    assert said["global"][0]["p95_latency_ms"] == 0
    sections = [name for name in said if name.startswith("by_")]
    assert len(sections) == 8
    for section in sections:
        assert said[section] == {window: [] for window in WINDOWS}


def test_windows_hold_what_began_in_them(admin, traffic):
    said = admin.ok("GET", "stats")
    assert [each["request_count"] for each in said["global"]] == [1, 2, 3, 4]
    day = said["global"][3]
    assert (day["error_count"], day["error_rate"]) == (2, 0.5)
    assert day["outcomes"] == {
        **dict.fromkeys(ENDINGS, 0), "answered": 1, "rescued": 1, "failed": 1, "refused": 1,
    }  # fmt: skip
    assert day["avg_latency_ms"] == (42 + 950 + 901 + 1) / 4
    assert day["max_latency_ms"] == 950
    assert day["p50_latency_ms"] <= day["p95_latency_ms"] <= day["p99_latency_ms"] <= 950
    assert (day["total_cost_usd"], day["unpriced_requests"]) == (0.0015, 1)
    assert (day["input_tokens"], day["output_tokens"], day["total_tokens"]) == (200, 40, 240)
    assert (day["attempts"], day["failed_attempts"]) == (4, 2)
    assert day["p95_ttft_ms"] <= 920


def test_each_section_tells_its_groups_apart(admin, traffic):
    said = admin.ok("GET", "stats")
    models = said["by_model"]["24h"]
    assert [each["model_id"] for each in models] == ["small", "", "big"]
    big = row(models, model_id="big")
    assert (big["request_count"], big["attempts"], big["failed_attempts"]) == (0, 1, 1)
    assert big["p95_ttft_ms"] is None
    assert row(models, model_id="small")["attempts"] == 3
    pair = row(said["by_pair"]["24h"], model_id="big", provider_id="other")
    assert (pair["request_count"], pair["failed_attempts"]) == (0, 1)
    assert row(said["by_provider"]["24h"], provider_id="acme")["failed_attempts"] == 1
    keys = said["by_api_key"]["24h"]
    assert row(keys, api_key_id=traffic)["api_key_name"] == "büro"
    assert row(keys, api_key_id="gone")["api_key_name"] == "gone"
    assert "failed_attempts" not in keys[0]
    assert row(said["by_mode"]["24h"], mode="cheap")["request_count"] == 3
    assert row(said["by_endpoint"]["24h"], endpoint="/v1/messages")["error_count"] == 1
    assert row(said["by_outcome"]["24h"], outcome="rescued")["total_tokens"] == 120
    assert [each["alias"] for each in said["by_alias"]["24h"]] == ["fast"]


def test_a_deleted_key_keeps_its_id(admin, traffic):
    admin.ok("DELETE", f"apikeys/{traffic}")
    keys = admin.ok("GET", "stats")["by_api_key"]["24h"]
    assert row(keys, api_key_id=traffic)["api_key_name"] == traffic


def test_any_time_can_be_grouped_and_ordered(admin, traffic):
    said = admin.ok("GET", "stats?group=model,provider&order=failed_attempts")
    assert said["total"] == 3
    assert [(each["model_id"], each["failed_attempts"]) for each in said["stats"]][2] == ("", 0)
    both = admin.ok("GET", f"stats?from={ago(300)}&group=key,outcome&order=p95")
    assert [each["outcome"] for each in both["stats"]] == ["rescued", "answered"]
    assert both["stats"][0]["api_key_name"] == "büro"
    [total] = admin.ok("GET", "stats?group=&model=small&outcome=answered,failed")["stats"]
    assert total["request_count"] == 2
    [hour] = admin.ok("GET", "stats?window=1h")["stats"]
    assert hour["request_count"] == 3
    [none] = admin.ok("GET", "stats?limit=1&group=mode&alias=")["stats"]
    assert none["request_count"] == 2


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("from=yesterday", "from"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "to"),
        ("group=colour", "group"),
        ("order=luck", "order"),
        ("group=key&order=failed_attempts", "order"),
        ("outcome=fine", "outcome"),
        ("limit=0", "limit"),
        ("window=2h", "window"),
        ("window=1h&to=5", "window"),
        ("colour=red", "colour"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(admin, query, param):
    status, _, named = admin.refused("GET", f"stats?{query}")
    assert (status, named) == (400, param)

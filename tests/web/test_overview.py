"""The tiles of the first page are one moment's, and the steps of the first setup stay done."""

from __future__ import annotations

import pytest

from tests.web.conftest import Admin
from tests.web.views_kit import COST, ago, attempt, beat, sender
from tokenhub import store
from tokenhub.catalog import Change
from tokenhub.domain import Provider
from tokenhub.events import Reader
from tokenhub.store import HostState


@pytest.fixture
def environ(environ, database_dsn):
    return {**environ, "TOKENHUB_DB_DSN": database_dsn}


@pytest.fixture
def send(app, admin):
    admin.provider()
    admin.model(input_per_1k=0.001, output_per_1k=0.002)
    return sender(app)


def test_nothing_has_happened_yet(admin):
    said = admin.ok("GET", "overview")
    assert said["requests"] == {"total": 0, "per_second": 0, "previous": 0, "change": None}
    assert (said["answered"]["share"], said["latency"]["p95_ms"]) == (None, None)
    assert said["spend"]["usd"] == 0 and said["spend"]["month"]["forecast"] is None
    assert said["sparkline"]["points"] == []
    assert said["refused"]["by_kind"] == {"budget": 0, "rate": 0, "key": 0, "request": 0}


def test_tiles_count_what_has_happened(admin, send):
    send(5)
    send(1, ending="rescued", attempts=[attempt("timeout"), attempt()], latency_ms=2000)
    send(1, ending="failed", status=502)
    send(1, ending="client_closed", status=499, attempts=[attempt()])
    for code in ("insufficient_quota", "rate_limited", "model_not_allowed", "invalid_request"):
        send(1, ending="refused", status=400, error_class=code, attempts=[])
    send(2, started_at=ago(5400))
    said = admin.ok("GET", "overview")
    requests = said["requests"]
    assert (requests["total"], requests["previous"], requests["change"]) == (12, 2, 5.0)
    assert requests["per_second"] == pytest.approx(12 / 3600, abs=1e-6)
    answered = said["answered"]
    assert (answered["of"], answered["share"]) == (7, round(6 / 7, 6))
    assert (answered["rescued"], answered["failed"], answered["client_closed"]) == (1, 1, 1)
    assert said["refused"]["by_kind"] == dict.fromkeys(("budget", "rate", "key", "request"), 1)
    assert said["spend"]["usd"] == 7 * COST / 1e9
    assert said["spend"]["month"]["spent_usd"] in (9 * COST / 1e9, 7 * COST / 1e9)
    assert said["latency"]["p50_ms"] <= said["latency"]["p95_ms"] <= 2000
    assert sum(each["requests"] for each in said["sparkline"]["points"]) == 12
    assert said["attention"] == {"critical": 0, "warning": 0, "info": 0}


def test_the_place_in_the_feed_is_where_the_numbers_end(admin, app, send):
    send(3)
    said = admin.ok("GET", "overview?cmp=0")
    assert "previous" not in said["requests"]
    send(2)
    reader = Reader.resume(said["event_id"], str)
    items = reader.read(app.services.database, 100).items
    later = [each for each in items if each.source == "logs"]
    assert len(later) == 2
    now = admin.ok("GET", "overview?cmp=0")
    assert now["requests"]["total"] == said["requests"]["total"] + len(later)


@pytest.mark.parametrize("hours", [0.1, 0.5, 5, 40, 300, 5000])
def test_any_time_has_a_chart_that_adds_up_to_its_total(admin, send, hours):
    send(3)
    send(2, started_at=ago(hours * 1800))
    said = admin.ok("GET", f"overview?from={ago(hours * 3600)}")
    points = said["sparkline"]["points"]
    assert said["requests"]["total"] == 5 == sum(each["requests"] for each in points)
    assert hours * 3600 / said["sparkline"]["step_secs"] <= 240


def test_every_worker_says_the_same(admin, make_app, send, app):
    beat(app, HostState(set_aside=3))
    send(4)
    other = Admin(make_app().test_client())
    window = f"from={ago(3000)}&to={ago(0)}"
    for path in (f"overview?{window}", "attention", f"usage?{window}", "setup"):
        one, two = admin.ok("GET", path), other.ok("GET", path)
        assert {**one, "as_of": None} == {**two, "as_of": None}


@pytest.mark.parametrize(
    ("query", "param"),
    [("from=x", "from"), ("cmp=2", "cmp"), ("window=1h", "window"),
     (f"from={ago(-99_999)}", "from"), ("from=0&to=4000000000", "from"),
     ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "to")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(admin, query, param):
    assert admin.refused("GET", f"overview?{query}")[::2] == (400, param)


def steps(admin) -> dict[str, bool]:
    return {each["step"]: each["done"] for each in admin.ok("GET", "setup")["steps"]}


def test_the_setup_is_done_step_by_step_and_stays_done(admin, app):
    assert admin.ok("GET", "setup")["next"] == "vault_ready"
    admin.unlock()
    assert admin.ok("GET", "setup")["next"] == "provider_answers"
    admin.provider()
    beat(app, HostState(provider_answers=True))
    assert admin.ok("GET", "setup")["next"] == "model_with_price"
    admin.model()
    assert not steps(admin)["model_with_price"]
    admin.ok("PATCH", "models/small", {"input_per_1k": 0.001, "output_per_1k": 0.002})
    assert admin.ok("GET", "setup")["next"] == "key_created"
    admin.ok("POST", "apikeys", {"name": "first"})
    assert admin.ok("GET", "setup")["next"] == "first_request"
    sender(app)(ending="failed", status=502)
    assert not steps(admin)["first_request"]
    sender(app)(request_id="good")
    beat(app, HostState())
    admin.ok("POST", "vault/lock")
    admin.ok("PATCH", "models/small", {"enabled": False})
    said = admin.ok("GET", "setup")
    assert (said["done"], said["next"], set(steps(admin).values())) == (True, None, {True})


def test_a_demo_is_no_setup_and_is_named(admin, app):
    demo = Provider("demo", "openai", "http://127.0.0.1:1", demo=True)
    app.services.catalog.apply(
        Change("provider", "demo", "provider.upsert", actor="x"),
        lambda connection: store.save_provider(connection, demo, ago(0)),
    )
    said = admin.ok("GET", "setup")
    assert (said["demo_providers"], said["next"]) == (["demo"], "vault_ready")
    [found] = admin.ok("GET", "attention")["attention"]
    assert (found["kind"], found["severity"]) == ("demo_provider", "info")
    admin.provider()
    admin.model()
    assert admin.ok("GET", "attention")["attention"] == []

"""What the admin API says of models and providers, and how what is held against them is cleared."""

from __future__ import annotations

import json

import pytest

from tests.web.conftest import Admin


class Host:
    """An app with the provider `acme` (models `a` and `b/c`) and the provider `quiet`."""

    def __init__(self, app, admin: Admin) -> None:
        self.app = app
        self.admin = admin
        admin.provider()
        admin.provider("quiet")
        admin.model("a")
        admin.model("b/c")

    def succeed(self, model: str, latency_ms: int = 1) -> None:
        self.vitals.succeed(model, "acme", latency_ms, 0)

    def fail(self, model: str, error_class: str = "server_error", **more: object) -> None:
        fields: dict[str, object] = {"cooldown_seconds": None, "is_provider_wide": False, **more}
        self.vitals.fail(model, "acme", error_class, 0, **fields)

    def rest(self, model: str, secs: float = 60.0, **more: object) -> None:
        self.fail(model, "forbidden", cooldown_seconds=secs, **more)

    @property
    def vitals(self):
        return self.app.services.board.vitals

    @property
    def providers(self) -> dict[str, dict[str, object]]:
        return {each["provider_id"]: each for each in self.admin.ok("GET", "health")["providers"]}

    @property
    def models(self) -> dict[str, dict[str, object]]:
        return {each["model_id"]: each for each in self.admin.ok("GET", "health")["models"]}


@pytest.fixture
def host(app, admin) -> Host:
    return Host(app, admin)


def test_health_sums_the_last_minute_by_model_and_by_provider(host, admin, app):
    for latency in (100, 300):
        host.succeed("a", latency)
    host.fail("b/c")
    host.fail("b/c", "overloaded")
    said = admin.ok("GET", "health")
    assert (said["host"], said["window_secs"]) == (app.services.host_id, 60)
    acme, quiet = said["providers"]
    a, b = said["models"]
    assert (a["model_id"], a["provider_id"], a["state"]) == ("a", "acme", "healthy")
    assert (a["total_requests"], a["total_errors"], a["avg_latency_ms"]) == (2, 0, 200)
    assert (b["state"], b["consec_errors"], b["avg_latency_ms"]) == ("degraded", 2, None)
    assert (b["last_error"], b["last_success_at"]) == ("overloaded", None)
    assert b["last_error_time"].endswith("Z")
    assert (acme["provider_id"], acme["state"]) == ("acme", "degraded")
    assert (acme["total_requests"], acme["total_errors"]) == (4, 2)
    assert (acme["consec_errors"], acme["avg_latency_ms"]) == (2, 200)
    assert (acme["cooldown_until"], acme["last_error"]) == (None, "overloaded")
    assert (quiet["provider_id"], quiet["state"], quiet["avg_latency_ms"]) == (
        "quiet", "unknown", None,
    )  # fmt: skip


def test_a_provider_is_down_when_all_its_models_are(host):
    host.rest("a", 60)
    host.succeed("b/c")
    acme = host.providers["acme"]
    assert (acme["state"], acme["cooldown_until"], acme["breaker"]) == ("degraded", None, "closed")
    host.rest("b/c", 30)
    acme = host.providers["acme"]
    assert acme["state"] == "down"
    assert acme["cooldown_until"] == host.models["b/c"]["cooldown_until"]


def test_a_provider_is_down_when_its_own_breaker_is_open(host):
    host.succeed("a")
    host.rest("a", 60, is_provider_wide=True)
    acme, a = host.providers["acme"], host.models["a"]
    assert (acme["state"], acme["breaker"], acme["share"]) == ("down", "open", 0.0)
    assert (acme["openings"], acme["last_error"]) == (1, "forbidden")
    assert 59 < acme["cooldown_secs_left"] <= 60
    assert acme["cooldown_until"].endswith("Z")
    assert (a["state"], a["breaker"], a["share"], a["openings"]) == ("healthy", "closed", 1.0, 0)
    assert (a["cooldown_secs_left"], a["last_error"]) == (0, "forbidden")


def test_a_model_that_recovers_is_degraded_and_its_share_is_told(host):
    host.rest("a")
    host.succeed("a", 0)
    a, acme = host.models["a"], host.providers["acme"]
    assert (a["state"], a["breaker"], a["share"], a["openings"]) == (
        "degraded", "ramping", 0.1, 1,
    )  # fmt: skip
    assert (acme["state"], acme["breaker"], acme["share"]) == ("degraded", "closed", 1.0)


def test_what_probes_found_is_shown_beside_and_is_no_attempt(host):
    assert host.providers["quiet"]["probe"] is None
    for _ in range(2):
        host.vitals.note_probe("quiet", is_alive=False, status=503, latency_ms=7)
    quiet = host.providers["quiet"]
    assert quiet["probe"].pop("at").endswith("Z")
    assert quiet["probe"] == {"alive": False, "status": 503, "latency_ms": 7}
    assert (quiet["state"], quiet["breaker"], quiet["share"]) == ("unknown", "closed", 0.0)
    assert quiet["total_requests"] == 0


def test_health_forgets_a_model_or_a_provider_that_is_gone(host, admin):
    host.succeed("a")
    admin.ok("DELETE", "models/a")
    assert host.models == {}
    admin.ok("DELETE", "providers/acme")
    assert set(host.providers) == {"quiet"}


def test_a_cleared_model_is_tried_by_everybody_at_once(host, admin):
    host.rest("a")
    host.rest("b/c")
    assert admin.ok("POST", "health/b/c/clear") == {"ok": True}
    assert (host.models["b/c"]["breaker"], host.models["b/c"]["share"]) == ("closed", 1.0)
    assert host.models["a"]["breaker"] == "open"


def test_a_cleared_provider_takes_its_models_with_it(host, admin):
    host.rest("a")
    host.rest("a", is_provider_wide=True)
    admin.ok("POST", "health/acme/clear")
    assert host.providers["acme"]["breaker"] == "closed"
    assert host.models["a"]["breaker"] == "closed"


def test_who_cleared_what_is_in_the_audit(host, admin):
    host.rest("a")
    admin.ok("POST", "health/acme/clear")
    row = admin.ok("GET", "audit")["logs"][0]
    assert (row["action"], row["resource"]) == ("health.clear", "acme")
    assert json.loads(row["detail"]) == {
        "before": {"held_back": ["model a"], "drained": []},
        "after": {"held_back": [], "drained": []},
    }  # fmt: skip


def test_what_was_never_tried_can_be_cleared_and_what_is_not_there_cannot(host, admin):
    admin.ok("POST", "health/quiet/clear")
    assert admin.refused("POST", "health/nobody/clear") == (404, "not_found", "id")
    assert admin.refused("POST", "health/a%00b/clear")[0] == 404


def test_what_fails_after_it_was_cleared_stays_failed_whichever_worker_hears_of_it_last(make_app):
    one, other = make_app(), make_app()
    host = Host(one, Admin(one.test_client()))
    other.services.catalog.current()
    host.rest("a")
    host.admin.ok("POST", "health/a/clear")
    host.rest("a")
    assert Admin(other.test_client()).ok("GET", "health")["models"][0]["breaker"] == "open"


def test_nothing_is_cleared_while_the_database_is_away(host, admin, database_away):
    host.rest("a")
    database_away("write")
    assert admin.refused("POST", "health/a/clear")[:2] == (503, "database_away")
    assert host.models["a"]["breaker"] == "open"


def test_what_is_made_anew_begins_anew(host, admin):
    host.rest("a")
    host.rest("b/c")
    assert set(host.models) == {"a", "b/c"}
    host.rest("b/c", is_provider_wide=True)
    admin.ok("DELETE", "models/a")
    admin.model("a")
    assert set(host.models) == {"a", "b/c"}
    assert "a" not in host.vitals.view().cooling
    assert "b/c" in host.vitals.view().cooling
    admin.model("b/c", weight=9)  # a change is no new beginning
    assert set(host.models) == {"a", "b/c"}
    assert "b/c" in host.vitals.view().cooling
    admin.ok("DELETE", "providers/acme")
    admin.provider()
    admin.model("b/c")
    assert set(host.models) == {"b/c"}
    view = host.vitals.view()
    assert (dict(view.cooling), dict(view.cooling_providers)) == ({}, {})


def test_a_provider_that_was_changed_is_tried_again_at_once(host, admin):
    host.rest("a", is_provider_wide=True)
    host.rest("b/c")
    assert host.providers["acme"]["breaker"] == "open"
    admin.ok("PATCH", "providers/acme", {"base_url": "http://127.0.0.1:2"})
    admin.ok("GET", "health")
    assert host.providers["acme"]["breaker"] == "closed"
    assert host.models["b/c"]["breaker"] == "open"

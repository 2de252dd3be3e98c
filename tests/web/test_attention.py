"""What needs somebody is said once, the worst first, with the numbers that say so."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from tests.web.conftest import Admin
from tests.web.money_kit import Money
from tests.web.views_kit import DAY_MS, ago, attempt, beat, sender
from tokenhub.board.transitions import Transition
from tokenhub.db.catalog_tables import api_keys
from tokenhub.db.traffic_tables import hosts
from tokenhub.host import journal_directory
from tokenhub.ingest import Ingester
from tokenhub.store import HostState

DOWN = Transition(
    "provider", "acme", "healthy", "down", "closed", "open", "unreachable", ago(-30)
)  # fmt: skip


@pytest.fixture
def environ(environ, database_dsn):
    return {**environ, "TOKENHUB_DB_DSN": database_dsn}


@pytest.fixture
def send(app, admin):
    """A gateway that is set up, and requests to it."""
    admin.provider()
    admin.model(input_per_1k=0.001, output_per_1k=0.002)
    beat(app)
    return sender(app)


def kinds(admin) -> list[str]:
    return [each["kind"] for each in admin.ok("GET", "attention")["attention"]]


def only(admin, kind: str) -> Any:
    [found] = [each for each in admin.ok("GET", "attention")["attention"] if each["kind"] == kind]
    return found


def tell(app, transition: Transition) -> None:
    app.services.events.tell_transition(transition)
    ingester = Ingester(
        database=app.services.database, board=app.services.board,
        directory=journal_directory(app.services.settings), host_id=app.services.host_id,
    )  # fmt: skip
    while ingester.step():
        pass


def test_nothing_needs_anybody(admin, send):
    send()
    said = admin.ok("GET", "attention")
    assert said.pop("as_of")
    assert said == {
        "database": "ok", "counts": {"critical": 0, "warning": 0, "info": 0},
        "attention": [], "snoozed": [],
    }  # fmt: skip


def test_a_provider_that_fails_is_told_with_numerator_and_denominator(admin, send):
    send(6)
    send(4, ending="failed", status=502)
    assert kinds(admin) == []  # a few
    send(2, ending="failed", status=502)
    found = only(admin, "provider_failing")
    assert (found["severity"], found["subject"]["id"]) == ("critical", "acme")
    facts = found["facts"]
    assert (facts["failed_attempts"], facts["attempts"], facts["lost_requests"]) == (6, 12, 6)
    assert facts["error_classes"] == {"server_error": 6}
    assert facts["rests"] is False and facts["hosts"] == []


def test_what_callers_do_wrong_is_held_against_nobody(admin, send):
    send(10, ending="refused", status=400, attempts=[attempt("client_error")])
    assert kinds(admin) == []


def test_one_bad_model_of_a_good_provider_is_told_by_itself(admin, send):
    admin.model("bad", input_per_1k=0.001, output_per_1k=0.002)
    send(9)
    send(9, ending="rescued", attempts=[attempt("timeout", model="bad"), attempt()])
    found = only(admin, "model_failing")
    assert found["subject"] == {"kind": "model", "id": "bad", "name": "bad"}
    assert (found["severity"], found["facts"]["provider_id"]) == ("critical", "acme")
    assert kinds(admin) == ["model_failing"]


def test_a_provider_that_rests_says_since_when_and_on_which_host(admin, app, send):
    tell(app, DOWN)
    found = only(admin, "provider_failing")
    assert found["severity"] == "critical" and found["since"]
    assert found["facts"]["rests"] is True and found["facts"]["until"]
    [host] = found["facts"]["hosts"]
    assert (host["host"], host["state"], host["reason"]) == ("here", "down", "unreachable")
    tell(app, Transition("provider", "acme", "down", "healthy", "open", "closed", "cleared"))
    assert kinds(admin) == []


def test_what_a_host_said_before_it_began_anew_is_forgotten(admin, app, send):
    tell(app, DOWN)
    beat(app, started_at=ago(-1))
    assert kinds(admin) == []


def test_one_whose_probes_go_unanswered_is_told(admin, app, send):
    tell(app, Transition("provider", "acme", "healthy", "silent", "closed", "closed", "x"))
    assert only(admin, "provider_silent")["severity"] == "warning"


def test_hosts_tell_of_their_journals_and_vaults(admin, app, send):
    admin.unlock()
    admin.provider("sealed", api_key="sk-x")
    admin.model("m2", provider_id="sealed", input_per_1k=0, output_per_1k=0)
    state = HostState(lag_secs=7.0, waiting_bytes=99, set_aside=2, vault_locked=True)
    beat(app, state)
    send(3, ending="failed", status=503, error_class="vault_locked", attempts=[])
    assert kinds(admin) == ["vault_locked", "rows_set_aside", "journal_lag"]
    facts = only(admin, "vault_locked")["facts"]
    assert (facts["providers"], facts["refused_requests"], facts["host"]) == (["sealed"], 3, "here")
    assert only(admin, "journal_lag")["facts"]["lag_secs"] == 7.0
    assert only(admin, "rows_set_aside")["facts"]["rows"] == 2
    beat(app, HostState(lag_secs=61.0))
    assert only(admin, "journal_lag")["severity"] == "critical"


def test_a_silent_host_and_another_version_are_told(admin, app, send):
    beat(app, None, host_id="host_2", name="there", version="0.0.1")
    assert only(admin, "version_differs")["facts"]["versions"][0] == "0.0.1"
    quiet = update(hosts).where(hosts.c.id == "host_2").values(seen_at=ago(3600))
    app.services.database.write(lambda connection: connection.execute(quiet))
    found = only(admin, "host_silent")
    assert (found["subject"]["name"], kinds(admin)) == ("there", ["host_silent"])
    gone = quiet.values(seen_at=ago(30 * 86_400))
    app.services.database.write(lambda connection: connection.execute(gone))
    assert kinds(admin) == []


def test_budgets_are_told_before_and_when_they_are_spent(admin, app, send):
    money = Money(app, admin)
    key_id = money.key()
    money.put("key", key_id, "total", limit_usd=10)
    money.spend("key", key_id, 7.9)
    assert kinds(admin) == []
    money.spend("key", key_id, 0.2)
    found = only(admin, "budget_nearly_spent")
    assert (found["severity"], found["facts"]["spent_usd"]) == ("warning", 8.1)
    assert found["facts"]["subject_id"] == key_id and found["subject"]["name"] == "test"
    money.spend("key", key_id, 2)
    assert only(admin, "budget_spent")["severity"] == "critical"
    money.put("key", key_id, "total", limit_usd=10, hard=False)
    assert only(admin, "budget_spent")["severity"] == "warning"


def test_a_budget_that_will_not_last_is_told(admin, app, send):
    money = Money(app, admin)
    key_id = money.key()
    money.put("key", key_id, "day", limit_usd=1)
    for days in range(1, 8):
        money.spend("key", key_id, 1_000_000, ago(days * 86_400))
    found = only(admin, "forecast_over_budget")
    assert found["facts"]["forecast"]["per_day_usd"] == 1_000_000
    assert found["facts"]["lasts_until"] and found["facts"]["resets_at"]


def test_keys_that_end_are_told_in_time(admin, app, send):
    admin.ok("POST", "apikeys", {"name": "soon", "expires_in": "6d"})
    admin.ok("POST", "apikeys", {"name": "later", "expires_in": "8d"})
    late = admin.ok("POST", "apikeys", {"name": "late", "rotation_days": 30})["id"]
    old = update(api_keys).where(api_keys.c.id == late).values(created_at=ago(31 * 86_400))
    app.services.database.write(lambda connection: connection.execute(old))
    admin.ok("PATCH", f"apikeys/{late}", {"owner": "x"})
    assert kinds(admin) == ["key_rotation_overdue", "key_expiring"]
    assert only(admin, "key_expiring")["subject"]["name"] == "soon"
    admin.ok("PATCH", f"apikeys/{late}", {"enabled": False})
    assert kinds(admin) == ["key_expiring"]


def test_traffic_without_a_price_is_told_until_it_has_one(admin, send):
    admin.model("dear")
    send(attempts=[attempt(model="dear", cost=None)], model_id="dear")
    found = only(admin, "unpriced_traffic")
    assert (found["subject"]["id"], found["facts"]["attempts"]) == ("dear", 1)
    admin.ok("PATCH", "models/dear", {"input_per_1k": 0, "output_per_1k": 0})
    assert kinds(admin) == []


def test_what_is_set_up_and_cannot_work_is_told(admin, send):
    admin.model("other", input_per_1k=0, output_per_1k=0)
    variants = [{"model_id": id_, "weight": 1} for id_ in ("small", "other")]
    admin.ok("PUT", "aliases/fast", {"variants": variants})
    assert kinds(admin) == []
    admin.ok("PATCH", "models/other", {"enabled": False})
    found = only(admin, "alias_cannot_serve")
    assert (found["severity"], found["facts"]["models"]) == ("warning", ["other"])
    admin.ok("PATCH", "models/small", {"enabled": False})
    assert only(admin, "alias_cannot_serve")["severity"] == "critical"
    assert kinds(admin) == ["alias_cannot_serve", "provider_without_models"]


def test_an_old_price_table_is_told(make_app, tmp_path):
    app = make_app(
        TOKENHUB_PRICING_REFRESH_ENABLED="true", TOKENHUB_PRICING_SOURCE=str(tmp_path / "none")
    )
    admin = Admin(app.test_client())
    beat(app, HostState(prices_at=ago(3600)), started_at=ago(40 * 86_400))
    assert "prices_old" not in kinds(admin)
    state = HostState(prices_at=ago(30 * 86_400), prices_error="unreadable")
    beat(app, state, started_at=ago(40 * 86_400))
    found = only(admin, "prices_old")
    assert (found["severity"], found["facts"]["error"]) == ("info", "unreadable")


def test_without_the_database_a_host_says_what_it_remembers(admin, app, send, database_away):
    for _ in range(5):
        app.services.board.vitals.fail(
            "small", "acme", "timeout", 0, cooldown_seconds=None, is_provider_wide=True
        )
    app.services.catalog.current()
    database_away("read")
    said = admin.ok("GET", "attention")
    assert said["database"] == "away"
    assert [each["kind"] for each in said["attention"]][:2] == [
        "database_away", "provider_failing"
    ]  # fmt: skip


def test_an_item_can_wait_and_that_is_audited(admin, app, send):
    beat(app, HostState(set_aside=1))
    item_id = only(admin, "rows_set_aside")["id"]
    said = admin.ok("POST", f"attention/{item_id}/snooze", {"for": "1h"})
    assert said["ok"] and said["snoozed_until"]
    listed = admin.ok("GET", "attention")
    assert (listed["attention"], listed["counts"]["critical"]) == ([], 0)
    [waiting] = listed["snoozed"]
    assert (waiting["id"], waiting["snoozed_until"]) == (item_id, said["snoozed_until"])
    admin.ok("POST", f"attention/{item_id}/snooze", {"for": 90})
    assert admin.ok("DELETE", f"attention/{item_id}/snooze") == {"ok": True}
    assert admin.ok("DELETE", f"attention/{item_id}/snooze") == {"ok": True}
    assert kinds(admin) == ["rows_set_aside"]
    actions = [row["action"] for row in admin.ok("GET", "audit")["logs"]]
    assert actions[:3] == ["attention.wake", "attention.wake", "attention.snooze"]


def test_what_is_over_needs_no_attention_again(admin, app, send, monkeypatch):
    beat(app, HostState(set_aside=1))
    item_id = only(admin, "rows_set_aside")["id"]
    admin.ok("POST", f"attention/{item_id}/snooze", {"for": "1d"})
    monkeypatch.setattr("tokenhub.web.admin.attention.unix_ms", lambda: ago(-DAY_MS // 1000 - 9))
    beat(app, HostState(set_aside=1))
    assert "rows_set_aside" in kinds(admin)


@pytest.mark.parametrize("value", ["2h", 59, 7 * 86_400 + 1, 1.5, True, None, ""])
def test_a_rest_has_bounds(admin, app, send, value):
    beat(app, HostState(set_aside=1))
    path = f"attention/{only(admin, 'rows_set_aside')['id']}/snooze"
    assert admin.refused("POST", path, {"for": value})[::2] == (400, "for")


def test_only_what_is_there_can_wait(admin, send):
    assert admin.refused("POST", "attention/none:x:y/snooze", {"for": "1h"})[0] == 404
    assert admin.refused("GET", "attention?all=1") == (400, "unknown_field", "all")


def test_a_viewer_sees_and_an_operator_lets_wait(app, admin, send):
    beat(app, HostState(set_aside=1))
    money = Money(app, admin)
    path = f"attention/{only(admin, 'rows_set_aside')['id']}/snooze"
    viewer, operator = money.as_role("viewer"), money.as_role("operator")
    assert viewer.refused("POST", path, {"for": "1h"})[0] == 403
    assert viewer.send("GET", "attention").status_code == 200
    assert operator.ok("POST", path, {"for": "1h"})["ok"]


def test_links_lead_to_calls_that_there_are(app, admin, send):
    admin.unlock()
    admin.provider("sealed", api_key="sk-x")
    admin.model("dear")
    admin.ok("PUT", "aliases/fast", {"variants": [{"model_id": "dear", "weight": 1}]})
    admin.ok("PATCH", "models/dear", {"enabled": False})
    admin.ok("POST", "apikeys", {"name": "soon", "expires_in": "1d"})
    money = Money(app, admin)
    key_id = money.key()
    money.put("key", key_id, "total", limit_usd=1)
    money.spend("key", key_id, 2)
    beat(app, HostState(lag_secs=9, vault_locked=True))
    send(attempts=[attempt(model="dear", cost=None)], model_id="dear")
    send(6, ending="failed", status=502)
    items = admin.ok("GET", "attention")["attention"]
    assert len(items) == 8
    known = app.url_map.bind("")
    for item in items:
        assert item["links"]
        for link in item["links"]:
            path, _, _ = link["href"].partition("?")
            assert known.match(path, method=link["method"])
            if link["method"] == "GET":
                asked = link["href"].removeprefix("/admin/v1/")
                assert admin.send("GET", asked).status_code == 200, asked

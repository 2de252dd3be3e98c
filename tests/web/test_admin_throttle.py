"""Whoever guesses admin tokens has to wait; whoever has one that cannot be guessed need not."""

from __future__ import annotations

import pytest

from tests.web.conftest import ADMIN_TOKEN, METRICS_TOKEN, Admin

SESSION = "/admin/v1/session"


@pytest.fixture
def ask(client):
    """Sends a token from an address; returns 200, or status, code and Retry-After."""

    def send(token: str, address: str = "192.0.2.1", path: str = "/admin/v1/info"):
        response = client.get(
            path,
            headers={"Authorization": f"Bearer {token}"},
            environ_overrides={"REMOTE_ADDR": address},
        )
        if response.status_code == 200:
            return 200
        code = response.get_json()["error"]["code"]
        return response.status_code, code, response.headers.get("Retry-After")

    return send


@pytest.fixture
def clock(app, monkeypatch):
    """The board's clock, to be moved on."""
    now = [1_000_000]
    monkeypatch.setattr(app.services.board.admin_throttle, "_now_ms", lambda: now[0])
    return now


REFUSED = (401, "invalid_admin_token", None)


def test_after_ten_wrong_tokens_an_address_waits_longer_and_longer(ask, clock):
    assert {ask(f"wrong-{number}") for number in range(10)} == {REFUSED}
    for secs in (5, 10, 20, 40, 80, 160, 320, 640, 900, 900):
        assert ask(ADMIN_TOKEN) == (429, "too_many_attempts", str(secs))
        clock[0] += secs * 1000 - 1
        assert ask("wrong") == (429, "too_many_attempts", "1")
        clock[0] += 1
        assert ask("wrong") == REFUSED
    assert ask(ADMIN_TOKEN, "192.0.2.2") == 200


def test_the_right_token_after_the_wait_clears_the_account(ask, clock):
    for _ in range(10):
        ask("wrong")
    clock[0] += 5000
    assert ask(ADMIN_TOKEN) == 200
    assert [ask("wrong") for _ in range(9)] == [REFUSED] * 9
    assert ask(ADMIN_TOKEN) == 200


def test_wrong_tokens_are_forgotten_after_half_an_hour(ask, clock):
    for _ in range(9):
        ask("wrong")
    clock[0] += 1_800_001
    assert [ask("wrong") for _ in range(9)] == [REFUSED] * 9
    assert ask(ADMIN_TOKEN) == 200


def test_a_random_token_is_let_in_from_an_address_that_others_guess_from(ask, admin, clock):
    viewer = admin.ok("POST", "tokens", {"name": "ci", "role": "viewer"})["token"]
    for _ in range(10):
        ask("wrong")
    assert ask(viewer) == 200
    assert ask(ADMIN_TOKEN)[0] == 429  # a viewer is no owner, and clears nothing
    assert ask("tokenhub_admin_" + "0" * 64) == (429, "too_many_attempts", "5")
    rotated = admin.ok("POST", "admin-token/rotate")["token"]
    assert ask(rotated) == 200
    assert ask("wrong") == REFUSED  # an owner clears


def test_signing_in_metrics_and_calls_share_one_account(client, ask, clock):
    def sign_in(token: str) -> int:
        where = {"REMOTE_ADDR": "192.0.2.1"}
        found: int = client.post(
            SESSION, json={"token": token}, environ_overrides=where
        ).status_code
        return found

    assert [sign_in("wrong") for _ in range(4)] == [401] * 4
    assert {ask("wrong", "192.0.2.1", "/metrics")[0] for _ in range(3)} == {401}
    assert {ask("wrong") for _ in range(3)} == {REFUSED}
    assert sign_in(ADMIN_TOKEN) == 429
    assert ask(METRICS_TOKEN, "192.0.2.1", "/metrics")[0] == 429
    assert ask(METRICS_TOKEN, "192.0.2.2", "/metrics") == 200


def test_sessions_go_on_where_tokens_must_wait(client, ask, clock):
    where = {"REMOTE_ADDR": "192.0.2.1"}
    client.post(SESSION, json={"token": ADMIN_TOKEN}, environ_overrides=where)
    for _ in range(12):
        ask("wrong")
    assert client.get("/admin/v1/info", environ_overrides=where).status_code == 200
    client.delete_cookie("tokenhub_session")
    client.set_cookie("tokenhub_session", "0" * 64)
    for _ in range(20):  # an old cookie is no guess
        response = client.get("/admin/v1/info", environ_overrides={"REMOTE_ADDR": "192.0.2.9"})
        assert response.status_code == 401
    assert ask(ADMIN_TOKEN, "192.0.2.9") == 200


def test_all_workers_of_a_host_count_together(make_app):
    clients = [make_app().test_client() for _ in range(2)]
    headers = {"Authorization": "Bearer wrong"}
    for number in range(10):
        assert clients[number % 2].get("/admin/v1/info", headers=headers).status_code == 401
    assert [each.get("/admin/v1/info", headers=headers).status_code for each in clients] == [
        429
    ] * 2


def test_neighbours_in_a_network_of_ipv6_count_as_one(ask, clock):
    for number in range(10):
        ask("wrong", f"2001:db8::{number:x}")
    assert ask("wrong", "2001:db8::ffff")[0] == 429
    assert ask("wrong", "2001:db8:0:1::1")[0] == 401


def test_wrong_tokens_are_audited_but_never_more_than_a_few_in_a_minute(ask, admin, clock, caplog):
    for number in range(8):
        ask(f"my-wrong-token-{number}")
    rows = [row for row in admin.ok("GET", "audit")["logs"] if row["action"] == "admin.refused"]
    assert len(rows) == 5
    assert {(row["actor"], row["client_ip"], row["resource"]) for row in rows} == {
        ("", "192.0.2.1", "/admin/v1/info")
    }
    assert rows[0]["detail"] == '{"failures":5}'
    assert "my-wrong-token" not in str(rows) + caplog.text
    assert sum(record.message == "admin credential refused" for record in caplog.records) == 5
    clock[0] += 60_000
    ask("wrong")
    assert len([r for r in admin.ok("GET", "audit")["logs"] if r["action"] == "admin.refused"]) == 6
    for number in range(100):  # however many addresses
        ask("wrong", f"198.51.100.{number}")
    assert (
        len([r for r in admin.ok("GET", "audit")["logs"] if r["action"] == "admin.refused"]) == 65
    )


def test_wrong_tokens_are_refused_without_the_database_as_well(client, ask, database_away):
    database_away("read", "write")
    assert ask("wrong") == REFUSED
    assert Admin(client).send("GET", "info").status_code == 200

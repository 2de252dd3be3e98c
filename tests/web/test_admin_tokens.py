"""Administrators' tokens: issued, revoked, rotated; in force everywhere from the next call on."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import orjson
import pytest
from sqlalchemy import text

from tests.web.conftest import ADMIN_TOKEN, Admin


@pytest.fixture
def other(make_app):
    """Another worker of the same host."""
    return make_app().test_client()


def status_of(client, token: str, path: str = "/admin/v1/info") -> int:
    found: int = client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code
    return found


def as_token(client, token: str) -> Admin:
    found = Admin(client)
    found.headers = {"Authorization": f"Bearer {token}"}
    return found


def test_a_token_is_shown_once_and_listed_without_its_secret(admin, app):
    made = admin.ok("POST", "tokens", {"name": "ci", "role": "operator", "expires_in": "30d"})
    assert made["token"].startswith("tokenhub_admin_") and len(made["token"]) == 15 + 64
    assert (made["role"], made["created_by"]) == ("operator", "admin")
    listed = admin.send("GET", "tokens")
    assert made["token"] not in listed.text
    (row,) = listed.get_json()["tokens"]
    assert row == {key: made[key] for key in row}
    assert made["token"].startswith(row["prefix"])
    stored = app.services.database.read(
        lambda connection: connection.execute(text("SELECT * FROM admin_tokens")).mappings().one()
    )
    assert stored["sha256"] == sha256(made["token"].encode()).digest()
    assert made["token"] not in str(stored)


def test_a_token_works_and_ends_on_every_worker_at_once(admin, client, other):
    made = admin.ok("POST", "tokens", {"name": "ci", "role": "viewer"})
    assert status_of(other, made["token"]) == 200
    as_token(other, ADMIN_TOKEN).ok("DELETE", f"tokens/{made['id']}")
    assert status_of(client, made["token"]) == status_of(other, made["token"]) == 401
    assert admin.ok("DELETE", f"tokens/{made['id']}") == {"ok": True}


def test_a_token_ends_when_it_expires(admin, client, monkeypatch):
    made = admin.ok("POST", "tokens", {"name": "ci", "role": "viewer", "expires_in": "1h"})
    assert status_of(client, made["token"]) == 200
    from tokenhub.board.board import unix_ms

    monkeypatch.setattr("tokenhub.web.access.unix_ms", lambda: unix_ms() + 3_600_000)
    assert status_of(client, made["token"]) == 401


def test_tokens_work_while_the_database_is_away(admin, client, database_away):
    made = admin.ok("POST", "tokens", {"name": "ci", "role": "viewer"})
    assert status_of(client, made["token"]) == 200
    database_away("read", "write")
    assert status_of(client, made["token"]) == 200
    assert status_of(client, made["token"] + "x") == 401


def test_a_token_that_may_have_been_revoked_is_refused_while_nobody_can_say(
    app, admin, client, database_away
):
    made = admin.ok("POST", "tokens", {"name": "ci", "role": "viewer"})
    database_away("read", "write")
    app.services.board.advance(10_000)
    assert status_of(client, made["token"]) == 503


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "viewer"}, "name"),
        ({"name": "ci"}, "role"),
        ({"name": "ci", "role": "king"}, "role"),
        ({"name": "admin", "role": "viewer"}, "name"),
        ({"name": "Prices", "role": "viewer"}, "name"),
        ({"name": "session:admin", "role": "viewer"}, "name"),
        ({"name": "a b", "role": "viewer"}, "name"),
        ({"name": "", "role": "viewer"}, "name"),
        ({"name": "ci", "role": "viewer", "expires_in": "-1h"}, "expires_in"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(admin, body, field):
    status, _, param = admin.refused("POST", "tokens", body)
    assert (status, param) == (400, field)


def test_two_tokens_cannot_have_one_name(admin):
    admin.ok("POST", "tokens", {"name": "ci", "role": "viewer"})
    body = {"name": "ci", "role": "owner"}
    assert admin.refused("POST", "tokens", body) == (409, "name_taken", "name")


def test_changes_are_audited_in_the_name_of_the_token_that_made_them(admin, client):
    made = admin.ok("POST", "tokens", {"name": "ci", "role": "operator"})
    response = client.put(
        "/admin/v1/routing-config",
        json={"default_mode": "cheap"},
        headers={"Authorization": f"Bearer {made['token']}"},
        environ_overrides={"REMOTE_ADDR": "192.0.2.7"},
    )
    assert response.status_code == 200
    row, created = admin.ok("GET", "audit?limit=2")["logs"]
    assert (row["actor"], row["client_ip"]) == ("ci", "192.0.2.7")
    assert row["request_id"] == response.headers["X-Request-Id"]
    assert (created["action"], created["actor"]) == ("admin_token.create", "admin")
    detail = orjson.loads(created["detail"])
    assert (detail["before"], detail["after"]["role"]) == (None, "operator")
    assert made["token"] not in created["detail"]


def test_it_is_seen_when_a_token_was_last_used(admin, client):
    made = admin.ok("POST", "tokens", {"name": "ci", "role": "viewer"})
    assert made["last_used_at"] is None
    status_of(client, made["token"])
    assert admin.ok("GET", "tokens")["tokens"][0]["last_used_at"] is not None


def test_a_rotated_root_token_holds_on_every_worker_and_after_a_restart(
    admin, client, other, make_app
):
    said = admin.ok("POST", "admin-token/rotate")
    assert said["note"].startswith("TOKENHUB_ADMIN_TOKEN")
    for each in (client, other, make_app().test_client()):  # the last one was started since
        assert status_of(each, ADMIN_TOKEN) == 401
        assert status_of(each, said["token"]) == 200
    again = as_token(other, said["token"]).ok("POST", "admin-token/rotate")
    assert status_of(client, said["token"]) == 401
    assert status_of(client, again["token"]) == 200


def test_a_root_token_that_came_from_a_file_is_rewritten_there(make_app, environ):
    data = Path(environ["TOKENHUB_DATA_DIR"])
    first = make_app(TOKENHUB_ADMIN_TOKEN="").test_client()
    old = (data / ".admin-token").read_text().strip()
    (data / "env").write_text(f"TOKENHUB_URL=http://x\nTOKENHUB_ADMIN_TOKEN={old}\n")
    said = as_token(first, old).ok("POST", "admin-token/rotate")
    assert (said["file_written"], said["note"]) == (True, None)
    assert (data / ".admin-token").read_text() == said["token"] + "\n"
    assert (data / ".admin-token").stat().st_mode & 0o777 == 0o600
    assert (data / "env").read_text().splitlines()[1] == f"TOKENHUB_ADMIN_TOKEN={said['token']}"
    # As `run` has it, and from a worker that has read the old file.
    run = make_app(TOKENHUB_ADMIN_TOKEN="", TOKENHUB_ADMIN_TOKEN_FILE=str(data / ".admin-token"))
    assert status_of(run.test_client(), said["token"]) == 200
    again = as_token(first, said["token"]).ok("POST", "admin-token/rotate")
    assert (again["file_written"], again["note"]) == (True, None)
    assert (data / ".admin-token").read_text() == again["token"] + "\n"


def test_a_file_that_has_another_token_is_left_alone(admin, environ):
    file = Path(environ["TOKENHUB_DATA_DIR"]) / ".admin-token"
    file.write_text("of-another-time\n")
    assert admin.ok("POST", "admin-token/rotate")["file_written"] is False
    assert file.read_text() == "of-another-time\n"


def test_a_file_that_cannot_be_written_is_named_and_the_token_holds(make_app, environ, monkeypatch):
    client = make_app(TOKENHUB_ADMIN_TOKEN="").test_client()
    old = (Path(environ["TOKENHUB_DATA_DIR"]) / ".admin-token").read_text().strip()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tokenhub.data_dir.replace_file", fail)
    said = as_token(client, old).ok("POST", "admin-token/rotate")
    assert said["file_written"] is False and "file could not be written" in said["note"]
    assert (status_of(client, old), status_of(client, said["token"])) == (401, 200)


def test_the_root_token_may_be_chosen_if_it_is_long_enough_and_new(admin, client):
    mine = "sixteen-letters!"
    assert admin.ok("POST", "admin-token/rotate", {"token": mine})["token"] == mine
    assert status_of(client, mine) == 200
    admin = as_token(client, mine)
    assert admin.ok("GET", "tokens")["tokens"][0]["prefix"] == ""  # nothing of it is shown
    for bad in ("fifteen-letters", "with a space in it", "x" * 201, "grüße-grüße-grüße", 1, None):
        assert admin.refused("POST", "admin-token/rotate", {"token": bad})[::2] == (400, "token")
    taken = admin.ok("POST", "tokens", {"name": "ci", "role": "viewer"})["token"]
    assert admin.refused("POST", "admin-token/rotate", {"token": taken})[::2] == (400, "token")


def test_the_root_token_cannot_be_deleted(admin):
    admin.headers = {"Authorization": f"Bearer {admin.ok('POST', 'admin-token/rotate')['token']}"}
    assert admin.refused("DELETE", "tokens/root")[::2] == (400, "id")


def test_a_rotation_is_all_or_nothing_without_the_database(admin, client, database_away):
    database_away("write")
    assert admin.refused("POST", "admin-token/rotate")[:2] == (503, "database_away")
    assert status_of(client, ADMIN_TOKEN) == 200

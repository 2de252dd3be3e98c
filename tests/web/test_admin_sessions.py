"""Browser sessions: a random cookie, known to every worker, worth nothing to other origins."""

from __future__ import annotations

from http.cookies import Morsel, SimpleCookie

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from tests.web.conftest import ADMIN_TOKEN, Admin, Json
from tokenhub.board.board import unix_ms

SAME = {"Sec-Fetch-Site": "same-origin"}
SESSION = "/admin/v1/session"
CONFIG = "/admin/v1/routing-config"


def cookie_of(response) -> Morsel[str]:
    return SimpleCookie(response.headers["Set-Cookie"])["tokenhub_session"]


class Browser:
    """Signed in at one worker; keeps its cookie and sends it to whichever it is shown to."""

    def __init__(self, client: FlaskClient, token: str = ADMIN_TOKEN, **headers: str) -> None:
        self.client = client
        response = client.post(SESSION, json={"token": token}, headers={**SAME, **headers})
        assert response.status_code == 200, response.text
        self.said: Json = response.get_json()
        self.cookie = cookie_of(response)
        client.delete_cookie("tokenhub_session")

    def send(self, method: str, path: str, client: FlaskClient | None = None, **more):
        """A request with the cookie, as a page of ours makes it unless told otherwise."""
        ours = {**SAME, "X-CSRF-Token": self.said["csrf_token"]}
        given = more.pop("headers", {})
        headers = {name: value for name, value in {**ours, **given}.items() if value is not None}
        client = client or self.client
        client.set_cookie("tokenhub_session", self.cookie.value)
        try:
            return client.open(path, method=method, headers=headers, **more)
        finally:
            client.delete_cookie("tokenhub_session")

    def status(self, client: FlaskClient | None = None) -> int:
        found: int = self.send("GET", "/admin/v1/info", client).status_code
        return found


@pytest.fixture
def browser(client):
    return Browser(client)


@pytest.fixture
def other(make_app):
    """Another worker of the same host."""
    return make_app().test_client()


def test_a_session_is_a_cookie_that_no_script_and_no_other_site_can_use(browser, app):
    cookie = browser.cookie
    assert len(cookie.value) == 64 and cookie.value != ADMIN_TOKEN
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    assert (cookie["secure"], cookie["max-age"], cookie["domain"]) == ("", "43200", "")
    assert (browser.said["role"], browser.said["name"]) == ("owner", "admin")
    stored = app.services.database.read(
        lambda connection: str(connection.execute(text("SELECT * FROM admin_sessions")).all())
    )
    for secret in (cookie.value, browser.said["csrf_token"], ADMIN_TOKEN):
        assert secret not in stored


def test_the_original_way_to_sign_in_with_the_header_and_no_body_works(client, admin):
    response = client.post(SESSION, headers=admin.headers)
    assert response.status_code == 200 and response.get_json()["ok"] is True
    assert cookie_of(response).value


@pytest.mark.parametrize(
    ("scheme", "peer", "proto", "secure"),
    [
        ("https", "192.0.2.1", None, True),
        ("http", "10.0.0.1", "https", True),
        ("http", "10.0.0.1", "http, https", True),
        ("http", "10.0.0.1", "https, http", False),
        ("http", "192.0.2.1", "https", False),
        ("http", "10.0.0.1", None, False),
    ],
)
def test_the_cookie_is_secure_where_a_proxy_of_ours_or_we_speak_tls(
    make_app, scheme, peer, proto, secure
):
    client = make_app(TOKENHUB_TRUSTED_PROXIES="10.0.0.0/8").test_client()
    response = client.post(
        SESSION,
        json={"token": ADMIN_TOKEN},
        headers={"X-Forwarded-Proto": proto} if proto else {},
        base_url=f"{scheme}://localhost",
        environ_overrides={"REMOTE_ADDR": peer},
    )
    assert bool(cookie_of(response)["secure"]) is secure


def test_signing_in_needs_a_token_that_is_valid(client, browser):
    for body in ({}, {"token": ""}, {"token": "wrong"}, {"token": browser.cookie.value}):
        assert client.post(SESSION, json=body, headers=SAME).status_code == 401
    assert client.post(SESSION, json={"token": 1}, headers=SAME).status_code == 400
    # A session makes no other one.
    assert browser.send("POST", SESSION).status_code == 401


def test_a_session_is_known_to_every_worker_and_says_who_it_is(browser, other):
    said = browser.send("GET", SESSION, other).get_json()
    assert said == browser.said
    assert browser.send("PUT", CONFIG, other, json={"default_mode": "cheap"}).status_code == 200


def test_signing_out_ends_the_session_everywhere(browser, client, other):
    response = browser.send("DELETE", SESSION, other)
    assert (response.get_json(), cookie_of(response)["max-age"]) == ({"ok": True}, "0")
    assert browser.status(client) == browser.status(other) == 401
    assert browser.send("GET", "/admin/v1/info").get_json()["error"]["code"] == "invalid_session"


def test_a_session_ends_by_itself(make_app, monkeypatch):
    browser = Browser(make_app(TOKENHUB_SESSION_SECS="60").test_client())
    assert (browser.status(), browser.cookie["max-age"]) == (200, "60")
    monkeypatch.setattr("tokenhub.web.access.unix_ms", lambda: unix_ms() + 60_000)
    assert browser.status() == 401


def test_a_session_lasts_no_longer_than_its_token(client, admin):
    body = {"name": "ci", "role": "viewer", "expires_in": "1h"}
    browser = Browser(client, admin.ok("POST", "tokens", body)["token"])
    assert 3590 <= int(browser.cookie["max-age"]) <= 3600


def test_a_session_dies_with_the_token_it_was_made_from(client, other, admin):
    made = admin.ok("POST", "tokens", {"name": "ci", "role": "viewer"})
    theirs, mine = Browser(client, made["token"]), Browser(client)
    admin.ok("DELETE", f"tokens/{made['id']}")
    assert (theirs.status(other), mine.status(other)) == (401, 200)
    admin.ok("POST", "admin-token/rotate")
    assert mine.status(other) == 401


def test_a_session_of_a_root_token_that_was_changed_in_the_settings_is_over(browser, make_app):
    changed = make_app(TOKENHUB_ADMIN_TOKEN="another-token-than-before").test_client()
    assert browser.status(changed) == 401


def test_a_session_may_do_what_its_token_may(client, admin):
    made = admin.ok("POST", "tokens", {"name": "ci", "role": "viewer"})
    browser = Browser(client, made["token"])
    refused = browser.send("PUT", CONFIG, json={"default_mode": "cheap"})
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (403, "insufficient_role")
    assert browser.send("DELETE", SESSION).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-CSRF-Token": None},
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "0" * 64},
        {"X-CSRF-Token": "schl\xfcssel"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": None},
        {"Sec-Fetch-Site": None, "Origin": "null"},
        {"Sec-Fetch-Site": None, "Origin": "http://localhost:8081"},
        {"Sec-Fetch-Site": None, "Origin": "https://localhost.evil.example"},
        {"Sec-Fetch-Site": None, "Origin": "http://[::1"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    ],
)
def test_a_page_of_another_origin_cannot_change_anything(browser, admin, headers):
    before = admin.ok("GET", "routing-config")
    for method, path in (("PUT", CONFIG), ("POST", "/admin/v1/apikeys"), ("DELETE", SESSION)):
        refused = browser.send(method, path, headers=headers, json={"default_mode": "cheap"})
        assert (refused.status_code, refused.get_json()["error"]["code"]) == (403, "csrf_failed")
    assert admin.ok("GET", "routing-config") == before
    assert browser.send("GET", CONFIG, headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:80", "LOCALHOST"])
def test_an_origin_is_ours_when_it_is_the_host_we_were_called_by(browser, host):
    headers = {"Sec-Fetch-Site": None, "Origin": "http://localhost", "Host": host}
    response = browser.send("PUT", CONFIG, headers=headers, json={"default_mode": "cheap"})
    assert response.status_code == 200


def test_nobody_can_be_signed_in_by_a_page_of_another_origin(client):
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        response = client.post(SESSION, json={"token": ADMIN_TOKEN}, headers=headers)
        assert response.status_code == 403
        assert "Set-Cookie" not in response.headers


def test_a_token_in_the_header_counts_before_the_cookie(browser, admin):
    made = admin.ok("POST", "tokens", {"name": "ci", "role": "viewer"})
    headers = {"Authorization": f"Bearer {made['token']}"}
    said = browser.send("GET", SESSION, headers=headers).get_json()
    assert (said["name"], said["session_id"], said["csrf_token"]) == ("ci", None, None)
    headers = {"Authorization": "Bearer wrong"}
    assert browser.send("GET", SESSION, headers=headers).status_code == 401


def test_an_owner_sees_and_ends_all_sessions_and_others_their_own(client, admin):
    made = admin.ok("POST", "tokens", {"name": "ci", "role": "operator"})
    owner = Browser(client, **{"User-Agent": "One/1"})
    theirs = Browser(client, made["token"], **{"User-Agent": "Two/2"})
    listed = owner.send("GET", "/admin/v1/sessions").get_json()
    assert [(row["name"], row["user_agent"], row["is_current"]) for row in listed["sessions"]] == [
        ("ci", "Two/2", False),
        ("admin", "One/1", True),
    ]
    assert owner.cookie.value not in str(listed)
    seen = theirs.send("GET", "/admin/v1/sessions").get_json()
    assert [row["id"] for row in seen["sessions"]] == [theirs.said["session_id"]]
    path = "/admin/v1/sessions/"
    assert theirs.send("DELETE", path + owner.said["session_id"]).status_code == 404
    assert owner.status() == 200
    assert owner.send("DELETE", path + theirs.said["session_id"]).status_code == 200
    assert (owner.status(), theirs.status()) == (200, 401)
    assert owner.send("DELETE", path + "none").status_code == 200


def test_sessions_are_audited_without_their_secrets(browser, admin):
    browser.send("PUT", CONFIG, json={"default_mode": "cheap"})
    browser.send("DELETE", SESSION)
    rows = admin.ok("GET", "audit?limit=3")["logs"]
    assert [(row["action"], row["actor"]) for row in rows] == [
        ("session.end", "session:admin"),
        ("routing-config.update", "session:admin"),
        ("session.create", "admin"),
    ]
    for secret in (browser.cookie.value, browser.said["csrf_token"]):
        assert secret not in str(rows)


def test_a_session_works_while_the_database_is_away(browser, database_away):
    assert browser.status() == 200
    database_away("read", "write")
    assert browser.status() == 200
    assert browser.send("DELETE", SESSION).status_code == 503


def test_the_oldest_sessions_of_a_token_make_way(client, admin, monkeypatch):
    monkeypatch.setattr("tokenhub.web.admin.sessions.SESSIONS_MAX", 2)
    browsers = [Browser(client) for _ in range(3)]
    assert sorted(each.status() for each in browsers) == [200, 200, 401]
    assert admin.ok("GET", "sessions")["total"] == 2
    assert Admin(client).ok("GET", "sessions?limit=1")["limit"] == 1

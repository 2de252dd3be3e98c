"""Who may call what: a walk over every route that the app has, with every kind of credential."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.web.conftest import ADMIN_TOKEN

PUBLIC = {
    "/", "/admin/", "/healthz", "/readyz", "/openapi.json", "/_assets/<digest>/<path:name>",
}  # fmt: skip
ANY_KEY_MAY = {"/v1/key", "/v1/feedback"}
"""Client routes that want a valid key and no scope."""

ADMINISTRATORS_MAY = {"/v1/feedback"}
"""Client routes that take an admin token in the place of a key."""

VIEWERS_MAY = {
    "POST /admin/v1/routing/simulate", "POST /admin/v1/session", "DELETE /admin/v1/session",
    "DELETE /admin/v1/sessions/<path:session_id>",
}  # fmt: skip
"""Changes that change nothing of others; signing in asks for a token by itself."""

OWNERS_WORDS = {
    "vault", "secrets", "tokens", "admin-token", "paid", "reset", "release", "backup", "restore",
}  # fmt: skip
"""Whatever has one of these in its path is for owners alone: to read it and to change it."""


class Route(NamedTuple):
    method: str
    rule: str

    @property
    def path(self) -> str:
        """An address that the rule matches."""
        steps = self.rule.split("/")
        return "/".join("x" if step.startswith("<") else step for step in steps)

    @property
    def name(self) -> str:
        return f"{self.method} {self.rule}"

    @property
    def is_change(self) -> bool:
        return self.method != "GET"

    @property
    def is_for_owners(self) -> bool:
        return not OWNERS_WORDS.isdisjoint(self.rule.split("/"))


def routes(app: Any, beginning: str = "/") -> Iterator[Route]:
    """Every route of the app that is not public."""
    for rule in app.url_map.iter_rules():
        if rule.rule not in PUBLIC and rule.rule.startswith(beginning):
            for method in sorted(rule.methods - {"OPTIONS", "HEAD"}):
                yield Route(method, rule.rule)


@pytest.fixture
def ask(client):
    """Sends a request, each from an address of its own: nobody has to wait."""
    asked = iter(range(1, 1 << 20))

    def send(route: Route, authorization: str = "", **headers: str) -> tuple[int, str]:
        number = next(asked)
        if authorization:
            headers["Authorization"] = authorization
        response = client.open(
            route.path,
            method=route.method,
            headers=headers,
            json={},
            environ_overrides={
                "REMOTE_ADDR": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            },
        )
        error = (response.get_json(silent=True) or {}).get("error")
        return response.status_code, error["code"] if isinstance(error, dict) else ""

    return send


@pytest.fixture
def bearer_of(admin):
    """Issues an admin token of a role."""

    def make(role: str) -> str:
        made = admin.ok("POST", "tokens", {"name": f"a-{role}", "role": role})
        return f"Bearer {made['token']}"

    return make


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("", "missing"),
        ("Basic " + ADMIN_TOKEN, "missing"),
        ("Bearer", "missing"),
        ("Bearer wrong", "invalid"),
        ("Bearer " + ADMIN_TOKEN[:-1], "invalid"),
        ("Bearer " + ADMIN_TOKEN + "x", "invalid"),
        ("Bearer schl\xfcssel", "invalid"),
        ("Bearer ' OR 1=1 --", "invalid"),
        ("Bearer " + "x" * 8000, "invalid"),
        ("Bearer tokenhub_admin_" + "0" * 64, "invalid"),
    ],
)
def test_every_route_but_the_public_ones_wants_a_credential(app, ask, authorization, code):
    found = list(routes(app))
    assert len(found) > 40
    for route in found:
        status, said = ask(route, authorization)
        assert (status, said[: len(code)]) == (401, code), route.name


def test_an_api_key_opens_nothing_of_the_administrators(app, ask, make_key):
    token = make_key(scopes=["chat", "plan", "embeddings", "media"])
    for route in (*routes(app, "/admin/v1"), *routes(app, "/metrics")):
        for headers in ({"authorization": f"Bearer {token}"}, {"X-Api-Key": token}):
            assert ask(route, **headers)[0] == 401, route.name


def test_an_admin_credential_is_no_api_key(app, ask, bearer_of):
    for authorization in (f"Bearer {ADMIN_TOKEN}", bearer_of("owner")):
        for route in routes(app, "/v1"):
            if route.rule not in ADMINISTRATORS_MAY:
                assert ask(route, authorization) == (401, "invalid_api_key"), route.name


def test_a_key_of_another_scope_opens_no_route_of_the_clients(app, ask, make_key):
    token = make_key(scopes=[])
    for route in routes(app, "/v1"):
        status, code = ask(route, f"Bearer {token}")
        refused = (status, code) == (403, "insufficient_scope")
        assert refused is (route.rule not in ANY_KEY_MAY), route.name


def test_a_viewer_may_read_what_is_not_the_owners_and_change_nothing(app, ask, bearer_of):
    viewer = bearer_of("viewer")
    for route in routes(app, "/admin/v1"):
        status, code = ask(route, viewer)
        may = not route.is_for_owners and (not route.is_change or route.name in VIEWERS_MAY)
        assert status != 401, route.name
        assert ((status, code) != (403, "insufficient_role")) is may, (route.name, status, code)


def test_an_operator_may_do_all_but_what_is_the_owners(app, ask, bearer_of):
    operator = bearer_of("operator")
    for route in routes(app, "/admin/v1"):
        status, code = ask(route, operator)
        assert status != 401, route.name
        refused = (status, code) == (403, "insufficient_role")
        assert refused is route.is_for_owners, (route.name, status, code)


def test_any_administrator_may_read_metrics(ask, bearer_of):
    assert ask(Route("GET", "/metrics"), bearer_of("viewer"))[0] == 200


@pytest.mark.parametrize(
    "path", ["//admin/v1/info", "/admin/v1/./info", "/ADMIN/v1/info", "/admin/v1/info/",
             "/admin%2Fv1/info", "/admin/v1/%69nfo", "/v1/../admin/v1/info"],
)  # fmt: skip
@pytest.mark.parametrize("host", ["localhost", "evil.example", "localhost/v1/models?", "x/healthz"])
def test_odd_spellings_and_hosts_lead_nowhere(client, path, host):
    response = client.get(path, headers={"Host": host})
    assert response.status_code in (308, 400, 401, 404), response.text


def test_the_token_in_a_cookie_or_in_the_address_is_not_looked_at(client):
    for name in ("th_admin_session", "tokenhub_session"):
        client.set_cookie(name, ADMIN_TOKEN)
        assert client.get(f"/admin/v1/info?token={ADMIN_TOKEN}").status_code == 401


def test_a_body_that_is_too_long_is_413_before_it_is_read(client, admin):
    response = client.post(
        "/admin/v1/providers", headers=admin.headers, data=b"{" + b" " * (10 << 20) + b"}"
    )
    assert response.status_code == 413

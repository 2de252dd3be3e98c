"""Who may use the admin API: the admin token, in its header, and nothing else."""

import pytest

from tests.web.conftest import ADMIN_TOKEN

OPEN = {
    "/", "/admin/", "/healthz", "/readyz", "/openapi.json", "/_assets/<digest>/<path:name>",
}  # fmt: skip
WITH_API_KEY = {"/v1/chat/completions", "/v1/models", "/v1/models/<path:model_id>"}


def guarded(app):
    """Each rule and method that needs the admin (or metrics) token."""
    for rule in app.url_map.iter_rules():
        if rule.rule not in OPEN | WITH_API_KEY:
            path = rule.rule.replace("<path:", "<")
            for argument in rule.arguments:
                path = path.replace(f"<{argument}>", "x")
            for method in sorted(rule.methods - {"OPTIONS", "HEAD"}):
                yield method, path


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
    ],
)
def test_every_route_but_the_open_ones_wants_the_token(app, client, authorization, code):
    routes = list(guarded(app))
    assert len(routes) > 20
    for method, path in routes:
        headers = {"Authorization": authorization} if authorization else {}
        response = client.open(path, method=method, headers=headers, json={})
        assert response.status_code == 401, (method, path)
        assert response.get_json()["error"]["code"].startswith(code), (method, path)


def test_an_api_key_is_no_admin_token(app, client, make_key):
    headers = {"Authorization": f"Bearer {make_key()}"}
    for method, path in guarded(app):
        assert client.open(path, method=method, headers=headers).status_code == 401


def test_the_token_in_a_cookie_or_in_the_address_is_not_looked_at(client):
    client.set_cookie("th_admin_session", ADMIN_TOKEN)
    assert client.get(f"/admin/v1/info?token={ADMIN_TOKEN}").status_code == 401


def test_a_body_that_is_too_long_is_413_before_it_is_read(client, admin):
    response = client.post(
        "/admin/v1/providers", headers=admin.headers, data=b"{" + b" " * (10 << 20) + b"}"
    )
    assert response.status_code == 413

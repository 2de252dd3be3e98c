"""The automatic lock as administrators and callers meet it."""

from __future__ import annotations

import pytest

from tests.web.conftest import PASSWORD, PROVIDER_KEY, Admin
from tokenhub.board.board import monotonic_ms
from tokenhub.db import DatabaseAway

SECS = 900


class Pair:
    """Two workers of a host whose vault locks itself."""

    def __init__(self, make_app, monkeypatch, **variables: str) -> None:
        named = {"TOKENHUB_VAULT_AUTOLOCK_SECS": str(SECS), **variables}
        self.apps = [make_app(**named) for _ in range(2)]
        self.here, self.there = (Admin(app.test_client()) for app in self.apps)
        self._monkeypatch = monkeypatch
        self.here.unlock()
        self.here.provider(api_key=PROVIDER_KEY)
        self.here.ok("PUT", "vault/secrets/smtp", {"value": "v"})

    def pass_secs(self, secs: float) -> None:
        last_use = self.apps[0].services.board.vault_use
        now_ms = monotonic_ms() + round(secs * 1000)
        self._monkeypatch.setattr(last_use, "_now_ms", lambda: now_ms)

    def tick(self) -> None:
        """What the leader's job does every second."""
        for app in self.apps:
            for job in app.background._scheduled:
                if job.name == "vault auto-lock":
                    job.run()

    def key_of_provider(self, worker: int) -> str | None:
        services = self.apps[worker].services
        found: str | None = services.gateway.secret_of(services.catalog.current().providers["acme"])
        return found

    def audit(self) -> list[tuple[str, str]]:
        rows = self.there.ok("GET", "audit")["logs"]
        return [(row["action"], row["actor"]) for row in rows if row["action"] == "vault.autolock"]


def test_after_so_long_without_use_administrators_are_kept_out_and_requests_served(
    make_app, monkeypatch
):
    pair = Pair(make_app, monkeypatch)
    pair.pass_secs(SECS + 1)
    for admin in (pair.here, pair.there):
        assert admin.ok("GET", "info")["vault_locked"] is True
        assert admin.refused("GET", "vault/secrets/smtp")[:2] == (503, "vault_locked")
        assert admin.refused("PATCH", "providers/acme", {"api_key": "sk"})[1] == "vault_locked"
        assert admin.ok("PATCH", "providers/acme", {"enabled": True})
    pair.tick()
    pair.tick()
    assert pair.audit() == [("vault.autolock", "autolock")]
    assert [pair.key_of_provider(worker) for worker in range(2)] == [PROVIDER_KEY] * 2
    assert pair.there.unlock() == {"ok": True}
    assert pair.here.ok("GET", "vault/secrets/smtp")["value"] == "v"
    assert pair.here.unlock() == {"ok": True, "already_unlocked": True}


def test_requests_are_refused_too_if_the_settings_say_so(make_app, monkeypatch):
    pair = Pair(make_app, monkeypatch, TOKENHUB_VAULT_AUTOLOCK_STOPS_TRAFFIC="true")
    pair.here.model("small", enabled=True)
    token = pair.here.ok("POST", "apikeys", {"name": "n"})["key"]
    pair.pass_secs(SECS + 1)
    body = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
    for is_noticed in (False, True):
        if is_noticed:
            pair.tick()
        for app in pair.apps:
            response = app.test_client().post(
                "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {token}"}
            )
            assert response.status_code == 503
            assert response.get_json()["error"]["code"] == "vault_locked"
    assert len(pair.audit()) == 1


def test_the_audit_row_is_written_when_the_database_is_back(make_app, monkeypatch):
    pair = Pair(make_app, monkeypatch)
    pair.pass_secs(SECS + 1)

    def away(*_: object, **__: object) -> None:
        raise DatabaseAway("the database is away")

    with monkeypatch.context() as patch:
        for app in pair.apps:
            patch.setattr(app.services.database, "write", away)
        pair.tick()
    assert pair.audit() == []
    pair.tick()
    assert len(pair.audit()) == 1


@pytest.mark.parametrize("variables", [{}, {"TOKENHUB_VAULT_PASSWORD": PASSWORD}])
def test_it_is_off_by_default_and_where_the_password_is_in_the_settings(
    make_app, monkeypatch, variables
):
    if not variables:
        variables = {"TOKENHUB_VAULT_AUTOLOCK_SECS": "0"}
    pair = Pair(make_app, monkeypatch, **variables)
    pair.pass_secs(10 * SECS)
    pair.tick()
    assert pair.audit() == []
    assert pair.here.ok("GET", "vault/secrets/smtp")["value"] == "v"

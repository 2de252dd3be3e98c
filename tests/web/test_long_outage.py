"""The database away for a day: what is served, what is refused, and what is there afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from tests.newest import list_logs
from tests.unit.gateway_kit import ScriptedAdapter, answer
from tokenhub.catalog import Follower
from tokenhub.db import DatabaseAway
from tokenhub.jobs import AWAY_SECS, Leader

HOUR_SECS = 3600


class Clock:
    """The time of day and the clock that nobody can set, both some hours ahead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_secs = 0
        real, real_monotonic = time.time_ns, time.monotonic_ns
        monkeypatch.setattr(time, "time_ns", lambda: real() + self.ahead_secs * 10**9)
        monkeypatch.setattr(
            time, "monotonic_ns", lambda: real_monotonic() + self.ahead_secs * 10**9
        )


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def outage(app, monkeypatch):
    """Takes the database away for as long as a block lasts."""

    def away(*_: object, **__: object) -> None:
        raise DatabaseAway("the database is away")

    @contextmanager
    def take() -> Iterator[None]:
        with monkeypatch.context() as patch:
            for way in ("read", "write"):
                patch.setattr(app.services.database, way, away)
            yield

    return take


@pytest.fixture
def ask(app, client, admin) -> Callable[..., Any]:
    """One chat request with a key."""
    admin.provider()
    admin.model("small", input_per_1k=0.001, output_per_1k=0.002)
    app.services.gateway.adapters["openai"] = ScriptedAdapter({"small": [answer()] * 100})

    def one(token: str) -> Any:
        body = orjson.dumps({"messages": [{"role": "user", "content": "hi"}]})
        headers = {"Authorization": f"Bearer {token}"}
        return client.post("/v1/chat/completions", data=body, headers=headers)

    return one


@pytest.fixture
def leader(app) -> Leader:
    """What the worker does for its host, a round at a time: nothing runs in the background."""
    found: Leader = app.background._leader
    return found


def test_a_day_without_the_database_is_served_and_then_written_down(
    app, client, admin, ask, make_key, outage, clock, leader
):
    token = make_key()
    short_lived = make_key(expires_at=int(time.time()) + 6 * HOUR_SECS)
    assert ask(token).status_code == 200
    began_at = time.time_ns() // 10**6
    answered = []
    with outage():
        for hour in range(24):
            clock.ahead_secs = hour * HOUR_SECS
            reply = ask(token)
            assert reply.status_code == 200, hour
            answered.append(reply.headers["X-Request-Id"])
            # A key's end is by the clock, and needs no database; nothing else about it changes.
            assert ask(short_lived).status_code == (200 if hour < 6 else 401), hour
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").get_json()["reasons"] == (
                ["database_away"] if hour else []
            )
            assert admin.refused("POST", "apikeys", {"name": "x"}) == (503, "database_away", None)
            assert admin.refused("GET", "logs")[:2] == (503, "database_away")
            assert admin.ok("GET", "info")["catalog_version"]
            # The leader goes on trying, and comes to no harm.
            assert {leader.ingest(), leader.poll(), leader.beat()} == {AWAY_SECS}
    assert leader.poll() != AWAY_SECS
    assert client.get("/readyz").status_code == 200
    leader.ingest()
    rows = app.services.database.read(lambda connection: list_logs(connection, 100, 0))
    started = {row["request_id"]: row["started_at"] for row in rows}
    assert set(answered) <= set(started)
    assert len(started) == len(rows)
    hours = [round((started[each] - began_at) / HOUR_SECS / 1000) for each in answered]
    assert hours == list(range(24)), "each in the hour in which it was asked"


def test_readiness_ends_with_the_time_that_the_settings_allow_and_not_before(
    app, client, ask, outage, clock
):
    app.services.catalog.current()
    limit_secs = app.services.settings.max_stale_secs
    with outage():
        for ahead_secs, status in ((limit_secs - 1, 200), (limit_secs + 1, 503)):
            clock.ahead_secs = ahead_secs
            assert client.get("/readyz").status_code == status
    Follower(app.services.catalog, app.services.database).poll()
    assert client.get("/readyz").status_code == 200


def test_a_key_revoked_on_this_host_right_before_the_outage_is_refused_by_every_worker(
    make_app, client, admin, ask, make_key, monkeypatch
):
    """Who has not read the change yet must not serve the key: it fails closed until it can."""
    other = make_app()
    token = make_key()
    other.services.catalog.current()
    key_id = admin.find("apikeys", admin.ok("GET", "apikeys")["keys"][0]["id"])["id"]

    def away(*_: object, **__: object) -> None:
        raise DatabaseAway("the database is away")

    monkeypatch.setattr(other.services.database, "read", away)
    admin.ok("DELETE", f"apikeys/{key_id}")
    assert ask(token).status_code == 401
    reply = other.test_client().get("/v1/models", headers={"Authorization": f"Bearer {token}"})
    assert (reply.status_code, reply.get_json()["error"]["code"]) == (503, "catalog_stale")

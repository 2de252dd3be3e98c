"""The event feed over HTTP: what is sent, what can be asked for, and when it ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from tokenhub.db import DatabaseAway
from tokenhub.errors import Unavailable
from tokenhub.events import feed as feeds
from tokenhub.host import journal_directory
from tokenhub.ingest import Ingester
from tokenhub.web import events

Frame = dict[str, Any]


def parse(text: str) -> Frame:
    """One event as a browser understands it."""
    frame: Frame = {}
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        frame[name or "comment"] = json.loads(value) if name == "data" else value
    return frame


class Stream:
    """A client that listens."""

    def __init__(self, client: Any, headers: dict[str, str], query: str) -> None:
        self.response = client.get(f"/admin/v1/events{query}", headers=headers, buffered=False)
        assert self.response.status_code == 200, self.response.text
        self._pieces: Iterator[bytes] = self.response.iter_encoded()
        self._frames: list[Frame] = []

    def next(self) -> Frame:
        """The next event or comment."""
        with gevent.Timeout(5):
            while not self._frames:
                text = next(self._pieces).decode()
                self._frames = [parse(each) for each in text.removesuffix("\n\n").split("\n\n")]
        return self._frames.pop(0)

    def next_of(self, event: str) -> Frame:
        """The next event of a type."""
        while True:
            frame = self.next()
            if frame.get("event") == event:
                return frame

    def close(self) -> None:
        self.response.close()


@pytest.fixture
def listen(app, client, admin) -> Iterator[Callable[..., Stream]]:
    """Opens streams."""
    made = []

    def open_one(query: str = "", **headers: str) -> Stream:
        made.append(Stream(client, {**admin.headers, **headers}, query))
        return made[-1]

    yield open_one
    for each in made:
        each.close()
    assert app.services.board.feeds.clients == 0


@pytest.fixture
def ingest(app) -> Callable[[], None]:
    """Carries over what is in the journal."""
    hub = app.services
    ingester = Ingester(
        database=hub.database,
        board=hub.board,
        directory=journal_directory(hub.settings),
        host_id=hub.host_id,
    )

    def work() -> None:
        while ingester.step():
            pass

    return work


def test_a_stream_begins_as_the_originals_and_tells_of_what_happens(app, admin, listen, ingest):
    stream = listen()
    headers = stream.response.headers
    assert headers["Content-Type"].startswith("text/event-stream")
    assert headers["X-Accel-Buffering"] == "no" and headers["Cache-Control"] == "no-cache"
    first = stream.next()
    assert (first["event"], first["data"]) == ("connected", {"status": "ok"})
    assert int(first["retry"]) > 0
    admin.provider()
    change = stream.next_of("config_change")
    app.services.events.publish("escalation", model_id="large", reason="context overflow")
    ingest()
    assert change["data"].items() >= {"provider_id": "acme", "actor": "admin"}.items()
    again = listen(f"?last_event_id={change['id']}")
    for each in (stream, again):
        found = each.next_of("escalation")
        assert found["data"]["model_id"] == "large"
    later = listen(**{"Last-Event-ID": found["id"]})
    app.services.events.publish("feedback", api_key_id="key_1", label="good")
    ingest()
    later.next_of("connected")
    assert later.next()["data"].items() >= {"type": "feedback", "label": "good"}.items()


def test_only_what_is_asked_for_is_told(app, admin, listen, ingest):
    stream = listen("?types=escalation,feedback&model=large")
    stream.next()
    publish = app.services.events.publish
    admin.provider()
    publish("escalation", model_id="small")
    publish("vault_change", reason="large")
    publish("feedback", model_id="large", label="this")
    ingest()
    assert stream.next()["data"]["label"] == "this"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("types=route_sucess", "types"), ("outcome=lost", "outcome"), ("secs=-1", "secs"),
        ("last_event_id=abc", "last_event_id"), ("type=feedback", "type"), ("key=", "key"),
        ("rate_max=0", "rate_max"), ("key=a&key=b", "key"),
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused_by_name(admin, query, param):
    status, _, found = admin.refused("GET", f"events?{query}")
    assert (status, found) == (400, param)


def test_a_header_that_is_no_id_is_refused(client, admin):
    answer = client.get("/admin/v1/events", headers={**admin.headers, "Last-Event-ID": "abc"})
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, "Last-Event-ID")


def test_only_administrators_listen(client, make_key):
    assert client.get("/admin/v1/events").status_code == 401
    key = {"Authorization": f"Bearer {make_key()}"}
    assert client.get("/admin/v1/events", headers=key).status_code == 401


def test_a_stream_ends_when_its_time_is_over(client, admin):
    text = client.get("/admin/v1/events?secs=0", headers=admin.headers).text
    frames = [parse(each) for each in text.removesuffix("\n\n").split("\n\n")]
    assert [each["event"] for each in frames] == ["connected", "closed"]
    assert frames[1]["data"] == {"reason": "time"}


def test_a_stream_ends_soon_after_its_token_is_revoked(app, admin, client, monkeypatch):
    monkeypatch.setattr(events, "CHECK_SECS", 0.05)
    made = admin.ok("POST", "tokens", {"name": "eve", "role": "viewer"})
    app.services.catalog.current()
    stream = Stream(client, {"Authorization": f"Bearer {made['token']}"}, "")
    stream.next()
    admin.ok("DELETE", f"tokens/{made['id']}")
    app.services.catalog.current()
    assert stream.next_of("closed")["data"] == {"reason": "signed_out"}
    stream.close()


def test_a_stream_ends_with_its_session(app, admin, monkeypatch):
    monkeypatch.setattr(events, "CHECK_SECS", 0.05)
    browser = app.test_client()
    shown = browser.post("/admin/v1/session", headers=admin.headers).get_json()
    stream = Stream(browser, {}, "?types=feedback")
    stream.next()
    [session] = admin.ok("GET", "sessions")["sessions"]
    admin.ok("DELETE", f"sessions/{session['id']}")
    app.services.catalog.current()
    assert shown and stream.next_of("closed")["data"] == {"reason": "signed_out"}
    stream.close()


def test_a_stream_ends_when_the_worker_does_and_no_other_begins(app, admin, listen):
    stream = listen()
    stream.next()
    app.on_drain()
    assert stream.next_of("closed")["data"] == {"reason": "shutdown"}
    assert admin.refused("GET", "events")[0] == 503


def test_there_is_a_most_of_streams(admin, listen, monkeypatch):
    monkeypatch.setattr(feeds, "STREAMS_MAX", 1)
    listen().next()
    assert admin.refused("GET", "events")[:2] == (429, "too_many_streams")


def test_heartbeats_say_how_things_are_and_how_far_the_feed_is(listen, monkeypatch):
    monkeypatch.setattr(events, "BEAT_SECS", 0.6)
    stream, quiet = listen(), listen("?types=feedback")
    for each in (stream, quiet):
        each.next()
    beat = stream.next()
    assert beat["event"] == "heartbeat"
    assert (
        beat["data"].items()
        >= {"reason": "0 providers, 0 enabled models", "database": "ok"}.items()
    )
    assert quiet.next()["comment"] == "keep-alive"
    assert stream.next()["id"] and quiet.next()["id"]


def test_while_the_database_is_away_the_stream_says_so_and_stays(app, listen, monkeypatch, ingest):
    monkeypatch.setattr(feeds, "AWAY_SECS", 0.05)
    stream = listen()
    stream.next()
    with monkeypatch.context() as patch:

        def away(*_: object, **__: object) -> None:
            raise DatabaseAway("away")

        patch.setattr(app.services.database, "read", away)
        assert stream.next_of("heartbeat")["data"]["database"] == "away"
        app.services.events.publish("feedback", label="kept")
    ingest()
    said = {each["event"]: each["data"] for each in (stream.next(), stream.next())}
    assert said["heartbeat"]["database"] == "ok"
    assert said["feedback"]["label"] == "kept"


def test_a_slow_reader_is_told_how_many_it_has_lost(app, listen, monkeypatch, ingest):
    monkeypatch.setattr(feeds, "QUEUE_MAX", 3)
    stream = listen("?types=feedback")
    stream.next()
    gevent.sleep(0.3)
    for number in range(10):
        app.services.events.publish("feedback", label=str(number))
    ingest()
    gevent.sleep(0.5)
    assert stream.next_of("dropped")["data"] == {"count": 7}
    assert [stream.next()["data"]["label"] for _ in range(3)] == ["7", "8", "9"]
    assert app.services.board.feeds.dropped == 7


def test_changes_of_health_are_told_once_and_listed(app, admin, listen, ingest):
    admin.provider()
    admin.model()
    app.services.catalog.current()
    stream = listen("?types=health_change")
    stream.next()
    vitals = app.services.board.vitals
    for _ in range(5):
        vitals.fail("small", "acme", "timeout", 0, cooldown_seconds=None, is_provider_wide=False)
    admin.ok("POST", "health/acme/clear")
    admin.ok("PATCH", "models/small", {"enabled": False})
    admin.ok("DELETE", "providers/acme")
    ingest()
    found = [stream.next_of("health_change")["data"] for _ in range(5)]
    told = [(each.get("old_state"), each["new_state"], each["reason"]) for each in found]
    assert told == [
        ("healthy", "degraded", "timeout"),
        ("degraded", "down", "timeout"),
        ("down", "healthy", "cleared"),
        ("enabled", "disabled", "model disabled"),
        ("unknown", "removed", "provider removed"),
    ]
    assert {each["provider_id"] for each in found} == {"acme"}
    assert found[1]["model_id"] == "small" and found[1]["until_at"]
    listed = admin.ok("GET", "health/transitions?model=small&limit=3")
    rows = listed["transitions"]
    assert [each["new_state"] for each in rows] == ["disabled", "healthy", "down"]
    assert rows[2]["until"].endswith("Z") and rows[2]["breaker"] == "open"
    rest = admin.ok("GET", f"health/transitions?model=small&cursor={listed['next_cursor']}")
    assert [each["new_state"] for each in rest["transitions"]] == ["degraded"]
    assert len(admin.ok("GET", "health/transitions?provider=acme")["transitions"]) == 5


def test_without_room_events_are_dropped_and_counted(app, monkeypatch):
    def refuse() -> None:
        raise Unavailable("no room", code="journal_full")

    hub = app.services
    monkeypatch.setattr(hub.events._journal, "admit", refuse)
    hub.events.publish("feedback", label="lost")
    assert hub.board.feeds.unpublished == 1
    monkeypatch.undo()

    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(hub.events._journal, "append", fail)
    hub.events.publish("feedback", label="lost")
    assert hub.board.feeds.unpublished == 2

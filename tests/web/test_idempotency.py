"""Requests with an idempotency key through the app: served once, answered as often as sent."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from sqlalchemy import select, update

from tests.unit.gateway_kit import DONE, STOP, answer, delta, fault
from tests.web.money_kit import Money
from tests.web.test_chat import WHOLE, Chat, error_of
from tokenhub import idempotency
from tokenhub.db.traffic_tables import idempotency_keys as table
from tokenhub.domain import Usage
from tokenhub.errors import ClientClosed
from tokenhub.providers.base import Answer
from tokenhub.store.hosts import now_ms

ONCE = {"Idempotency-Key": "once-1"}
CUT = [delta("hel"), fault("stream_cut", sent=True)]


@pytest.fixture
def key(admin) -> dict[str, str]:
    found: dict[str, str] = admin.ok("POST", "apikeys", {"name": "repeats itself"})
    return found


@pytest.fixture
def chat(app, client, admin, key) -> Chat:
    admin.provider()
    admin.model("small", input_per_1k=0.001, output_per_1k=0.002)
    return Chat(app, client, key["key"])


def stored(app: Any) -> list[Any]:
    rows = app.services.database.read(lambda c: c.execute(select(table)).mappings().all())
    return list(rows)


def set_row(app: Any, **values: Any) -> None:
    app.services.database.write(lambda c: c.execute(update(table).values(**values)))


def let_pass(app: Any) -> None:
    """Its time, or its lease, is over."""
    app.services.database.write(lambda c: c.execute(update(table).values(expires_at=now_ms(c) - 1)))


def fates(admin: Any) -> dict[str, int]:
    name = "tokenhub_idempotent_requests_total{fate="
    lines = [line for line in admin.metrics().splitlines() if line.startswith(name)]
    found = {line.split('"')[1]: int(float(line.split()[-1])) for line in lines}
    return {fate: count for fate, count in found.items() if count}


@pytest.mark.parametrize("second", ["Idempotency-Key", "X-Idempotency-Key"])
def test_the_second_sending_gets_the_answer_of_the_first_and_costs_nothing(chat, admin, second):
    adapter = chat.script(small=[answer(1000, 500)])
    first = chat.post(model="small", headers=ONCE)
    again = chat.post(model="small", headers={second: "once-1"})
    assert (again.status_code, again.data) == (200, first.data)
    assert adapter.asked == ["small"]
    assert "Idempotency-Replay" not in first.headers
    headers = again.headers
    assert headers["Idempotency-Replay"] == "true"
    assert headers["X-TokenHub-Original-Request-Id"] == first.headers["X-Request-Id"]
    assert headers["X-Request-Id"] != first.headers["X-Request-Id"]
    assert (first.headers["X-TokenHub-Cost-USD"], headers["X-TokenHub-Cost-USD"]) == (
        "0.002000000", "0.000000000",
    )  # fmt: skip
    for name in ("Content-Type", "X-Negotiated-Model", "X-TokenHub-Provider", "X-TokenHub-Reason"):
        assert headers[name] == first.headers[name]
    assert [row["request_id"] for row in chat.rows] == [first.headers["X-Request-Id"]]
    assert fates(admin) == {"served": 1, "replayed": 1}


@pytest.mark.parametrize(
    "other", [{"X-TokenHub-Mode": "cheap"}, {"X-TokenHub-Tags": ""}, {"anthropic-beta": "new"}]
)
def test_what_headers_ask_for_is_of_the_request(chat, other):
    chat.script(small=[answer()])
    assert chat.post(model="small", headers=ONCE).status_code == 200
    response = chat.post(model="small", headers={**ONCE, **other})
    assert (response.status_code, error_of(response)["code"]) == (422, "idempotency_key_reused")


def test_a_stream_is_sent_again_as_it_was(chat):
    adapter = chat.script(small=[WHOLE])
    first = chat.post(stream=True, headers=ONCE)
    assert first.data == delta("hello") + STOP + DONE
    again = chat.post(stream=True, headers=ONCE)
    assert again.data == first.data
    for name in ("Content-Type", "Cache-Control", "X-Accel-Buffering"):
        assert again.headers[name] == first.headers[name]
    assert again.headers["Idempotency-Replay"] == "true"
    assert adapter.asked == ["small"]
    assert len(chat.rows) == 1


def test_without_the_header_every_sending_is_a_request_of_its_own(app, chat):
    chat.script(small=[answer(), answer()])
    assert [chat.post(model="small").status_code for _ in range(2)] == [200, 200]
    assert len(chat.rows) == 2
    assert stored(app) == []


def test_a_key_is_of_one_api_key_and_one_endpoint(app, client, chat, make_key):
    adapter = chat.script(small=[answer()] * 2)
    for each in (chat, Chat(app, client, make_key())):
        response = each.post(model="small", headers=ONCE)
        assert response.status_code == 200
        assert "Idempotency-Replay" not in response.headers
    assert len(adapter.asked) == 2
    response = client.post("/v1/completions", data=b"{", headers={**chat.headers, **ONCE})
    assert response.status_code == 400
    assert "Idempotency-Replay" not in response.headers
    assert len(stored(app)) == 3


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions", "/v1/embeddings"],
)
def test_every_routed_endpoint_has_it(client, chat, path):
    found = [client.post(path, data=b"{", headers={**chat.headers, **ONCE}) for _ in range(2)]
    assert [each.status_code for each in found] == [400, 400]
    assert ["Idempotency-Replay" in each.headers for each in found] == [False, True]


def test_the_same_key_for_another_body_is_refused(chat, admin):
    chat.script(small=[answer()])
    assert chat.post(model="small", headers=ONCE).status_code == 200
    response = chat.post(model="small", max_tokens=5, headers=ONCE)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (422, "idempotency_key_reused")
    assert error["param"] == "Idempotency-Key"
    assert fates(admin) == {"served": 1, "reused": 1}


@pytest.mark.parametrize(
    "headers",
    [
        {"Idempotency-Key": ""},
        {"X-Idempotency-Key": "x" * 256},
        {"Idempotency-Key": "a\tb"},
        {"Idempotency-Key": "a", "X-Idempotency-Key": "b"},
    ],
    ids=["empty", "long", "control", "two"],
)
def test_a_key_that_is_none_is_refused(app, chat, headers):
    response = chat.post(model="small", headers=headers)
    assert (response.status_code, error_of(response)["param"]) == (400, "Idempotency-Key")
    assert chat.rows == []
    assert stored(app) == []


def test_both_spellings_may_be_given_if_they_agree(chat):
    chat.script(small=[answer()])
    both = {"Idempotency-Key": "x" * 255, "X-Idempotency-Key": "x" * 255}
    assert chat.post(model="small", headers=both).status_code == 200
    assert chat.post(model="small", headers=both).headers["Idempotency-Replay"] == "true"


def test_a_spent_budget_and_a_full_limit_do_not_keep_an_answer_back(app, chat, admin, key):
    chat.script(small=[answer()] * 2)
    money = Money(app, admin)
    money.put("key", key["id"], "total", limit_usd=1)
    admin.ok("PATCH", f"apikeys/{key['id']}", {"rpm": 1})
    first = chat.post(model="small", max_tokens=5, headers=ONCE)
    assert first.status_code == 200
    money.spend("key", key["id"], 1)
    for _ in range(3):
        again = chat.post(model="small", max_tokens=5, headers=ONCE)
        assert (again.status_code, again.data) == (200, first.data)
        assert "x-ratelimit-limit-requests" not in again.headers
    assert (
        chat.post(model="small", max_tokens=5, headers={"Idempotency-Key": "2"}).status_code == 429
    )


def test_a_key_that_is_revoked_gets_nothing(chat, admin, key):
    chat.script(small=[answer()])
    assert chat.post(model="small", headers=ONCE).status_code == 200
    admin.ok("DELETE", f"apikeys/{key['id']}")
    response = chat.post(model="small", headers=ONCE)
    assert response.status_code == 401
    assert "Idempotency-Replay" not in response.headers


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (fault(), 502),
        (fault("rate_limited", next_step="cooldown", status=429), 429),
        (RuntimeError("a bug of ours"), 500),
    ],
)
def test_what_may_be_gone_a_moment_later_is_not_kept(app, chat, admin, given, status):
    chat.script(small=[given] * 4)
    response = chat.post(model="small", headers=ONCE)
    assert response.status_code == status
    assert stored(app) == []
    admin.ok("POST", "health/small/clear")
    admin.ok("POST", "health/acme/clear")
    chat.script(small=[answer()])
    again = chat.post(model="small", headers=ONCE)
    assert again.status_code == 200
    assert "Idempotency-Replay" not in again.headers


def test_a_limit_that_is_reached_is_not_kept(app, chat, admin, key):
    chat.script(small=[answer()] * 2)
    admin.ok("PATCH", f"apikeys/{key['id']}", {"rpm": 1})
    assert chat.post(model="small").status_code == 200
    assert chat.post(model="small", headers=ONCE).status_code == 429
    assert stored(app) == []
    admin.ok("PATCH", f"apikeys/{key['id']}", {"rpm": 0})
    assert chat.post(model="small", headers=ONCE).status_code == 200


@pytest.mark.parametrize("raw", [b"{", b'{"model":"small"}'])
def test_a_refusal_of_the_request_itself_is_kept(chat, raw):
    first = chat.post(raw, headers=ONCE)
    again = chat.post(raw, headers=ONCE)
    assert (first.status_code, again.status_code) == (400, 400)
    assert again.headers["Idempotency-Replay"] == "true"
    assert again.get_json()["error"]["code"] == first.get_json()["error"]["code"]
    assert len(chat.rows) == 1


def test_a_callers_leaving_keeps_nothing(app, chat):
    chat.script(small=[ClientClosed(), answer()])
    with pytest.raises(ClientClosed):
        chat.post(model="small", headers=ONCE)
    assert stored(app) == []
    assert chat.post(model="small", headers=ONCE).status_code == 200


@pytest.mark.parametrize("pieces", [CUT, WHOLE], ids=["cut", "left"])
def test_a_stream_that_was_not_read_to_its_end_is_not_kept(app, chat, pieces):
    chat.script(small=[pieces, WHOLE])
    first = chat.post(stream=True, headers=ONCE)
    if pieces is CUT:
        assert b"stream_cut" in first.data
    first.close()
    assert stored(app) == []
    assert chat.post(stream=True, headers=ONCE).data == delta("hello") + STOP + DONE


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_too_long_is_not_kept_and_not_paid_twice(
    chat, admin, monkeypatch, stream
):
    for where in ("tokenhub.idempotency", "tokenhub.web.idempotent"):
        monkeypatch.setattr(f"{where}.ANSWER_BYTES_MAX", 10)
    chat.script(small=[WHOLE if stream else answer()])
    first = chat.post(stream=stream, model="small", headers=ONCE)
    assert len(first.data) > 10
    response = chat.post(stream=stream, model="small", headers=ONCE)
    assert (response.status_code, error_of(response)["code"]) == (409, "idempotency_not_kept")
    assert response.headers["x-should-retry"] == "false"
    assert first.headers["X-Request-Id"] in error_of(response)["message"]


def test_a_dead_owner_is_told_of_once_and_then_the_request_is_served(app, chat, admin):
    chat.script(small=[answer()] * 2)
    first = chat.post(model="small", headers=ONCE)
    set_row(app, state="in_flight", answer=b"")
    let_pass(app)
    for _ in range(2):
        response = chat.post(model="small", headers=ONCE)
        error = error_of(response)
        assert (response.status_code, error["code"]) == (409, "idempotency_owner_lost")
        assert first.headers["X-Request-Id"] in error["message"]
        assert 1 <= int(response.headers["Retry-After"]) <= idempotency.LOST_SECS
        assert response.headers["x-should-retry"] == "false"
    let_pass(app)
    again = chat.post(model="small", headers=ONCE)
    assert again.status_code == 200
    assert "Idempotency-Replay" not in again.headers
    assert fates(admin) == {"served": 2, "owner_lost": 2}


def test_a_request_that_takes_long_keeps_its_lease(app, chat, monkeypatch):
    monkeypatch.setattr(idempotency, "RENEW_SECS", 0.01)
    seen: list[int] = []

    def slow() -> Answer:
        set_row(app, expires_at=1)
        gevent.sleep(0.1)
        seen.extend(row["expires_at"] for row in stored(app))
        return answer()

    chat.script(small=[slow])
    assert chat.post(model="small", headers=ONCE).status_code == 200
    assert seen[0] > 1


def test_without_the_database_only_these_requests_are_refused(chat, database_away):
    chat.script(small=[answer()] * 2)
    assert chat.post(model="small").status_code == 200
    database_away("read", "write")
    response = chat.post(model="small", headers=ONCE)
    assert (response.status_code, error_of(response)["code"]) == (503, "idempotency_unavailable")
    assert response.headers["Retry-After"] == "1"
    assert chat.post(model="small").status_code == 200
    assert len(chat.rows) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_database_that_goes_meanwhile_costs_no_answer(app, chat, database_away, stream):
    def serve() -> Any:
        database_away("read", "write")
        return WHOLE if stream else answer()

    chat.script(small=[serve])
    response = chat.post(stream=stream, model="small", headers=ONCE)
    assert response.status_code == 200
    assert response.data


def test_the_database_cannot_read_what_was_asked_or_answered(app, chat):
    words = "the words of the answer"
    body = b'{"choices":[{"message":{"content":"' + words.encode() + b'"}}]}'
    chat.script(small=[Answer(body, {}, Usage(1, 1), 3)])
    chat.post(model="small", headers=ONCE, user="who asks")
    [row] = stored(app)
    text = repr(dict(row))
    for secret in (words, "once-1", "who asks", chat.headers["Authorization"][-20:]):
        assert secret not in text


def test_another_secret_of_the_key_does_not_open_the_answer(app, client, chat, admin, key):
    chat.script(small=[answer()])
    assert chat.post(model="small", headers=ONCE).status_code == 200
    rotated = admin.ok("POST", f"apikeys/{key['id']}/rotate", {"grace": "1h"})
    response = Chat(app, client, rotated["key"]).post(model="small", headers=ONCE)
    assert (response.status_code, error_of(response)["code"]) == (409, "idempotency_not_kept")
    assert chat.post(model="small", headers=ONCE).status_code == 200


def test_a_body_that_is_too_long_has_its_row_as_ever(app, chat, monkeypatch):
    monkeypatch.setattr("tokenhub.web.guards.check_length", lambda *_: None)
    long = b" " * ((app.services.settings.max_body_mb << 20) + 1)
    response = chat.post(long, headers=ONCE)
    assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")
    assert [row["ending"] for row in chat.rows] == ["refused"]
    assert stored(app) == []


def test_workers_make_room_as_they_keep(app, chat, monkeypatch):
    monkeypatch.setattr(idempotency, "ENTRIES_MAX", 2)
    monkeypatch.setattr(idempotency, "TRIM_PARTS", 1)
    chat.script(small=[answer()] * 5)
    for number in range(5):
        assert chat.post(model="small", headers={"Idempotency-Key": str(number)}).status_code == 200
        gevent.sleep(0.05)
    assert len(stored(app)) <= 3


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_caller_that_leaves_while_its_turn_is_taken_holds_nothing(app, chat, monkeypatch, when):
    database, write = app.services.database, app.services.database.write

    def leave(work: Any, **more: Any) -> None:
        monkeypatch.setattr(database, "write", write)
        if when == "after":
            write(work, **more)
        raise ClientClosed

    adapter = chat.script(small=[answer()])
    chat.app.services.catalog.current()
    monkeypatch.setattr(database, "write", leave)
    with pytest.raises(ClientClosed):
        chat.post(model="small", headers=ONCE)
    gevent.sleep(0.05)
    assert stored(app) == []
    assert app.services.board.in_flight == 0
    assert chat.post(model="small", headers=ONCE).status_code == 200
    assert adapter.asked == ["small"]

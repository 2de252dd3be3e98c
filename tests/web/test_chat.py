"""Chat completions through the app: who may ask, what is refused, and which headers come back."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from tests.unit.gateway_kit import DONE, STOP, USAGE, ScriptedAdapter, answer, delta, fault
from tokenhub import journal, store
from tokenhub.errors import ClientClosed
from tokenhub.records import parse_request

MESSAGES = [{"role": "user", "content": "hi"}]
WHOLE = [delta("hello"), STOP, USAGE + DONE]


class Chat:
    """Asks for completions and reads the journal."""

    def __init__(self, app, client, token: str) -> None:
        self.app, self.client = app, client
        self.headers = {"Authorization": f"Bearer {token}"}

    def script(self, **scripts: list[Any]) -> ScriptedAdapter:
        adapter = ScriptedAdapter(scripts)
        self.app.services.gateway.adapters["openai"] = adapter
        return adapter

    def post(self, body: object = None, headers: dict[str, str] | None = None, **fields):
        raw = body if isinstance(body, bytes) else orjson.dumps({"messages": MESSAGES, **fields})
        return self.client.post(
            "/v1/chat/completions", data=raw, headers={**self.headers, **(headers or {})}
        )

    @property
    def rows(self) -> list[dict[str, Any]]:
        directory = self.app.services.settings.data_dir / "journal"
        assert self.app.services.board.in_flight == 0
        return [
            dict(zip(store.LOG_COLUMNS, parse_request(record.payload)[0], strict=True))
            for segment in journal.list_segments(directory)
            for record in journal.read(segment.path, 0)[0]
            if record.kind == journal.END
        ]


@pytest.fixture
def chat(app, client, admin, make_key) -> Chat:
    admin.provider()
    admin.model("small", input_per_1k=0.001, output_per_1k=0.002)
    return Chat(app, client, make_key())


def error_of(response) -> dict[str, Any]:
    assert response.content_type == "application/json"
    assert response.headers["X-Request-Id"].startswith("req_")
    error: dict[str, Any] = response.get_json()["error"]
    return error


def test_a_whole_answer_says_who_gave_it_why_and_at_what_cost(chat):
    given = answer(1000, 500)
    chat.script(small=[given])
    response = chat.post(model="small", headers={"X-Request-Id": "mine-1"})
    assert (response.status_code, response.data) == (200, given.body)
    headers = response.headers
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Request-Id"].startswith("req_")
    assert headers["X-Client-Request-Id"] == "mine-1"
    assert headers["X-Negotiated-Model"] == "small"
    assert headers["X-TokenHub-Provider"] == "acme"
    assert headers["X-TokenHub-Reason"] == "routed-hint-exact"
    assert headers["X-TokenHub-Attempts"] == "1"
    assert headers["X-TokenHub-Cost-USD"] == "0.002000000"
    assert float(headers["X-TokenHub-Overhead-Ms"]) >= 0
    [row] = chat.rows
    assert row["request_id"] == headers["X-Request-Id"]
    assert (row["client_request_id"], row["cost_nanousd"]) == ("mine-1", 2_000_000)


def test_an_unknown_price_shows_no_cost(chat, admin):
    admin.model("mystery")
    chat.script(mystery=[answer()])
    response = chat.post(model="mystery")
    assert response.status_code == 200
    assert "X-TokenHub-Cost-USD" not in response.headers
    assert chat.rows[0]["cost_nanousd"] is None


def test_a_stream_is_events_with_the_headers_of_a_stream(chat):
    chat.script(small=[WHOLE])
    response = chat.post(stream=True)
    assert response.data == delta("hello") + STOP + DONE
    headers = response.headers
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-cache"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["X-Negotiated-Model"] == "small"
    assert headers["X-TokenHub-Attempts"] == "1"
    assert "Content-Length" not in headers
    response.close()
    assert [row["ending"] for row in chat.rows] == ["answered"]


def test_a_stream_that_is_closed_unread_has_its_row(chat):
    chat.script(small=[WHOLE])
    response = chat.post(stream=True)
    response.close()
    assert [row["ending"] for row in chat.rows] == ["client_closed"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_name_of_a_model_in_any_script_fits_a_header(chat, admin, stream):
    admin.model("模型/日本 é", upstream_model="other")
    chat.script(other=[WHOLE if stream else answer()])
    response = chat.post(model="模型/日本 é", stream=stream)
    response.close()
    assert response.status_code == 200
    assert response.headers["X-Negotiated-Model"] == "%E6%A8%A1%E5%9E%8B/%E6%97%A5%E6%9C%AC %C3%A9"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b'{"messages":[{"role":[]}]}', b'{"messages":[{"role":{}}]}',
        b'{"messages":[{"role":"user","content":"x","content":"y"}]}',
        b'{"messages":[{"role":"user","content":"x"}],"a":' + b"[" * 300 + b"]" * 300 + b"}",
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_and_has_a_row(chat, raw):
    adapter = chat.script(small=[answer()])
    response = chat.post(raw)
    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"
    assert [(row["ending"], row["status_code"]) for row in chat.rows] == [("refused", 400)]
    assert adapter.asked == []


def test_a_body_that_turns_out_too_long_is_refused_and_has_a_row(chat, monkeypatch):
    monkeypatch.setattr("tokenhub.web.guards.check_length", lambda *_: None)
    response = chat.post(b" " * ((chat.app.services.settings.max_body_mb << 20) + 1))
    assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")
    assert [row["ending"] for row in chat.rows] == ["refused"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Authorization": ""}, "missing_api_key"),
        ({"Authorization": "Bearer nonsense"}, "invalid_api_key"),
        ({"Authorization": "Bearer tokenhub_" + "0" * 64}, "invalid_api_key"),
    ],
)
def test_without_a_valid_key_there_is_no_row_and_no_room_is_kept(chat, headers, code):
    response = chat.post(headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (401, code)
    assert chat.rows == []


def test_a_key_without_the_scope_is_refused_without_a_row(chat, make_key):
    chat.headers = {"Authorization": f"Bearer {make_key(scopes=['plan'])}"}
    response = chat.post()
    assert (response.status_code, error_of(response)["code"]) == (403, "insufficient_scope")
    assert chat.rows == []


def test_an_expired_key_is_refused_without_a_row(chat, make_key, monkeypatch):
    token = make_key(expires_in="1h")
    later = time.time_ns() // 1_000_000 + 2 * 3_600_000
    chat.headers = {"Authorization": f"Bearer {token}"}
    chat.script(small=[answer()])
    assert chat.post().status_code == 200
    monkeypatch.setattr("tokenhub.web.guards.unix_ms", lambda: later)
    response = chat.post()
    assert (response.status_code, error_of(response)["code"]) == (401, "expired_api_key")
    assert len(chat.rows) == 1


def test_a_caller_that_leaves_while_its_key_is_checked_keeps_no_room(chat, monkeypatch):
    def leave(*_: object) -> None:
        raise ClientClosed

    monkeypatch.setattr(chat.app.services.keys, "verify", leave)
    with pytest.raises(ClientClosed):
        chat.post()
    assert chat.rows == []


def test_the_providers_verdict_is_relayed_when_it_is_an_error_envelope(chat):
    body = b'{"error":{"message":"no such tool","type":"invalid_request_error"}}'
    stop = {"next_step": "stop", "status": 422}
    chat.script(
        small=[fault("client_error", body=body, **stop), fault("client_error", body=b"?", **stop)]
    )
    relayed, ours = chat.post(), chat.post()
    assert (relayed.status_code, relayed.data) == (422, body)
    assert (ours.status_code, error_of(ours)["code"]) == (422, "upstream_refused")


def test_when_all_are_rate_limited_the_caller_is_told_when_to_come_back(chat):
    error = fault("rate_limited", next_step="cooldown", status=429, retry_after_seconds=9.5)
    chat.script(small=[error])
    response = chat.post()
    assert (response.status_code, response.headers["Retry-After"]) == (429, "10")
    assert error_of(response)["type"] == "rate_limit_error"


def test_a_bug_shows_nothing_of_itself_and_has_a_row(chat):
    chat.script(small=[ZeroDivisionError("sk-inner-detail")])
    response = chat.post()
    assert response.status_code == 500
    assert "inner-detail" not in response.text
    assert [(row["ending"], row["error_class"]) for row in chat.rows] == [
        ("failed", "internal_error")
    ]

"""`POST /v1/feedback`: taken at once from keys and administrators, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from tests.web.conftest import Json
from tests.web.money_kit import Money
from tokenhub.db.traffic_tables import feedback
from tokenhub.errors import Unavailable
from tokenhub.host import journal_directory
from tokenhub.ingest import Ingester

ID = "req_" + "0" * 32


class Speaker:
    """Whoever says what an answer was worth."""

    def __init__(self, app: Any, token: str) -> None:
        self._app, self._client, self.token = app, app.test_client(), token

    def send(self, body: object, **headers: str) -> Any:
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        return self._client.post("/v1/feedback", json=body, headers=headers)

    def say(self, **fields: object) -> None:
        body = {"request_id": ID, **fields}
        response = self.send(body)
        assert (response.status_code, response.get_json()) == (
            202,
            {"ok": True, "request_id": body["request_id"]},
        ), response.text
        assert response.headers["Cache-Control"] == "no-store"

    def refused(self, body: object) -> tuple[int, str, str | None]:
        response = self.send(body)
        error = response.get_json()["error"]
        return response.status_code, error["code"], error["param"]

    def rows(self) -> list[Json]:
        """What has come into the table."""
        services = self._app.services
        ingester = Ingester(
            database=services.database,
            board=services.board,
            directory=journal_directory(services.settings),
            host_id=services.host_id,
        )
        while ingester.step():
            pass
        query = select(feedback).order_by(feedback.c.id)
        found: list[Json] = services.database.read(
            lambda each: [dict(row) for row in each.execute(query).mappings()]
        )
        return found


@pytest.fixture
def key(admin) -> Json:
    return admin.ok("POST", "apikeys", {"name": "mine", "scopes": []})  # type: ignore[no-any-return]


@pytest.fixture
def owner(app, key) -> Speaker:
    return Speaker(app, key["key"])


@pytest.mark.parametrize(
    ("fields", "score", "label"),
    [
        ({"score": 0.25}, 0.25, ""),
        ({"score": 1}, 1.0, ""),
        ({"score": 0, "label": "too long"}, 0.0, "too long"),
        ({"score": 0.5, "label": "good"}, 0.5, "good"),
        ({"label": "good"}, 1.0, "good"),
        ({"label": "thumbs_up"}, 1.0, "thumbs_up"),
        ({"label": "neutral"}, 0.5, "neutral"),
        ({"label": "bad"}, 0.0, "bad"),
        ({"label": "thumbs_down"}, 0.0, "thumbs_down"),
    ],
)
def test_a_score_or_a_word_of_a_key_is_kept_as_a_score(owner, key, fields, score, label):
    owner.say(**fields)
    [row] = owner.rows()
    said = (row["request_id"], row["api_key_id"], row["actor"], row["score"], row["label"])
    assert said == (ID, key["id"], f"key:{key['id']}", score, label)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_field", "score"),
        ({"label": ""}, "missing_field", "score"),
        ({"score": 1.01}, "invalid_request", "score"),
        ({"score": -1}, "invalid_request", "score"),
        ({"score": True}, "invalid_request", "score"),
        ({"score": "1"}, "invalid_request", "score"),
        ({"score": None}, "invalid_request", "score"),
        ({"label": "splendid"}, "invalid_request", "label"),
        ({"label": 1}, "invalid_request", "label"),
        ({"score": 1, "label": "x" * 65}, "invalid_request", "label"),
        ({"score": 1, "label": "a\0b"}, "invalid_request", "label"),
        ({"score": 1, "comment": "x"}, "unknown_field", "comment"),
        ({"score": 1, "request_id": ""}, "invalid_request", "request_id"),
        ({"score": 1, "request_id": 7}, "invalid_request", "request_id"),
        ({"score": 1, "request_id": "mine"}, "invalid_request", "request_id"),
        ({"score": 1, "request_id": ID.upper()}, "invalid_request", "request_id"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(owner, fields, code, param):
    assert owner.refused({"request_id": ID, **fields}) == (400, code, param)
    assert owner.rows() == []


def test_a_body_without_an_id_or_that_is_no_object_is_refused(owner):
    assert owner.refused({"score": 1}) == (400, "missing_field", "request_id")
    assert owner.refused([1])[:2] == (400, "bad_json")


def test_administrators_who_may_change_things_speak_of_any_request(app, admin):
    money = Money(app, admin)
    operator = money.as_role("operator").headers["Authorization"].removeprefix("Bearer ")
    speaker = Speaker(app, operator)
    speaker.say(label="bad")
    [row] = speaker.rows()
    assert (row["api_key_id"], row["actor"], row["score"]) == ("", "the-operator", 0.0)
    viewer = money.as_role("viewer").headers["Authorization"].removeprefix("Bearer ")
    refused = Speaker(app, viewer).refused({"request_id": ID, "score": 1})
    assert refused == (403, "insufficient_role", None)


def test_a_page_speaks_with_its_session_and_the_proof_that_it_is_ours(app, admin):
    client = app.test_client()
    session = client.post("/admin/v1/session", headers=admin.headers).get_json()
    body = {"request_id": ID, "score": 1}
    proof = {"X-CSRF-Token": session["csrf_token"], "Origin": "http://localhost"}
    assert client.post("/v1/feedback", json=body).status_code == 403
    assert client.post("/v1/feedback", json=body, headers=proof).status_code == 202


@pytest.mark.parametrize(
    ("token", "code"), [("", "missing_api_key"), ("wrong", "invalid_admin_token"),
                        ("tokenhub_" + "0" * 64, "invalid_api_key")],
)  # fmt: skip
def test_strangers_are_not_heard(app, token, code):
    assert Speaker(app, token).refused({"request_id": ID, "score": 1}) == (401, code, None)


def test_it_counts_as_a_request_of_the_key_and_gives_back_its_place(admin, owner, key):
    admin.ok("PATCH", f"apikeys/{key['id']}", {"rpm": 4, "tpm": 1, "max_parallel": 1})
    for left in (3, 2, 1):
        response = owner.send({"request_id": ID, "score": 1})
        assert response.status_code == 202
        assert response.headers["x-ratelimit-remaining-requests"] == str(left)
    assert owner.refused({"score": 1})[0] == 400
    assert owner.refused({"request_id": ID, "score": 1})[:2] == (429, "rate_limit_exceeded")


def test_without_room_in_the_journal_it_is_refused_and_nothing_is_held(app, owner, monkeypatch):
    def full() -> None:
        raise Unavailable("full", code="journal_full")

    journal = app.services.recorder._journal
    with monkeypatch.context() as patch:
        patch.setattr(journal, "admit", full)
        assert owner.refused({"request_id": ID, "score": 1})[:2] == (503, "journal_full")
    owner.say(score=1)
    assert journal._admitted == 0
    assert len(owner.rows()) == 1


def test_the_database_is_not_asked(owner, database_away):
    owner.say(score=1)
    database_away("read", "write")
    owner.say(score=1)


def test_what_is_sent_twice_is_there_twice_whatever_its_idempotency_key(owner):
    for score in (0.1, 0.9):
        response = owner.send({"request_id": ID, "score": score}, **{"Idempotency-Key": "a"})
        assert response.status_code == 202
    assert [row["score"] for row in owner.rows()] == [0.1, 0.9]

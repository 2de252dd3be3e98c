"""Records of the journal: the events that a request's attempts tell of."""

from __future__ import annotations

import orjson

from tokenhub.domain import ESCALATED, Attempt, Outcome
from tokenhub.recorder import attempt_row, log_row, payload_of
from tokenhub.records import list_escalations, parse_request

OUTCOME = Outcome("req_1", "key_1", "/v1/chat/completions", "normal", False, 1000)
ATTEMPTS = [
    Attempt("small", "acme", 0, 5, error_class="context_overflow", reason="routed-weight-9"),
    Attempt("large", "other", 7, 5, reason=ESCALATED),
]


def test_whoever_is_asked_because_a_request_was_too_long_is_an_escalation():
    attempts = [attempt_row(each) for each in ATTEMPTS]
    row, read, _, _ = parse_request(payload_of(log_row(OUTCOME), attempts, False, []))
    [(at, type_, key_id, fields)] = list_escalations(row, read)
    assert (at, type_, key_id) == (1007, "escalation", "key_1")
    assert orjson.loads(fields) == {
        "request_id": "req_1", "model_id": "large", "provider_id": "other", "reason": ESCALATED,
    }  # fmt: skip


def test_other_requests_are_none():
    assert list_escalations(log_row(OUTCOME), [attempt_row(ATTEMPTS[0])]) == []

"""What each error of a provider means, whatever its dialect."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.errors import ProviderError
from tokenhub.providers.chat_completions import CHAT
from tokenhub.providers.errors import (
    ERROR_CLASSES,
    RETRY_AFTER_SECS_MAX,
    classify,
    parse_retry_after,
)

NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC


def judge(status: int | None, error: object) -> ProviderError:
    body = orjson.dumps({"error": error})
    return classify(status, orjson.loads(body), body)


@pytest.mark.parametrize(
    ("status", "error", "error_class"),
    [
        (403, {"code": "insufficient_quota"}, "quota_exhausted"),
        (400, {"type": "insufficient_quota", "code": None}, "quota_exhausted"),
        (400, {"type": "budget_exceeded", "code": "400"}, "quota_exhausted"),
        (400, {"code": "content_filter", "type": None}, "content_policy"),
        (401, {"type": "invalid_request_error", "code": "invalid_api_key"}, "auth_failed"),
        (404, {"type": "invalid_request_error", "code": None}, "model_not_found"),
        (404, {"type": "NotFoundError", "code": 404, "param": "model"}, "model_not_found"),
        (404, {"code": "model_not_found", "param": "input"}, "model_not_found"),
        (404, {"code": "previous_response_not_found"}, "client_error"),
        (404, {"type": "invalid_request_error", "param": "input"}, "client_error"),
        (404, {"message": "Item with id 'rs_1' not found.", "param": None}, "client_error"),
        (429, {"type": "tokens", "code": "rate_limit_exceeded"}, "rate_limited"),
        (400, {"type": "invalid_request_error", "code": 400}, "client_error"),
        (503, {"type": "invalid_request_error"}, "server_error"),
        (504, {"message": "upstream request timeout"}, "timeout"),
        (524, {}, "timeout"),
        (400, {"message": "max_tokens is too large: 9000"}, "context_overflow"),
        (413, {"message": "Prompt is too long"}, "context_overflow"),
        (400, {"message": "unknown parameter"}, "client_error"),
        (400, "a bare text", "client_error"),
        # Inside a 200 or a stream there is no status, but for one in `code`.
        (None, {"type": "overloaded_error"}, "overloaded"),
        (None, {"code": 429, "message": "slow down"}, "rate_limited"),
        (None, {"code": "502"}, "server_error"),
        (None, {"code": 200}, "server_error"),
        (None, {"type": "invalid_request_error"}, "client_error"),
        (None, {"type": "BadRequestError", "code": 400}, "client_error"),
        (None, {"message": "?"}, "server_error"),
        (None, "a bare text", "server_error"),
    ],
)
def test_words_come_before_the_status_and_the_text_comes_last(
    status: int | None, error: object, error_class: str
) -> None:
    assert judge(status, error).error_class == error_class


# https://docs.claude.com/en/api/errors
@pytest.mark.parametrize(
    ("status", "kind", "error_class"),
    [
        (400, "invalid_request_error", "client_error"),
        (401, "authentication_error", "auth_failed"),
        (402, "billing_error", "quota_exhausted"),
        (403, "permission_error", "forbidden"),
        (404, "not_found_error", "model_not_found"),
        (409, "conflict_error", "conflict"),
        (413, "request_too_large", "client_error"),
        (429, "rate_limit_error", "rate_limited"),
        (500, "api_error", "server_error"),
        (504, "timeout_error", "timeout"),
        (529, "overloaded_error", "overloaded"),
    ],
)
def test_anthropic_s_errors_mean_the_same_with_a_status_and_within_a_stream(
    status: int, kind: str, error_class: str
) -> None:
    body = orjson.dumps({"type": "error", "error": {"type": kind, "message": "no"}})
    for given_status in (status, None):
        assert classify(given_status, orjson.loads(body), body).error_class == error_class


# As the API words them: github.com/anthropics/claude-code issues 66314, 38035, 29584; OpenAI's 429
# for one request that is larger than a minute's limit.
@pytest.mark.parametrize(
    ("status", "message", "error_class"),
    [
        (400, "Your credit balance is too low to access the Anthropic API.", "quota_exhausted"),
        (400, "You have reached your specified API usage limits.", "quota_exhausted"),
        (400, "This organization has been disabled.", "forbidden"),
        (429, "Extra usage is required for long context requests.", "request_over_rate"),
        (429, ("Request too large for gpt-4o in organization org-1 on tokens per min (TPM): "
              "Limit 30000, Requested 50000."), "request_over_rate"),
        (429, "Number of request tokens has exceeded your per-minute rate limit", "rate_limited"),
    ],
)  # fmt: skip
def test_what_is_no_fault_of_the_caller_is_told_by_its_text(
    status: int, message: str, error_class: str
) -> None:
    error = judge(status, {"type": "invalid_request_error", "message": message})
    assert error.error_class == error_class
    assert error.body == b"", "it speaks of our account"


@pytest.mark.parametrize("status", [500, 502, 503, 529])
@pytest.mark.parametrize(
    "error",
    [
        {"code": "content_policy_violation"},
        {"type": "content_filter"},
        {"code": "context_length_exceeded"},
        {"type": "request_too_large"},
        {"message": "maximum context length is 5 tokens"},
    ],
)
def test_a_broken_server_is_not_believed_when_it_blames_the_caller(
    status: int, error: object
) -> None:
    found = judge(status, error)
    assert found.error_class == ("overloaded" if status == 529 else "server_error")
    assert (found.next_step, found.body) == ("failover", b"")


def test_an_overflow_is_seen_in_a_body_that_is_no_json() -> None:
    assert classify(400, None, b"input is too long").error_class == "context_overflow"


# Older vLLM and newer: ErrorResponse in vllm/entrypoints/openai/protocol.py; issue 4667 quotes one
TOP = (
    b'{"object":"error","message":"This model\'s maximum context length is 16 tokens.",'
    b'"type":"BadRequestError","param":null,"code":400}'
)
NESTED = b'{"error":{"message":"bad \\"seed\\"","type":"BadRequestError","param":null,"code":400}}'


def test_fields_at_the_top_are_read_and_relayed_like_an_error_object() -> None:
    found = classify(400, orjson.loads(TOP), TOP)
    assert (found.error_class, found.context_tokens) == ("context_overflow", 16)
    assert orjson.loads(found.body) == {
        "error": {
            "message": "This model's maximum context length is 16 tokens.",
            "type": "BadRequestError",
            "param": None,
            "code": "400",
        }
    }
    assert classify(400, orjson.loads(NESTED), NESTED).body == NESTED


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'[{"error":{"code":400,"message":"bad seed","status":"INVALID_ARGUMENT"}}]', "400"),
        (b'{"error":"bad seed","error_type":"validation"}', None),
        (b'{"detail":"bad seed"}', None),
    ],
)
def test_what_a_compatible_server_says_in_a_shape_of_its_own_gets_the_envelope(
    body: bytes, code: str | None
) -> None:
    found = classify(400, orjson.loads(body), body)
    assert found.error_class == "client_error"
    assert orjson.loads(found.body)["error"] == {
        "message": "bad seed", "type": None, "param": None, "code": code,
    }  # fmt: skip


@pytest.mark.parametrize("data", [TOP, NESTED])
def test_both_shapes_are_seen_in_a_stream(data: bytes) -> None:
    found = CHAT.fault_of(data)
    assert found is not None
    assert found.status == 400


def test_a_fault_that_stops_always_has_a_status_to_answer_with() -> None:
    found = CHAT.fault_of(b'{"error":{"type":"invalid_request_error","message":"no"}}')
    assert found is not None
    assert (found.next_step, found.status) == ("stop", 400)
    assert b"invalid_request_error" in found.body


@pytest.mark.parametrize("data", [b"[DONE]", b'{"choices":[]}', b'{"error":null}', b'{"error":""}'])
def test_what_reports_no_error_is_no_fault(data: bytes) -> None:
    assert CHAT.fault_of(data) is None


# --- the table ----------------------------------------------------------------------------------


def test_a_refusal_costs_nothing_but_what_came_late_or_within_an_answer_may() -> None:
    assert not any(judge(status, {}).sent for status in (400, 401, 403, 404, 429, 500, 503, 529))
    assert all(judge(status, {}).sent for status in (408, 504, 524))
    assert judge(None, {"type": "overloaded_error"}).sent


def test_only_the_caller_s_faults_are_held_against_nobody() -> None:
    blameless = {name for name, row in ERROR_CLASSES.items() if not row.counts}
    assert blameless == {
        "client_error", "content_policy", "context_overflow", "request_over_rate",
    }  # fmt: skip


# --- anything -----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
WORDS = st.sampled_from(
    ["content_filter", "context_length_exceeded", "request_too_large", "429", "503", "api_error"]
)
ERROR_FIELDS = st.dictionaries(
    st.sampled_from(["code", "type", "message", "param", "object"]), JSON | WORDS
)


@given(
    st.none() | st.integers(400, 599),
    JSON | ERROR_FIELDS | ERROR_FIELDS.map(lambda e: {"error": e}),
)
def test_any_error_body_has_a_verdict_from_the_table(status: int | None, payload: object) -> None:
    error = classify(status, payload, orjson.dumps(payload))
    row = ERROR_CLASSES[error.error_class]
    assert error.next_step == row.next_step
    assert error.sent == (status is None or row.may_charge)
    if error.next_step == "stop":
        assert error.status is not None
        assert 400 <= error.status < 500


@given(st.binary(max_size=80))
def test_any_event_is_judged(data: bytes) -> None:
    found = CHAT.fault_of(data)
    assert found is None or found.error_class in ERROR_CLASSES


def test_an_error_that_is_nested_beyond_reason_has_a_verdict() -> None:
    deep = b"[" * 900 + b"]" * 900
    for name in (b"message", b"code", b"type", b"error"):
        body = b'{"message":"no","%b":%b}' % (name, deep)
        assert classify(400, orjson.loads(body), body).error_class == "client_error"


# --- Retry-After --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("milliseconds", "value", "seconds"),
    [
        ("", "7", 7.0),
        ("", "0.5", 0.5),
        ("", "0", 0.0),
        ("1500", "7", 1.5),
        ("x", "7", 7.0),
        ("", "Fri, 15 Jan 2027 08:01:00 GMT", 60.0),
        ("", "Fri, 15 Jan 2027 07:59:00 GMT", 0.0),
        ("", "Fri, 15 Jan 2037 08:00:00 GMT", RETRY_AFTER_SECS_MAX),
        ("", "86400", RETRY_AFTER_SECS_MAX),
        ("", "-5", None),
        ("", "nan", None),
        ("", "soon", None),
        ("", "", None),
    ],
)
def test_retry_after_is_read_in_every_form(
    milliseconds: str, value: str, seconds: float | None
) -> None:
    assert parse_retry_after(milliseconds, value, NOW) == seconds


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_retry_after_breaks_the_reader(milliseconds: str, value: str) -> None:
    seconds = parse_retry_after(milliseconds, value, NOW)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_SECS_MAX

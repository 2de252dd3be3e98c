"""Errors as Anthropic's clients read them, whoever they come from."""

from __future__ import annotations

import orjson
import pytest

from tokenhub.dialects.messages import MESSAGES
from tokenhub.dialects.messages.errors import error_event
from tokenhub.errors import (
    AllAttemptsFailed,
    BodyTooLarge,
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    NoEligibleModel,
    NotFound,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    RequestTimeout,
    SchemaUnmet,
    TokenHubError,
    Unauthenticated,
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("x"), "invalid_request_error"),
        (Unauthenticated("x"), "authentication_error"),
        (PermissionDenied("x"), "permission_error"),
        (NotFound("x"), "not_found_error"),
        (RequestTimeout("x"), "timeout_error"),
        (Conflict("x"), "invalid_request_error"),
        (BodyTooLarge("x"), "request_too_large"),
        (SchemaUnmet("x"), "invalid_request_error"),
        (RateLimited("x"), "rate_limit_error"),
        (QuotaExceeded("x"), "rate_limit_error"),
        (TokenHubError("x"), "api_error"),
        (AllAttemptsFailed("x"), "api_error"),
        (NoEligibleModel("x"), "overloaded_error"),
        (DeadlineExceeded("x"), "timeout_error"),
    ],
)
def test_our_errors_have_anthropic_s_word_for_their_status(error, kind):
    found = MESSAGES.error_body(error, "req-1")
    assert (found["type"], found["request_id"]) == ("error", "req-1")
    assert found["error"]["type"] == kind
    assert found["error"]["message"] == "x"


@pytest.mark.parametrize(("status", "kind"), [(402, "billing_error"), (529, "overloaded_error")])
def test_statuses_that_we_do_not_give_have_their_word_too(status, kind):
    error = TokenHubError("x")
    error.status = status
    assert MESSAGES.error_body(error, "r")["error"]["type"] == kind


def test_what_is_told_besides_is_kept():
    error = QuotaExceeded("spent", param="p", details={"reset_at": 5, "type": "team"})
    assert MESSAGES.error_body(error, "r")["error"] == {
        "type": "rate_limit_error", "message": "spent", "param": "p",
        "code": "insufficient_quota", "reset_at": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "no"},
          "request_id": "req_theirs"}, 400, {"type": "invalid_request_error", "message": "no"}),
        ({"error": {"message": "no", "type": "BadRequestError", "param": None, "code": 400}}, 400,
         {"type": "invalid_request_error", "message": "no", "code": 400}),
        ({"error": {"message": "no", "type": "tokens", "param": "p", "code": "c"}}, 413,
         {"type": "request_too_large", "message": "no", "param": "p", "code": "c"}),
        ({"error": {"message": "This model's maximum context length is 8192 tokens.",
                    "code": "context_length_exceeded"}}, 400,
         {"type": "invalid_request_error", "code": "context_length_exceeded",
          "message": "prompt is too long: This model's maximum context length is 8192 tokens."}),
        ({"type": "error", "error": {"type": "invalid_request_error",
                                     "message": "prompt is too long: 9 tokens > 8 maximum"}}, 400,
         {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8 maximum"}),
        ({"error": {"message": None}}, 400,
         {"type": "invalid_request_error",
          "message": "the provider refused the request and did not say why"}),
    ],
)  # fmt: skip
def test_a_provider_s_refusal_is_relayed_whichever_envelope_it_came_in(body, status, error):
    found = MESSAGES.relayed_error(orjson.dumps(body), status, "ours")
    assert found is not None
    assert orjson.loads(found) == {"type": "error", "error": error, "request_id": "ours"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"error":"no"}'])
def test_what_is_no_envelope_is_not_relayed(body):
    assert MESSAGES.relayed_error(body, 400, "ours") is None


def test_a_stream_that_breaks_off_ends_with_an_error_event():
    found = error_event(ProviderError("x", error_class="rate_limited"))
    name, _, data = found.partition(b"\ndata: ")
    assert name == b"event: error"
    assert orjson.loads(data)["error"]["type"] == "rate_limit_error"

"""Everything that can go wrong on purpose, as one tree.

TokenHubError                 what the caller sees: HTTP status, type, stable code
├─ RequestRefused             InvalidRequest 400 (Untranslatable) · Unauthenticated 401
│                             PermissionDenied 403 · NotFound 404 · Conflict 409
│                             PreconditionFailed 412 · RequestTimeout 408 · BodyTooLarge 413
│                             RateLimited 429 · QuotaExceeded 429 · Unavailable 503
├─ RoutingError               NoEligibleModel 503 · AllAttemptsFailed 502|429|504
│                             UpstreamRefused (the provider's verdict on the caller's request)
└─ VaultError                 VaultLocked 503 · WrongPassword 401
ProviderError                 one attempt's failure; `next_step` tells the gateway what follows,
                              and it never leaves the gateway
ClientClosed                  the caller went away (a BaseException: nothing may swallow it)

Knows nothing of HTTP libraries: `web` turns these into responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

NextStep = Literal["failover", "cooldown", "stop"]
"""failover: the next candidate, and this failure counts against the model.
cooldown: the next candidate, and this model rests (for Retry-After when given).
stop: the caller's fault; no other model would answer differently."""


class ConfigError(Exception):
    """Settings that do not make sense, all of them at once."""


class ClientClosed(BaseException):
    """The caller closed the connection; raised inside the request's greenlet by the worker."""


class TokenHubError(Exception):
    """Anything a caller is told: `status`, `type` and `code` go into the error envelope."""

    status = 500
    type = "server_error"
    code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.param = param
        self.headers = dict(headers or {})
        self.details = dict(details or {})


class RequestRefused(TokenHubError):
    """The request cannot be served as it is."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidRequest(RequestRefused):
    """Malformed, of the wrong type, or out of range; `param` names the field."""


class Untranslatable(InvalidRequest):
    """The request asks for something that the provider's dialect cannot say; another's may."""

    code = "unsupported_parameter"


class Unauthenticated(RequestRefused):
    """No credential, or one we do not know."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class PermissionDenied(RequestRefused):
    """A known caller who may not do this."""

    status = 403
    type = "permission_error"
    code = "insufficient_scope"


class NotFound(RequestRefused):
    """No such thing."""

    status = 404
    type = "not_found_error"
    code = "not_found"


class RequestTimeout(RequestRefused):
    """The caller was too slow to send its request."""

    status = 408
    type = "timeout_error"
    code = "request_timeout"


class Conflict(RequestRefused):
    """The thing is not in the state the request assumes."""

    status = 409
    type = "conflict_error"
    code = "conflict"


class PreconditionFailed(RequestRefused):
    """The thing is another version than the one that `If-Match` names; `details["revision"]` has
    the one that it is, None = there is none."""

    status = 412
    type = "conflict_error"
    code = "revision_mismatch"


class RateLimited(RequestRefused):
    """Too many requests or tokens in a window, or too many at once; `Retry-After` says when."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class QuotaExceeded(RequestRefused):
    """A hard budget does not allow for the request.

    `insufficient_quota`: it is spent, and the same request will not do before `reset_at`.
    `budget_in_flight`: what is left is only reserved by requests in flight.
    """

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"


class BodyTooLarge(RequestRefused):
    """More bytes than we accept."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class Unavailable(RequestRefused):
    """We cannot serve this now: no journal room, no database, no snapshot."""

    status = 503
    type = "server_error"
    code = "unavailable"


class RoutingError(TokenHubError):
    """The request was fine; no model answered it."""

    status = 502
    code = "all_attempts_failed"


class NoEligibleModel(RoutingError):
    """Every model was left out; `details["skips"]` counts why."""

    status = 503
    code = "no_eligible_model"


class AllAttemptsFailed(RoutingError):
    """Every candidate was tried. 429 when all were rate limited, 503 when all were overloaded, 504
    on the deadline, else 502."""


class DeadlineExceeded(RoutingError):
    """The time that the caller gave is over; that is nobody's fault but the caller's."""

    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"


class SchemaUnmet(RoutingError):
    """The model's answers do not keep to the schema that was asked for; `details["errors"]`."""

    status = 422
    type = "invalid_request_error"
    code = "schema_unmet"


class UpstreamRefused(RoutingError):
    """The provider judged the caller's request (400, 413, 422); relayed as it came."""

    type = "invalid_request_error"

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__("the provider refused the request", code="upstream_refused")
        self.status = status
        self.body = body


class VaultError(TokenHubError):
    """The vault cannot do this."""


class VaultLocked(VaultError):
    """Secrets are needed and the vault is locked or was never set up."""

    status = 503
    code = "vault_locked"


class WrongPassword(VaultError):
    """The password does not open the vault; nothing was changed."""

    status = 401
    type = "authentication_error"
    code = "wrong_password"


class ProviderError(Exception):
    """One attempt failed.

    Args:
        message: our own words, safe to log; never the provider's text.
        error_class: a stable word for logs and metrics.
        next_step: what the gateway does next.
        status: the provider's HTTP status, if it gave one.
        retry_after_seconds: what the provider asked for, if it did.
        body: the provider's answer, relayed only when next_step is "stop".
        sent: whether the provider may have worked (and charged) for it.
        context_tokens: of a context overflow, the model's window, if the provider told it.
        input_tokens: of a context overflow, the exact size of the prompt, if it told that.
        output_tokens_max: of a context overflow, the longest answer that the model gives, if
            that is what was exceeded.

    Attributes:
        response_bytes: of the answer's body, as far as it came.
        said: the whole answer of a refusal, for an operator who asks; for nobody else.
    """

    def __init__(
        self,
        message: str,
        *,
        error_class: str,
        next_step: NextStep = "failover",
        status: int | None = None,
        retry_after_seconds: float | None = None,
        body: bytes = b"",
        sent: bool = True,
        context_tokens: int | None = None,
        input_tokens: int | None = None,
        output_tokens_max: int | None = None,
    ) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.next_step: NextStep = next_step
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.body = body
        self.sent = sent
        self.context_tokens = context_tokens
        self.input_tokens = input_tokens
        self.output_tokens_max = output_tokens_max
        self.response_bytes = 0
        self.said = b""

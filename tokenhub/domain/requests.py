"""What becomes of a request: what was asked, who may answer, what was tried, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from tokenhub.domain.catalog import ApiKey, Mode, Model, Team

Dialect = Literal["chat", "messages", "responses", "completions", "embeddings"]
"""What a request is written in: OpenAI's chat completions, Anthropic's Messages, OpenAI's
Responses, OpenAI's older completions, OpenAI's embeddings."""

Ending = Literal["answered", "rescued", "failed", "cut", "refused", "client_closed", "interrupted"]
"""How a request ended. rescued: answered after a failover. failed: no answer. cut: the stream broke
after it had begun. refused: the caller's own fault. client_closed: the caller left. interrupted:
our process died before it could say."""
ENDINGS: tuple[Ending, ...] = (
    "answered", "rescued", "failed", "cut", "refused", "client_closed", "interrupted",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in one normal form: input = uncached + cache_read + cache_write.

    `output_tokens` includes `reasoning_tokens`. `is_estimate` is set when the provider did not say
    and we counted what we saw.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What the caller allows. A budget or deadline that the caller gave is hard; defaults rank.

    Args:
        latency_is_hard: answer within `max_latency_ms` (a stream: begin to), or not at all.
        tags: only models that have all of these.
        fallbacks: who may answer instead of the named model, in order; None = as the model says.
        exclude: models and providers, by id, that must not answer.
    """

    mode: Mode = "normal"
    max_budget_nanousd: int = 0
    budget_is_hard: bool = False
    max_latency_ms: int = 0
    latency_is_hard: bool = False
    min_weight: int = 0
    tags: frozenset[str] = frozenset()
    fallbacks: tuple[str, ...] | None = None
    exclude: frozenset[str] = frozenset()


ESCALATED = "escalated-context-overflow"
"""Why it is the turn of a model with a larger context than one that the request did not fit."""


@dataclass(slots=True)
class ChatRequest:
    """A request to a model after its one parse.

    Args:
        body: the parsed JSON object in the words of `dialect`, unknown fields included; what it
            says to the model is checked.
        model: what the caller asked for; "" or "*" leaves the choice to us.
        input_tokens: our estimate (see pricing.estimate_input_tokens).
        output_tokens_max: the caller's limit, or None.
        wants_usage: the caller asked for the usage chunk of a stream.
        needs: the capabilities that a model must have to serve it, besides the one to be asked at
            all: `embeddings` for those, `chat` for all else.
        headers: what its caller's headers say to a provider of the same dialect.
        sticky_key: what an alias keeps a caller with its variant by; "" = nothing was given.
    """

    body: dict[str, Any]
    model: str
    stream: bool
    input_tokens: int
    output_tokens_max: int | None = None
    choices: int = 1
    wants_usage: bool = False
    needs: frozenset[str] = frozenset()
    dialect: Dialect = "chat"
    headers: Mapping[str, str] = field(default_factory=dict)
    sticky_key: str = ""


class Candidate(NamedTuple):
    """A model that may serve the request.

    Args:
        reason: why it is among them, if that is not its score alone.
    """

    model: Model
    score: float
    propensity: float
    cost_nanousd: int | None  # estimate; None = unknown price
    reason: str = ""


class Decision(NamedTuple):
    """Who may serve the request, in order, and why the others may not.

    `last_resort` is tried, cheapest first, only when every candidate failed: models that were left
    out for a preference (weight floor, default budget, cooldown), never for a hard limit.
    `alias_from` is the alias that the caller named, if it named one; `brought_by` has, by model,
    the alias by whose name a fallback came in.
    """

    candidates: tuple[Candidate, ...]
    last_resort: tuple[Candidate, ...]
    skips: Mapping[str, str]  # model id -> reason
    reason: str
    mode: Mode
    snapshot_version: int
    alias_from: str = ""
    brought_by: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace that a request is part of (https://www.w3.org/TR/trace-context/); ids in hex.

    Args:
        span_id: of the request's own span, which those of its attempts are below.
        parent_id: of its caller's; "" = the trace begins here.
        state: `tracestate`, handed on as it came.
        is_sampled: whether anybody wants to see its spans.
    """

    id: str
    span_id: str
    parent_id: str = ""
    state: str = ""
    is_sampled: bool = True


@dataclass(slots=True)
class Span:
    """An attempt's part of a trace, and what its answer says that only a trace shows."""

    id: str
    response_model: str = ""
    finish_reasons: tuple[str, ...] = ()


class Attempt(NamedTuple):
    """One call to one provider, finished.

    Args:
        reason: why it was this model's turn, as in `X-TokenHub-Reason`.
        next_step: what its failure called for: stop, retry, failover, cooldown or escalate.
        response_bytes: of its answer's body, as far as it came.
        span: None = nothing is traced.
    """

    model_id: str
    provider_id: str
    started_ms: int  # since the request arrived
    duration_ms: int
    ttft_ms: int | None = None
    status: int | None = None
    error_class: str = ""
    usage: Usage = Usage()
    cost_nanousd: int | None = 0
    price_version: int = 0
    reason: str = ""
    next_step: str = ""
    response_bytes: int = 0
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Args:
        team: the key's; None = it belongs to none.
        trace: None = nothing is traced.
    """

    key: ApiKey
    client_ip: str
    request_id: str
    client_request_id: str = ""
    team: Team | None = None
    trace: Trace | None = None


@dataclass(slots=True)
class Outcome:
    """What happened, from first byte to last; the one thing that is recorded.

    Attributes:
        candidates: who might have answered the first call, the best one first.
        policy: what applied to it; None = it was refused before that was known.
        policy_from: where what is not the default of a policy comes from: key, header, body,
            directive.
        trace_id: of the trace that it is part of, in hex; "" = none.
        trace: the same, and its place in it; None = nothing is traced.
    """

    request_id: str
    key_id: str
    endpoint: str
    mode: Mode
    stream: bool
    started_at: int  # unix ms
    team_id: str = ""
    client_ip: str = ""
    client_request_id: str = ""
    requested_model: str = ""
    alias_from: str = ""
    ending: Ending = "failed"
    status: int = 0  # what the caller was answered
    error_class: str = ""
    model_id: str = ""
    provider_id: str = ""
    reason: str = ""
    snapshot_version: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    usage: Usage = Usage()
    cost_nanousd: int | None = 0  # of all attempts; None = a price was unknown
    price_version: int = 0
    latency_ms: int = 0
    ttft_ms: int | None = None
    overhead_us: int = 0
    estimated_input_tokens: int = 0
    response_bytes: int = 0
    skips: Mapping[str, str] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()
    policy: Policy | None = None
    policy_from: Mapping[str, str] = field(default_factory=dict)
    trace_id: str = ""
    trace: Trace | None = None

"""The nouns: frozen values that every layer passes around.

Money is integer nano-dollars (1 USD = 10**9). Prices are nano-dollars per million tokens, so that
any published price is exact. Times are unix milliseconds, UTC, and end in `_at`; durations carry
their unit. Nothing here does I/O or knows the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

NANOS_PER_USD = 10**9

Mode = Literal["cheap", "normal", "high_confidence", "planning", "adversarial", "thompson"]
MODES: tuple[Mode, ...] = (
    "cheap", "normal", "high_confidence", "planning", "adversarial", "thompson",
)  # fmt: skip

Ending = Literal["answered", "rescued", "failed", "cut", "refused", "client_closed", "interrupted"]
"""How a request ended. rescued: answered after a failover. failed: no answer. cut: the stream broke
after it had begun. refused: the caller's own fault. client_closed: the caller left. interrupted:
our process died before it could say."""
ENDINGS: tuple[Ending, ...] = (
    "answered", "rescued", "failed", "cut", "refused", "client_closed", "interrupted",
)  # fmt: skip

SCOPES = frozenset({"chat", "embeddings", "media", "plan"})
DEFAULT_SCOPES = ("chat", "plan", "embeddings")

CAPABILITIES = ("chat", "embeddings", "vision", "tools", "json")
"""What a model can be asked for: to converse, to embed, to look at images, to call tools, and to
answer in the shape of a JSON schema."""


SECRET_PREFIX = "secret:"  # noqa: S105 - how names begin, not a secret
"""How the names of the vault's entries begin that are an operator's own, and no provider's."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An account at an endpoint. Its key is not here: secrets are looked up when needed.

    Args:
        endpoints: base URLs of further servers that hold the same models; requests go round.
    """

    id: str
    type: str
    base_url: str
    enabled: bool = True
    cred_store: str = "none"  # vault | file | none
    demo: bool = False
    endpoints: tuple[str, ...] = ()
    revision: int = 1

    def sends_key_as(self, other: Provider) -> bool:
        """Whether its key is the other's, and goes nowhere and in no way that that one does not."""
        is_alike = (self.type, self.cred_store) == (other.type, other.cred_store)
        return is_alike and {self.base_url, *self.endpoints} <= {other.base_url, *other.endpoints}


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in nano-dollars per million tokens; None means unknown, 0 means free."""

    input_per_mtok: int | None = None
    output_per_mtok: int | None = None
    cache_read_per_mtok: int | None = None
    cache_write_per_mtok: int | None = None
    version: int = 0

    @property
    def is_known(self) -> bool:
        return self.input_per_mtok is not None and self.output_per_mtok is not None


@dataclass(frozen=True, slots=True)
class Model:
    """One model at one provider.

    Args:
        max_context_tokens, max_output_tokens: 0 = unknown.
        pricing_source: who set the price (manual, litellm, provider).
        pricing_origin: the table that an imported price came from, and its entry there.
        capabilities: words of CAPABILITIES; empty = unknown.
    """

    id: str
    provider_id: str
    upstream_model: str
    weight: int = 5
    max_context_tokens: int = 0
    max_output_tokens: int = 0
    price: Price = Price()
    enabled: bool = True
    pricing_source: str = "manual"
    pricing_origin: str = ""
    capabilities: tuple[str, ...] = ()
    tool_name_map: Mapping[str, str] = field(default_factory=dict)
    gemma4_output: bool = False
    created_at: int = 0
    revision: int = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once; 0 = no limit. A key's own and its team's both hold.

    Args:
        rps: requests per second.
        rpm, tpm: requests and tokens per minute.
        parallel: requests in flight.
    """

    rps: float = 0.0
    rpm: int = 0
    tpm: int = 0
    parallel: int = 0


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A caller's key as the Snapshot knows it; the secret itself is nowhere.

    Args:
        previous_sha256, previous_until: the secret before the last rotation, and until when it
            still opens.
        expires_at: already the earlier of the key's expiry and the moment its rotation is due.
        rotation_due_at: that moment; None = it need not be rotated.
        models: ids it may use, `*` at the end for any that begin so; empty = all.
        networks: where it may be used from, as CIDR; empty = anywhere.
        directives: whether it may steer routing from within its prompts.
        policy: what applies when its requests do not say (mode, max_budget_usd, …).
    """

    id: str
    name: str
    prefix: str
    sha256: bytes
    bcrypt_hash: str
    scopes: frozenset[str] = frozenset(DEFAULT_SCOPES)
    enabled: bool = True
    expires_at: int | None = None
    rotation_due_at: int | None = None
    revision: int = 1
    previous_sha256: bytes = b""
    previous_bcrypt_hash: str = ""
    previous_until: int | None = None
    owner: str = ""
    team_id: str = ""
    tags: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    directives: bool = False
    policy: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = NO_LIMITS

    @property
    def digests(self) -> tuple[bytes, ...]:
        """What it is found by: its secret's, and that of the one before where one is kept."""
        return (self.sha256, self.previous_sha256) if self.previous_sha256 else (self.sha256,)


@dataclass(frozen=True, slots=True)
class Team:
    """Keys that share limits and budgets. A disabled team's keys are refused."""

    id: str
    name: str
    enabled: bool = True
    models: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS
    created_at: int = 0
    revision: int = 1


@dataclass(frozen=True, slots=True)
class VaultRow:
    """The vault as stored. Neither the password nor the data key can be had from it alone.

    Args:
        kdf: how the wrapping key is derived from the password, JSON.
        wrapped_key: the data key under the wrapping key.
    """

    id: str
    kdf: str
    salt: bytes = field(repr=False)
    wrapped_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RoutingDefaults:
    """What applies when the caller does not say; the defaults only rank."""

    mode: Mode = "normal"
    max_budget_nanousd: int = 50_000_000
    max_latency_ms: int = 120_000


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
    """What the caller allows. A budget or deadline that the caller gave is hard; defaults rank."""

    mode: Mode = "normal"
    max_budget_nanousd: int = 0
    budget_is_hard: bool = False
    max_latency_ms: int = 0
    min_weight: int = 0


@dataclass(slots=True)
class ChatRequest:
    """A chat request after its one parse.

    Args:
        body: the parsed JSON object, unknown fields included; `messages` is checked.
        model: what the caller asked for; "" or "*" leaves the choice to us.
        input_tokens: our estimate (see pricing.estimate_input_tokens).
        output_tokens_max: the caller's limit, or None.
        wants_usage: the caller asked for the usage chunk of a stream.
        needs: the capabilities that a model must have to serve it, besides `chat`.
    """

    body: dict[str, Any]
    model: str
    stream: bool
    input_tokens: int
    output_tokens_max: int | None = None
    choices: int = 1
    wants_usage: bool = False
    needs: frozenset[str] = frozenset()


class Candidate(NamedTuple):
    """A model that may serve the request."""

    model: Model
    score: float
    propensity: float
    cost_nanousd: int | None  # estimate; None = unknown price


class Decision(NamedTuple):
    """Who may serve the request, in order, and why the others may not.

    `last_resort` is tried, cheapest first, only when every candidate failed: models that were left
    out for a preference (weight floor, default budget, cooldown), never for a hard limit.
    """

    candidates: tuple[Candidate, ...]
    last_resort: tuple[Candidate, ...]
    skips: Mapping[str, str]  # model id -> reason
    reason: str
    mode: Mode
    snapshot_version: int


class Attempt(NamedTuple):
    """One call to one provider, finished."""

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


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Args:
        team: the key's; None = it belongs to none.
    """

    key: ApiKey
    client_ip: str
    request_id: str
    client_request_id: str = ""
    team: Team | None = None


@dataclass(slots=True)
class Outcome:
    """What happened, from first byte to last; the one thing that is recorded."""

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

"""What an administrator sets up: providers, models, aliases, keys, teams, defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

NANOS_PER_USD = 10**9

Mode = Literal["cheap", "normal", "high_confidence", "planning", "adversarial", "thompson"]
MODES: tuple[Mode, ...] = (
    "cheap", "normal", "high_confidence", "planning", "adversarial", "thompson",
)  # fmt: skip

SCOPES = frozenset({"chat", "embeddings", "media", "plan"})
DEFAULT_SCOPES = ("chat", "plan", "embeddings")

CAPABILITIES = ("chat", "embeddings", "vision", "tools", "json", "completions")
"""What a model can be asked for: to converse, to embed, to look at images, to call tools, to answer
in the shape of a JSON schema, and to continue a text at its provider's `/v1/completions`."""


SECRET_PREFIX = "secret:"  # noqa: S105 - how names begin, not a secret
"""How the names of the vault's entries begin that are an operator's own, and no provider's."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An account at an endpoint. Its key is not here: secrets are looked up when needed.

    Args:
        endpoints: base URLs of further servers that hold the same models; requests go round.
        native_responses: whether it speaks OpenAI's Responses dialect itself.
    """

    id: str
    type: str
    base_url: str
    enabled: bool = True
    cred_store: str = "none"  # vault | file | none
    demo: bool = False
    endpoints: tuple[str, ...] = ()
    native_responses: bool = False
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
        tags: the operator's own words; a request may ask for models that have some.
        fallbacks: who may answer instead of it when it is named, in order; empty = anybody.
        tool_name_map: the name of a tool as the model calls it, and as the caller does.
        gemma4_output: it writes its thoughts and tool calls into the text as Gemma 4 does.
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
    tags: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
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
        model_limits: what it may ask of one model at once, by model id.
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
    model_limits: Mapping[str, Limits] = field(default_factory=dict)

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


class Variant(NamedTuple):
    """One of the models behind an alias, and its share of the requests."""

    model_id: str
    weight: int


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that callers use for one of several models.

    Args:
        variants: at least one; in the view of a key that is allowed none of them, none.
        sticky_by: what keeps a caller with its variant: request, api_key or round_robin.
    """

    name: str
    variants: tuple[Variant, ...]
    enabled: bool = True
    sticky_by: str = "request"
    created_at: int = 0
    updated_at: int = 0
    revision: int = 1


@dataclass(frozen=True, slots=True)
class Drain:
    """A provider or a model that an operator keeps out of use for a while: as if it rested.

    Args:
        until_at: unix ms.
        actor: whose doing it is.
    """

    until_at: int
    reason: str
    actor: str


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

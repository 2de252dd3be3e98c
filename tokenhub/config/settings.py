"""Settings: one row per variable, one parser, all problems reported at once.

A row is a field of `Settings` made by `_row`; `docs/settings.md` and `.env.example` are rendered
from the same rows (`python -m tokenhub settings docs|env`). Reads only what it is given: the
caller passes the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tokenhub.config import environment, values
from tokenhub.config.values import Address, Network
from tokenhub.errors import ConfigError


@dataclass(frozen=True)
class Row:
    """How one setting is read and explained."""

    parse: Callable[[str], Any]
    default: str  # as one would write it; "" = unset
    help: str
    section: str
    secret: bool = False


def _row(
    section: str, parse: Callable[[str], Any], default: str, help: str, *, secret: bool = False
) -> Any:
    return field(metadata={"row": Row(parse, default, help, section, secret)})


@dataclass(frozen=True)
class Settings:
    """Every setting of a running gateway; build it with `Settings.from_env`."""

    listen_addr: Address = _row(
        "Server",
        values.address,
        "127.0.0.1:8080",
        "Where to listen; `:8080` means every interface.",
    )
    workers: int = _row(
        "Server", values.integer(0, 64), "0", "Worker processes; 0 means one for each core."
    )
    data_dir: Path = _row(
        "Server",
        values.path,
        environment.DATA_DIR,
        "Local directory for the journal, the host id and token files. One gateway per directory.",
    )
    env_file: Path | None = _row(
        "Server",
        values.path,
        "",
        "File of KEY=VALUE lines that override the environment. Unset: `settings.env` in the data "
        "directory, if it is there.",
    )
    log_level: str = _row(
        "Server",
        values.one_of("debug", "info", "warn", "error"),
        "info",
        "Least level that is logged.",
    )
    access_log: str = _row(
        "Server",
        values.one_of("off", "errors", "all"),
        "errors",
        "A log line for each HTTP request: none, those that came to nothing (400 and above), all.",
    )
    shutdown_drain_secs: int = _row(
        "Server",
        values.integer(1, 3600),
        "30",
        "How long requests and streams may still run after SIGTERM.",
    )
    max_body_mb: int = _row(
        "Server", values.integer(1, 1024), "10", "Largest request body, in MiB; more is 413."
    )
    trusted_proxies: tuple[Network, ...] = _row(
        "Server",
        values.networks,
        "",
        "Comma-separated networks whose `X-Forwarded-For` is believed. Unset: nobody's.",
    )
    db_dsn: str = _row(
        "Database",
        values.dsn,
        "",
        "SQLite file (`sqlite:///path`, `file:path` or a path) or `postgresql://…`. Unset: "
        "`tokenhub.sqlite` in the data directory.",
        secret=True,
    )
    max_stale_secs: int = _row(
        "Database",
        values.integer(1, 86400),
        "60",
        "How long the gateway stays ready while the database is away.",
    )
    log_retention_days: int = _row(
        "Database",
        values.integer(1, 3650),
        "90",
        "How long the request, attempt, reward and audit logs are kept; sums by the hour and the "
        "day are kept longer.",
    )
    db_pool_size: int = _row(
        "Database",
        values.integer(1, 100),
        "5",
        "Most Postgres connections of one worker; workers × pool must fit into the server's limit.",
    )
    journal_sync_ms: int = _row(
        "Journal",
        values.integer(10, 10000),
        "200",
        "How often the journal is forced to disk: the most that a power loss may cost.",
    )
    journal_max_mb: int = _row(
        "Journal",
        values.integer(64, 1 << 20),
        "4096",
        "Most disk, in MiB, that requests not yet in the database may take; then 503 "
        "`journal_full`.",
    )
    admin_token: str = _row(
        "Access",
        values.any_text,
        "",
        "Token of the admin API. Unset: made at the first start and kept in `.admin-token`.",
        secret=True,
    )
    metrics_token: str = _row(
        "Access",
        values.any_text,
        "",
        "Token that may read `/metrics`, besides the admin token.",
        secret=True,
    )
    metrics_public: bool = _row(
        "Access", values.boolean, "false", "Serve `/metrics` without a token."
    )
    public_models: bool = _row(
        "Access", values.boolean, "false", "Serve `/v1/models` without a key."
    )
    session_secs: int = _row(
        "Access",
        values.integer(60, 31_536_000),
        "43200",
        "How long a browser session of the admin API lasts.",
    )
    cors_origins: tuple[str, ...] = _row(
        "Access",
        values.words,
        "",
        "Origins whose pages may call the client API from a browser, separated by commas; `*` = "
        "any. Unset: none.",
    )
    rate_limit_rps: float = _row(
        "Limits",
        values.decimal(0, 1_000_000),
        "60",
        "Requests per second from one client address; 0 = no limit.",
    )
    rate_limit_burst: int = _row(
        "Limits",
        values.integer(1, 1_000_000),
        "120",
        "How many requests one client address may send at once.",
    )
    admin_rate_limit_rps: float = _row(
        "Limits",
        values.decimal(0, 1_000_000),
        "30",
        "As `TOKENHUB_RATE_LIMIT_RPS`, for the admin API.",
    )
    admin_rate_limit_burst: int = _row(
        "Limits",
        values.integer(1, 1_000_000),
        "60",
        "As `TOKENHUB_RATE_LIMIT_BURST`, for the admin API.",
    )
    vault_enabled: bool = _row(
        "Vault", values.boolean, "true", "Keep provider keys in the encrypted vault."
    )
    vault_password: str = _row(
        "Vault",
        values.any_text,
        "",
        "Unlocks (at the first start: creates) the vault.",
        secret=True,
    )
    credentials_file: Path = _row(
        "Vault",
        values.path,
        "~/.tokenhub/credentials",
        "JSON file of providers, their keys, and models; mode 0600.",
    )
    vault_autolock_secs: int = _row(
        "Vault",
        values.integer(0, 31_536_000),
        "0",
        "Lock the vault for administrators after so long without use of its secrets; 0 = never.",
    )
    vault_autolock_stops_traffic: bool = _row(
        "Vault",
        values.boolean,
        "false",
        "Let the automatic lock take the providers' keys away from traffic as well.",
    )
    default_mode: str = _row(
        "Routing",
        values.one_of("cheap", "normal", "high_confidence", "planning", "adversarial", "thompson"),
        "normal",
        "How models are ranked when the caller does not say.",
    )
    default_max_budget_usd: float = _row(
        "Routing", values.decimal(0, 100), "0.05", "Default budget of a request; it only ranks."
    )
    default_max_latency_ms: int = _row(
        "Routing", values.integer(1, 300000), "120000", "Default latency budget; it only ranks."
    )
    exploration_temp: float = _row(
        "Routing",
        values.decimal(0, 100),
        "0",
        "Softmax temperature over the ranking; 0 always takes the best.",
    )
    unknown_model: str = _row(
        "Routing",
        values.one_of("404", "route"),
        "404",
        "A model name we do not know: refuse it, or let the router choose.",
    )
    wildcard_models: tuple[str, ...] = _row(
        "Routing",
        values.words,
        "",
        "Models, by id, that a request for `*` is spread over in turn, where no alias of that name "
        "exists. Unset: the router chooses among all.",
    )
    directives: str = _row(
        "Routing",
        values.one_of("off", "key", "on"),
        "key",
        "Whether `@@tokenhub` lines in a user's message steer routing: never, for keys that allow "
        "it, or for all.",
    )
    hedge_after_ms: int = _row(
        "Routing",
        values.integer(0, 300_000),
        "0",
        "Ask another model as well when nobody has answered for so long; 0 = never.",
    )
    max_hedged_providers: int = _row(
        "Routing",
        values.integer(2, 5),
        "3",
        "How many models are asked at once, at most, where that is done.",
    )
    schema_repairs: int = _row(
        "Routing",
        values.integer(0, 5),
        "1",
        "How often a model is asked again whose answer does not keep to the schema asked for.",
    )
    provider_timeout_secs: float | None = _row(
        "Providers",
        values.decimal(0.1, 3600),
        "",
        "Longest wait for a connection and for the first byte. Unset: 30. When set it also bounds "
        "a whole attempt that is not streamed.",
    )
    provider_total_secs: float = _row(
        "Providers", values.decimal(1, 86400), "600", "Longest whole attempt, streams included."
    )
    stream_idle_secs: float = _row(
        "Providers", values.decimal(0.1, 3600), "120", "Longest silence inside a stream."
    )
    max_response_mb: int = _row(
        "Providers",
        values.integer(1, 1024),
        "64",
        "Largest answer, in MiB, that a provider may give.",
    )
    allow_private_providers: bool = _row(
        "Providers",
        values.boolean,
        "true",
        "Whether providers may be at loopback and private addresses. Metadata addresses are never "
        "called.",
    )
    health_probe_disabled: bool = _row(
        "Providers", values.boolean, "false", "Do not probe the health URLs of providers."
    )
    health_probe_secs: float = _row(
        "Providers", values.decimal(0.1, 86400), "30", "Time between two probes of a provider."
    )
    pricing_refresh_enabled: bool = _row(
        "Prices",
        values.boolean,
        "false",
        "Import model prices from `TOKENHUB_PRICING_SOURCE` at the start and then regularly.",
    )
    pricing_source: str = _row(
        "Prices",
        values.any_text,
        "",
        "Price table to import: a local JSON file, or an http or https URL.",
    )
    pricing_refresh_interval_secs: float = _row(
        "Prices", values.decimal(1, 31_536_000), "3600", "Time between two imports of prices."
    )
    otel_enabled: bool = _row(
        "Tracing", values.boolean, "false", "Send OpenTelemetry traces to a collector."
    )
    otel_endpoint: str = _row(
        "Tracing",
        values.any_text,
        "localhost:4318",
        "The collector, which must take OTLP over HTTP: `host:port` or a URL.",
    )
    otel_service_name: str = _row("Tracing", values.any_text, "tokenhub", "`service.name`.")
    otel_headers: str = _row(
        "Tracing",
        values.any_text,
        "",
        "Headers for the collector, as `name=value,name=value`.",
        secret=True,
    )
    otel_sampling_ratio: float = _row(
        "Tracing",
        values.decimal(0, 1),
        "1",
        "Share of the traces that begin here; of others their caller decides.",
    )
    demo: bool = _row(
        "Demo",
        values.boolean,
        "false",
        "Use the built-in simulator while no provider is configured.",
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read every row from `environ`, then from the env file, which wins.

        An empty variable is unset; `X_FILE` names a file that holds X.

        Raises:
            ConfigError: naming every bad value at once.
        """
        problems: list[str] = []
        environ = environment.with_env_file(
            environ, problems, known=frozenset(map(variable_of, rows()))
        )
        found: dict[str, Any] = {}
        for name, row in rows().items():
            variable = variable_of(name)
            try:
                text = environment.value_of(environ, variable) or row.default
                found[name] = row.parse(text) if text else _unset(name)
            except (ValueError, OSError) as error:
                shown = "" if row.secret else f"={environ.get(variable, '')!r}"
                problems.append(f"{variable}{shown}: {error}")
        if problems:
            raise ConfigError("; ".join(problems))
        if not found["db_dsn"]:
            found["db_dsn"] = f"sqlite:///{found['data_dir'] / 'tokenhub.sqlite'}"
        return cls(**found)

    @property
    def first_byte_secs(self) -> float:
        return self.provider_timeout_secs or 30.0


def rows() -> dict[str, Row]:
    """Every setting by field name, in the order of the documentation."""
    return {each.name: each.metadata["row"] for each in fields(Settings)}


def variable_of(name: str) -> str:
    """The environment variable of a field."""
    return environment.PREFIX + name.upper()


def _unset(name: str) -> Any:
    empty = {"trusted_proxies": (), "env_file": None, "provider_timeout_secs": None}
    return empty.get(name, "")

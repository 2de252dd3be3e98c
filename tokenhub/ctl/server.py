"""Commands about the gateway itself: how it stands, its hosts, its health, its prices."""

from __future__ import annotations

from typing import Any

import click

from tokenhub.ctl.client import Failed, parse, segment
from tokenhub.ctl.common import Answer, Nouns, answering, client, watching
from tokenhub.ctl.show import cell, clean, duration, moment, pairs, short, table

ERROR_CHARS = 60


@click.command("status")
@watching
def status() -> Answer:
    """Whether the gateway answers, what it has, and whether its vault is open."""
    asking = client()
    info = asking.get("info")
    response = asking.send("GET", "/healthz")
    health = parse(response)
    health = health if isinstance(health, dict) else {}
    lines = (
        ("Server", asking.config.url),
        ("Status", health.get("status") or f"HTTP {response.status_code}"),
        ("Adapters", health.get("adapters")),
        ("Models", health.get("models")),
        ("Vault", "locked" if info.get("vault_locked") else "unlocked"),
        ("Vault initialized", info.get("vault_initialized")),
        ("Version", info.get("version")),
        ("Host", info.get("host_id")),
        ("Workers", len(info.get("workers") or [])),
    )
    return Answer({"info": info, "healthz": health}, pairs(lines))


@click.group("health", cls=Nouns, default="show")
def health() -> None:
    """How providers are doing; `clear` lets one be tried again at once."""


@health.command("show")
@watching
def show_health() -> Answer:
    """The last minute of each provider, on the host that answers."""
    found = client().get("health")
    rows = [
        (
            each.get("provider_id"), each.get("state"), each.get("consec_errors"),
            duration(each.get("avg_latency_ms")), moment(each.get("last_success_at")),
            short(each.get("last_error"), ERROR_CHARS),
        )
        for each in found.get("providers") or []
    ]  # fmt: skip
    heads = ("PROVIDER", "STATE", "CONSEC_ERR", "AVG LATENCY", "LAST SUCCESS", "LAST ERROR")
    return Answer(found, table(heads, rows))


@health.command("clear")
@click.argument("subject")
@answering
def clear(subject: str) -> Answer:
    """Close the breakers of a model, or of a provider and its models."""
    said = client().ask("POST", f"health/{segment(subject)}/clear")
    return Answer(said, f"{clean(subject)} is tried again from the next request on")


@click.command("provider-status")
@click.argument("provider_id")
@watching
def provider_status(provider_id: str) -> Answer:
    """All that is known of a provider's health, and of its models'."""
    found = client().get("health")
    own = [each for each in found["providers"] if each["provider_id"] == provider_id]
    if not own:
        known = ", ".join(clean(each["provider_id"]) for each in found["providers"]) or "none"
        raise Failed(f"there is no provider {clean(provider_id)}; there are: {known}")
    models = [each for each in found.get("models") or [] if each["provider_id"] == provider_id]
    heads = ("MODEL", "STATE", "BREAKER", "SHARE", "AVG LATENCY", "LAST ERROR")
    rows = [
        (
            each["model_id"], each.get("state"), each.get("breaker"), each.get("share"),
            duration(each.get("avg_latency_ms")), short(each.get("last_error"), ERROR_CHARS),
        )
        for each in models
    ]  # fmt: skip
    parts = [pairs(_facts(own[0]))]
    return Answer({**own[0], "models": models}, *parts, *([table(heads, rows)] if rows else []))


def _facts(provider: dict[str, Any]) -> list[tuple[str, object]]:
    probe = provider.get("probe")
    probed = "not probed"
    if probe:
        alive = "alive" if probe.get("alive") else "not alive"
        probed = f"{alive}, {moment(probe.get('at'))}, {duration(probe.get('latency_ms'))}"
    return [
        ("Provider", provider.get("provider_id")),
        ("State", provider.get("state")),
        ("Breaker", provider.get("breaker")),
        ("Requests", provider.get("total_requests")),
        ("Errors", provider.get("total_errors")),
        ("Consecutive errors", provider.get("consec_errors")),
        ("Average latency", duration(provider.get("avg_latency_ms"))),
        ("Last success", moment(provider.get("last_success_at"))),
        ("Last error", provider.get("last_error")),
        ("Last error time", moment(provider.get("last_error_time"))),
        ("Cooldown until", moment(provider.get("cooldown_until"))),
        ("Probe", probed),
    ]


@click.command("hosts")
@watching
def hosts() -> Answer:
    """The hosts that share the database."""
    found = client().get_all("hosts", "hosts")
    rows = [
        (
            each.get("id"), each.get("name"), each.get("version"), each.get("workers"),
            each.get("is_live"), each.get("is_leader"), moment(each.get("seen_at")),
        )
        for each in found["hosts"]
    ]  # fmt: skip
    heads = ("ID", "NAME", "VERSION", "WORKERS", "LIVE", "LEADER", "SEEN")
    return Answer(found, table(heads, rows))


@click.group("prices", cls=Nouns, default="show")
def prices() -> None:
    """Imported prices."""


@prices.command("show")
@watching
def show_prices() -> Answer:
    """Where prices come from, and how the last import went."""
    found = client().get("prices")
    lines = [
        ("Imported regularly", found.get("enabled")),
        ("Source", found.get("source")),
        ("Read", moment(found.get("fetched_at"))),
        ("Entries", found.get("entries")),
        ("Error", found.get("error")),
    ]
    return Answer(found, pairs(lines))


@prices.command("refresh")
@answering
def refresh_prices() -> Answer:
    """Import them now."""
    said = client().ask("POST", "prices/refresh")
    names = ("updated", "unchanged", "unmatched")
    counts = [(name, said.get(name)) for name in names]
    shown = [
        f"{len(count) if isinstance(count, list) else cell(count)} {name}" for name, count in counts
    ]
    return Answer(said, ", ".join(shown))


@click.command("log-level")
@click.argument("level", required=False)
@answering
def log_level(level: str | None) -> Answer:
    """How much is logged; with LEVEL (debug, info, warn, error, settings) set it, on all hosts."""
    asking = client()
    if level is None:
        said = asking.get("log-level")
    else:
        said = asking.ask("PUT", "log-level", body={"level": level})
    return Answer(said, clean(said["level"]))


COMMANDS: list[tuple[click.Command, tuple[str, ...]]] = [
    (status, ()), (health, ()), (provider_status, ()), (hosts, ("host",)), (prices, ("price",)),
    (log_level, ()),
]  # fmt: skip

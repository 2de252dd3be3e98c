"""Commands about who is held back: breakers, drains, probes, and how health has changed."""

from __future__ import annotations

from typing import Any

import click

from tokenhub.ctl.client import segment
from tokenhub.ctl.common import SAID, Answer, Nouns, answering, client, watching
from tokenhub.ctl.filters import choosing, find_page, more, paging
from tokenhub.ctl.show import cell, clean, duration, moment, share, short, table

TEXT_CHARS = 60
COOL_SECS_DEFAULT, COOL_SECS_MAX = 300, 86_400

scope_argument = click.argument("scope", metavar="provider:ID|model:ID")


@click.group("breakers", cls=Nouns, default="list")
def breakers() -> None:
    """Who is held back, by how much and until when; keep somebody out of use, and let it back."""


@breakers.command("list")
@click.option("--held", is_flag=True, help="Only those that are held back.")
@watching
def list_breakers(held: bool) -> Answer:
    """All providers and models on the host that answers, the worst first."""
    found = client().get_all("breakers", "breakers", held="true" if held else "")
    rows = [
        (
            each.get("kind"), each.get("id"), each.get("provider_id"), each.get("state"),
            each.get("breaker"), share(each.get("share")), _left(each.get("cooldown_secs_left")),
            each.get("openings"), _why(each),
        )
        for each in found["breakers"]
    ]  # fmt: skip
    heads = ("KIND", "ID", "PROVIDER", "STATE", "BREAKER", "SHARE", "LEFT", "OPENINGS", "WHY")
    return Answer(found, table(heads, rows))


@breakers.command("clear")
@scope_argument
@click.option("--reason", default="", help="For the audit.")
@answering
def clear_breaker(scope: str, reason: str) -> Answer:
    """Let it be tried again at once; a provider's models as well."""
    body = {"reason": reason} if reason else {}
    said = client().ask("POST", f"breakers/{segment(scope)}/clear", body=body)
    return Answer(said, f"{clean(scope)} is tried again from the next request on")


@breakers.command("cool")
@scope_argument
@click.option("--reason", required=True, help="For the audit.")
@click.option(
    "--secs", type=click.IntRange(1, COOL_SECS_MAX), default=COOL_SECS_DEFAULT, show_default=True,
    help="How long.",
)  # fmt: skip
@answering
def cool_breaker(scope: str, reason: str, secs: int) -> Answer:
    """Keep it out of use for a while, on all hosts."""
    body = {"reason": reason, "secs": secs}
    said = client().ask("POST", f"breakers/{segment(scope)}/cool", body=body)
    return Answer(said, f"{clean(scope)} is out of use until {moment(said.get('until'))}")


@click.command("probe")
@click.argument("provider_id")
@click.option("--reason", default="", help="For the audit.")
@answering
def probe(provider_id: str, reason: str) -> Answer:
    """Ask a provider's health URL now."""
    body = {"reason": reason} if reason else {}
    said = client().ask("POST", f"providers/{segment(provider_id)}/probe", body=body)
    rows = [
        (each.get("url"), each.get("alive"), each.get("status"), duration(each.get("latency_ms")))
        for each in said.get("endpoints") or []
    ]
    return Answer(said, table(("URL", "ALIVE", "STATUS", "LATENCY"), rows))


@click.command("transitions")
@paging
@choosing("from", "to", "provider", "model", is_once=True)
@watching
def transitions(**asked: Any) -> Answer:
    """How health has changed on all hosts, newest first."""
    found = find_page("health/transitions", asked)
    if found is None:
        return SAID
    rows = [
        (
            moment(each.get("timestamp")), each.get("kind"),
            each.get("model_id") or each.get("provider_id"),
            f"{cell(each.get('old_state'))} -> {cell(each.get('new_state'))}",
            short(each.get("reason"), TEXT_CHARS), each.get("host_id"),
        )
        for each in found["transitions"]
    ]  # fmt: skip
    return Answer(found, table(("TIME", "KIND", "ID", "STATE", "WHY", "HOST"), rows), *more(found))


def _left(secs: object) -> str:
    return f"{secs:.0f}s" if isinstance(secs, int | float) and secs > 0 else ""


def _why(row: dict[str, Any]) -> str:
    if row.get("drain_reason"):
        return short(f"{row['drain_reason']} ({row.get('drained_by')})", TEXT_CHARS)
    return short(row.get("last_error"), TEXT_CHARS)


COMMANDS: list[tuple[click.Command, tuple[str, ...]]] = [
    (breakers, ("breaker",)), (probe, ()), (transitions, ()),
]  # fmt: skip

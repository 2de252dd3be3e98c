"""What an item of attention is, and which comes first. Knows none of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlencode

Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")
"""The worst first. critical: requests fail or are lost. warning: they will, or money is not where
it is thought to be. info: somebody should tidy up."""

Kind = Literal[
    "database_away", "provider_failing", "model_failing", "provider_silent", "vault_locked",
    "rows_set_aside", "journal_lag", "host_silent", "version_differs", "budget_spent",
    "budget_nearly_spent", "forecast_over_budget", "key_rotation_overdue", "key_expiring",
    "unpriced_traffic", "alias_cannot_serve", "prices_old", "provider_without_models",
    "demo_provider",
]  # fmt: skip
KINDS: tuple[Kind, ...] = (
    "database_away", "provider_failing", "model_failing", "provider_silent", "vault_locked",
    "rows_set_aside", "journal_lag", "host_silent", "version_differs", "budget_spent",
    "budget_nearly_spent", "forecast_over_budget", "key_rotation_overdue", "key_expiring",
    "unpriced_traffic", "alias_cannot_serve", "prices_old", "provider_without_models",
    "demo_provider",
)  # fmt: skip
"""In the order of items that are equally bad."""


class Link(NamedTuple):
    """A call of the admin API."""

    method: str
    href: str


@dataclass(frozen=True)
class Item:
    """Something that needs somebody.

    Args:
        subject_kind, subject_id, name: what it is about; the name is for people.
        since_at: unix ms; None = not known.
        facts: what a sentence about it is made of, as JSON has it.
        links: calls of the API that say more or do something about it, by what they lead to.
    """

    kind: Kind
    severity: Severity
    subject_kind: str
    subject_id: str
    name: str = ""
    since_at: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The same for as long as it lasts, and when it comes again."""
        return f"{self.kind}:{self.subject_kind}:{self.subject_id}"


def in_order(items: Iterable[Item]) -> list[Item]:
    """The worst first, of equally bad ones those that last longest."""

    def rank(item: Item) -> tuple[int, int, float, str]:
        since = float("inf") if item.since_at is None else item.since_at
        return SEVERITIES.index(item.severity), KINDS.index(item.kind), since, item.id

    return sorted(items, key=rank)


def see(*names: str, **query: str) -> Link:
    """What the admin API says at a path."""
    found = act("GET", *names)
    return found._replace(href=f"{found.href}?{urlencode(query)}") if query else found


def act(method: str, *names: str) -> Link:
    """A call of the admin API that changes something."""
    return Link(method, "/admin/v1/" + "/".join(quote(each, safe="") for each in names))

"""Judges the hosts: the database, journals, vaults, versions, who has fallen silent."""

from __future__ import annotations

from collections.abc import Iterator

from tokenhub.events.shapes import moment
from tokenhub.store import HostState
from tokenhub.views.facts import LOCKED_OUT, Facts, HostFact
from tokenhub.views.items import Item, Severity, act, see

LAG_SECS, LAG_CRITICAL_SECS = 5.0, 60.0
SILENT_MS = 7 * 86_400_000
"""A host that was not seen for longer is not missed any more."""


def find_host_trouble(facts: Facts) -> Iterator[Item]:
    """What is wrong with the hosts, each for itself and together."""
    if facts.is_away:
        yield Item("database_away", "critical", "database", "", "database")
    for host in facts.hosts:
        if host.is_live and host.state is not None:
            yield from _of_state(facts, host, host.state)
        elif not host.is_live and not host.has_ended and host.seen_at > facts.now - SILENT_MS:
            said = {"host_id": host.id, "version": host.version, "seen_at": moment(host.seen_at)}
            yield Item(
                "host_silent", "warning", "host", host.id, host.name, host.seen_at, said,
                {"hosts": see("hosts")},
            )  # fmt: skip
    versions = sorted({each.version for each in facts.live})
    if len(versions) > 1:
        running = [
            {"host_id": each.id, "host": each.name, "version": each.version} for each in facts.live
        ]
        yield Item(
            "version_differs", "warning", "cluster", "", "", None,
            {"versions": versions, "hosts": running}, {"hosts": see("hosts")},
        )  # fmt: skip
    yield from _of_prices(facts)


def _of_state(facts: Facts, host: HostFact, state: HostState) -> Iterator[Item]:
    subject, links = ("host", host.id, host.name), {"hosts": see("hosts")}
    said = {"host_id": host.id, "host": host.name}
    if state.lag_secs > LAG_SECS:
        since_at = host.seen_at - int(state.lag_secs * 1000)
        lag = {"lag_secs": state.lag_secs, "waiting_bytes": state.waiting_bytes}
        severity: Severity = "critical" if state.lag_secs > LAG_CRITICAL_SECS else "warning"
        yield Item("journal_lag", severity, *subject, since_at, {**said, **lag}, links)
    if state.set_aside:
        rows = {"rows": state.set_aside}
        yield Item("rows_set_aside", "critical", *subject, None, {**said, **rows}, links)
    sealed = sorted(
        each.id
        for each in facts.snapshot.providers.values()
        if each.enabled and each.cred_store == "vault"
    )
    if state.vault_locked and sealed:
        locked = {"providers": sealed, "refused_requests": facts.locked_out, "window_secs": 86_400}
        unlock = {
            "unlock": act("POST", "vault", "unlock"),
            "requests": see("logs", error_class=LOCKED_OUT),
        }
        yield Item("vault_locked", "critical", *subject, None, {**said, **locked}, unlock)


def _of_prices(facts: Facts) -> Iterator[Item]:
    """Of several hosts one reads the table; the newest counts."""
    states = [each.state for each in facts.live if each.state is not None]
    if not facts.prices_due_ms or not states:
        return
    newest = max(states, key=lambda each: each.prices_at)
    began = min(each.started_at for each in facts.live)
    if max(newest.prices_at, began) >= facts.now - facts.prices_due_ms:
        return
    read_at = moment(newest.prices_at) if newest.prices_at else None
    yield Item(
        "prices_old", "info", "prices", "", "", newest.prices_at or None,
        {"read_at": read_at, "error": newest.prices_error}, {"prices": see("prices")},
    )  # fmt: skip

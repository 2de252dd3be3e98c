"""Asks each provider's health URL from time to time whether anybody is there.

The leader's work. What is found is shown, and puts a provider that is silent after the others until
it answers again; it says nothing about whether requests are answered, so it is in no figure, heals
no breaker and opens none. Only `Adapter.check` is called: a GET that nobody bills.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gevent.pool import Pool

from tokenhub.board import Endpoints, Vitals
from tokenhub.catalog import Snapshot
from tokenhub.domain import Provider
from tokenhub.errors import ProviderError, VaultError
from tokenhub.providers.base import Adapter, Target, Timeouts

PROBES_AT_ONCE = 16
PROBE_SECS = 5.0
"""How long an answer may take (reference/operations.md §14)."""
PROBE_TIMEOUTS = Timeouts(PROBE_SECS, PROBE_SECS, PROBE_SECS, PROBE_SECS)

SERVER_ERROR = 500
"""From here on a status says that the provider is not itself. Any other, a refusal too, is an
answer: 401, 404 or 429 to a health URL says nothing about chat."""

log = logging.getLogger("tokenhub.prober")


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one probe; `status` is None when nothing did."""

    provider_id: str
    url: str
    status: int | None
    latency_ms: int

    @property
    def is_alive(self) -> bool:
        return self.status is not None and self.status < SERVER_ERROR


class Prober:
    """Probes the providers of the newest Snapshot, whichever those are.

    Args:
        latest: the Snapshot at hand.
        adapters: by provider type.
        secret_of: the provider's key, looked up at call time; raises VaultError.
        vitals, endpoints: where findings go.
        timeouts: of one probe.
    """

    def __init__(
        self,
        *,
        latest: Callable[[], Snapshot],
        adapters: Mapping[str, Adapter],
        secret_of: Callable[[Provider], str | None],
        vitals: Vitals,
        endpoints: Endpoints,
        timeouts: Timeouts = PROBE_TIMEOUTS,
    ) -> None:
        self._latest = latest
        self._adapters = adapters
        self._secret_of = secret_of
        self._vitals = vitals
        self._endpoints = endpoints
        self._timeouts = timeouts
        self._silent: frozenset[str] = frozenset()

    def run(self) -> None:
        """One round: every usable provider, all of its endpoints, a few at a time."""
        snapshot = self._latest()
        providers = [snapshot.providers[each] for each in sorted(snapshot.usable)]
        self._forget_all_but(snapshot.usable)
        asked = [(each, url) for each in providers for url in (each.base_url, *each.endpoints)]
        findings: list[Finding] = Pool(PROBES_AT_ONCE).map(lambda pair: self._probe(*pair), asked)
        for provider in providers:
            theirs = [each for each in findings if each.provider_id == provider.id]
            self._note(provider, theirs)
        self._tell(frozenset(each.id for each in providers), findings)

    def probe(self, provider: Provider, *, is_noted: bool) -> list[Finding]:
        """Ask one provider now, all of its endpoints; never longer than the timeouts.

        Args:
            is_noted: what is found counts, until the next round.
        """
        urls = (provider.base_url, *provider.endpoints)
        findings = Pool(PROBES_AT_ONCE).map(lambda url: self._probe(provider, url), urls)
        if is_noted:
            self._note(provider, findings)
        return list(findings)

    def _note(self, provider: Provider, findings: Sequence[Finding]) -> None:
        if len(findings) > 1:
            self._note_endpoints(findings)
        # A provider lives as long as one of its endpoints does.
        best = next((each for each in findings if each.is_alive), findings[0])
        self._vitals.note_probe(
            provider.id, is_alive=best.is_alive, status=best.status, latency_ms=best.latency_ms
        )

    def _forget_all_but(self, provider_ids: Iterable[str]) -> None:
        probed = {vital.id for vital in self._vitals.list_all() if vital.probe is not None}
        for provider_id in probed.difference(provider_ids):
            self._vitals.forget_probe(provider_id)

    def _note_endpoints(self, findings: Iterable[Finding]) -> None:
        for each in findings:
            self._endpoints.note_probe(each.url, is_alive=each.is_alive)

    def _probe(self, provider: Provider, url: str) -> Finding:
        began = time.monotonic()
        status = None
        try:
            target = Target(provider.id, url, model="", api_key=self._find_key(provider))
            status = self._adapters[provider.type].check(target, self._timeouts)
        except ProviderError:
            pass  # nobody answered
        except Exception:  # whatever one provider is good for, the others are probed all the same
            log.exception("probe failed", extra={"provider_id": provider.id})
        return Finding(provider.id, url, status, round((time.monotonic() - began) * 1000))

    def _find_key(self, provider: Provider) -> str | None:
        """Without its key a provider answers 401, and so it is there."""
        try:
            return self._secret_of(provider)
        except VaultError:
            return None

    def _tell(self, provider_ids: frozenset[str], findings: Iterable[Finding]) -> None:
        """Log what is otherwise than in the round before."""
        silent = provider_ids - {each.provider_id for each in findings if each.is_alive}
        for provider_id in sorted(silent - self._silent):
            log.warning("provider is silent", extra={"provider_id": provider_id})
        for provider_id in sorted((self._silent - silent) & provider_ids):
            log.info("provider answers again", extra={"provider_id": provider_id})
        self._silent = silent

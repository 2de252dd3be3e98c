"""Whose requests pass and whose must wait: addresses, keys and teams against what they are allowed.

The board counts and `tokenhub.limits` computes; here it is known whose limits hold, what a refusal
is answered with, and what its callers read in `x-ratelimit-…`. Memory only, and nothing yields. A
host enforces its part of each limit: all of it, divided by the hosts that live.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from tokenhub import limits
from tokenhub.board import Board, Rates
from tokenhub.board.rates import Claim, Refusal, fingerprint_of
from tokenhub.config import Settings
from tokenhub.domain import NO_LIMITS, ApiKey, Limits, Team
from tokenhub.errors import RateLimited

Surface = Literal["address", "admin"]
"""Which of an address's two limits: that of the client API, or that of the admin API."""

_SHOWN = {
    "rps": ("rate_limit_rps", "requests per second"),
    "rpm": ("rpm", "requests per minute"),
    "tpm": ("tpm", "tokens per minute"),
    "parallel": ("max_parallel", "requests at a time"),
}
"""Each limit by its name in the API, and in words."""


class _Reading(NamedTuple):
    """One limit as its caller sees it, for all hosts together."""

    left: int
    limit: int
    reset_ns: int


class Ticket:
    """A request's hold on the limits of its key and team, from its admission to its settlement.

    Args:
        owners: each claim with the whole limits that it is this host's part of.
        hosts: how many parts those were divided into.
    """

    __slots__ = ("_claims", "_hosts", "_owners", "_rates", "_slot", "_taken_at_ns", "_tokens")

    def __init__(
        self, rates: Rates, owners: Sequence[tuple[Claim, Limits]], *, slot: int, hosts: int
    ) -> None:
        self._rates = rates
        self._owners = owners
        self._claims = [claim for claim, _ in owners]
        self._slot = slot
        self._hosts = hosts
        self._tokens = 0
        self._taken_at_ns = 0

    def admit(self) -> None:
        """Take one request.

        Raises:
            RateLimited: nothing was taken.
        """
        refusal = self._rates.take(self._claims, self._slot)
        if refusal is not None:
            raise self._refused(refusal)

    def take_tokens(self, tokens: int) -> None:
        """Take what the request is estimated to use, where tokens are limited.

        Raises:
            RateLimited: no tokens were taken; the request is still to be released.
        """
        if not any(claim.share.tpm for claim in self._claims):
            return
        found = self._rates.take_tokens(self._claims, tokens)
        if isinstance(found, Refusal):
            raise self._refused(found)
        self._tokens, self._taken_at_ns = tokens, found

    def release(self, tokens: int) -> None:
        """The request is over. Once for each that was admitted.

        Args:
            tokens: what it has used, input and output.
        """
        self._rates.give_back(self._claims, self._slot)
        if self._taken_at_ns and tokens != self._tokens:
            self._rates.correct_tokens(self._claims, self._taken_at_ns, tokens - self._tokens)

    def headers(self) -> list[tuple[str, str]]:
        """OpenAI's `x-ratelimit-…`, of whichever limit has the least left."""
        standings = [(each, self._rates.standing(claim)) for claim, each in self._owners]
        requests: list[_Reading] = []
        tokens: list[_Reading] = []
        for owner, now in standings:
            if owner.rps > 0:
                burst = max(1, int(owner.rps * limits.BURST_PER_RPS))
                requests.append(self._reading(now.bucket_left, burst, now.bucket_reset_ns))
            if owner.rpm:
                requests.append(self._reading(now.requests, owner.rpm, now.requests_reset_ns))
            if owner.tpm:
                tokens.append(self._reading(now.tokens, owner.tpm, now.tokens_reset_ns))
        return [*_lines("requests", requests), *_lines("tokens", tokens)]

    def _reading(self, left: int, limit: int, reset_ns: int) -> _Reading:
        return _Reading(min(left * self._hosts, limit), limit, reset_ns)

    def _refused(self, refusal: Refusal) -> RateLimited:
        claim, name, wait_ns = refusal
        allowed = next(getattr(whole, name) for each, whole in self._owners if each is claim)
        field, words = _SHOWN[name]
        headers = dict(self.headers())
        if wait_ns is None:
            message = f"the request alone is more than the {claim.scope}'s {allowed:.15g} {words}"
            headers["x-should-retry"] = "false"
        else:
            message = f"more than the {claim.scope}'s {allowed:.15g} {words}"
            headers["Retry-After"] = str(limits.seconds_up(wait_ns))
        return RateLimited(
            message,
            headers=headers,
            details={"scope": claim.scope, "limit": field, "allowed": allowed},
        )


class Limiter:
    """What each request of this worker must pass. Without a limit it takes no lock.

    Args:
        settings: those of the addresses; may be given anew (`configure`).
    """

    def __init__(self, board: Board, settings: Settings) -> None:
        self._board = board
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Limit addresses as `settings` say from now on; what they have asked before counts."""
        self._addresses: dict[Surface, tuple[float, int]] = {
            "address": (settings.rate_limit_rps, settings.rate_limit_burst),
            "admin": (settings.admin_rate_limit_rps, settings.admin_rate_limit_burst),
        }
        self._divide(self._board.live_hosts)

    def check_address(self, address: str, surface: Surface = "address") -> None:
        """Count one request of a client's address. "" (a peer without one) is not limited.

        Raises:
            RateLimited: it was not counted.
        """
        hosts = self._board.live_hosts
        if hosts != self._hosts:
            self._divide(hosts)
        bucket = self._buckets[surface]
        if bucket is None or not address:
            return
        name = fingerprint_of(surface, limits.network_of(address))
        wait_ns = self._board.rates.take_address(name, surface, bucket)
        if wait_ns:
            rps, _ = self._addresses[surface]
            raise RateLimited(
                f"more than {rps:.15g} requests per second from one address",
                headers={"Retry-After": str(limits.seconds_up(wait_ns))},
                details={"scope": surface, "limit": _SHOWN["rps"][0], "allowed": rps},
            )

    def admit(self, key: ApiKey, team: Team | None) -> Ticket | None:
        """Take one request of a key and of its team.

        Returns: what must be released when the request is over; None = neither has limits.

        Raises:
            RateLimited: one of them must wait; nothing was taken.
        """
        hosts = self._board.live_hosts
        owners = [
            (Claim(fingerprint_of(scope, id_), scope, limits.share_of(whole, hosts)), whole)
            for scope, id_, whole in _limited(key, team)
        ]
        if not owners:
            return None
        ticket = Ticket(self._board.rates, owners, slot=self._board.slot, hosts=hosts)
        ticket.admit()
        return ticket

    def _divide(self, hosts: int) -> None:
        self._hosts = hosts
        self._buckets = {
            surface: limits.bucket_of(rps, burst, hosts)
            for surface, (rps, burst) in self._addresses.items()
        }


def _limited(
    key: ApiKey, team: Team | None
) -> Iterator[tuple[Literal["key", "team"], str, Limits]]:
    if key.limits != NO_LIMITS:
        yield "key", key.id, key.limits
    if team is not None and team.limits != NO_LIMITS:
        yield "team", team.id, team.limits


def _lines(what: str, readings: Sequence[_Reading]) -> list[tuple[str, str]]:
    if not readings:
        return []
    least = min(readings)
    return [
        (f"x-ratelimit-limit-{what}", str(least.limit)),
        (f"x-ratelimit-remaining-{what}", str(least.left)),
        (f"x-ratelimit-reset-{what}", limits.duration(least.reset_ns)),
    ]

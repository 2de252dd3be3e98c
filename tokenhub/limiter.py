"""Whose requests pass and whose must wait: addresses, keys and teams against what they are allowed.

The board counts and `tokenhub.limits` computes; here it is known whose limits hold, what a refusal
is answered with, and what its callers read of it in their headers. Memory only, and nothing yields.
A host enforces its part of each limit: all of it, divided by the hosts that live.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from tokenhub import limits
from tokenhub.board import Board, Rates
from tokenhub.board.board import unix_ms
from tokenhub.board.rates import Claim, Refusal, fingerprint_of
from tokenhub.config import Settings
from tokenhub.domain import NO_LIMITS, ApiKey, Limits, Team
from tokenhub.errors import RateLimited

Surface = Literal["address", "admin"]
"""Which of an address's two limits: that of the client API, or that of the admin API."""

Form = Literal["openai", "anthropic"]
"""Whose names the headers have."""

_KEY_AND_MODEL: Literal["key and model"] = "key and model"

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


class _Owner(NamedTuple):
    """Whose limits hold: this host's part of them, and all of it.

    Args:
        model: whom they are for, where they are for one model or alias.
    """

    claim: Claim
    whole: Limits
    model: str = ""


class Hold:
    """What somebody has of some limits, until it is released."""

    __slots__ = ("_claims", "_owners", "_rates", "_slot", "_taken_at_ns", "_tokens")

    def __init__(self, rates: Rates, owners: Sequence[_Owner], slot: int) -> None:
        self._rates = rates
        self._owners = owners
        self._claims = [owner.claim for owner in owners]
        self._slot = slot
        self._tokens = 0
        self._taken_at_ns = 0

    def release(self, tokens: int) -> None:
        """What it was taken for is over. Once for each that was admitted.

        Args:
            tokens: what was used, input and output.
        """
        self._rates.give_back(self._claims, self._slot)
        if self._taken_at_ns and tokens != self._tokens:
            self._rates.correct_tokens(self._claims, self._taken_at_ns, tokens - self._tokens)


class Ticket(Hold):
    """A request's hold on the limits of its key and team, from its admission to its settlement.

    Args:
        owners: the key and the team, if they have limits.
        key: what it may ask of single models is in it.
        hosts: how many parts all limits are divided into.
        form: how its caller is told what is left.
    """

    __slots__ = ("_form", "_hosts", "_key", "_told")

    def __init__(
        self,
        rates: Rates,
        owners: Sequence[_Owner],
        *,
        key: ApiKey,
        slot: int,
        hosts: int,
        form: Form,
    ) -> None:
        super().__init__(rates, owners, slot)
        self._key = key
        self._hosts = hosts
        self._form: Form = form
        self._told: Sequence[_Owner] = ()

    @property
    def is_by_model(self) -> bool:
        """Whether the key may ask some models only so much."""
        return bool(self._key.model_limits)

    def admit(self) -> None:
        """Take one request.

        Raises:
            RateLimited: nothing was taken.
        """
        if not self._owners:
            return
        refusal = self._rates.take(self._claims, self._slot)
        if refusal is not None:
            raise self._refused(refusal, ())

    def take_tokens(self, tokens: int) -> None:
        """Take what the request, or a further call of it, is estimated to use, where tokens are
        limited.

        Raises:
            RateLimited: no tokens were taken; the request is still to be released.
        """
        if not any(claim.share.tpm for claim in self._claims):
            return
        found = self._rates.take_tokens(self._claims, tokens)
        if isinstance(found, Refusal):
            raise self._refused(found, ())
        self._tokens, self._taken_at_ns = self._tokens + tokens, found

    def take_model(self, names: Iterable[str], tokens: int) -> Hold | None:
        """Take one attempt of what the key may ask of a model: a request, and its tokens.

        Args:
            names: the model's id, and the alias that was asked for; all their limits hold.
            tokens: what it is estimated to use.

        Returns: what must be released when the attempt is over; None = it is not limited.

        Raises:
            RateLimited: nothing was taken.
        """
        owners = list(self._owners_of(names))
        if not owners:
            return None
        hold = Hold(self._rates, owners, self._slot)
        found = self._rates.take_all(hold._claims, self._slot, tokens)
        if isinstance(found, Refusal):
            raise self._refused(found, owners)
        hold._tokens, hold._taken_at_ns = tokens, found
        return hold

    def tell_of(self, hold: Hold) -> None:
        """It is this attempt's model that answers: the headers are about its limits too."""
        self._told = hold._owners

    def headers(self) -> list[tuple[str, str]]:
        """What is left of whichever limit has the least left, in `x-ratelimit-…` as OpenAI has
        them or `anthropic-ratelimit-…`."""
        return self._headers([*self._owners, *self._told])

    def _owners_of(self, names: Iterable[str]) -> Iterator[_Owner]:
        key, scope = self._key, _KEY_AND_MODEL
        for name in dict.fromkeys(names):
            whole = key.model_limits.get(name)
            if whole is not None:
                share = limits.share_of(whole, self._hosts)
                yield _Owner(Claim(fingerprint_of(scope, key.id, name), scope, share), whole, name)

    def _headers(self, owners: Iterable[_Owner]) -> list[tuple[str, str]]:
        requests: list[_Reading] = []
        tokens: list[_Reading] = []
        for claim, whole, _ in owners:
            now = self._rates.standing(claim)
            if whole.rps > 0:
                burst = max(1, int(whole.rps * limits.BURST_PER_RPS))
                requests.append(self._reading(now.bucket_left, burst, now.bucket_reset_ns))
            if whole.rpm:
                requests.append(self._reading(now.requests, whole.rpm, now.requests_reset_ns))
            if whole.tpm:
                tokens.append(self._reading(now.tokens, whole.tpm, now.tokens_reset_ns))
        lines = _FORMS[self._form]
        return [*lines("requests", requests), *lines("tokens", tokens)]

    def _reading(self, left: int, limit: int, reset_ns: int) -> _Reading:
        return _Reading(min(left * self._hosts, limit), limit, reset_ns)

    def _refused(self, refusal: Refusal, of_model: Sequence[_Owner]) -> RateLimited:
        claim, name, wait_ns = refusal
        owners = [*self._owners, *of_model]
        owner = next(each for each in owners if each.claim is claim)
        allowed = getattr(owner.whole, name)
        field, words = _SHOWN[name]
        whose = "team" if claim.scope == "team" else "key"
        message = f"more than the {whose}'s {allowed:.15g} {words}"
        details = {"scope": claim.scope, "limit": field, "allowed": allowed}
        if owner.model:
            message += f" for {owner.model}"
            details["model"] = owner.model
        headers = dict(self._headers(owners))
        if wait_ns is None:
            message = f"the request alone is {message}"
            headers["x-should-retry"] = "false"
        else:
            headers["Retry-After"] = str(limits.seconds_up(wait_ns))
        return RateLimited(message, headers=headers, details=details)


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

    def admit(self, key: ApiKey, team: Team | None, form: Form = "openai") -> Ticket | None:
        """Take one request of a key and of its team.

        Args:
            form: how its caller is told what is left.

        Returns: what must be released when the request is over; None = neither has limits, nor has
            the key any for single models.

        Raises:
            RateLimited: one of them must wait; nothing was taken.
        """
        hosts = self._board.live_hosts
        owners = [
            _Owner(Claim(fingerprint_of(scope, id_), scope, limits.share_of(whole, hosts)), whole)
            for scope, id_, whole in _limited(key, team)
        ]
        if not owners and not key.model_limits:
            return None
        board = self._board
        ticket = Ticket(board.rates, owners, key=key, slot=board.slot, hosts=hosts, form=form)
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


def _openai_lines(what: str, readings: Sequence[_Reading]) -> list[tuple[str, str]]:
    if not readings:
        return []
    least = min(readings)
    return [
        (f"x-ratelimit-limit-{what}", str(least.limit)),
        (f"x-ratelimit-remaining-{what}", str(least.left)),
        (f"x-ratelimit-reset-{what}", limits.duration(least.reset_ns)),
    ]


def _anthropic_lines(what: str, readings: Sequence[_Reading]) -> list[tuple[str, str]]:
    if not readings:
        return []
    least = min(readings)
    return [
        (f"anthropic-ratelimit-{what}-limit", str(least.limit)),
        (f"anthropic-ratelimit-{what}-remaining", str(least.left)),
        (f"anthropic-ratelimit-{what}-reset", limits.moment(unix_ms(), least.reset_ns)),
    ]


_FORMS = {"openai": _openai_lines, "anthropic": _anthropic_lines}

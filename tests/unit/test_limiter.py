"""Whose limits hold, on how many hosts, and what those are told who must wait."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

import pytest

from tokenhub.board import Board
from tokenhub.config import Settings
from tokenhub.domain import ApiKey, Limits, Team
from tokenhub.errors import RateLimited
from tokenhub.limiter import Limiter, Ticket


@pytest.fixture
def board() -> Board:
    return Board(slots=2)


def limiter_on(board: Board, **variables: str) -> Limiter:
    return Limiter(board, Settings.from_env(variables))


@pytest.fixture
def limiter(board: Board) -> Limiter:
    return limiter_on(board)


def key_with(id_: str = "key_1", **allowed: float) -> ApiKey:
    limits = Limits(**allowed)  # type: ignore[arg-type]  # the test's own
    return ApiKey(id_, "test", "tokenhub_x", b"digest", "", limits=limits)


def team_with(**allowed: float) -> Team:
    return Team("team_1", "all", limits=Limits(**allowed))  # type: ignore[arg-type]


def ticket_of(limiter: Limiter, key: ApiKey, team: Team | None = None) -> Ticket:
    found = limiter.admit(key, team)
    assert found is not None
    return found


def refused(limiter: Limiter, key: ApiKey, team: Team | None = None) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        limiter.admit(key, team)
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    return caught.value


def count_passing(limiter: Limiter, address: str) -> int:
    for passed in range(1000):
        try:
            limiter.check_address(address)
        except RateLimited:
            return passed
    raise AssertionError("nothing was refused")


def without_lock(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    def lock() -> None:
        raise AssertionError("the lock was taken")

    monkeypatch.setattr(board._memory, "lock", lock)


def test_an_address_may_send_its_burst_as_the_settings_say(limiter):
    assert count_passing(limiter, "192.0.2.1") in range(120, 130)  # some came in meanwhile
    with pytest.raises(RateLimited) as caught:
        for _ in range(10):
            limiter.check_address("192.0.2.1")
    assert caught.value.headers == {"Retry-After": "1"}
    assert caught.value.details == {"scope": "address", "limit": "rate_limit_rps", "allowed": 60}
    limiter.check_address("192.0.2.2")
    limiter.check_address("192.0.2.1", "admin")


def test_all_addresses_of_one_ipv6_network_are_one(limiter):
    count_passing(limiter, "2001:db8::1")
    with pytest.raises(RateLimited):
        for _ in range(10):
            limiter.check_address("2001:db8::ffff")
    limiter.check_address("2001:db8:0:1::1")


def test_a_peer_without_an_address_is_not_limited(limiter):
    for _ in range(1000):
        limiter.check_address("")


def test_what_has_no_limit_takes_no_lock(board, monkeypatch):
    limiter = limiter_on(board, TOKENHUB_RATE_LIMIT_RPS="0")
    without_lock(board, monkeypatch)
    limiter.check_address("192.0.2.1")
    assert limiter.admit(key_with(), None) is None
    assert limiter.admit(key_with(), team_with()) is None


def test_fresh_settings_hold_at_once(board):
    limiter = limiter_on(board, TOKENHUB_RATE_LIMIT_RPS="0.001", TOKENHUB_RATE_LIMIT_BURST="2")
    assert count_passing(limiter, "192.0.2.1") == 2
    fresh = {"TOKENHUB_RATE_LIMIT_RPS": "1000000", "TOKENHUB_RATE_LIMIT_BURST": "1000"}
    limiter.configure(Settings.from_env(fresh))
    with suppress(RateLimited):  # it is empty still, for a microsecond
        limiter.check_address("192.0.2.1")
    for _ in range(100):
        limiter.check_address("192.0.2.1")


def test_each_host_enforces_its_part_and_takes_more_when_another_is_gone(board):
    limiter = limiter_on(board, TOKENHUB_RATE_LIMIT_RPS="0.001", TOKENHUB_RATE_LIMIT_BURST="12")
    board.live_hosts = 3
    assert count_passing(limiter, "192.0.2.1") == 4
    board.live_hosts = 1
    assert count_passing(limiter, "192.0.2.2") == 12
    board.live_hosts = 2
    key = key_with(rpm=7)
    assert [ticket_of(limiter, key) for _ in range(3)]
    assert refused(limiter, key).details["allowed"] == 7


@pytest.mark.parametrize(
    ("limit", "field", "message"),
    [
        ("rps", "rate_limit_rps", "more than the key's 1 requests per second"),
        ("rpm", "rpm", "more than the key's 1 requests per minute"),
        ("parallel", "max_parallel", "more than the key's 1 requests at a time"),
    ],
)
def test_a_refusal_says_whose_limit_it_was_and_which(limiter, limit, field, message):
    allowed: dict[str, float] = {limit: 1}
    key = key_with("key_1", **allowed)
    for _ in range(2 if limit == "rps" else 1):  # the burst is two seconds' worth
        ticket_of(limiter, key)
    error = refused(limiter, key)
    assert error.message == message
    assert error.details == {"scope": "key", "limit": field, "allowed": 1}
    seconds = int(error.headers["Retry-After"])
    assert seconds in ((59, 60, 61) if limit == "rpm" else (1,))


def test_a_team_is_limited_for_all_of_its_keys(limiter):
    team = team_with(rpm=3)
    for id_ in ("key_1", "key_2", "key_3"):
        ticket_of(limiter, key_with(id_), team)
    error = refused(limiter, key_with("key_4"), team)
    assert error.details == {"scope": "team", "limit": "rpm", "allowed": 3}
    assert limiter.admit(key_with("key_4"), None) is None


def test_a_key_and_a_team_of_the_same_id_are_not_the_same(limiter):
    key = key_with("team_1", rpm=1)
    ticket_of(limiter, key, team_with(rpm=2))
    assert refused(limiter, key, team_with(rpm=2)).details["scope"] == "key"


def test_requests_in_flight_are_released_one_by_one(limiter):
    key = key_with(parallel=2)
    first = ticket_of(limiter, key)
    ticket_of(limiter, key)
    refused(limiter, key)
    first.release(10)
    ticket_of(limiter, key)
    refused(limiter, key)


def test_tokens_are_corrected_to_what_was_used(limiter):
    key = key_with(tpm=1000)
    ticket = ticket_of(limiter, key)
    ticket.take_tokens(600)
    assert dict(ticket.headers())["x-ratelimit-remaining-tokens"] == "400"
    ticket.release(250)
    assert dict(ticket.headers())["x-ratelimit-remaining-tokens"] == "750"
    ticket = ticket_of(limiter, key)
    ticket.take_tokens(700)
    ticket.release(5000)  # the answer was longer than anybody could know
    error = refused(limiter, key)
    assert error.details["limit"] == "tpm"
    assert error.headers["x-ratelimit-remaining-tokens"] == "0"
    assert int(error.headers["Retry-After"]) in (60, 61)


def test_a_request_that_is_refused_for_its_tokens_has_taken_none(limiter):
    key = key_with(tpm=1_500_000, parallel=1)
    ticket = ticket_of(limiter, key)
    with pytest.raises(RateLimited) as caught:
        ticket.take_tokens(1_500_001)
    assert caught.value.headers["x-should-retry"] == "false"
    assert "Retry-After" not in caught.value.headers
    whose = "more than the key's 1500000 tokens per minute"
    assert caught.value.message == f"the request alone is {whose}"
    ticket.release(0)
    ticket = ticket_of(limiter, key)
    ticket.take_tokens(1000)


def test_a_request_without_a_limit_of_tokens_takes_no_lock_for_them(board, limiter, monkeypatch):
    ticket = ticket_of(limiter, key_with(rpm=5, parallel=3))
    without_lock(board, monkeypatch)
    ticket.take_tokens(10**9)
    ticket.release(10**9)


def test_headers_tell_of_the_limit_with_the_least_left(board, limiter):
    key = key_with(rps=10, rpm=600, tpm=5000)
    headers = dict(ticket_of(limiter, key, team_with(rpm=6)).headers())
    assert headers["x-ratelimit-limit-requests"] == "6"
    assert headers["x-ratelimit-remaining-requests"] == "5"
    assert headers["x-ratelimit-reset-requests"].startswith(("1m0", "59."))
    assert headers["x-ratelimit-limit-tokens"] == "5000"
    assert headers["x-ratelimit-remaining-tokens"] == "5000"
    assert headers["x-ratelimit-reset-tokens"] == "0ms"
    assert len(headers) == 6


def test_headers_speak_of_all_hosts_together(board, limiter):
    board.live_hosts = 2
    headers = dict(ticket_of(limiter, key_with(rpm=100)).headers())
    assert headers["x-ratelimit-limit-requests"] == "100"
    assert headers["x-ratelimit-remaining-requests"] == "98"


def test_a_key_with_a_limit_in_flight_alone_has_no_headers(limiter):
    assert ticket_of(limiter, key_with(parallel=3)).headers() == []


def by_model(key: ApiKey, **allowed: Limits) -> ApiKey:
    return replace(key, model_limits=allowed)


def test_a_key_that_has_limits_for_models_only_may_ask_any_other(limiter):
    ticket = ticket_of(limiter, by_model(key_with(), a=Limits(rpm=1)))
    assert ticket.is_by_model
    assert ticket.take_model(("b", ""), 10**9) is None
    assert ticket.headers() == []
    ticket.take_tokens(10**9)
    ticket.release(5)


def test_what_a_key_asks_of_a_model_is_told_where_it_is_the_least(limiter):
    ticket = ticket_of(limiter, by_model(key_with(rpm=100, tpm=50), a=Limits(rpm=3, tpm=900)))
    hold = ticket.take_model(("a", ""), 100)
    assert hold is not None
    assert dict(ticket.headers())["x-ratelimit-limit-requests"] == "100"
    ticket.tell_of(hold)
    headers = dict(ticket.headers())
    assert headers["x-ratelimit-limit-requests"] == "3"
    assert headers["x-ratelimit-remaining-requests"] == "2"
    assert headers["x-ratelimit-limit-tokens"] == "50"
    hold.release(880)
    assert dict(ticket.headers())["x-ratelimit-remaining-tokens"] == "20"


def test_a_model_that_was_asked_enough_is_refused_with_its_name(limiter):
    key = by_model(key_with(rpm=100), a=Limits(rpm=2), b=Limits(tpm=10))
    ticket = ticket_of(limiter, key)
    for _ in range(2):
        ticket.take_model(("a", ""), 1)
    with pytest.raises(RateLimited) as caught:
        ticket.take_model(("a", ""), 1)
    error = caught.value
    assert error.message == "more than the key's 2 requests per minute for a"
    assert error.details == {
        "scope": "key and model", "limit": "rpm", "allowed": 2, "model": "a",
    }  # fmt: skip
    assert int(error.headers["Retry-After"]) in (59, 60, 61)
    assert error.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(RateLimited) as caught:
        ticket.take_model(("b", ""), 11)
    assert caught.value.headers["x-should-retry"] == "false"
    other = by_model(key_with("key_2"), a=Limits(rpm=2))
    assert ticket_of(limiter, other).take_model(("a", ""), 1)


def test_the_limits_of_an_alias_hold_beside_those_of_its_models(limiter):
    key = by_model(key_with(), a=Limits(parallel=5), b=Limits(rpm=5), any=Limits(parallel=2))
    ticket = ticket_of(limiter, key)
    holds = [ticket.take_model((name, "any"), 1) for name in ("a", "b")]
    with pytest.raises(RateLimited) as caught:
        ticket.take_model(("a", "any"), 1)
    assert caught.value.details["model"] == "any"
    assert holds[0] is not None
    holds[0].release(1)
    assert ticket.take_model(("c", "any"), 1)


def test_each_host_enforces_its_part_of_what_a_model_may_be_asked(board, limiter):
    board.live_hosts = 2
    ticket = ticket_of(limiter, by_model(key_with(), a=Limits(rpm=7)))
    for _ in range(3):
        ticket.take_model(("a",), 1)
    with pytest.raises(RateLimited) as caught:
        ticket.take_model(("a",), 1)
    assert caught.value.details["allowed"] == 7


def test_anthropics_callers_are_told_in_its_words(limiter):
    key = key_with(rpm=2, tpm=500)
    ticket = limiter.admit(key, None, "anthropic")
    assert ticket is not None
    ticket.take_tokens(100)
    headers = dict(ticket.headers())
    asked = {name: value for name, value in headers.items() if not name.endswith("-reset")}
    assert asked == {
        "anthropic-ratelimit-requests-limit": "2",
        "anthropic-ratelimit-requests-remaining": "1",
        "anthropic-ratelimit-tokens-limit": "500",
        "anthropic-ratelimit-tokens-remaining": "400",
    }
    for what in ("requests", "tokens"):
        text = headers[f"anthropic-ratelimit-{what}-reset"]
        left_secs = datetime.fromisoformat(text).timestamp() - time.time()
        assert text.endswith("Z") and 58 < left_secs < 62
    limiter.admit(key, None, "anthropic")
    with pytest.raises(RateLimited) as caught:
        limiter.admit(key, None, "anthropic")
    assert caught.value.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert not any(name.startswith("x-ratelimit") for name in caught.value.headers)

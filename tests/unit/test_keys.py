"""Tokens have one shape, cost one bcrypt for each key and host, and give away nothing."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any

import bcrypt
import gevent
import orjson
import pytest
from gevent.event import Event
from gevent.threadpool import ThreadPool
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.domain import SCOPES, ApiKey
from tokenhub.errors import ClientClosed, InvalidRequest
from tokenhub.keys import (
    IssuedKey,
    KeyVerifier,
    digest_of,
    fingerprint_of,
    issue,
    parse_expiry,
    parse_scopes,
)

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000


def run_here(work: Callable[[], Any]) -> Any:
    return work()


class Seen(set[int]):
    """The host's fingerprints; `add` it has."""

    def contains(self, fingerprint: int) -> bool:
        return fingerprint in self


class Pool:
    """A pool of two that counts what it ran."""

    def __init__(self) -> None:
        self.threads = ThreadPool(2)
        self.runs = 0

    def run(self, work: Callable[[], Any]) -> Any:
        self.runs += 1
        return self.threads.apply(work)


class Gate:
    """Runs nothing before its event is set."""

    def __init__(self) -> None:
        self.event = Event()
        self.runs = 0

    def run(self, work: Callable[[], Any]) -> Any:
        self.runs += 1
        self.event.wait()
        return work()


@pytest.fixture
def pool() -> Iterator[Pool]:
    found = Pool()
    yield found
    found.threads.kill()


@pytest.fixture(scope="module")
def issued() -> IssuedKey:
    return issue(run_here)


@pytest.fixture
def key(issued: IssuedKey) -> ApiKey:
    # Cost 4 instead of 10: the tests are about how often, not how long.
    cheap = bcrypt.hashpw(issued.sha256.hex().encode(), bcrypt.gensalt(4)).decode()
    return ApiKey(issued.id, "tests", issued.prefix, issued.sha256, cheap)


def test_an_issued_key_has_the_originals_token_prefix_and_hash(issued):
    assert re.fullmatch("tokenhub_[0-9a-f]{64}", issued.token)
    assert issued.prefix == issued.token[:17]
    digest = sha256(issued.token.encode())
    assert issued.sha256 == digest.digest()
    assert issued.bcrypt_hash.startswith("$2b$10$")
    assert bcrypt.checkpw(digest.hexdigest().encode(), issued.bcrypt_hash.encode())


def test_the_id_is_random_and_not_part_of_the_secret(issued):
    assert re.fullmatch("key_[0-9a-f]{16}", issued.id)
    assert issued.id[4:] not in issued.token
    assert issued.id[4:] not in issued.sha256.hex()


def test_no_two_keys_are_alike_and_each_is_hashed_where_it_is_told_to(issued, pool):
    other = issue(pool.run)
    assert pool.runs == 1
    for name in ("id", "token", "prefix", "sha256", "bcrypt_hash"):
        assert getattr(issued, name) != getattr(other, name)


def test_a_key_shows_neither_its_token_nor_its_hashes(issued):
    shown = repr(issued) + str(issued)
    for secret in (issued.token[17:], issued.bcrypt_hash, repr(issued.sha256)):
        assert secret not in shown
    assert issued.id in shown


def test_the_digest_of_an_issued_token_is_what_was_stored(issued):
    assert digest_of(issued.token) == issued.sha256


@given(st.text(st.characters()))
def test_what_is_not_a_token_has_no_digest(text):
    assert digest_of(text) is None
    assert digest_of("tokenhub_" + text) is None


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda token: token + "\n",
        lambda token: token + "0",
        lambda token: token[:-1],
        lambda token: " " + token,
        lambda token: token[:-1] + "g",
        lambda token: token[:-1] + "٣",
        lambda token: "Bearer " + token,
        lambda token: token.replace("tokenhub_", "tokenhub-"),
    ],
)
def test_a_token_that_is_a_little_off_has_no_digest(change, issued):
    assert digest_of(change(issued.token)) is None


def test_the_first_use_costs_one_bcrypt_and_later_ones_none(issued, key, pool):
    verifier = KeyVerifier(seen=Seen(), run_blocking=pool.run)
    assert [verifier.verify(issued.token, key) for _ in range(5)] == [True] * 5
    assert pool.runs == 1


def test_another_worker_of_the_host_does_not_pay_again(issued, key, pool):
    seen = Seen()
    assert KeyVerifier(seen=seen, run_blocking=pool.run).verify(issued.token, key)
    assert KeyVerifier(seen=seen, run_blocking=pool.run).verify(issued.token, key)
    assert pool.runs == 1


def test_a_key_whose_hash_has_changed_is_checked_again(issued, key, pool):
    verifier = KeyVerifier(seen=Seen(), run_blocking=pool.run)
    assert verifier.verify(issued.token, key)
    assert verifier.verify(issued.token, replace(key, bcrypt_hash=issued.bcrypt_hash))
    assert pool.runs == 2


@given(token=st.text(st.characters(), max_size=100))
def test_a_wrong_token_is_refused_without_a_bcrypt(token):
    def refuse(work: Callable[[], Any]) -> Any:
        raise AssertionError("bcrypt was run")

    key = ApiKey("key_1", "tests", "tokenhub_", sha256(b"right").digest(), "$2b$04$")
    seen = Seen()
    assert not KeyVerifier(seen=seen, run_blocking=refuse).verify(token, key)
    assert not seen


def test_a_seen_key_does_not_open_the_door_for_another_token(issued, key, pool):
    verifier = KeyVerifier(seen=Seen(), run_blocking=pool.run)
    assert verifier.verify(issued.token, key)
    assert not verifier.verify("tokenhub_" + "0" * 64, key)


def test_a_hash_of_another_token_is_refused_each_time_and_not_remembered(issued, key, pool):
    seen = Seen()
    verifier = KeyVerifier(seen=seen, run_blocking=pool.run)
    wrong = replace(key, bcrypt_hash=bcrypt.hashpw(b"else", bcrypt.gensalt(4)).decode())
    assert [verifier.verify(issued.token, wrong) for _ in range(2)] == [False, False]
    assert pool.runs == 2
    assert not seen


@pytest.mark.parametrize("damaged", ["", "$2b$10$short", "plain", "$2b$99$" + "a" * 53, "\0"])
def test_a_damaged_hash_is_refused_and_logged_without_it(damaged, issued, key, caplog):
    verifier = KeyVerifier(seen=Seen(), run_blocking=run_here)
    with caplog.at_level(logging.ERROR, "tokenhub.keys"):
        assert not verifier.verify(issued.token, replace(key, bcrypt_hash=damaged))
    assert [record.__dict__["key_id"] for record in caplog.records] == [key.id]
    assert issued.token[17:] not in str(vars(caplog.records[0]))


def test_500_first_uses_at_once_cost_one_bcrypt(issued, key, pool):
    verifier = KeyVerifier(seen=Seen(), run_blocking=pool.run)
    callers = [gevent.spawn(verifier.verify, issued.token, key) for _ in range(500)]
    gevent.joinall(callers, raise_error=True)
    assert all(caller.value for caller in callers)
    assert pool.runs == 1
    assert not verifier._flights


def test_500_first_uses_of_a_damaged_key_at_once_cost_one_bcrypt(issued, key, pool):
    verifier = KeyVerifier(seen=Seen(), run_blocking=pool.run)
    wrong = replace(key, bcrypt_hash=bcrypt.hashpw(b"else", bcrypt.gensalt(4)).decode())
    callers = [gevent.spawn(verifier.verify, issued.token, wrong) for _ in range(500)]
    gevent.joinall(callers, raise_error=True)
    assert not any(caller.value for caller in callers)
    assert pool.runs == 1


def test_different_keys_do_not_wait_for_each_other(issued, key):
    gate = Gate()

    verifier = KeyVerifier(seen=Seen(), run_blocking=gate.run)
    others = [key, replace(key, bcrypt_hash=issued.bcrypt_hash)]
    callers = [gevent.spawn(verifier.verify, issued.token, each) for each in others]
    gevent.idle()
    assert gate.runs == 2
    gate.event.set()
    gevent.joinall(callers, raise_error=True)
    assert [caller.value for caller in callers] == [True, True]


def test_when_the_first_client_leaves_one_of_those_who_wait_takes_over(issued, key):
    gate = Gate()

    def verify() -> bool | None:
        try:
            return verifier.verify(issued.token, key)
        except ClientClosed:
            return None

    verifier = KeyVerifier(seen=Seen(), run_blocking=gate.run)
    callers = [gevent.spawn(verify) for _ in range(20)]
    gevent.idle()
    callers[0].kill(ClientClosed)
    gate.event.set()
    gevent.joinall(callers, raise_error=True)
    assert [caller.value for caller in callers] == [None] + [True] * 19
    assert gate.runs == 2
    assert not verifier._flights


@given(digest=st.binary(min_size=32, max_size=32), other=st.binary(min_size=32, max_size=32))
def test_fingerprints_have_63_bits_and_tell_keys_apart(digest, other):
    found = fingerprint_of(digest, "$2b$10$one")
    assert 0 < found < 2**63
    assert found != fingerprint_of(digest, "$2b$10$two")
    assert (found == fingerprint_of(other, "$2b$10$one")) == (digest == other)


@given(st.lists(st.sampled_from(sorted(SCOPES))))
def test_scopes_are_taken_as_a_list_and_as_the_originals_string(words):
    expected = tuple(dict.fromkeys(words))
    assert parse_scopes(words) == expected
    assert parse_scopes(orjson.dumps(words).decode()) == expected


@pytest.mark.parametrize("empty", ["", "  ", "[]", []])
def test_empty_scopes_mean_none_not_all_as_in_the_original(empty):
    assert parse_scopes(empty) == ()


@given(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.dictionaries(st.sampled_from(sorted(SCOPES)), st.none()),
        st.lists(st.one_of(st.integers(), st.none(), st.lists(st.none())), min_size=1),
        st.lists(st.text(), min_size=1).filter(lambda words: not SCOPES.issuperset(words)),
        st.sampled_from(
            ["chat", '"chat"', "chat,plan", '{"chat":1}', "null", '["Chat"]', "[" * 9999]
        ),
        st.text(min_size=1).filter(str.strip).filter(lambda text: "[" not in text),
    )
)
def test_anything_else_is_no_list_of_scopes(value):
    with pytest.raises(InvalidRequest) as caught:
        parse_scopes(value)
    assert (caught.value.status, caught.value.param) == (400, "scopes")


def test_without_either_a_key_never_expires():
    assert parse_expiry(None, "", NOW_MS) is None


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("720h", 720 * HOUR_MS),
        ("90m", 90 * 60_000),
        ("30d", 30 * 24 * HOUR_MS),
        ("1h30m", 90 * 60_000),
        ("1d12h", 36 * HOUR_MS),
        ("1.5h", 90 * 60_000),
        (".5h", 30 * 60_000),
        ("1.h", HOUR_MS),
        ("+2s", 2000),
        ("1500ms", 1500),
        ("1s500ms", 1500),
        ("3000000ns", 3),
        ("2000us2000µs2000μs", 6),
        ("0h1ms", 1),
    ],
)
def test_a_duration_is_read_as_go_does_and_days_besides(text, milliseconds):
    assert parse_expiry(text, None, NOW_MS) == NOW_MS + milliseconds


@given(st.integers(0, 999), st.integers(0, 99), st.integers(0, 99), st.integers(1, 999))
def test_the_parts_of_a_duration_add_up(hours, minutes, seconds, milliseconds):
    text = f"{hours}h{minutes}m{seconds}s{milliseconds}ms"
    expected = timedelta(
        hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds
    ) // timedelta(milliseconds=1)
    assert parse_expiry(text, None, NOW_MS) == NOW_MS + expected


@pytest.mark.parametrize(
    "value",
    ["0", "0h", "-1h", "1ns", "h", "1", "1 h", "1h ", "1w", "1H", "--1h", "+-1h", "1e3h", "٣h",
     "1h" * 40, "9" * 13 + "h", "999999999999h", 3600, 1.5, True, False, ["1h"], {}],
)  # fmt: skip
def test_a_duration_that_is_none_or_not_in_the_future_is_refused(value):
    with pytest.raises(InvalidRequest) as caught:
        parse_expiry(value, None, NOW_MS)
    assert (caught.value.status, caught.value.param) == (400, "expires_in")


@given(
    seconds=st.integers(NOW_MS // 1000 + 1, 99_999_999_999),  # the last is in the year 5138
    offset=st.builds(timedelta, minutes=st.integers(-1439, 1439)),
)
def test_a_moment_is_the_same_as_rfc3339_as_seconds_and_as_milliseconds(seconds, offset):
    moment = datetime.fromtimestamp(seconds, timezone(offset))
    for value in (moment.isoformat(), seconds, float(seconds), seconds * 1000):
        assert parse_expiry(None, value, NOW_MS) == seconds * 1000


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2030-01-31T00:00:00Z", 0),
        ("2030-01-31t00:00:00z", 0),
        ("2030-01-31 00:00:00.25Z", 250),
        ("2030-01-31T02:00:00.123456789+02:00", 123),
    ],
)
def test_the_spellings_of_rfc3339_are_read(text, milliseconds):
    expected = int(datetime(2030, 1, 31, tzinfo=UTC).timestamp()) * 1000
    assert parse_expiry(None, text, NOW_MS) == expected + milliseconds


@pytest.mark.parametrize(
    "value",
    ["soon", "2030-01-31", "2030-01-31T00:00:00", "20300131T000000Z", "2030-02-30T00:00:00Z",
     "2030-01-31T00:00:00+0200", "2030-01-31T25:00:00Z", "2030-01-31T00:00:00Z\n", "1900000000",
     "2020-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", NOW_MS, NOW_MS // 1000, 0, -1, 10**30,
     float("inf"), float("nan"), True, ["2030-01-31T00:00:00Z"], {}],
)  # fmt: skip
def test_a_moment_that_is_none_or_has_passed_is_refused(value):
    with pytest.raises(InvalidRequest) as caught:
        parse_expiry(None, value, NOW_MS)
    assert (caught.value.status, caught.value.param) == (400, "expires_at")


def test_both_ways_at_once_are_refused():
    with pytest.raises(InvalidRequest, match="not both"):
        parse_expiry("1h", "2030-01-31T00:00:00Z", NOW_MS)


@given(st.one_of(st.text(), st.from_regex(r"[+-]?([0-9.]{1,9}[nuµmshd]{1,2}){1,4}")))
def test_no_text_breaks_the_reading_of_a_duration(text):
    try:
        found = parse_expiry(text, None, NOW_MS)
    except InvalidRequest:
        return
    assert found is None or found > NOW_MS


@given(st.one_of(st.text(), st.floats(), st.integers(), st.from_regex(r"[0-9T:Zz+.-]{20,30}")))
def test_nothing_breaks_the_reading_of_a_moment(value):
    try:
        found = parse_expiry(None, value, NOW_MS)
    except InvalidRequest:
        return
    assert found is None or found > NOW_MS

"""Tokens have one shape, cost one bcrypt for each key and host, and give away nothing."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

import bcrypt
import gevent
import pytest
from gevent.event import Event
from gevent.threadpool import ThreadPool
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.domain import ApiKey
from tokenhub.errors import ClientClosed
from tokenhub.keys import (
    IssuedKey,
    KeyVerifier,
    digest_of,
    fingerprint_of,
    issue,
)


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


def test_the_secret_before_is_checked_against_its_own_hash_once(issued, key, pool):
    new = sha256(b"new").digest()
    rotated = replace(
        key, sha256=new, bcrypt_hash="$2b$", previous_sha256=key.sha256,
        previous_bcrypt_hash=key.bcrypt_hash,
    )  # fmt: skip
    verifier = KeyVerifier(seen=Seen(), run_blocking=pool.run)
    assert [verifier.verify(issued.token, rotated) for _ in range(3)] == [True] * 3
    assert not verifier.verify("tokenhub_" + "0" * 64, rotated)
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

"""How often clients, keys and teams have asked, counted for all workers of this host at once.

Looking and taking is one step under the board's lock, in which nothing yields. What is in flight is
counted in a column for each worker slot, so that what a dead worker held can be given back. Nothing
here knows whom a row is about, nor what a refusal is answered with.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from tokenhub import limits
from tokenhub.board.memory import Memory
from tokenhub.board.places import REACH, Places
from tokenhub.limits import MINUTE_WORDS, Share

Scope = Literal["address", "admin", "key", "team", "key and model"]
SCOPES: tuple[Scope, ...] = ("address", "admin", "key", "team", "key and model")

LimitName = Literal["rps", "rpm", "tpm", "parallel"]

ADDRESSES = 1 << 16
SUBJECTS = 1 << 14
"""Most of each at a time; see `Places` for what happens to those beyond."""

# Columns of a subject: its bucket, and what it has asked in the last minute.
FULL_AT_NS, REQUESTS, TOKENS, SUBJECT_WORDS = 0, 1, 1 + MINUTE_WORDS, 1 + 2 * MINUTE_WORDS

MINUTE_NS = limits.STEPS * limits.STEP_NS


class Claim(NamedTuple):
    """Somebody whose limits must hold: whose row it is, and what may pass here."""

    fingerprint: int
    scope: Scope
    share: Share


class Refusal(NamedTuple):
    """Which claim's limit it was, and in how many nanoseconds it may pass; None = never."""

    claim: Claim
    limit: LimitName
    wait_ns: int | None


_Rows = list[tuple[Claim, int]]


class Standing(NamedTuple):
    """What a claim has left of its limits now, and in how many nanoseconds it has all again."""

    bucket_left: int
    bucket_reset_ns: int
    requests: int
    requests_reset_ns: int
    tokens: int
    tokens_reset_ns: int


def fingerprint_of(*names: str) -> int:
    """What a row is found by; never 0.

    Python's own hash: salted by the arbiter's random seed, which its workers inherit, so that
    nobody outside can make two that are alike.
    """
    return hash(names) or 1


def words_for(slots: int) -> int:
    """How many words `Rates` needs; most are never touched."""
    subjects = (SUBJECTS + REACH) * (2 + SUBJECT_WORDS + slots)
    return len(SCOPES) + (ADDRESSES + REACH) * 3 + subjects


class Rates:
    """Addresses, each with a bucket; and subjects (keys, teams, what a key asks of one model), each
    with all that limits know.

    Args:
        now_ns: a clock that all processes of this host share, and that never goes back.
    """

    def __init__(
        self, memory: Memory, *, slots: int, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._memory = memory
        self._words = memory.words
        self._now_ns = now_ns
        self._refused = memory.reserve(len(SCOPES))
        self._addresses = Places(memory, ADDRESSES)
        self._full_at_ns = memory.reserve(ADDRESSES + REACH)
        self._subjects = Places(memory, SUBJECTS, self._is_in_flight)
        self._columns = memory.reserve((SUBJECTS + REACH) * SUBJECT_WORDS)
        # Slot by slot, so that a dead worker's can be wiped at once.
        self._in_flight = memory.reserve((SUBJECTS + REACH) * slots)
        self._in_flight_end = self._in_flight + (SUBJECTS + REACH) * slots

    def take_address(self, name: int, scope: Scope, bucket: limits.Bucket) -> int:
        """Take one request of a client's address.

        Returns: how long it must wait, in nanoseconds; 0 = it may pass.
        """
        places, words = self._addresses, self._words
        with self._memory.lock():
            now = self._now_ns()
            row = places.find(name)
            if row is None:
                row = places.take(name, now, until_ns=now) or 0
                words[self._full_at_ns + row] = now
            at = self._full_at_ns + row
            words[at], wait_ns = limits.take(bucket, words[at], now)
            places.keep(row, words[at])
            if wait_ns:
                self._count_refusal(scope)
        return wait_ns

    def take(self, claims: Sequence[Claim], slot: int) -> Refusal | None:
        """Take one request of all claims, or of none. Pair with `give_back`.

        Returns: None = it may pass; else the limit that it must wait for longest.
        """
        with self._memory.lock():
            now = self._now_ns()
            rows = self._rows_of(claims, now)
            refusals = self._refusals_of_one(rows, now)
            if refusals:
                return self._refuse(refusals)
            for claim, row in rows:
                self._take_request(claim.share, row, slot, now)
        return None

    def take_tokens(self, claims: Sequence[Claim], tokens: int) -> Refusal | int:
        """Take tokens of all claims that limit them, or of none.

        A request that is larger than this host's part passes when it is alone in its minute: it
        may be within the limit for all of that.

        Returns: when they were taken (for `correct_tokens`), or the limit to wait for.
        """
        with self._memory.lock():
            now = self._now_ns()
            rows = self._rows_of([claim for claim in claims if claim.share.tpm], now)
            refusals = self._refusals_of_tokens(rows, now, tokens)
            if refusals:
                return self._refuse(refusals)
            self._take_tokens(rows, now, tokens)
        return now

    def take_all(self, claims: Sequence[Claim], slot: int, tokens: int) -> Refusal | int:
        """Take one request and its tokens of all claims, or nothing of any: `take` and
        `take_tokens` in one. Pair with `give_back`.

        Returns: when they were taken (for `correct_tokens`), or the limit to wait for longest.
        """
        with self._memory.lock():
            now = self._now_ns()
            rows = self._rows_of(claims, now)
            refusals = [
                *self._refusals_of_one(rows, now),
                *self._refusals_of_tokens(rows, now, tokens),
            ]
            if refusals:
                return self._refuse(refusals)
            for claim, row in rows:
                self._take_request(claim.share, row, slot, now)
            self._take_tokens(rows, now, tokens)
        return now

    def correct_tokens(self, claims: Sequence[Claim], then_ns: int, tokens: int) -> None:
        """So many tokens more, or fewer, were used than were taken `then_ns`."""
        with self._memory.lock():
            now = self._now_ns()
            for claim in claims:
                row = self._row_of(claim, now) if claim.share.tpm else None
                if row is None:
                    continue
                if tokens > 0:
                    self._add_tokens(row, now, tokens)
                else:
                    limits.take_back(self._words, self._column(row, TOKENS), then_ns, -tokens)

    def give_back(self, claims: Sequence[Claim], slot: int) -> None:
        """A request of this worker is over. Needs no lock: each column has one writer, and a row
        with a request in flight is nobody else's."""
        for claim in claims:
            if claim.share.parallel:
                row = self._subjects.find(claim.fingerprint)
                if row is not None:
                    at = self._in_flight_at(slot, row)
                    self._words[at] = max(0, self._words[at] - 1)

    def clear_slot(self, slot: int) -> None:
        """Give back all that a worker held which is gone."""
        start = self._in_flight_at(slot, 0)
        size = SUBJECTS + REACH
        self._words[start : start + size] = memoryview(array("q", bytes(size * 8)))

    def standing(self, claim: Claim) -> Standing:
        """What is left, as of now; read without the lock."""
        now, words, share = self._now_ns(), self._words, claim.share
        row = self._subjects.find(claim.fingerprint)
        bucket_left = bucket_reset_ns = 0
        if row is None:
            depth = share.bucket.depth_ns // share.bucket.interval_ns if share.bucket else 0
            return Standing(depth, 0, share.rpm, 0, share.tpm, 0)
        if share.bucket is not None:
            full_at = words[self._column(row, FULL_AT_NS)]
            bucket_left = limits.left_in(share.bucket, full_at, now)
            bucket_reset_ns = max(0, full_at - now)
        requests = limits.count_minute(words, self._column(row, REQUESTS), now)
        tokens = limits.count_minute(words, self._column(row, TOKENS), now)
        return Standing(
            bucket_left,
            bucket_reset_ns,
            max(0, share.rpm - sum(requests)),
            limits.empty_in(requests, now),
            max(0, share.tpm - sum(tokens)),
            limits.empty_in(tokens, now),
        )

    def refusals(self) -> dict[Scope, int]:
        """How many requests were refused, by whose limit it was."""
        return {scope: self._words[self._refused + at] for at, scope in enumerate(SCOPES)}

    def _refusals_of_one(self, rows: _Rows, now: int) -> list[Refusal]:
        """What is in the way of one more request."""
        return [
            Refusal(claim, name, wait_ns)
            for claim, row in rows
            for name, wait_ns in self._waits(claim.share, row, now)
            if wait_ns > 0
        ]

    def _refusals_of_tokens(self, rows: _Rows, now: int, tokens: int) -> list[Refusal]:
        """What is in the way of so many more tokens."""
        return [
            Refusal(claim, "tpm", wait_ns)
            for claim, row in rows
            if claim.share.tpm
            and (wait_ns := self._wait_for_tokens(claim.share, row, now, tokens)) != 0
        ]

    def _waits(self, share: Share, row: int, now: int) -> list[tuple[LimitName, int]]:
        """How long one more request must wait for each limit."""
        words = self._words
        found: list[tuple[LimitName, int]] = []
        if share.bucket is not None:
            at = self._column(row, FULL_AT_NS)
            found.append(("rps", limits.take(share.bucket, words[at], now)[1]))
        if share.rpm:
            counts = limits.count_minute(words, self._column(row, REQUESTS), now)
            found.append(("rpm", limits.wait_for(counts, sum(counts) + 1 - share.rpm, now)))
        if share.tpm:  # it needs one at least
            counts = limits.count_minute(words, self._column(row, TOKENS), now)
            found.append(("tpm", limits.wait_for(counts, sum(counts) + 1 - share.tpm, now)))
        if share.parallel and self._count_in_flight(row) >= share.parallel:
            found.append(("parallel", 1))  # nobody knows when
        return found

    def _wait_for_tokens(self, share: Share, row: int, now: int, tokens: int) -> int | None:
        if tokens > share.tpm_whole:
            return None
        counts = limits.count_minute(self._words, self._column(row, TOKENS), now)
        used = sum(counts)
        return limits.wait_for(counts, min(used, used + tokens - share.tpm), now)

    def _take_request(self, share: Share, row: int, slot: int, now: int) -> None:
        words, places = self._words, self._subjects
        if share.bucket is not None:
            at = self._column(row, FULL_AT_NS)
            words[at] = limits.take(share.bucket, words[at], now)[0]
            places.keep(row, words[at])
        if share.rpm:
            limits.add_to_minute(words, self._column(row, REQUESTS), now, 1)
            places.keep(row, now + MINUTE_NS)
        if share.parallel:
            words[self._in_flight_at(slot, row)] += 1

    def _take_tokens(self, rows: _Rows, now: int, tokens: int) -> None:
        for claim, row in rows:
            if claim.share.tpm:
                self._add_tokens(row, now, tokens)

    def _add_tokens(self, row: int, now: int, tokens: int) -> None:
        limits.add_to_minute(self._words, self._column(row, TOKENS), now, tokens)
        self._subjects.keep(row, now + MINUTE_NS)

    def _rows_of(self, claims: Sequence[Claim], now: int) -> _Rows:
        """The claims that have a row; one for which there is none to be had is not limited."""
        rows = ((claim, self._row_of(claim, now)) for claim in claims)
        return [(claim, row) for claim, row in rows if row is not None]

    def _row_of(self, claim: Claim, now: int) -> int | None:
        """The claim's row, if there is one to be had. Under the lock."""
        row = self._subjects.find(claim.fingerprint)
        if row is None:
            row = self._subjects.take(claim.fingerprint, now, until_ns=now + MINUTE_NS)
            if row is not None:
                start = self._column(row, 0)
                self._words[start : start + SUBJECT_WORDS] = _EMPTY
        return row

    def _refuse(self, refusals: list[Refusal]) -> Refusal:
        worst = max(refusals, key=lambda each: math.inf if each.wait_ns is None else each.wait_ns)
        self._count_refusal(worst.claim.scope)
        return worst

    def _count_refusal(self, scope: Scope) -> None:
        self._words[self._refused + SCOPES.index(scope)] += 1

    def _count_in_flight(self, row: int) -> int:
        return sum(self._words[self._in_flight + row : self._in_flight_end : SUBJECTS + REACH])

    def _is_in_flight(self, row: int) -> bool:
        return self._count_in_flight(row) > 0

    def _in_flight_at(self, slot: int, row: int) -> int:
        return self._in_flight + slot * (SUBJECTS + REACH) + row

    def _column(self, row: int, column: int) -> int:
        return self._columns + row * SUBJECT_WORDS + column


_EMPTY = memoryview(array("q", bytes(SUBJECT_WORDS * 8)))

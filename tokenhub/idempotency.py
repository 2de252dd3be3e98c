"""A request that is sent twice is answered once: who is first, who waits, what is kept.

The truth is a row in the database, so that it holds for all workers of all hosts. Whoever inserts
it serves the request and renews its lease; whoever finds it waits until it is done. What is kept
is opened with the API key and the idempotency key together, neither of which the database has.
Knows nothing of HTTP, nor of what a request asks for.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import gevent
import orjson
from cryptography.exceptions import InvalidTag
from gevent.event import Event
from sqlalchemy import Connection

from tokenhub.board import Board
from tokenhub.board.replays import Fate
from tokenhub.db import Database, DatabaseAway
from tokenhub.errors import Conflict, RequestRefused, TokenHubError, Unavailable
from tokenhub.store import idempotency as rows
from tokenhub.vault.sealing import encode, seal, unseal

KEEP_SECS = 300
ENTRIES_MAX = 10_000
BYTES_MAX = 128 << 20
"""Of all answers together, as they are kept."""
ANSWER_BYTES_MAX = 1 << 20
"""Of one answer, as it was sent. The answer of a longer one is not kept."""
TRIM_PARTS = 20
"""A worker makes room whenever it has kept this part of what may be kept."""

LEASE_SECS = 5.0
"""How long nothing is heard of an owner before it is taken for dead."""
RENEW_SECS = 1.25
LOST_SECS = 2.0
"""How long after that everybody is told, before the request may be served again."""

WAIT_SECS = 120.0
"""How long a duplicate waits for the first."""
WAITING_MAX = 64
"""Duplicates of one API key that wait in one worker: nothing of the key's limits is taken for
them, and each holds its body."""
POLL_SECS = 0.1
DATABASE_SECS = 2.0

log = logging.getLogger("tokenhub.idempotency")


class KeyReused(RequestRefused):
    """The idempotency key was used for another request."""

    status = 422
    code = "idempotency_key_reused"


class Kept(NamedTuple):
    """An answer as it is sent again.

    Args:
        request_id: of the request that it was made for.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    request_id: str


class Sending(NamedTuple):
    """One sending of a request that may be sent twice.

    Args:
        secret: seals its answer.
        key_id: of the API key.
    """

    turn: rows.Turn
    secret: bytes
    key_id: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What makes two requests the same, and their contents.

    Args:
        key_id: of the API key.
        token: of the API key, as it was given.
        given: the idempotency key.
        words: what its headers say that changes the answer.
    """

    key_id: str
    token: str = field(repr=False)
    endpoint: str
    given: str
    body: bytes = field(repr=False)
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the row is found by. Made of long random values, one of which is not stored."""
        return _hash("name", self.key_id, self.endpoint, self.given).hexdigest()

    @property
    def digest(self) -> bytes:
        """Of the request. Salted: whoever reads it cannot try out what was asked."""
        found = _hash("body", self.key_id, self.endpoint, self.given, *self.words)
        found.update(self.body)
        return found.digest()

    @property
    def secret(self) -> bytes:
        """The API key has 256 random bits: this needs no slow derivation."""
        return _hash("seal", self.token, self.endpoint, self.given).digest()


class Idempotency:
    """One worker's part in it.

    Args:
        host_id: is told to whoever looks into the database.
    """

    def __init__(self, *, database: Database, board: Board, host_id: str) -> None:
        self._database = database
        self._board = board
        self._owner = f"{host_id}/{os.getpid()}"
        self._held: set[str] = set()
        self._is_renewing = False
        self._events: dict[str, Event] = {}
        self._is_watching = False
        self._waiting: Counter[str] = Counter()  # by API key
        self._kept_since_trim = [0, 0]  # entries, bytes

    def sending_of(self, asked: Asked, request_id: str) -> Sending:
        """One sending, by the worker that received it."""
        turn = rows.Turn(asked.name, self._owner, request_id, asked.digest)
        return Sending(turn, asked.secret, asked.key_id)

    def begin(self, sending: Sending, longest_secs: float = WAIT_SECS) -> Kept | None:
        """Wait for our turn. Nothing else may have been taken for the request yet.

        Args:
            longest_secs: how long its caller wants to wait.

        Returns: the answer that there is already; None: serve the request, and end with `keep` or
            `release`.

        Raises:
            KeyReused: it was used for something else.
            Conflict: another serves it, has died while it did, or its answer was not kept.
            Unavailable: the database does not answer.
        """
        until = time.monotonic() + min(longest_secs, WAIT_SECS)
        while True:
            found = self._claim(sending)
            if found is None:
                self._board.replays.note("served")
                self._hold(sending)
                return None
            kept = self._judge(found, sending)
            if kept is not None:
                return kept
            left_secs = until - time.monotonic()
            if left_secs <= 0 or self._waiting[sending.key_id] >= WAITING_MAX:
                raise self._refused("in_flight", _in_flight(found.request_id))
            self._wait(sending, left_secs)

    def keep(self, sending: Sending, answer: Kept | None) -> None:
        """The request was answered for good; before its caller has seen the end of it.

        Args:
            answer: None, or too long = it is not kept, but nobody shall serve the request again.
        """
        sealed = None
        if answer is not None and len(answer.body) <= ANSWER_BYTES_MAX:
            sealed = _sealed(answer, sending)

        def work(connection: Connection) -> None:
            rows.finish(connection, sending.turn, sealed, KEEP_SECS * 1000)

        self._end(sending, work)
        self._make_room(len(sealed or b""))

    def release(self, sending: Sending) -> None:
        """The request came to nothing that is final: the next who sends it is served."""
        self._end(sending, lambda connection: rows.release(connection, sending.turn))

    def trim(self) -> None:
        """Let the oldest answers go that are too many."""
        self._kept_since_trim = [0, 0]
        try:
            self._database.write(lambda c: rows.trim(c, ENTRIES_MAX, BYTES_MAX))
        except DatabaseAway:  # next time
            log.debug("old answers stay for now")

    def _claim(self, sending: Sending) -> rows.Found | None:
        def work(connection: Connection) -> rows.Found | None:
            lease_ms, rest_ms = int(LEASE_SECS * 1000), int(LOST_SECS * 1000)
            return rows.claim(connection, sending.turn, lease_ms, rest_ms)

        try:
            return self._database.write(work, timeout_secs=DATABASE_SECS)
        except DatabaseAway as away:
            if away.is_outcome_unknown:
                gevent.spawn(self.release, sending)
            unavailable = Unavailable(
                "the database is away, so nobody can say whether this was served before",
                code="idempotency_unavailable",
                headers={"Retry-After": "1"},
            )
            raise self._refused("unavailable", unavailable) from None
        except BaseException:  # the caller has left: what was claimed meanwhile is nobody's
            gevent.spawn(self.release, sending)
            raise

    def _judge(self, found: rows.Found, sending: Sending) -> Kept | None:
        """The answer that there is; None = somebody is at it."""
        if found.digest != sending.turn.digest:
            reused = KeyReused(
                "the idempotency key was used for another request", param="Idempotency-Key"
            )
            raise self._refused("reused", reused)
        match found.state:
            case rows.DONE:
                kept = _find_opened(found, sending)
                if kept is not None:
                    self._board.replays.note("replayed")
                    return kept
            case rows.LOST:
                raise self._refused("owner_lost", _owner_lost(found))
            case rows.IN_FLIGHT:
                return None
        raise self._refused("not_kept", _not_kept(found.request_id))

    def _refused(self, fate: Fate, error: TokenHubError) -> TokenHubError:
        self._board.replays.note(fate)
        return error

    def _wait(self, sending: Sending, longest_secs: float) -> None:
        """Until the one that is at it has ended, as far as is known."""
        event = self._events.setdefault(sending.turn.name, Event())
        if not self._is_watching:
            self._is_watching = True
            gevent.spawn(self._watch)
        self._waiting[sending.key_id] += 1
        try:
            event.wait(longest_secs)
        finally:
            self._waiting -= Counter((sending.key_id,))  # who has none left goes

    def _watch(self) -> None:
        """Look after all that is waited for, while anybody waits: one question for all."""
        try:
            while self._waiting:
                gevent.sleep(POLL_SECS)
                names = [*self._events]
                try:
                    served = self._database.read(
                        lambda connection: rows.list_waiting(connection, names),  # noqa: B023
                        timeout_secs=DATABASE_SECS,
                    )
                except DatabaseAway:
                    served = set()  # they are told so when they ask
                for name in set(names) - served:
                    self._wake(name)
        finally:
            self._is_watching = False
            for name in [*self._events]:
                self._wake(name)

    def _wake(self, name: str) -> None:
        event = self._events.pop(name, None)
        if event is not None:
            event.set()

    def _hold(self, sending: Sending) -> None:
        self._held.add(sending.turn.request_id)
        if not self._is_renewing:
            self._is_renewing = True
            gevent.spawn(self._renew)

    def _renew(self) -> None:
        """Say that we live, while we hold anything."""
        try:
            while True:
                gevent.sleep(RENEW_SECS)
                held = [*self._held]
                if not held:
                    return
                try:
                    self._database.write(
                        lambda c: rows.renew(c, held, int(LEASE_SECS * 1000)),  # noqa: B023
                        timeout_secs=DATABASE_SECS,
                    )
                except DatabaseAway:
                    log.debug("leases were not renewed")
        finally:
            self._is_renewing = False

    def _end(self, sending: Sending, work: Callable[[Connection], None]) -> None:
        try:
            self._database.write(work, timeout_secs=DATABASE_SECS)
        except DatabaseAway:  # the lease runs out, and who asks again is told
            log.warning(
                "the end of a request was not written down",
                extra={"request_id": sending.turn.request_id},
            )
        finally:
            self._held.discard(sending.turn.request_id)
            self._wake(sending.turn.name)

    def _make_room(self, size: int) -> None:
        since = self._kept_since_trim
        since[0] += 1
        since[1] += size
        if since[0] >= ENTRIES_MAX // TRIM_PARTS or since[1] >= BYTES_MAX // TRIM_PARTS:
            self._kept_since_trim = [0, 0]
            gevent.spawn(self.trim)


def _hash(*words: str) -> hashlib._Hash:
    """Of words that none of their neighbours can take for its own."""
    found = hashlib.sha256()
    for word in ("tokenhub idempotency", *words):
        data = encode(word)
        found.update(len(data).to_bytes(8, "big") + data)
    return found


def _sealed(answer: Kept, sending: Sending) -> bytes:
    head = orjson.dumps([answer.status, answer.headers])
    packed = zlib.compress(head + b"\n" + answer.body, 1)
    return seal(sending.secret, packed, sending.turn.name.encode())


def _find_opened(found: rows.Found, sending: Sending) -> Kept | None:
    """None: the API key has had another secret then."""
    try:
        packed = unseal(sending.secret, found.answer, sending.turn.name.encode())
    except InvalidTag:
        return None
    head, _, body = zlib.decompress(packed).partition(b"\n")
    status, headers = orjson.loads(head)
    return Kept(status, [(name, value) for name, value in headers], body, found.request_id)


def _in_flight(request_id: str) -> Conflict:
    return Conflict(
        f"the request is still being served as {request_id}",
        code="idempotency_in_flight",
        headers={"Retry-After": "1"},
    )


def _owner_lost(found: rows.Found) -> Conflict:
    """The SDKs would send it again by themselves: whether to pay twice is for people to decide."""
    return Conflict(
        f"whoever served the request as {found.request_id} has died, and it may have been paid for;"
        " sent again, it is served anew",
        code="idempotency_owner_lost",
        headers={"Retry-After": str(max(1, -(-found.left_ms // 1000))), "x-should-retry": "false"},
    )


def _not_kept(request_id: str) -> Conflict:
    return Conflict(
        f"the request was answered as {request_id}, and the answer is not kept:"
        " it was too long, or the API key had another secret",
        code="idempotency_not_kept",
        headers={"x-should-retry": "false"},
    )

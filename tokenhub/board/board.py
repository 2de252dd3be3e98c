"""The board itself: who sits in which slot, what generation the catalog has, which keys are proven.

Times are `time.monotonic` milliseconds where two processes compare them, for a clock that is set
must not make the database look away.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from tokenhub.access import rest_secs
from tokenhub.board import counters, purse, rates
from tokenhub.board.backlog import BACKLOG_WORDS, Backlog
from tokenhub.board.counters import Counters
from tokenhub.board.endpoints import ENDPOINTS_MAX, PROVIDERS_MAX, Endpoints
from tokenhub.board.feeds import FEED_WORDS, Feeds
from tokenhub.board.memory import Memory
from tokenhub.board.purse import Purse
from tokenhub.board.rates import Rates
from tokenhub.board.replays import Replays
from tokenhub.board.throttle import THROTTLE_WORDS, Throttle
from tokenhub.board.turns import TURN_WORDS, Turns
from tokenhub.board.vault import LastUse, Tries
from tokenhub.board.vitals import ROWS_MAX as VITAL_ROWS
from tokenhub.board.vitals import Vitals
from tokenhub.board.windows import WINDOW_WORDS, WINDOWS

PROVEN_KEYS = 1 << 15
PROBES = 8

GENERATION, RELOADS, NEXT_SEGMENT, DATABASE_SEEN_MS, HEALTH_CLEARED = range(5)
LIVE_HOSTS, ENDING, HEARTBEATS, WORKER_EXITS, HEADER = range(5, 10)
SLOT_PID, SLOT_IN_FLIGHT, SLOT_WORDS = range(3)


def unix_ms() -> int:
    """Now, as unix milliseconds."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """A clock that all processes of this host share and nobody can set."""
    return time.monotonic_ns() // 1_000_000


class Board:
    """What the workers of one host share. Made once, before the first fork.

    Args:
        slots: most workers at a time, old and new ones of a restart together.
        first_segment: the first journal segment number of this run.
    """

    def __init__(self, *, slots: int, first_segment: int = 1) -> None:
        words = 4096 + PROVEN_KEYS + slots * SLOT_WORDS
        words += counters.words_for(slots) + BACKLOG_WORDS + slots
        words += VITAL_ROWS * (slots * WINDOWS * WINDOW_WORDS + 40)
        words += (PROVIDERS_MAX + ENDPOINTS_MAX) * 16 + slots * FEED_WORDS
        words += THROTTLE_WORDS + TURN_WORDS + rates.words_for(slots) + purse.words_for(slots)
        self._memory = Memory(words)
        self._words = self._memory.words
        self._header = self._memory.reserve(HEADER)
        self._slot_words = self._memory.reserve(slots * SLOT_WORDS)
        self._proven = self._memory.reserve(PROVEN_KEYS)
        self.slots = slots
        self.slot = 0
        self.started_at = unix_ms()
        self.counters = Counters(self._memory, slots=slots)
        self.backlog = Backlog(
            self._memory, slots=slots, first_segment=first_segment, now_ms=monotonic_ms
        )
        self.vitals = Vitals(self._memory, slots=slots, now_ms=unix_ms)
        self.endpoints = Endpoints(self._memory, now_ms=unix_ms)
        self.vault_use = LastUse(self._memory, now_ms=monotonic_ms)
        self.vault_tries = Tries(self._memory, now_ms=monotonic_ms)
        self.admin_throttle = Throttle(self._memory, rest_secs=rest_secs, now_ms=monotonic_ms)
        self.rates = Rates(self._memory, slots=slots)
        self.purse = Purse(self._memory, slots=slots)
        self.turns = Turns(self._memory)
        self.replays = Replays(self._memory)
        self.feeds = Feeds(self._memory, slots=slots)
        self._words[self._header + NEXT_SEGMENT] = first_segment

    # Slots: handed out by the arbiter, which forks one worker at a time.

    def free_slot(self, taken: Collection[int] = ()) -> int | None:
        """A slot that no worker sits in and that is not `taken` already, or None."""
        for slot in range(self.slots):
            if slot not in taken and not self._words[self._slot_at(slot) + SLOT_PID]:
                return slot
        return None

    def sit_down(self, slot: int) -> None:
        """Take a slot for this process."""
        self.slot = slot
        self._words[self._slot_at(slot) + SLOT_PID] = os.getpid()

    def clear_slot_of(self, pid: int) -> None:
        """Free the slot of a worker that is gone; its counters stay."""
        for slot in range(self.slots):
            at = self._slot_at(slot)
            if self._words[at + SLOT_PID] == pid:
                self._words[at + SLOT_IN_FLIGHT] = 0
                self.rates.clear_slot(slot)
                self.purse.clear_slot(slot)
                self.feeds.clear_slot(slot)
                self._words[at + SLOT_PID] = 0
                self._words[self._header + WORKER_EXITS] += 1

    def worker_pids(self) -> list[int]:
        """Workers that sit in a slot."""
        return list(self.workers().values())

    def workers(self) -> dict[int, int]:
        """By slot, the process that sits in it."""
        pids = (self._words[self._slot_at(slot) + SLOT_PID] for slot in range(self.slots))
        return {slot: pid for slot, pid in enumerate(pids) if pid}

    @property
    def worker_exits(self) -> int:
        """How many workers of this run are gone."""
        return self._words[self._header + WORKER_EXITS]

    def beat(self) -> None:
        """This host's leader is at work. Its alone to call."""
        self._words[self._header + HEARTBEATS] += 1

    @property
    def heartbeats(self) -> int:
        """How often a leader of this run has said so."""
        return self._words[self._header + HEARTBEATS]

    def enter(self) -> None:
        """One more request in flight in this worker."""
        self._words[self._slot_at(self.slot) + SLOT_IN_FLIGHT] += 1

    def leave(self) -> None:
        """One request fewer in flight in this worker."""
        self._words[self._slot_at(self.slot) + SLOT_IN_FLIGHT] -= 1

    @property
    def in_flight(self) -> int:
        """Requests that all workers are serving now."""
        return sum(self._words[self._slot_at(slot) + SLOT_IN_FLIGHT] for slot in range(self.slots))

    # The catalog's generation: the newest version of it that this host has heard of.

    @property
    def generation(self) -> int:
        return self._words[self._header + GENERATION]

    def advance(self, generation: int) -> None:
        """Tell every worker that the catalog has reached `generation`."""
        with self._memory.lock():
            if generation > self._words[self._header + GENERATION]:
                self._words[self._header + GENERATION] = generation

    def set_back(self, heard: int, generation: int) -> None:
        """Tell every worker that the catalog is older than `heard`: the database was restored."""
        with self._memory.lock():
            if self._words[self._header + GENERATION] == heard:
                self._words[self._header + GENERATION] = generation
                self._words[self._header + HEALTH_CLEARED] = generation

    def clear_health(
        self, subject_ids: Iterable[str], version: int, *, urls: Iterable[str] = ()
    ) -> None:
        """Forget what is held against models, providers and endpoints; once for each version.

        Args:
            version: the generation at which an operator asked for it. Every worker hears of it, and
                what has failed since the first of them did must not be forgotten by the last.
        """
        with self._memory.lock():
            if version <= self._words[self._header + HEALTH_CLEARED]:
                return
            self._words[self._header + HEALTH_CLEARED] = version
        for subject_id in subject_ids:
            self.vitals.clear(subject_id)
        for url in urls:
            self.endpoints.clear(url)

    @property
    def reloads(self) -> int:
        """How often a soft reload was asked for (SIGHUP)."""
        return self._words[self._header + RELOADS]

    def ask_reload(self) -> None:
        """Ask every worker to re-read what may change at run time. The arbiter's alone to call."""
        self._words[self._header + RELOADS] += 1

    @property
    def live_hosts(self) -> int:
        """How many hosts share the cluster's limits, this one included; at least 1."""
        return self._words[self._header + LIVE_HOSTS] or 1

    @live_hosts.setter
    def live_hosts(self, hosts: int) -> None:
        self._words[self._header + LIVE_HOSTS] = max(1, hosts)

    @property
    def is_ending(self) -> bool:
        """Whether this host was told to end, and not just a worker of it."""
        return self._words[self._header + ENDING] > 0

    def announce_end(self) -> None:
        """Tell every worker that the host ends. The arbiter's alone to call."""
        self._words[self._header + ENDING] = 1

    def next_segment(self) -> int:
        """A journal segment number that nobody else has."""
        with self._memory.lock():
            number = self._words[self._header + NEXT_SEGMENT]
            self._words[self._header + NEXT_SEGMENT] = number + 1
        return number

    def saw_database(self) -> None:
        """The database has just answered."""
        self._words[self._header + DATABASE_SEEN_MS] = monotonic_ms()

    @property
    def has_seen_database(self) -> bool:
        """Whether any worker of this host has ever reached the database."""
        return self._words[self._header + DATABASE_SEEN_MS] > 0

    @property
    def database_age_secs(self) -> float:
        """Seconds since the database last answered anybody on this host."""
        return (monotonic_ms() - self._words[self._header + DATABASE_SEEN_MS]) / 1000

    # Proven keys: fingerprints of keys whose bcrypt hash was checked once on this host.

    def contains(self, fingerprint: int) -> bool:
        """Whether `fingerprint` (63 bits, not 0) was added."""
        words = self._words
        at = fingerprint % PROVEN_KEYS
        return any(
            words[self._proven + (at + step) % PROVEN_KEYS] == fingerprint for step in range(PROBES)
        )

    def add(self, fingerprint: int) -> None:
        """Remember `fingerprint`. When its places are taken one is overwritten: that key is merely
        checked again."""
        with self._memory.lock():
            at = fingerprint % PROVEN_KEYS
            places = [self._proven + (at + step) % PROVEN_KEYS for step in range(PROBES)]
            free = next((place for place in places if not self._words[place]), places[0])
            self._words[free] = fingerprint

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude the other workers; nothing inside may yield."""
        with self._memory.lock():
            yield

    def _slot_at(self, slot: int) -> int:
        return self._slot_words + slot * SLOT_WORDS

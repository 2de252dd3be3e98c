"""How each model is doing, as every worker of this host sees it.

Outcomes of attempts are counted in ten-second windows, a column for each worker slot, and read as
one view of the last minute. Cooldowns and failures in a row are single words changed under the
board's lock by the rules of `tokenhub.health`. Probes never come here: only real attempts do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tokenhub.board.memory import Directory, Memory
from tokenhub.health import (
    HealthState,
    HealthView,
    after_failure,
    after_success,
    state_name,
)

ROWS_MAX = 2048
WINDOW_MS = 10_000
WINDOWS = 6
VIEW_AGE_MS = 1000

# Words of a row that all slots share.
COOLDOWN_UNTIL, FAILURES_IN_A_ROW, LAST_SUCCESS_AT, LAST_FAILURE_AT, ERROR_ROW, SHARED = range(6)
# Words of one window in one slot's column.
EPOCH, SUCCESSES, FAILURES, LATENCY_SUM_MS, WINDOW_WORDS = range(5)


@dataclass(frozen=True, slots=True)
class Vital:
    """One model's health, for the admin API; times are unix milliseconds, 0 = never."""

    model_id: str
    state: str
    successes: int
    failures: int
    failures_in_a_row: int
    latency_ms: float
    last_error: str
    last_failure_at: int
    last_success_at: int
    cooldown_until: int


class Vitals:
    """Health of models, shared by the workers of one host.

    Args:
        now_ms: unix milliseconds.
    """

    def __init__(self, memory: Memory, *, slots: int, now_ms: Callable[[], int]) -> None:
        self._memory = memory
        self._words = memory.words
        self._slots = slots
        self._now_ms = now_ms
        self._models = Directory(memory, rows=ROWS_MAX, name_bytes=152)
        self._errors = Directory(memory, rows=64, name_bytes=40)
        self._epoch = memory.reserve(1)
        self._shared = memory.reserve(ROWS_MAX * SHARED)
        self._columns = memory.reserve(ROWS_MAX * slots * WINDOWS * WINDOW_WORDS)
        self._view = HealthView({}, {}, {})
        self._view_epoch = -1
        self._view_until = 0

    def succeed(
        self, model_id: str, latency_ms: int, slot: int, *, age_ms: int | None = None
    ) -> None:
        """An attempt was answered.

        Args:
            latency_ms: how long it took (to the first byte of a stream).
            age_ms: how long ago it began, if that is more (a stream that has ended).
        """
        now = self._now_ms()
        row = self._models.row_of(model_id)
        window = self._window(row, slot, now)
        self._words[window + SUCCESSES] += 1
        self._words[window + LATENCY_SUM_MS] += latency_ms
        shared = self._shared + row * SHARED
        self._words[shared + LAST_SUCCESS_AT] = now
        was_ill = self._words[shared + FAILURES_IN_A_ROW] or self._words[shared + COOLDOWN_UNTIL]
        # An answer to a question older than the failure says nothing about the time since.
        began_at = now - (latency_ms if age_ms is None else age_ms)
        if was_ill and self._words[shared + LAST_FAILURE_AT] <= began_at:
            with self._memory.lock():
                self._store(shared, after_success(self._load(shared)))

    def fail(
        self, model_id: str, error_class: str, slot: int, *, cooldown_seconds: float | None
    ) -> None:
        """An attempt failed through the model's fault; `cooldown_seconds` if it must rest now."""
        now = self._now_ms()
        row = self._models.row_of(model_id)
        self._words[self._window(row, slot, now) + FAILURES] += 1
        error_row = self._errors.row_of(error_class)
        shared = self._shared + row * SHARED
        with self._memory.lock():
            state = after_failure(self._load(shared), now, cooldown_seconds=cooldown_seconds)
            self._store(shared, state)
            self._words[shared + LAST_FAILURE_AT] = now
            self._words[shared + ERROR_ROW] = error_row

    def view(self) -> HealthView:
        """What routing needs. Cooldowns are as of now, means at most a second old."""
        now = self._now_ms()
        if self._words[self._epoch] != self._view_epoch or now >= self._view_until:
            self._refresh(now)
        return self._view

    def list_all(self) -> Iterator[Vital]:
        """Each model that was ever attempted, in the order of first sight."""
        now = self._now_ms()
        for row in range(1, len(self._models)):
            shared = self._shared + row * SHARED
            successes, failures, latency_sum = self._sums(row, now)
            state = self._load(shared)
            yield Vital(
                model_id=self._models.name_at(row),
                state=state_name(state, now),
                successes=successes,
                failures=failures,
                failures_in_a_row=state.consecutive_failures,
                latency_ms=latency_sum / successes if successes else 0.0,
                last_error=self._errors.name_at(self._words[shared + ERROR_ROW]),
                last_failure_at=self._words[shared + LAST_FAILURE_AT],
                last_success_at=self._words[shared + LAST_SUCCESS_AT],
                cooldown_until=state.cooldown_until,
            )

    def _refresh(self, now: int) -> None:
        epoch = self._words[self._epoch]
        cooling: dict[str, float] = {}
        latency_ms: dict[str, float] = {}
        failure_rate: dict[str, float] = {}
        until = now + VIEW_AGE_MS
        for row in range(1, len(self._models)):
            shared = self._shared + row * SHARED
            cooldown_until = self._words[shared + COOLDOWN_UNTIL]
            seen_at = max(
                self._words[shared + LAST_SUCCESS_AT], self._words[shared + LAST_FAILURE_AT]
            )
            if cooldown_until <= now and seen_at < now - WINDOWS * WINDOW_MS:
                continue
            name = self._models.name_at(row)
            if cooldown_until > now:
                cooling[name] = (cooldown_until - now) / 1000
                until = min(until, cooldown_until)
            successes, failures, latency_sum = self._sums(row, now)
            if successes:
                latency_ms[name] = latency_sum / successes
            if successes or failures:
                failure_rate[name] = failures / (successes + failures)
        self._view = HealthView(cooling, latency_ms, failure_rate)
        self._view_epoch = epoch
        self._view_until = until

    def _window(self, row: int, slot: int, now: int) -> int:
        """The current window of a slot's column, emptied if it held an older ten seconds."""
        number = now // WINDOW_MS
        column = (row * self._slots + slot) * WINDOWS + number % WINDOWS
        at = self._columns + column * WINDOW_WORDS
        if self._words[at + EPOCH] != number:
            self._words[at + SUCCESSES] = 0
            self._words[at + FAILURES] = 0
            self._words[at + LATENCY_SUM_MS] = 0
            self._words[at + EPOCH] = number
        return at

    def _sums(self, row: int, now: int) -> tuple[int, int, int]:
        """(successes, failures, sum of latency) over the last minute and all slots."""
        oldest = now // WINDOW_MS - WINDOWS
        start = self._columns + row * self._slots * WINDOWS * WINDOW_WORDS
        end = start + self._slots * WINDOWS * WINDOW_WORDS
        successes = failures = latency_sum = 0
        for at in range(start, end, WINDOW_WORDS):
            if self._words[at + EPOCH] > oldest:
                successes += self._words[at + SUCCESSES]
                failures += self._words[at + FAILURES]
                latency_sum += self._words[at + LATENCY_SUM_MS]
        return successes, failures, latency_sum

    def _load(self, shared: int) -> HealthState:
        return HealthState(
            self._words[shared + FAILURES_IN_A_ROW], self._words[shared + COOLDOWN_UNTIL]
        )

    def _store(self, shared: int, state: HealthState) -> None:
        self._words[shared + FAILURES_IN_A_ROW] = state.consecutive_failures
        self._words[shared + COOLDOWN_UNTIL] = state.cooldown_until
        self._words[self._epoch] += 1

"""How each model and each provider is doing, as every worker of this host sees it.

Outcomes of attempts are counted in windows and read as one view of the last minute. Breakers are a
few words a row, changed under the board's lock by the rules of `tokenhub.health`: a model's moves
by what is the model's fault, a provider's by what none of its models can do anything about, and
any answer heals both. What probes find is kept apart from both: it is in no figure, heals no
breaker and opens none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from tokenhub import health
from tokenhub.board.memory import Directory, Memory
from tokenhub.board.transitions import KINDS, Kind, Transitions
from tokenhub.board.vital import Probe, Vital
from tokenhub.board.windows import WINDOW_MS, WINDOWS, Windows
from tokenhub.health import FRESH, HealthState, HealthView

__all__ = ["Probe", "Vital", "Vitals"]

ROWS_MAX = 2048
VIEW_AGE_MS = 1000
PROBES_FAILED_MAX = 2
"""After so many failed probes in a row, and no answer since, a provider is tried after others."""

# Words of a row that all slots share. ILL is 1 when there is anything for an answer to heal; STATE
# is the first of the words of a HealthState; those of the probe are a provider's alone.
STATE_WORDS = len(FRESH)
ILL, STATE = range(2)
(
    LAST_SUCCESS_AT, LAST_FAILURE_AT, ERROR_ROW,
    PROBE_AT, PROBE_IS_ALIVE, PROBE_STATUS, PROBE_LATENCY_MS, PROBES_FAILED, SHARED,
) = range(STATE + STATE_WORDS, STATE + STATE_WORDS + 9)  # fmt: skip


class Vitals:
    """Health of models and providers, shared by the workers of one host.

    Args:
        now_ms: unix milliseconds.
    """

    def __init__(self, memory: Memory, *, slots: int, now_ms: Callable[[], int]) -> None:
        self._memory = memory
        self._words = memory.words
        self._now_ms = now_ms
        self._subjects = Directory(memory, rows=ROWS_MAX, name_bytes=152)
        self._errors = Directory(memory, rows=64, name_bytes=40)
        self._epoch = memory.reserve(1)
        self._shared = memory.reserve(ROWS_MAX * SHARED)
        self.changes = Transitions(memory, self._subjects, self._errors, ROWS_MAX)
        self._windows = Windows(memory, rows=ROWS_MAX, slots=slots)
        self._rows: dict[tuple[str, str], tuple[int, int]] = {}
        self._named: list[tuple[Kind, str]] = [("model", "")]  # by row; the first is everybody else
        self._view = health.HEALTHY
        self._view_epoch = -1
        self._view_times = range(0)  # when it is good, unless the epoch moves
        self._means_times = range(0)

    def succeed(
        self,
        model_id: str,
        provider_id: str,
        latency_ms: int,
        slot: int,
        *,
        age_ms: int | None = None,
    ) -> None:
        """An attempt was answered.

        Args:
            latency_ms: how long it took (to the first byte of a stream).
            age_ms: how long ago it began, if that is more (a stream that has ended).
        """
        now = self._now_ms()
        words = self._words
        for row in self._rows_of(model_id, provider_id):
            self._windows.add_success(row, slot, now, latency_ms)
            shared = self._shared + row * SHARED
            words[shared + LAST_SUCCESS_AT] = now
            if words[shared + ILL]:
                self._heal(shared, now, latency_ms if age_ms is None else age_ms)

    def fail(
        self,
        model_id: str,
        provider_id: str,
        error_class: str,
        slot: int,
        *,
        cooldown_seconds: float | None,
        is_provider_wide: bool,
        age_ms: int = 0,
    ) -> None:
        """An attempt failed, and not through the caller's fault.

        It is in the figures of both; only one breaker takes it, so that a refused key needs one
        trial when it is over and not one for each model.

        Args:
            cooldown_seconds: the rest that it asks for; None = an ordinary failure.
            is_provider_wide: the provider's other models would have failed as well.
            age_ms: how long ago it began.
        """
        now = self._now_ms()
        error_row = self._errors.row_of(error_class)
        rows = self._rows_of(model_id, provider_id)
        model, provider = (self._shared + row * SHARED for row in rows)
        blamed, spared = (provider, model) if is_provider_wide else (model, provider)
        for row in rows:
            self._windows.add_failure(row, slot, now)
        with self._memory.lock():
            state = health.after_failure(
                self._load(blamed),
                now,
                cooldown_seconds=cooldown_seconds,
                is_rate_limit=error_class == health.RATE_LIMITED,
                age_ms=age_ms,
            )
            for shared in {model, blamed}:
                self._words[shared + LAST_FAILURE_AT] = now
                self._words[shared + ERROR_ROW] = error_row
            self._store(blamed, state)
            # A trial of the other one has told nothing about it, and must not hold up the next.
            self._put(spared, health.without_trial(self._load(spared)))
        self.changes.tell()

    def admit(self, model_id: str, provider_id: str, rng: random.Random) -> bool:
        """Whether this request may try a guarded model, or a model of a guarded provider, now.

        A half-open breaker admits one request at a time, until that one fails, is answered, or has
        taken `TRIAL_SECONDS`; a ramping one admits a share of them. Whoever is not admitted
        should try the others first.
        """
        now = self._now_ms()
        draw = rng.random()
        # The first row is that of all who have none of their own: it holds nobody back.
        rows = [self._shared + row * SHARED for row in self._rows_of(model_id, provider_id) if row]
        with self._memory.lock():
            states = [self._load(shared) for shared in rows]
            if not all(health.is_admitted(state, now, draw) for state in states):
                return False
            if any(self._is_silent(shared) for shared in rows):
                return False
            for shared, state in zip(rows, states, strict=True):
                self._put(shared, health.with_trial(state, now))
        return True

    def release(self, model_id: str, provider_id: str) -> None:
        """A request that was admitted has ended and says nothing: the next one may try."""
        with self._memory.lock():
            for row in self._rows_of(model_id, provider_id):
                shared = self._shared + row * SHARED
                self._put(shared, health.without_trial(self._load(shared)))

    def clear(self, subject_id: str) -> None:
        """Forget what is held against a model or provider, or both if both have this id."""
        for row, (_, id_) in self._list_rows():
            if id_ == subject_id:
                shared = self._shared + row * SHARED
                with self._memory.lock():
                    self._words[shared + PROBES_FAILED] = 0
                    self._store(shared, FRESH, reason="cleared")
                self.changes.tell()

    def tell_changes(self) -> None:
        """Tell of what time has changed, and of what came too soon after another change. The
        leader's to call, now and then."""
        now = self._now_ms()
        for row, _ in self._list_rows():
            shared = self._shared + row * SHARED
            if self._words[shared + ILL] or self.changes.is_told(row):
                with self._memory.lock():
                    self._notice(shared, self._load(shared), now)
        self.changes.tell()

    def note_probe(
        self, provider_id: str, *, is_alive: bool, status: int | None, latency_ms: int
    ) -> None:
        """What a probe has found: shown, and enough to put a silent provider after the others.

        Args:
            status: of the answer; None = there was none.
        """
        now = self._now_ms()
        words = self._words
        shared = self._shared + self._subjects.row_of(_row_name("provider", provider_id)) * SHARED
        with self._memory.lock():
            was_failing = words[shared + PROBES_FAILED]
            words[shared + PROBES_FAILED] = 0 if is_alive else was_failing + 1
            words[shared + PROBE_IS_ALIVE] = is_alive
            words[shared + PROBE_STATUS] = status or 0
            words[shared + PROBE_LATENCY_MS] = latency_ms
            words[shared + PROBE_AT] = now
            if was_failing or not is_alive:
                self._store(shared, self._load(shared))
        self.changes.tell()

    def forget_probe(self, provider_id: str) -> None:
        """Nobody probes it any more: what was found holds nothing back and is not shown."""
        shared = self._shared + self._subjects.row_of(_row_name("provider", provider_id)) * SHARED
        with self._memory.lock():
            self._words[shared + PROBES_FAILED] = 0
            self._words[shared + PROBE_AT] = 0
            self._store(shared, self._load(shared))
        self.changes.tell()

    def view(self) -> HealthView:
        """What routing needs. Breakers are as of now, and means where anything is wrong; the
        others' are at most a second old."""
        now = self._now_ms()
        # (A clock that is set back is outside of the times as well.)
        if self._words[self._epoch] != self._view_epoch or now not in self._view_times:
            self._refresh(now)
        return self._view

    def __len__(self) -> int:
        """Rows in use."""
        return len(self._subjects)

    def list_all(self) -> Iterator[Vital]:
        """Models that were ever attempted, their providers, and those probed, as first seen."""
        now = self._now_ms()
        for row, (kind, id_) in self._list_rows():
            shared = self._shared + row * SHARED
            sums = self._windows.sums(row, now)
            state = self._load(shared)
            yield Vital(
                kind=kind,
                id=id_,
                state=health.state_name(state, now),
                breaker=health.breaker_name(state, now),
                share=0.0 if self._is_silent(shared) else health.share_of(state, now),
                cooldown_until=state.cooldown_until,
                cooldown_secs_left=health.cooldown_ms_left(state, now) / 1000,
                openings=health.settled(state, now).openings,
                successes=sums.successes,
                failures=sums.failures,
                failures_in_a_row=state.consecutive_failures,
                latency_ms=sums.latency_sum_ms / sums.successes if sums.successes else 0.0,
                last_error=self._errors.name_at(self._words[shared + ERROR_ROW]),
                last_failure_at=self._words[shared + LAST_FAILURE_AT],
                last_success_at=self._words[shared + LAST_SUCCESS_AT],
                probe=self._find_probe(shared),
            )

    def _refresh(self, now: int) -> None:
        """Look at all that is ill, and once a second at all: there may be a thousand models."""
        epoch = self._words[self._epoch]
        is_due = now not in self._means_times
        cooling: dict[Kind, dict[str, float]] = {"model": {}, "provider": {}}
        latency_ms = {} if is_due else dict(self._view.latency_ms)
        failure_rate = {} if is_due else dict(self._view.failure_rate)
        guarded: set[str] = set()
        until = now + VIEW_AGE_MS
        for row, (kind, id_) in self._list_rows():
            shared = self._shared + row * SHARED
            is_ill = self._words[shared + ILL]
            if is_ill:
                state = self._load(shared)
                breaker = health.breaker_name(state, now)
                until = min(until, health.changes_at(state, now) or until)
                if breaker == "open":
                    cooling[kind][id_] = health.cooldown_ms_left(state, now) / 1000
                elif breaker != "closed" or self._is_silent(shared):
                    guarded.add(id_)
            if (is_due or is_ill) and kind == "model" and self._was_tried(shared, now):
                sums = self._windows.sums(row, now)
                _put_mean(latency_ms, id_, sums.latency_sum_ms, sums.successes)
                _put_mean(failure_rate, id_, sums.failures, sums.successes + sums.failures)
        self._view = HealthView(
            cooling["model"], latency_ms, failure_rate, cooling["provider"], frozenset(guarded)
        )
        self._view_epoch = epoch
        self._view_times = range(now, until)
        if is_due:
            self._means_times = range(now, now + VIEW_AGE_MS)

    def _heal(self, shared: int, now: int, age_ms: int) -> None:
        with self._memory.lock():
            before = self._load(shared)
            after = health.after_success(before, now, age_ms=age_ms)
            if after != before or self._words[shared + PROBES_FAILED]:
                self._words[shared + PROBES_FAILED] = 0
                self._store(shared, after)
        self.changes.tell()

    def _rows_of(self, model_id: str, provider_id: str) -> tuple[int, int]:
        rows = self._rows.get((model_id, provider_id))
        if rows is None:
            rows = self._rows[model_id, provider_id] = (
                self._subjects.row_of(_row_name("model", model_id)),
                self._subjects.row_of(_row_name("provider", provider_id)),
            )
        return rows

    def _list_rows(self) -> Iterator[tuple[int, tuple[Kind, str]]]:
        """Every row in use but the first, with what it is about."""
        named = self._named
        for row in range(len(named), len(self._subjects)):
            letter, _, id_ = self._subjects.name_at(row).partition("/")
            named.append((KINDS[letter], id_))
        return enumerate(named[1:], start=1)

    def _was_tried(self, shared: int, now: int) -> bool:
        """Whether the windows can hold anything of the last minute."""
        words = self._words
        tried_at = max(words[shared + LAST_SUCCESS_AT], words[shared + LAST_FAILURE_AT])
        return tried_at >= now - WINDOWS * WINDOW_MS

    def _is_silent(self, shared: int) -> bool:
        return self._words[shared + PROBES_FAILED] >= PROBES_FAILED_MAX

    def _find_probe(self, shared: int) -> Probe | None:
        words = self._words
        if not words[shared + PROBE_AT]:
            return None
        return Probe(
            is_alive=words[shared + PROBE_IS_ALIVE] > 0,
            status=words[shared + PROBE_STATUS] or None,
            latency_ms=words[shared + PROBE_LATENCY_MS],
            at=words[shared + PROBE_AT],
        )

    def _load(self, shared: int) -> HealthState:
        return HealthState(*self._words[shared + STATE : shared + STATE + STATE_WORDS])

    def _put(self, shared: int, state: HealthState) -> None:
        """Store a state that looks no different to a view. Under the lock."""
        for offset, value in enumerate(state, start=shared + STATE):
            self._words[offset] = value

    def _store(self, shared: int, state: HealthState, reason: str = "") -> None:
        """Store a state, and have every worker look again. Under the lock."""
        self._put(shared, state)
        self._words[shared + ILL] = state != FRESH or self._words[shared + PROBES_FAILED] > 0
        self._words[self._epoch] += 1
        self._notice(shared, state, self._now_ms(), reason)

    def _notice(self, shared: int, state: HealthState, now: int, reason: str = "") -> None:
        row = (shared - self._shared) // SHARED
        if row:  # the first is nobody's
            error_row = self._words[shared + ERROR_ROW]
            is_silent = self._is_silent(shared)
            self.changes.notice(row, state, now, is_silent=is_silent, why=reason or error_row)


def _put_mean(means: dict[str, float], id_: str, total: int, count: int) -> None:
    """The mean of nothing is unknown."""
    if count:
        means[id_] = total / count


def _row_name(kind: Kind, id_: str) -> str:
    return f"{kind[0]}/{id_}"

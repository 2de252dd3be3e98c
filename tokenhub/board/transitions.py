"""What was last told of each model's and provider's health, so that every change is told once.

Whoever moves a breaker, or finds that time has moved it, compares with what was told last and
takes the change, under the board's lock: of all processes of the host exactly one. Knows nothing
of who is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tokenhub.board.memory import Directory, Memory
from tokenhub.health import BreakerName, HealthState, StateName, breaker_name, state_name

Kind = Literal["model", "provider"]
KINDS: dict[str, Kind] = {"m": "model", "p": "provider"}

Shown = StateName | Literal["silent"]
"""silent: nothing is held against it, but its probes go unanswered, so it is tried last."""

STATES: tuple[Shown, ...] = ("healthy", "degraded", "down", "silent")
BREAKERS: tuple[BreakerName, ...] = ("closed", "open", "half_open", "ramping")

PAUSE_MS = 1000
"""A subject that comes and goes faster is told of so often: what is left is the leader's to tell.
That it is down, or was cleared, is told at once."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of a model's or provider's health.

    Args:
        reason: the error class that did it, or cleared, probes_failed, rest_over, answered,
            recovered.
        until: unix ms, when its rest is over; 0 = it does not rest.
    """

    kind: Kind
    id: str
    old_state: Shown
    new_state: Shown
    old_breaker: BreakerName
    new_breaker: BreakerName
    reason: str
    until: int = 0


class Transitions:
    """The changes that nobody has told yet.

    Args:
        subjects, errors: the names of rows and of error classes.

    Attributes:
        on_change: called in the one process that has taken a change; it must not wait.
    """

    def __init__(self, memory: Memory, subjects: Directory, errors: Directory, rows: int) -> None:
        self._words = memory.words
        self._subjects = subjects
        self._errors = errors
        self._codes = memory.reserve(rows)
        self._told_at = memory.reserve(rows)
        self._taken: list[Transition] = []
        self.on_change: Callable[[Transition], None] = lambda _: None

    def is_told(self, row: int) -> bool:
        """Whether anything but its being healthy was told of a row."""
        return self._words[self._codes + row] != 0

    def notice(
        self, row: int, state: HealthState, now: int, *, is_silent: bool, why: str | int
    ) -> None:
        """Take a change, if there is one and nobody has it. Under the lock.

        Args:
            now: unix ms.
            why: the reason, or the row of the last error's class.
        """
        words, breaker = self._words, breaker_name(state, now)
        name: Shown = state_name(state, now)
        code = _code_of("silent" if is_silent and name == "healthy" else name, breaker)
        told = words[self._codes + row]
        is_soon = 0 <= now - words[self._told_at + row] < PAUSE_MS
        if code == told or (is_soon and name != "down" and not isinstance(why, str)):
            return
        words[self._codes + row], words[self._told_at + row] = code, now
        letter, _, id_ = self._subjects.name_at(row).partition("/")
        (old, old_breaker), (new, _) = _names_of(told), _names_of(code)
        reason = why if isinstance(why, str) else self._reason_of(new, breaker, why)
        until = state.cooldown_until if breaker == "open" else 0
        self._taken.append(
            Transition(KINDS[letter], id_, old, new, old_breaker, breaker, reason, until)
        )

    def tell(self) -> None:
        """Tell what this process has taken. Not under the lock."""
        if self._taken:
            taken, self._taken = self._taken, []
            for each in taken:
                self.on_change(each)

    def _reason_of(self, state: Shown, breaker: BreakerName, error_row: int) -> str:
        if state == "silent":
            return "probes_failed"
        if breaker == "half_open":
            return "rest_over"
        if breaker == "ramping":
            return "answered"
        return "recovered" if state == "healthy" else self._errors.name_at(error_row)


def _code_of(state: Shown, breaker: BreakerName) -> int:
    """Both as one word; 0 = healthy, closed: as everybody begins."""
    return STATES.index(state) * len(BREAKERS) + BREAKERS.index(breaker)


def _names_of(code: int) -> tuple[Shown, BreakerName]:
    state, breaker = divmod(code, len(BREAKERS))
    return STATES[state], BREAKERS[breaker]

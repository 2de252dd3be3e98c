"""What a caller may ask of an orchestration, and the reading of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from tokenhub.errors import InvalidRequest

Mode = Literal["planning", "adversarial", "vote", "refine"]
MODES: tuple[Mode, ...] = ("planning", "adversarial", "vote", "refine")

ITERATIONS_MAX = 10
WEIGHT_MAX = 10
QUORUM_WAIT_MS = 2000
QUORUM_WAIT_MS_MAX = 300_000
VOTERS = 3
REFINEMENTS = 2


@dataclass(frozen=True, slots=True)
class Orchestration:
    """How several requests become one answer (reference §5.6).

    Args:
        iterations: rounds of review, or voters; 0 = as many as are usual for the mode.
        primary_min_weight, review_min_weight: the least weight of who answers, and who reviews.
        primary_model_id, review_model_id: who answers, and who reviews or judges; "" = the best.
        return_plan_only: nothing but the plan.
        quorum: so many votes are enough; 0 = more than half.
        quorum_wait_ms: how long the other voters are waited for once there are enough.
    """

    mode: Mode = "planning"
    iterations: int = 0
    primary_min_weight: int = 0
    review_min_weight: int = 0
    primary_model_id: str = ""
    review_model_id: str = ""
    return_plan_only: bool = False
    quorum: int = 0
    quorum_wait_ms: int = QUORUM_WAIT_MS

    @property
    def voters(self) -> int:
        """How many are asked to vote, where there are as many."""
        return self.iterations if self.iterations >= 2 else VOTERS

    @property
    def rounds(self) -> int:
        """How often an answer is reviewed and written anew."""
        return self.iterations or (REFINEMENTS if self.mode == "refine" else 1)


def read_orchestration(value: object) -> Orchestration:
    """The `orchestration` object of a request; None = the defaults. `output_schema` is left alone.

    Raises:
        InvalidRequest: naming the field.
    """
    if value is None:
        return Orchestration()
    if not isinstance(value, dict):
        raise _wrong("orchestration", "must be an object")
    found: dict[str, Any] = {}
    for name, given in value.items():
        param = f"orchestration.{name[:100]}"
        if name not in _READERS:
            raise _wrong(param, "is not known")
        if given is not None and name != "output_schema":
            found[name] = _READERS[name](param, given)
    return Orchestration(**found)


def _mode(param: str, value: object) -> Mode:
    if value == "":
        return "planning"
    if value not in MODES:
        raise _wrong(param, "must be one of: " + ", ".join(MODES))
    return value


def _number(largest: int, param: str, value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise _wrong(param, f"must be a whole number from 0 to {largest}")
    return value


def _text(param: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(param, "must be a text")
    return value


def _bool(param: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(param, "must be true or false")
    return value


def _wrong(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{param} {message}", param=param)


_READERS: Mapping[str, Callable[[str, object], Any]] = {
    "mode": _mode,
    "iterations": partial(_number, ITERATIONS_MAX),
    "primary_min_weight": partial(_number, WEIGHT_MAX),
    "review_min_weight": partial(_number, WEIGHT_MAX),
    "primary_model_id": _text,
    "review_model_id": _text,
    "return_plan_only": _bool,
    "output_schema": _text,
    "quorum": partial(_number, ITERATIONS_MAX),
    "quorum_wait_ms": partial(_number, QUORUM_WAIT_MS_MAX),
}

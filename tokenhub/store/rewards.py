"""What each attempt was worth: computed from the log when it is asked for, kept nowhere.

Every attempt has one, those that failed over or lost a race too. Knows no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, and_

from tokenhub.db.traffic_tables import attempts, request_logs
from tokenhub.domain import NANOS_PER_USD
from tokenhub.store.feedback import find_feedback
from tokenhub.store.logs import IDENTITY, LogFilters, search_logs
from tokenhub.store.searching import Found, IsLate, Part, Search, count, find

COST_CAP_NANOUSD = NANOS_PER_USD // 10
LATENCY_BUDGET_MS_MIN = 1000
COST_SHARE, LATENCY_SHARE, SUCCESS_SHARE = 0.3, 0.3, 0.4

SMALL_TOKENS, MEDIUM_TOKENS = 1000, 10_000
BUCKETS = ("small", "medium", "large")

WORDS = ("model_id", "provider_id", "error_class")
"""Columns of an attempt that a reward can be looked for by."""

_COLUMNS = (
    request_logs.c.id, request_logs.c.started_at, request_logs.c.request_id,
    request_logs.c.api_key_id, request_logs.c.mode, request_logs.c.estimated_input_tokens,
    request_logs.c.latency_budget_ms, attempts.c.seq, attempts.c.model_id, attempts.c.provider_id,
    attempts.c.duration_ms, attempts.c.cost_nanousd, attempts.c.error_class,
)  # fmt: skip


@dataclass(frozen=True)
class RewardFilters:
    """Which rewards.

    Args:
        requests: of which requests, by what a request's row has of its own.
        words: by column of the attempt, see WORDS.
        bucket: see `token_bucket`; "" = any.
    """

    requests: LogFilters = field(default_factory=LogFilters)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    success: bool | None = None
    bucket: str = ""


def reward_of(
    *, success: bool, cost_nanousd: int | None, latency_ms: int, latency_budget_ms: int
) -> float:
    """What an attempt was worth, 0 to 1 (reference/operations.md §7.1).

    0 if it failed; else 0.3 · (1 − min(cost / $0.1, 1)) + 0.3 · (1 − min(latency / max(budget,
    1 s), 1)) + 0.4. The original took an unknown price for free; here it earns nothing.
    """
    if not success:
        return 0.0
    cost = COST_CAP_NANOUSD if cost_nanousd is None else cost_nanousd
    budget_ms = max(latency_budget_ms, LATENCY_BUDGET_MS_MIN)
    return (
        COST_SHARE * (1 - min(cost / COST_CAP_NANOUSD, 1))
        + LATENCY_SHARE * (1 - min(latency_ms / budget_ms, 1))
        + SUCCESS_SHARE
    )


def token_bucket(estimated_tokens: int) -> str:
    """How large a request is: small below 1,000 tokens, medium up to 10,000, else large."""
    if estimated_tokens < SMALL_TOKENS:
        return "small"
    return "medium" if estimated_tokens <= MEDIUM_TOKENS else "large"


def find_rewards(
    connection: Connection, filters: RewardFilters, part: Part, *, is_late: IsLate
) -> Found:
    """A page of attempts with what their rewards are made of, newest requests first, and of each
    the last attempt first; `feedback` is the score that counts of the answer, or None."""
    found = find(connection, _search(filters), _COLUMNS, part, is_late=is_late)
    said = find_feedback(connection, list({row["request_id"] for row in found.rows}))
    for row in found.rows:
        counts = said.get(row["request_id"]) if row["error_class"] == "" else None
        row["feedback"] = None if counts is None else counts.score
    return found


def count_rewards(
    connection: Connection, filters: RewardFilters, *, most: int, is_late: IsLate
) -> tuple[int, bool]:
    """How many there are: see `searching.count`."""
    return count(connection, _search(filters), most=most, is_late=is_late)


def _search(filters: RewardFilters) -> Search:
    base = search_logs(filters.requests)
    rest: list[ColumnElement[bool]] = [*base.rest]
    rest += [attempts.c[name].in_(words) for name, words in filters.words.items()]
    if filters.success is not None:
        is_success = attempts.c.error_class == ""
        rest.append(is_success if filters.success else ~is_success)
    tokens = request_logs.c.estimated_input_tokens
    if filters.bucket:
        sizes = {
            "small": tokens < SMALL_TOKENS,
            "medium": tokens.between(SMALL_TOKENS, MEDIUM_TOKENS),
            "large": tokens > MEDIUM_TOKENS,
        }
        rest.append(sizes[filters.bucket])
    same = and_(*(attempts.c[name] == request_logs.c[name] for name in IDENTITY))
    joined = request_logs.join(attempts, same)
    return Search(joined, base.at, base.id, base.led, tuple(rest), attempts.c.seq)

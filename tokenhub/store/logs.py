"""The request log: what its rows say, and how those that people look for are found.

A request's attempts are rows of their own, which share its identity. Knows no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    literal_column,
    or_,
    select,
    union_all,
)

from tokenhub.db.sums_tables import REQUESTS
from tokenhub.db.traffic_tables import attempts, request_logs
from tokenhub.store.searching import Found, IsLate, Part, Search, count, find

IDENTITY = ("host_id", "segment", "position")
"""Where the journal had it: what makes a row of `request_logs` or `attempts` unique."""

LOG_COLUMNS = (
    "request_id", "started_at", "api_key_id", "endpoint", "mode", "stream", "ending",
    "status_code", "error_class", "requested_model", "alias_from", "model_id", "provider_id",
    "reason", "snapshot_version", "input_tokens", "output_tokens", "cache_read_tokens",
    "cache_write_tokens", "reasoning_tokens", "usage_is_estimate", "cost_nanousd",
    "price_version", "latency_ms", "ttft_ms", "overhead_us", "estimated_input_tokens",
    "response_bytes", "attempt_count", "client_ip", "client_request_id", "skips",
    "team_id", "latency_budget_ms", "trace_id", "decision",
)  # fmt: skip
"""What a request's row says, in the order of the journal's records."""

ATTEMPT_COLUMNS = (
    "model_id", "provider_id", "started_ms", "duration_ms", "ttft_ms", "status", "error_class",
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
    "reasoning_tokens", "usage_is_estimate", "cost_nanousd", "price_version",
    "reason", "next_step", "response_bytes",
)  # fmt: skip
"""What an attempt's row says, in the order of the journal's records."""

LEADING = ("api_key_id", "model_id", "provider_id")
"""Columns with an index that leads through one value's rows by time, the most telling first."""

ANSWERED = "answered"
_log = request_logs.c

# Words as they are, as the indexes have them: a parameter would use neither.
NOT_ANSWERED = _log.ending != literal_column("'answered'")
NAMED = _log.client_request_id != literal_column("''")


@dataclass(frozen=True)
class LogFilters:
    """Which requests.

    Args:
        from_at, to_at: when they began, unix ms, the end not included.
        words: by column, the words of which one must be there.
        statuses: ranges of the answer's status, ends included.
        request_id: ours or the client's; other filters count as well.
        min_latency_ms, min_cost_nanousd, min_attempts: at least so much.
    """

    from_at: int | None = None
    to_at: int | None = None
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    statuses: tuple[tuple[int, int], ...] = ()
    stream: bool | None = None
    request_id: str = ""
    min_latency_ms: int | None = None
    min_cost_nanousd: int | None = None
    min_attempts: int | None = None

    @property
    def are_summed(self) -> bool:
        """Whether the sums know of all of them, besides the time."""
        others = (self.stream, self.min_latency_ms, self.min_cost_nanousd, self.min_attempts)
        is_plain = not self.statuses and not self.request_id and others == (None,) * len(others)
        return is_plain and set(REQUESTS.key).issuperset(self.words)

    @property
    def are_of_trouble(self) -> bool:
        """Whether no request that was just answered can be meant: that one has no error class,
        and its status is a success."""
        endings, errors = self.words.get("ending"), self.words.get("error_class")
        return (
            (endings is not None and ANSWERED not in endings)
            or (errors is not None and "" not in errors)
            or (bool(self.statuses) and min(self.statuses)[0] >= 400)
        )


def search_logs(filters: LogFilters) -> Search:
    """How the requests that are meant are found."""
    led, leading = _led(filters)
    rest = [*_words_of(filters, leading), *_numbers_of(filters)]
    if filters.request_id:  # few enough to look at all of them
        led, rest = [*led, *rest], []
    return Search(request_logs, _log.started_at, _log.id, tuple(led), tuple(rest))


def find_logs(connection: Connection, filters: LogFilters, part: Part, *, is_late: IsLate) -> Found:
    """A page of the requests, newest first: all columns, `skips` and `decision` as JSON text."""
    return find(connection, search_logs(filters), [*_log], part, is_late=is_late)


def count_logs(
    connection: Connection, filters: LogFilters, *, most: int, is_late: IsLate
) -> tuple[int, bool]:
    """How many there are: see `searching.count`."""
    return count(connection, search_logs(filters), most=most, is_late=is_late)


def list_attempts(connection: Connection, request_id: str) -> list[dict[str, Any]]:
    """A request's attempts in their order, all columns."""
    same = and_(*(attempts.c[name] == _log[name] for name in IDENTITY))
    query = (
        select(attempts)
        .join(request_logs, same)
        .where(_log.request_id == request_id)
        .order_by(attempts.c.seq)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def _led(filters: LogFilters) -> tuple[list[ColumnElement[bool]], str]:
    """What an index leads through, and the column that it does so by, if it is one."""
    led: list[ColumnElement[bool]] = []
    if filters.from_at is not None:
        led.append(_log.started_at >= filters.from_at)
    if filters.to_at is not None:
        led.append(_log.started_at < filters.to_at)
    if filters.request_id:
        return [*led, _is_called(filters.request_id)], ""
    single = [name for name in LEADING if len(filters.words.get(name, ())) == 1]
    if filters.are_of_trouble:
        led.append(NOT_ANSWERED)
        # It is rarer than most models' requests, and theirs is among it; that of a key has an
        # index of its own.
        single = [name for name in single if name == "api_key_id"]
    if single:
        return [*led, _log[single[0]] == filters.words[single[0]][0]], single[0]
    return led, ""


def _words_of(filters: LogFilters, leading: str) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    for name, words in filters.words.items():
        if name == leading:
            continue
        # No index on it shall be used but the one that leads: it would be read through.
        column = _log[name] + "" if name in LEADING else _log[name]
        found.append(column.in_(words))
    return found


def _numbers_of(filters: LogFilters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.statuses:
        found.append(or_(*(_log.status_code.between(*each) for each in filters.statuses)))
    if filters.stream is not None:
        found.append(_log.stream.is_(filters.stream))
    least = (
        (_log.latency_ms, filters.min_latency_ms),
        (_log.cost_nanousd, filters.min_cost_nanousd),
        (_log.attempt_count, filters.min_attempts),
    )
    return [*found, *(column >= value for column, value in least if value is not None)]


def _is_called(request_id: str) -> ColumnElement[bool]:
    """By our id or by the client's: each has an index of its own."""
    ours = select(_log.id).where(_log.request_id == request_id)
    named = and_(_log.client_request_id == request_id, NAMED)
    return _log.id.in_(union_all(ours, select(_log.id).where(named)))

"""How it is going: requests by what they were about, in the last day or in any time.

Read from the sums that all hosts write, so every worker says the same, and says it after a restart.
A window begins at a full 10 seconds, so it is up to 10 seconds longer than its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from tokenhub import figures
from tokenhub.board.board import unix_ms
from tokenhub.db.sums_tables import ATTEMPTS, REQUESTS, Family
from tokenhub.errors import InvalidRequest
from tokenhub.figures import Group, Tally
from tokenhub.store.series import Point, Query, read_series
from tokenhub.web import forms, guards
from tokenhub.web.admin import asking, dimensions
from tokenhub.web.answers import answer, rfc3339

routes = Blueprint("stats", __name__)

WINDOWS_MS = {"1m": 60_000, "5m": 300_000, "1h": 3_600_000, "24h": 86_400_000}

SECTIONS: dict[str, tuple[str, ...]] = {
    "by_model": ("model_id",),
    "by_provider": ("provider_id",),
    "by_pair": ("model_id", "provider_id"),
    "by_mode": ("mode",),
    "by_endpoint": ("endpoint",),
    "by_outcome": ("ending",),
    "by_api_key": ("api_key_id",),
    "by_alias": ("alias_from",),
}
TOGETHER = ("model_id", "provider_id", "mode", "endpoint", "api_key_id", "alias_from", "ending")
"""What a window is read by: adding up what was read, section by section, is quicker than to read
the same rows for each of them."""

ROWS_MAX = 100_000
SHOWN_MAX = forms.LIST_LIMIT
"""Most groups in one answer's list; those with most requests."""

ORDERS = {
    "cost": "total_cost_usd",
    "requests": "request_count",
    "errors": "error_count",
    "error_rate": "error_rate",
    "tokens": "total_tokens",
    "p50": "p50_latency_ms",
    "p95": "p95_latency_ms",
    "p99": "p99_latency_ms",
    "ttft": "p95_ttft_ms",
    "attempts": "attempts",
    "failed_attempts": "failed_attempts",
}

ASKS: dict[str, asking.Ask] = {
    **asking.TIMES,
    "window": asking.one(forms.one_of(*WINDOWS_MS)),
    **dimensions.FILTERS,
    "group": dimensions.group_by,
    "order": asking.one(forms.one_of(*ORDERS)),
    "limit": asking.one(asking.integer(1, SHOWN_MAX)),
}


class _Window(NamedTuple):
    """What was read for one window."""

    requests: list[Point]
    attempts: list[Point]


@routes.get("/stats")
def stats() -> Response:
    """Without parameters the last minute, five minutes, hour and day, by everything; else what
    `group` asks for."""
    hub = guards.services()
    now = unix_ms()
    if request.args:
        return answer(_grouped(asking.read_query(ASKS), now))
    windows, names = dimensions.read(hub, lambda connection: _read(connection, now))
    total = [_shown(name, (), *_total(each)) for name, each in windows.items()]
    return answer(
        {
            "as_of": rfc3339(now),
            "global": total,
            **{section: _section(section, windows, names) for section in SECTIONS},
        }
    )


def _read(connection: Connection, now: int) -> tuple[dict[str, _Window], dict[str, str]]:
    """All windows, and the names of the keys in them."""
    windows = {name: _read_window(connection, now, ms) for name, ms in WINDOWS_MS.items()}
    groups = [each.group for each in windows["24h"].requests]
    return windows, dimensions.key_names_of(connection, TOGETHER, groups)


def _read_window(connection: Connection, now: int, length_ms: int) -> _Window:
    def read(family: Family, *group: str) -> list[Point]:
        values = figures.VALUES if family is REQUESTS else figures.ATTEMPT_VALUES
        query = Query(family, now - length_ms, now, None, group, {}, {}, values, ROWS_MAX)
        return read_series(connection, query, now)

    return _Window(
        requests=read(REQUESTS, *TOGETHER),
        attempts=read(ATTEMPTS, "model_id", "provider_id", "error_class"),
    )


def _total(window: _Window) -> tuple[Group, Tally]:
    found = figures.fold(window.requests, ())
    figures.fold_attempts(window.attempts, (), found)
    return (), found.get((), Tally())


def _section(
    section: str, windows: Mapping[str, _Window], names: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """By window: its groups, those with most requests first."""
    columns = SECTIONS[section]
    return {
        name: [
            _shown(name, columns, group, tally, names)
            for group, tally in figures.in_order(_groups(columns, window))[:SHOWN_MAX]
        ]
        for name, window in windows.items()
    }


def _groups(columns: tuple[str, ...], window: _Window) -> dict[Group, Tally]:
    positions = [TOGETHER.index(each) for each in columns]
    found = figures.fold(window.requests, positions)
    if figures.attempts_group(columns):  # models and providers come first there, too
        figures.fold_attempts(window.attempts, positions, found)
    if columns == ("alias_from",):
        found.pop(("",), None)  # what was asked for by a model's own name
    return found


def _shown(
    window: str,
    columns: tuple[str, ...],
    group: Group,
    tally: Tally,
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "window": window,
        **dimensions.show(columns, group, names or {}),
        **figures.figures(tally),
    }


def _grouped(asked: Mapping[str, Any], now: int) -> dict[str, Any]:
    """The groups of any time, the last day by default; those that cost most first."""
    from_at, to_at = _times_of(asked, now)
    columns = asked.get("group", ())
    order = ORDERS[asked.get("order", "cost")]
    where = dimensions.conditions_of(asked)
    has_tried = figures.attempts_group((*columns, *where))
    if order == "failed_attempts" and not has_tried:
        raise InvalidRequest(
            "failed attempts are counted by model and provider only", param="order"
        )
    work = _grouped_reader((from_at, to_at), columns, where, now)
    tallies, names = dimensions.read(guards.services(), work)
    rows = [
        {**dimensions.show(columns, group, names), **figures.figures(tally)}
        for group, tally in figures.in_order(tallies)
    ]
    rows.sort(key=lambda row: row[order] or 0, reverse=True)
    return {
        "as_of": rfc3339(now),
        "from": rfc3339(from_at),
        "to": rfc3339(to_at),
        "total": len(rows),
        "stats": rows[: asked.get("limit", SHOWN_MAX)],
    }


def _times_of(asked: Mapping[str, Any], now: int) -> tuple[int, int]:
    """From when until when; a window ends now."""
    if "window" in asked and ("from" in asked or "to" in asked):
        raise InvalidRequest("give a window, or from and to", param="window")
    from_at, to_at = asking.times_of(asked)
    to_at = now if to_at is None else to_at
    if from_at is None:
        from_at = to_at - WINDOWS_MS[asked.get("window", "24h")]
    return from_at, to_at


def _grouped_reader(
    times: tuple[int, int], columns: Group, where: Mapping[str, Group], now: int
) -> Callable[[Connection], tuple[dict[Group, Tally], dict[str, str]]]:
    """Reads the tallies of a time by group, and the names of its keys."""
    positions = range(len(columns))

    def read(connection: Connection) -> tuple[dict[Group, Tally], dict[str, str]]:
        group = (*columns, "ending")
        query = Query(REQUESTS, *times, None, group, where, {}, figures.VALUES, ROWS_MAX)
        found = figures.fold(read_series(connection, query, now), positions)
        if figures.attempts_group((*columns, *where)):
            group = (*columns, "error_class")
            query = Query(ATTEMPTS, *times, None, group, where, {}, figures.ATTEMPT_VALUES)
            figures.fold_attempts(read_series(connection, query, now), positions, found)
        return found, dimensions.key_names_of(connection, columns, found)

    return read

"""Usage and cost, by key, team, model and more, in UTC hours, days and months; and forecasts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast

import orjson
from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub.board.board import unix_ms
from tokenhub.budgets import Subject, period_end, period_start
from tokenhub.errors import InvalidRequest
from tokenhub.forecast import DAY_MS
from tokenhub.pricing import usd
from tokenhub.store.series import HOURLY_MS
from tokenhub.views import usage as view
from tokenhub.views.facts import BudgetFact
from tokenhub.views.running_out import is_beyond, show_budget, show_forecast
from tokenhub.views.usage import NOTHING, STEPS, Ask, NoHours, Row, Usage
from tokenhub.web import forms, guards
from tokenhub.web.admin import asking, dimensions
from tokenhub.web.admin.feeds import csv_lines
from tokenhub.web.admin.overview import span_of
from tokenhub.web.answers import answer, rfc3339

routes = Blueprint("usage", __name__)

GROUPS = {
    name: dimensions.DIMENSIONS[name]
    for name in ("key", "model", "provider", "team", "mode", "endpoint", "alias")
}
TAG = "tag"
GROUPS_MAX = forms.LIST_LIMIT
"""Most groups of one answer; those that cost most. Exports have all."""
POINTS_MAX = 20_000
"""Most points of one answer."""
BATCH_ROWS = 500
"""Of an export, at a time."""

ASKS: dict[str, asking.Ask] = {
    **asking.TIMES,
    **dimensions.FILTERS,
    "group": asking.one(forms.one_of(*GROUPS, TAG)),
    "step": asking.one(forms.one_of(*STEPS)),
    "format": asking.PAGING["format"],
}


@routes.get("/usage")
def usage() -> Response:
    """What was used, this month and day by day unless something else is asked for; by hours, in the
    last day."""
    now = unix_ms()
    asked = asking.read_query(ASKS)
    ask = _ask_of(asked, now)
    form = asking.form_of(asked)
    if form != "json":
        return _export(_read(ask, now, whole=False), ask, form)
    found = _read(ask, now, whole=True)
    if len(found.rows) > POINTS_MAX:
        raise InvalidRequest(
            "too many points: ask for a shorter time, a longer step, or an export",
            code="too_many_points",
        )
    return answer(_shown(found, ask, now))


def _read(ask: Ask, now: int, *, whole: bool) -> Usage:
    def work(connection: Connection) -> Usage:
        return view.read(connection, ask, now) if whole else view.read_rows(connection, ask, now)

    try:
        return dimensions.read(guards.services(), work)
    except NoHours as error:
        raise InvalidRequest(
            f"hours are told of up to {view.HOURS_MS // DAY_MS} days, in exports of "
            f"{HOURLY_MS // DAY_MS}, that are no longer ago than sums by the hour are kept: ask "
            "for step=day",
            param="step",
        ) from error


def _ask_of(asked: dict[str, Any], now: int) -> Ask:
    group = asked.get("group", "key")
    column = GROUPS["key" if group == TAG else group]
    step = cast(view.Step, asked.get("step", "day"))
    end = asked.get("to", now)
    length_ms = DAY_MS if step == "hour" else end - period_start("month", end - 1)
    span = span_of(asked, now, length_ms)
    where = dimensions.conditions_of(asked)
    return Ask(span, step, column, where, is_by_tag=group == TAG)


def _shown(found: Usage, ask: Ask, now: int) -> dict[str, Any]:
    groups, total = found.by_group(), found.total
    budgets = _by_subject(found.budgets)
    kind = "" if ask.is_by_tag else {"api_key_id": "key", "team_id": "team"}.get(ask.column, "")
    shown = [
        {
            **_group(found, ask, word),
            **view.show_group(numbers, total, found.before.get(word, NOTHING)),
            "budgets": [_budget(each, now) for each in budgets.get((kind, word), ())],
        }
        for word, numbers in list(groups.items())[:GROUPS_MAX]
    ]
    ahead = found.month_ahead
    return {
        "as_of": rfc3339(now),
        "from": rfc3339(found.span.from_at),
        "to": rfc3339(found.span.to_at),
        "step": ask.step,
        "previous": {"from": rfc3339(found.earlier.from_at), "to": rfc3339(found.earlier.to_at)},
        "totals": view.show_group(total, total, found.total_before),
        "group_count": len(groups),
        "groups": shown,
        "series": [_row(found, ask, row) for row in found.rows],
        "month": {
            "spent_usd": usd(found.month_nanousd),
            "resets_at": rfc3339(period_end("month", now)),
            "forecast": None if ahead is None else show_forecast(ahead),
        },
    }


def _row(found: Usage, ask: Ask, row: Row) -> dict[str, Any]:
    return {
        "start": rfc3339(row.start_at),
        **_group(found, ask, row.word),
        **view.show(row.numbers),
    }


def _group(found: Usage, ask: Ask, word: str) -> dict[str, str]:
    if ask.is_by_tag:
        return {TAG: word}
    shown = dimensions.show((ask.column,), (word,), found.names)
    if ask.column == "team_id":
        shown["team_name"] = found.names.get(word, word)
    return shown


def _by_subject(budgets: list[BudgetFact]) -> dict[Subject, list[BudgetFact]]:
    found: dict[Subject, list[BudgetFact]] = {}
    for each in budgets:
        found.setdefault(each.budget.subject, []).append(each)
    return found


def _budget(fact: BudgetFact, now: int) -> dict[str, Any]:
    left = max(0, fact.budget.limit_nanousd - fact.spent_nanousd)
    return {
        **show_budget(fact, now),
        "left_usd": usd(left),
        "will_be_exceeded": is_beyond(fact),
    }


def _export(found: Usage, ask: Ask, form: asking.Form) -> Response:
    response = Response(_pieces(found, ask, form), mimetype=asking.CONTENT_TYPES[form])
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(unix_ms() / 1000))
    response.headers["Content-Disposition"] = f'attachment; filename="tokenhub-usage-{at}.{form}"'
    response.headers["Cache-Control"] = "no-store"
    return response


def _pieces(found: Usage, ask: Ask, form: asking.Form) -> Iterator[bytes]:
    """A batch of rows each; all are of one moment, so that they add up."""
    if form == "csv":
        empty = Row(0, "", NOTHING)
        yield csv_lines([list(_row(found, ask, empty))])
    for start in range(0, len(found.rows), BATCH_ROWS):
        rows = [_row(found, ask, row) for row in found.rows[start : start + BATCH_ROWS]]
        if form == "csv":
            yield csv_lines([list(row.values()) for row in rows])
        else:
            yield b"".join(orjson.dumps(row) + b"\n" for row in rows)

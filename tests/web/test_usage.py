"""What was used adds up to the same in the view, its exports, the books and the log."""

from __future__ import annotations

import csv
import io
import json
import random
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

import pytest

from tests.web.conftest import Admin
from tests.web.money_kit import Money
from tests.web.views_kit import DAY_MS, ago, attempt, sender
from tokenhub.budgets import period_start
from tokenhub.store import retention, rollups

MONTHS = 100 * 86_400


@pytest.fixture
def environ(environ, database_dsn):
    return {**environ, "TOKENHUB_DB_DSN": database_dsn}


@pytest.fixture
def keys(app, admin) -> list[str]:
    """Two keys of two teams, and requests of theirs over some months, some rolled up."""
    money, send, rng = Money(app, admin), sender(app), random.Random(7)
    admin.provider()
    admin.model(input_per_1k=0.001, output_per_1k=0.002)
    teams = [money.team("Red"), money.team("Blue")]
    made = [money.key(team_id=team) for team in teams]
    for number in range(40):
        who = rng.randrange(2)
        cost = rng.choice([None, 1, 999_999_999, 123_456_789])
        send(
            started_at=ago(rng.random() ** 3 * MONTHS), key_id=made[who], team_id=teams[who],
            attempts=[attempt(cost=cost)], cost_nanousd=cost,
            alias_from=rng.choice(["", "fast"]), mode=rng.choice(["cheap", "normal"]),
        )  # fmt: skip
        if number % 20 == 19:
            work = partial(rollups.roll_up, settled_at=ago(120), now=ago(0), rows_max=10**6)
            app.services.database.write(work)
    return made


def nanos(usd: float | str) -> int:
    return round(Decimal(str(usd)) * 10**9)


def total_of(rows) -> int:
    return sum(nanos(row["cost_usd"]) for row in rows)


def months_ago() -> int:
    return ago(MONTHS + 86_400)


def books(admin: Admin, by: str, period: str = "day") -> dict[tuple[str, str], tuple[int, int]]:
    rows = admin.ok("GET", f"spend?by={by}&period={period}")["spend"]
    return {
        (row["period_start"], row["subject_id"]): (nanos(row["spent_usd"]), row["requests"])
        for row in rows
    }


@pytest.mark.parametrize("by", ["key", "team"])
@pytest.mark.parametrize("step", ["day", "month"])
def test_every_day_and_month_is_as_in_the_books_to_the_nano_dollar(admin, keys, by, step):
    said = admin.ok("GET", f"usage?group={by}&step={step}&from={months_ago()}")
    column = {"key": "api_key_id", "team": "team_id"}[by]
    found = {
        (row["start"], row[column]): (nanos(row["cost_usd"]), row["requests"])
        for row in said["series"]
    }
    assert found == books(admin, by, step)
    assert nanos(said["totals"]["cost_usd"]) == sum(cost for cost, _ in found.values())
    assert total_of(said["groups"]) == total_of(said["series"])
    assert said["totals"]["requests"] == 40


@pytest.mark.parametrize(
    "group", ["key", "model", "provider", "team", "tag", "mode", "endpoint", "alias"]
)
def test_exports_add_up_to_the_view_by_whatever_it_is_grouped(admin, keys, group):
    query = f"usage?group={group}&from={months_ago()}"
    said = admin.ok("GET", query)
    lines = admin.send("GET", f"{query}&format=jsonl").text.splitlines()
    assert [json.loads(line) for line in lines] == said["series"]
    response = admin.send("GET", f"{query}&format=csv")
    assert response.mimetype == "text/csv"
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert (len(rows), total_of(rows)) == (len(said["series"]), total_of(said["series"]))
    for name in ("requests", "input_tokens", "unpriced_requests"):
        assert sum(int(row[name]) for row in rows) == said["totals"][name]
    logged = admin.ok("GET", "logs?limit=1000")["logs"]
    known = sum(nanos(row["estimated_cost_usd"] or 0) for row in logged)
    assert known == nanos(said["totals"]["cost_usd"])


def test_groups_have_shares_and_the_dearest_is_first(admin, keys):
    said = admin.ok("GET", f"usage?from={months_ago()}")
    costs = [each["cost_usd"] for each in said["groups"]]
    assert costs == sorted(costs, reverse=True)
    assert sum(each["share"] for each in said["groups"]) == pytest.approx(1, abs=1e-5)
    total = said["totals"]
    priced = total["requests"] - total["unpriced_requests"]
    per_1k = total["cost_per_1k_requests_usd"]
    assert per_1k == pytest.approx(total["cost_usd"] * 1000 / priced)
    assert {each["api_key_name"] for each in said["groups"]} == {"test"}
    assert admin.ok("GET", "usage?group=team")["group_count"] <= 2


def test_what_a_key_used_counts_for_each_of_its_tags(admin, keys):
    def by_tag() -> dict[str, int]:
        said = admin.ok("GET", f"usage?group=tag&step=month&from={months_ago()}")
        assert said["totals"]["requests"] == 40
        assert total_of([said["totals"]]) == sum(costs.values())
        assert total_of(said["groups"]) == total_of(said["series"])
        return {row["tag"]: nanos(row["cost_usd"]) for row in said["groups"]}

    own = admin.ok("GET", f"usage?from={months_ago()}")["groups"]
    costs = {row["api_key_id"]: nanos(row["cost_usd"]) for row in own}
    assert by_tag() == {"": sum(costs.values())}
    one, other = keys
    admin.ok("PATCH", f"apikeys/{one}", {"tags": ["web", "live"]})
    admin.ok("PATCH", f"apikeys/{other}", {"tags": ["live"]})
    assert by_tag() == {"web": costs[one], "live": sum(costs.values())}
    admin.ok("DELETE", f"apikeys/{one}")
    assert by_tag() == {"": costs[one], "live": costs[other]}


def test_what_is_compared_is_as_long_as_what_has_passed(admin, app):
    send = sender(app)
    today = period_start("day", ago(0))
    send(3, started_at=ago(0))
    send(2, started_at=today - 1000)
    said = admin.ok("GET", f"usage?from={today}&to={today + DAY_MS}")
    length = [
        datetime.fromisoformat(said["previous"][name]).timestamp() for name in ("from", "to")
    ]  # fmt: skip
    assert length[1] * 1000 == today and 0 < length[1] - length[0] <= 86_400
    assert (said["totals"]["requests"], said["totals"]["previous_requests"]) == (3, 2)
    assert said["totals"]["change"] == pytest.approx(0.5)


def test_filters_leave_the_others_out(admin, keys):
    said = admin.ok("GET", f"usage?group=model&from={months_ago()}&key={keys[0]}")
    own = admin.ok("GET", f"usage?from={months_ago()}")["groups"]
    expected = next(each for each in own if each["api_key_id"] == keys[0])
    assert said["totals"]["cost_usd"] == expected["cost_usd"]


def test_hours_are_told_while_there_are_any(admin, app):
    sender(app)(4, started_at=ago(7200))
    said = admin.ok("GET", f"usage?step=hour&from={ago(3 * 3600)}")
    [row] = said["series"]
    assert row["requests"] == 4 and row["start"].endswith(":00:00.000Z")
    long = admin.refused("GET", f"usage?step=hour&from={ago(40 * 86_400)}")
    assert long == (400, "invalid_request", "step")
    before = ago(450 * 86_400)
    sender(app)(1, started_at=before)
    database = app.services.database
    database.write(partial(rollups.roll_up, settled_at=ago(0), now=ago(0), rows_max=10**6))
    database.write(partial(retention.prune_hours, before=ago(400 * 86_400), rows_max=10**6))
    gone = f"from={before - 1000}&to={before + 1000}"
    assert admin.refused("GET", f"usage?step=hour&{gone}")[2] == "step"
    assert admin.ok("GET", f"usage?{gone}")["totals"]["requests"] == 1


def test_a_month_begins_and_ends_where_the_calendar_says(admin, app):
    send = sender(app)
    edge = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
    send(1, started_at=edge - 1)
    send(2, started_at=edge)
    said = admin.ok("GET", f"usage?step=month&from={edge - DAY_MS}&to={edge + 1}")
    assert (said["from"], said["to"]) == ("2026-02-01T00:00:00.000Z", "2026-04-01T00:00:00.000Z")
    assert [(row["start"][:7], row["requests"]) for row in said["series"]] == [
        ("2026-02", 1), ("2026-03", 2)
    ]  # fmt: skip


def test_budgets_say_what_is_left_and_where_it_leads(admin, app):
    money, send = Money(app, admin), sender(app)
    key_id = money.key()
    money.put("key", key_id, "month", limit_usd=5)
    for days in range(1, 8):
        money.spend("key", key_id, 1, ago(days * 86_400))
    send(key_id=key_id)
    said = admin.ok("GET", "usage")
    [group] = said["groups"]
    [budget] = group["budgets"]
    assert budget["period"] == "month" and budget["left_usd"] <= 5
    assert budget["forecast"]["per_day_usd"] == 1 and budget["forecast"]["days"] == 7
    forecast = budget["forecast"]
    assert forecast["low_usd"] == forecast["expected_usd"] == forecast["high_usd"]
    assert said["month"]["forecast"]["per_day_usd"] == 1
    assert budget["spent_usd"] == pytest.approx(said["month"]["spent_usd"])


def test_nobody_s_name_becomes_a_formula(admin, app):
    money = Money(app, admin)
    sender(app)(key_id=money.key(name="=HYPERLINK(1)"))
    text = admin.send("GET", "usage?format=csv").text
    assert "'=HYPERLINK(1)" in text


@pytest.mark.parametrize(
    ("query", "param"),
    [("group=colour", "group"), ("step=week", "step"), ("group=key,model", "group"),
     ("format=xml", "format"), ("limit=3", "limit"), ("from=tomorrow", "from"),
     ("outcome=fine", "outcome"), (f"step=hour&from={ago(86_400 * 33)}", "step")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(admin, query, param):
    assert admin.refused("GET", f"usage?{query}")[::2] == (400, param)


def test_without_the_database_nobody_knows(admin, database_away):
    database_away("read")
    for path in ("usage", "usage?format=csv", "overview", "setup"):
        assert admin.refused("GET", path) == (503, "database_away", None)

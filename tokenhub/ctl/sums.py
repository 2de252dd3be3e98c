"""Commands about how it is going: overview, what needs somebody, statistics, usage, time series."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import click
from rich.table import Table

from tokenhub.ctl.client import PAGE, segment
from tokenhub.ctl.common import SAID, Answer, Nouns, answering, client, watching
from tokenhub.ctl.filters import DIMENSIONS, choosing, export
from tokenhub.ctl.show import (
    as_json,
    cell,
    clean,
    cost,
    duration,
    moment,
    money,
    pairs,
    share,
    table,
)

Row = dict[str, Any]


@click.command("overview")
@choosing("from", "to")
@watching
def overview(**asked: Any) -> Answer:
    """Requests, outcomes, latency, spending and refusals: of the last hour if nothing is said."""
    found = client().get("overview", **asked)
    requests, latency, spend = found["requests"], found["latency"], found["spend"]
    month, refused = spend["month"], found["refused"]
    ahead = month.get("forecast") or {}
    reasons = ", ".join(f"{count} {kind}" for kind, count in refused["by_kind"].items() if count)
    waiting = ", ".join(f"{count} {word}" for word, count in found["attention"].items() if count)
    lines = (
        ("From", moment(found.get("from"))),
        ("To", moment(found.get("to"))),
        ("Requests", f"{requests['total']}{_change(requests)}"),
        ("Answered", share(found["answered"]["share"])),
        ("Refused", f"{refused['total']}" + (f" ({clean(reasons)})" if reasons else "")),
        ("Latency p50, p95", f"{duration(latency['p50_ms'])}, {duration(latency['p95_ms'])}"),
        (
            "First token p50, p95",
            f"{duration(latency['p50_ttft_ms'])}, {duration(latency['p95_ttft_ms'])}",
        ),
        ("Spent", f"{money(spend['usd'])}{_change(spend)}"),
        ("Spent this month", money(month.get("spent_usd"))),
        ("Expected this month", money(ahead.get("expected_usd"))),
        ("Needs somebody", clean(waiting)),
    )
    return Answer(found, pairs(lines))


def _change(tile: Row) -> str:
    change = tile.get("change")
    return f" ({change * 100:+.1f}%)" if isinstance(change, int | float) else ""


@click.group("attention", cls=Nouns, default="list")
def attention() -> None:
    """What needs somebody."""


@attention.command("list")
@watching
def list_attention() -> Answer:
    """Everything, the worst first."""
    found = client().get("attention")
    rows = [
        (each.get("severity"), moment(each.get("since")), each.get("id"), _facts(each))
        for each in found["attention"]
    ]
    rows += [
        ("snoozed", moment(each.get("snoozed_until")), each.get("id"), _facts(each))
        for each in found["snoozed"]
    ]
    if not rows:
        return Answer(found, "nothing")
    return Answer(found, table(("SEVERITY", "SINCE", "ITEM", "FACTS"), rows))


def _facts(item: Row) -> str:
    facts = [
        f"{clean(name)}={clean(value) if isinstance(value, str) else as_json(value, indent=None)}"
        for name, value in (item.get("facts") or {}).items()
        if value not in (None, "", [], {})
    ]
    return " ".join(facts)


@attention.command("snooze")
@click.argument("item")
@click.option(
    "--for", "how_long", default="1d", show_default=True, metavar="TIME", help="1h, 1d, or seconds."
)
@answering
def snooze(item: str, how_long: str) -> Answer:
    """Let an item wait."""
    body = {"for": int(how_long) if how_long.isdecimal() else how_long}
    said = client().ask("POST", f"attention/{segment(item)}/snooze", body=body)
    return Answer(said, f"{clean(item)} waits until {moment(said.get('snoozed_until'))}")


@attention.command("wake")
@click.argument("item")
@answering
def wake(item: str) -> Answer:
    """Show it again."""
    said = client().ask("DELETE", f"attention/{segment(item)}/snooze")
    return Answer(said, f"{clean(item)} is shown again")


@click.command("setup")
@watching
def setup() -> Answer:
    """The steps of the first setup, and which of them are done."""
    found = client().get("setup")
    rows = [(each.get("step"), each.get("done")) for each in found["steps"]]
    return Answer(found, table(("STEP", "DONE"), rows))


@click.command("stats")
@choosing("group", "window", "from", "to", "order", *DIMENSIONS)
@click.option("--limit", type=click.IntRange(1, PAGE), metavar="N", help="Groups.")
@watching
def stats(**asked: Any) -> Answer:
    """Counts, latencies, tokens and costs: of the last minute, five, hour and day by everything, as
    JSON; or a table of one time by what is asked for."""
    found = client().get("stats", **asked)
    return Answer(found, _stats(found["stats"])) if "stats" in found else Answer(found)


def _stats(rows: list[Row]) -> Table:
    words = list(takewhile(lambda name: name != "request_count", rows[0])) if rows else []
    shown = [
        (
            *(each[word] for word in words), each["request_count"], each["error_count"],
            share(each["error_rate"]), duration(each["p50_latency_ms"]),
            duration(each["p95_latency_ms"]), duration(each["p99_latency_ms"]),
            duration(each["p95_ttft_ms"]), each["total_tokens"], cost(each["total_cost_usd"]),
        )
        for each in rows
    ]  # fmt: skip
    heads = ("REQUESTS", "ERRORS", "ERROR RATE", "P50", "P95", "P99", "TTFT P95", "TOKENS", "COST")
    return table((*_heads(words), *heads), shown)


def _heads(words: list[str]) -> list[str]:
    return [clean(word.replace("_", " ").upper()) for word in words]


@click.command("usage")
@click.option("--csv", "form", flag_value="csv", help="All steps and groups, as CSV.")
@click.option("--jsonl", "form", flag_value="jsonl", help="The same as JSON lines.")
@click.option("--group", default="", metavar="TEXT", help="key, model, provider, team and others.")
@click.option("--step", default="", metavar="TEXT", help="hour, day or month.")
@choosing("from", "to", *DIMENSIONS)
@watching
def usage(form: str | None, **asked: Any) -> Answer:
    """What was used and what it cost: this month, by key, if nothing is said."""
    if form is not None:
        export("usage", {**asked, "format": form})
        return SAID
    found = client().get("usage", **asked)
    groups, total = found["groups"], found["totals"]
    words = list(takewhile(lambda name: name != "requests", groups[0])) if groups else []
    rows = [(*(each[word] for word in words), *_used(each)) for each in groups]
    if words:
        rows.append(("total", *[""] * (len(words) - 1), *_used(total)))
    heads = ("REQUESTS", "IN", "OUT", "COST", "SHARE", "BEFORE")
    month = found["month"]
    ahead = month.get("forecast") or {}
    told = f"This month: {money(month.get('spent_usd'))}"
    if ahead:
        told += f", {money(ahead.get('expected_usd'))} expected"
    return Answer(found, table((*_heads(words), *heads), rows), "", told)


def _used(row: Row) -> tuple[object, ...]:
    return (
        row["requests"], row["input_tokens"], row["output_tokens"], money(row["cost_usd"]),
        share(row["share"]), money(row["previous_cost_usd"]),
    )  # fmt: skip


@click.group("tsdb")
def tsdb() -> None:
    """Time series."""


@tsdb.command("metrics")
@watching
def tsdb_metrics() -> Answer:
    """What there is."""
    return Answer(client().get("tsdb/metrics"))


@tsdb.command("prune")
@answering
def tsdb_prune() -> Answer:
    """Remove what is older than the retention."""
    return Answer(client().ask("POST", "tsdb/prune"))


@tsdb.command("query")
@click.argument("parameters", nargs=-1, required=True, metavar="NAME=VALUE...")
@watching
def tsdb_query(parameters: tuple[str, ...]) -> Answer:
    """Points: metric=latency, and perhaps agg=p95, start=TIME, end=TIME, step=MS, group=model,key,
    fill=zero, top=5; model=ID, provider=ID and others for these alone."""
    query: dict[str, list[str]] = {}
    for each in parameters:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{clean(each)!r} is not NAME=VALUE")
        query.setdefault(name, []).append(value)  # group= with nothing: all as one
    return Answer(client().ask("GET", "tsdb/query", query=query))


@tsdb.command("retention")
@click.argument("days", type=click.IntRange(1, 3650))
@answering
def tsdb_retention(days: int) -> Answer:
    """Set how many days the sums of hours are kept; those of days stay for ever."""
    said = client().ask("PUT", "tsdb/retention", body={"days": days})
    return Answer(said, f"Retention is {cell(said.get('retention_days'))} days")


COMMANDS: list[tuple[click.Command, tuple[str, ...]]] = [
    (overview, ()), (attention, ()), (setup, ()), (stats, ()), (usage, ()), (tsdb, ()),
]  # fmt: skip

"""Commands that look back at single things: requests, why each went where it went, changes."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from tokenhub.ctl.client import segment
from tokenhub.ctl.common import SAID, Answer, answering, client, watching
from tokenhub.ctl.filters import choosing, find_page, more, paging
from tokenhub.ctl.show import cell, cost, duration, moment, number, pairs, table


@click.command("logs")
@paging
@choosing(
    "from", "to", "model", "requested_model", "provider", "key", "team", "alias", "outcome",
    "status", "error_class", "mode", "endpoint", "host", "stream", "request_id", "min_latency_ms",
    "min_cost_usd", "min_attempts",
)  # fmt: skip
@watching
def logs(**asked: Any) -> Answer:
    """Requests as they ended, newest first."""
    found = find_page("logs", asked)
    if found is None:
        return SAID
    rows = [
        (
            moment(each.get("timestamp")), each.get("model_id"), each.get("provider_id"),
            each.get("mode"), duration(each.get("latency_ms")), _cost(each),
            each.get("status_code"), each.get("outcome"), each.get("request_id"),
        )
        for each in found["logs"]
    ]  # fmt: skip
    heads = ("TIME", "MODEL", "PROVIDER", "MODE", "LATENCY", "COST", "STATUS", "OUTCOME",
             "REQUEST ID")  # fmt: skip
    return Answer(found, table(heads, rows), *more(found))


@click.command("decisions")
@click.argument("request_id")
@answering
def decisions(request_id: str) -> Answer:
    """Why a request went where it went, and how each attempt ended."""
    found = client().get(f"decisions/{segment(request_id)}")
    parts: list[str | Table] = [pairs(_asked(found))]
    parts += _tables(found)
    return Answer(found, *parts)


def _asked(found: dict[str, Any]) -> list[tuple[str, object]]:
    who, asked = found.get("who") or {}, found.get("asked") or {}
    facts, policy = found.get("facts") or {}, found.get("policy") or {}
    tokens = f"{cell(facts.get('input_tokens'))} in, {cell(facts.get('output_tokens'))} out"
    return [
        ("Request", found.get("request_id")),
        ("Time", moment(found.get("timestamp"))),
        ("Outcome", found.get("outcome") or found.get("state")),
        ("Status", found.get("status_code")),
        ("Error", found.get("error_class")),
        ("Key", who.get("api_key_name") or who.get("api_key_id")),
        ("Asked for", asked.get("requested_model")),
        ("Alias", asked.get("alias_from")),
        ("Answered by", found.get("model_id")),
        ("Provider", found.get("provider_id")),
        ("Reason", found.get("reason")),
        ("Mode", policy.get("mode") or asked.get("mode")),
        ("Latency", duration(facts.get("latency_ms"))),
        ("First token", duration(facts.get("ttft_ms"))),
        ("Tokens", tokens),
        ("Cost", _cost(facts)),
        ("Snapshot", found.get("snapshot_version")),
        ("Host", (found.get("host") or {}).get("name")),
        ("Trace", found.get("trace_id")),
    ]


def _tables(found: dict[str, Any]) -> list[str | Table]:
    parts: list[str | Table] = []
    candidates, attempts = found.get("candidates") or [], found.get("attempts") or []
    if candidates:
        rows = [
            (
                each.get("model_id"), each.get("provider_id"), number(each.get("score")),
                number(each.get("propensity")), cost(each.get("estimated_cost_usd")),
                each.get("result"),
            )
            for each in candidates
        ]  # fmt: skip
        heads = ("CANDIDATE", "PROVIDER", "SCORE", "PROPENSITY", "COST", "RESULT")
        parts += ["", table(heads, rows)]
    if attempts:
        parts += ["", _attempts(attempts)]
    skips = found.get("skips") or []
    if skips:
        skipped = [(each.get("model_id"), each.get("reason")) for each in skips]
        parts += ["", table(("SKIPPED", "WHY"), skipped)]
    opinions = found.get("feedback") or []
    if opinions:
        said = [
            (moment(each.get("timestamp")), number(each.get("score")), each.get("label"),
             each.get("actor"))
            for each in opinions
        ]  # fmt: skip
        parts += ["", table(("FEEDBACK", "SCORE", "LABEL", "BY"), said)]
    return parts


def _attempts(attempts: list[dict[str, Any]]) -> Table:
    rows = [
        (
            each.get("model_id"), each.get("provider_id"), each.get("status"),
            each.get("error_class"), duration(each.get("duration_ms")), each.get("next_step"),
            _cost(each),
        )
        for each in attempts
    ]  # fmt: skip
    return table(("ATTEMPT", "PROVIDER", "STATUS", "ERROR", "LATENCY", "NEXT", "COST"), rows)


@click.command("audit")
@paging
@choosing("from", "to", "action", "resource", "actor", "request_id", "client_ip")
@watching
def audit(**asked: Any) -> Answer:
    """Who changed what, newest first."""
    found = find_page("audit", asked)
    if found is None:
        return SAID
    rows = [
        (
            moment(each.get("timestamp")), each.get("action"), each.get("resource"),
            each.get("request_id"), each.get("actor"),
        )
        for each in found["logs"]
    ]  # fmt: skip
    heads = ("TIME", "ACTION", "RESOURCE", "REQUEST ID", "ACTOR")
    return Answer(found, table(heads, rows), *more(found))


@click.command("rewards")
@paging
@choosing(
    "from", "to", "model", "provider", "key", "team", "error_class", "mode", "request_id",
    "success", "token_bucket",
)  # fmt: skip
@watching
def rewards(**asked: Any) -> Answer:
    """What routing learns from, newest first; JSON."""
    found = find_page("rewards", asked)
    return SAID if found is None else Answer(found)


def _cost(row: dict[str, Any]) -> str:
    if row.get("cost_known") is False:
        return cost(None)
    return cost(row.get("estimated_cost_usd", row.get("cost_usd")))


COMMANDS: list[tuple[click.Command, tuple[str, ...]]] = [
    (logs, ()), (decisions, ("decision",)), (audit, ()), (rewards, ()),
]  # fmt: skip

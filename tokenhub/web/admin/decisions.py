"""Why a request went where it went: everything that was written down of it, in one answer.

A request that is still running shows what its opening says: who asked, and what it is expected to
cost. Bodies are nowhere.
"""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.errors import NotFound
from tokenhub.gateway.ledger import CLIENT_CLOSED, NO_FAILURE
from tokenhub.pricing import usd
from tokenhub.records import UNREADABLE, parse_request
from tokenhub.store import LOG_COLUMNS
from tokenhub.store.feedback import find_feedback
from tokenhub.web import forms, guards
from tokenhub.web.admin import rewards
from tokenhub.web.answers import answer, read, rfc3339

routes = Blueprint("decisions", __name__)

Row = dict[str, Any]

ASKED = ("endpoint", "mode", "stream", "requested_model", "alias_from", "estimated_input_tokens")
TOKENS = (
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
    "reasoning_tokens", "usage_is_estimate",
)  # fmt: skip
FACTS = ("latency_ms", "ttft_ms", "overhead_us", "response_bytes", *TOKENS)
ATTEMPT = (
    "model_id", "provider_id", "reason", "started_ms", "duration_ms", "ttft_ms", "status",
    "error_class", "next_step", "response_bytes", *TOKENS, "price_version",
)  # fmt: skip
NOTHING = (
    "there is no such request in the log: it is older than what is kept, or was never accepted; "
    "one that has just ended takes up to a second"
)


@routes.get("/decisions/<path:request_id>")
def get(request_id: str) -> Response:
    """A request by our id or the client's: of several with the same, the newest."""
    forms.check_query()
    hub = guards.services()
    wanted = forms.path_id(request_id)

    def work(connection: Connection) -> Row | None:
        row = store.find_request(connection, wanted)
        if row is not None:
            return _shown(connection, row, is_running=False)
        begun = _find_running(connection, wanted)
        return None if begun is None else _shown(connection, begun, is_running=True)

    found = read(hub, work)
    if found is None:
        raise NotFound(NOTHING, param="request_id")
    return answer(found)


def _find_running(connection: Connection, request_id: str) -> Row | None:
    """Its opening, as the row it becomes if nobody ends it."""
    opening = store.find_opening(connection, request_id)
    if opening is None:
        return None
    host_id, payload = opening
    try:
        row = parse_request(payload)[0]
    except UNREADABLE:  # opened by another version
        return None
    return {**dict(zip(LOG_COLUMNS, row, strict=True)), "host_id": host_id}


def _shown(connection: Connection, row: Row, *, is_running: bool) -> Row:
    decision, skips = orjson.loads(row["decision"]), orjson.loads(row["skips"])
    request_id = row["request_id"]
    attempts = [] if is_running else store.list_attempts(connection, request_id)
    opinions = store.list_feedback(connection, request_id, row["api_key_id"])
    return {
        "request_id": request_id,
        "client_request_id": row["client_request_id"],
        "trace_id": row["trace_id"],
        "state": "running" if is_running else "ended",
        "timestamp": rfc3339(row["started_at"]),
        "ended_at": None if is_running else rfc3339(row["started_at"] + row["latency_ms"]),
        "outcome": None if is_running else row["ending"],
        "status_code": None if is_running else row["status_code"],
        "error_class": row["error_class"],
        "model_id": row["model_id"],
        "provider_id": row["provider_id"],
        "reason": row["reason"],
        "who": _who(connection, row),
        "asked": {name: row[name] for name in ASKED},
        "facts": {**{name: row[name] for name in FACTS}, **_cost(row)},
        "policy": _policy(decision.get("policy"), decision.get("policy_from", {})),
        "candidates": _candidates(decision.get("candidates", []), attempts, skips),
        "candidate_count": decision.get("candidate_count", 0),
        "skips": [{"model_id": id_, "reason": reason} for id_, reason in skips.items()],
        "skip_counts": decision.get("skip_counts", {}),
        "attempts": [_attempt(each) for each in attempts],
        "snapshot_version": row["snapshot_version"],
        "price_version": row["price_version"],
        "host": {"id": row["host_id"], "name": store.find_host_name(connection, row["host_id"])},
        "feedback": [_opinion(each) for each in opinions],
        "rewards": _rewards(connection, row, attempts),
        "idempotency": _kept(connection, request_id),
    }


def _who(connection: Connection, row: Row) -> Row:
    """Names are today's; null = the key or the team is gone."""
    key = store.find_key_row(connection, row["api_key_id"])
    team = store.find_team(connection, row["team_id"]) if row["team_id"] else None
    return {
        "api_key_id": row["api_key_id"],
        "api_key_name": None if key is None else key.key.name,
        "team_id": row["team_id"],
        "team_name": None if team is None else team.name,
        "client_ip": row["client_ip"],
    }


def _policy(policy: Row | None, sources: Row) -> Row | None:
    """What applied; `from` has where each value comes from that is not the default."""
    if policy is None:
        return None
    budget_is_hard, latency_is_hard = policy.get("hard", (False, False))
    return {
        "mode": policy["mode"],
        "max_budget_usd": usd(policy["max_budget_nanousd"]),
        "budget_is_hard": budget_is_hard,
        "max_latency_ms": policy["max_latency_ms"],
        "latency_is_hard": latency_is_hard,
        "min_weight": policy.get("min_weight", 0),
        "tags": policy.get("tags", []),
        "fallbacks": policy.get("fallbacks"),
        "exclude": policy.get("exclude", []),
        "from": sources,
    }


def _candidates(found: list[list[Any]], attempts: list[Row], skips: Row) -> list[Row]:
    """The best ones in their order, and what became of each."""
    return [
        {
            "rank": rank,
            "model_id": model_id,
            "provider_id": provider_id,
            "score": score,
            "propensity": propensity,
            "estimated_cost_usd": usd(cost),
            "result": _result(model_id, attempts, skips),
        }
        for rank, (model_id, provider_id, score, propensity, cost) in enumerate(found, 1)
    ]


def _result(model_id: str, attempts: list[Row], skips: Row) -> str:
    classes = [each["error_class"] for each in attempts if each["model_id"] == model_id]
    if "" in classes:
        return "answered"
    if classes:
        return "stopped" if {*classes} <= NO_FAILURE | {CLIENT_CLOSED} else "failed"
    return "skipped" if model_id in skips else "not_tried"


def _attempt(row: Row) -> Row:
    return {**{name: row[name] for name in ATTEMPT}, **_cost(row)}


def _cost(row: Row) -> Row:
    cost = row["cost_nanousd"]
    return {"estimated_cost_usd": usd(cost), "cost_known": cost is not None}


def _rewards(connection: Connection, row: Row, attempts: list[Row]) -> list[Row]:
    """As `GET /admin/v1/rewards` has them, the first attempt first."""
    counts = find_feedback(connection, [row["request_id"]]).get(row["request_id"])
    score = None if counts is None else counts.score
    return [
        rewards.record({**row, **each, "feedback": None if each["error_class"] else score})
        for each in attempts
    ]


def _opinion(row: Row) -> Row:
    return {
        "timestamp": rfc3339(row["at"]),
        "api_key_id": row["api_key_id"],
        "actor": row["actor"],
        "score": row["score"],
        "label": row["label"],
    }


def _kept(connection: Connection, request_id: str) -> Row | None:
    """Whether its answer is kept for being sent again."""
    kept = store.find_kept_answer(connection, request_id)
    return None if kept is None else {"state": kept[0], "expires_at": rfc3339(kept[1])}

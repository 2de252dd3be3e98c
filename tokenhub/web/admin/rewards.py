"""What each attempt was worth, as routing may learn from it: pages and exports.

Failures that were not the model's, such as a caller's bad request or a race that was lost, say
nothing of it: their reward is null.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from tokenhub import store
from tokenhub.domain import MODES
from tokenhub.gateway.ledger import CLIENT_CLOSED, HEDGE_LOST, INTERNAL_ERROR, NOT_NEEDED
from tokenhub.pricing import usd
from tokenhub.providers.errors import ERROR_CLASSES
from tokenhub.store import rewards
from tokenhub.store.searching import ROOM
from tokenhub.web import forms, guards
from tokenhub.web.admin import asking
from tokenhub.web.admin.feeds import Feed
from tokenhub.web.answers import rfc3339

routes = Blueprint("rewards", __name__)

EXCUSED = frozenset(
    {CLIENT_CLOSED, HEDGE_LOST, INTERNAL_ERROR, NOT_NEEDED}
    | {each.name for each in ERROR_CLASSES.values() if not each.counts}
)
"""How attempts end through no fault of the model's."""

OF_ATTEMPTS = {"model": "model_id", "provider": "provider_id", "error_class": "error_class"}
OF_REQUESTS = {"key": "api_key_id", "team": "team_id"}

FILTERS: dict[str, asking.Ask] = {
    **asking.TIMES,
    **dict.fromkeys((*OF_ATTEMPTS, *OF_REQUESTS), asking.words),
    "mode": asking.words_of(*MODES),
    "request_id": asking.one(asking.identifier),
    "success": asking.one(asking.flag),
    "token_bucket": asking.one(forms.one_of(*rewards.BUCKETS)),
}
COLUMNS = (
    "id", "timestamp", "request_id", "attempt", "model_id", "provider_id", "mode",
    "estimated_tokens", "token_bucket", "latency_budget_ms", "latency_ms", "cost_usd", "success",
    "error_class", "reward", "feedback",
)  # fmt: skip


@routes.get("/rewards")
def list_all() -> Response:
    """Attempts and their rewards, newest requests first: a page, or all as CSV or JSON lines."""
    asked = asking.read_query({**FILTERS, **asking.PAGING})
    from_at, to_at = asking.times_of(asked)
    words = {column: asked[name] for name, column in OF_REQUESTS.items() if name in asked}
    if "mode" in asked:
        words["mode"] = asked["mode"]
    filters = store.RewardFilters(
        store.LogFilters(from_at, to_at, words, request_id=asked.get("request_id", "")),
        {column: asked[name] for name, column in OF_ATTEMPTS.items() if name in asked},
        asked.get("success"),
        asked.get("token_bucket", ""),
    )
    return REWARDS.serve(guards.services(), filters, asked)


def record(row: dict[str, Any]) -> dict[str, Any]:
    """A reward in the original's fields; `attempt` is which of its request's it was, from 0."""
    success = row["error_class"] == ""
    tokens = row["estimated_input_tokens"]
    reward = store.reward_of(
        success=success,
        cost_nanousd=row["cost_nanousd"],
        latency_ms=row["duration_ms"],
        latency_budget_ms=row["latency_budget_ms"],
    )
    return {
        "id": row["id"] * ROOM + row["seq"],
        "timestamp": rfc3339(row["started_at"]),
        "request_id": row["request_id"],
        "attempt": row["seq"],
        "model_id": row["model_id"],
        "provider_id": row["provider_id"],
        "mode": row["mode"],
        "estimated_tokens": tokens,
        "token_bucket": store.token_bucket(tokens),
        "latency_budget_ms": row["latency_budget_ms"],
        "latency_ms": row["duration_ms"],
        "cost_usd": usd(row["cost_nanousd"]),
        "success": success,
        "error_class": row["error_class"],
        "reward": None if row["error_class"] in EXCUSED else round(reward, 6),
        "feedback": row["feedback"],
    }


REWARDS = Feed("rewards", "rewards", COLUMNS, store.find_rewards, store.count_rewards, record)

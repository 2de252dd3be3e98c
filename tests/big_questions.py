"""What is asked of tables that hold months of requests: every view, each time of something else."""

from __future__ import annotations

import random
from collections.abc import Callable
from urllib.parse import urlencode

from tests.big_tables import (
    DAY_MS,
    HOUR_MS,
    MODELS,
    PROVIDERS,
    TEAMS,
    Size,
    key_id,
    model_id,
    provider_id,
    request_id,
)

Question = Callable[[random.Random, Size], dict[str, object]]


def _span(rng: random.Random, size: Size, hours_max: int) -> dict[str, object]:
    """A time within the 90 days."""
    length = rng.randrange(1, hours_max) * HOUR_MS
    start = rng.randrange(size.begin_at, size.end_at - length)
    return {"from": start, "to": start + length}


def _some_time(rng: random.Random, size: Size) -> dict[str, object]:
    return _span(rng, size, 30 * 24)


def _quarter(size: Size) -> dict[str, object]:
    return {"from": size.begin_at, "to": size.end_at}


def _key(rng: random.Random, size: Size) -> str:
    return key_id(rng.randrange(size.keys))


def _model(rng: random.Random) -> str:
    return model_id(rng.randrange(MODELS))


def _series(metric: str, **fixed: object) -> Question:
    return lambda rng, size: {
        "metric": metric, "start": size.begin_at, "end": size.end_at, **fixed,
    }  # fmt: skip


QUESTIONS: dict[str, tuple[str, Question]] = {
    "logs: newest": ("logs", lambda rng, size: {"limit": 100}),
    "logs: a time": ("logs", lambda rng, size: {**_some_time(rng, size), "limit": 100}),
    "logs: far back": ("logs", lambda rng, size: {"offset": rng.randrange(50_000), "limit": 100}),
    "logs: key": ("logs", lambda rng, size: {"key": _key(rng, size)}),
    "logs: key, a time": (
        "logs", lambda rng, size: {"key": _key(rng, size), **_some_time(rng, size)}),
    "logs: team": ("logs", lambda rng, size: {"team": f"team_{rng.randrange(TEAMS)}"}),
    "logs: model": ("logs", lambda rng, size: {"model": _model(rng)}),
    "logs: requested model": ("logs", lambda rng, size: {"requested_model": _model(rng)}),
    "logs: provider": (
        "logs", lambda rng, size: {"provider": provider_id(rng.randrange(PROVIDERS))}),
    "logs: outcome": (
        "logs", lambda rng, size: {"outcome": rng.choice(["failed", "cut", "rescued,refused"])}),
    "logs: status": ("logs", lambda rng, size: {"status": rng.choice(["5xx", "400", "499"])}),
    "logs: error class": (
        "logs", lambda rng, size: {"error_class": rng.choice(["timeout", "server_error"])}),
    "logs: mode": ("logs", lambda rng, size: {"mode": rng.choice(["cheap", "normal"])}),
    "logs: endpoint": ("logs", lambda rng, size: {"endpoint": "/v1/messages"}),
    "logs: alias": ("logs", lambda rng, size: {"alias": "fast"}),
    "logs: streamed": ("logs", lambda rng, size: {"stream": "true"}),
    "logs: request id": (
        "logs", lambda rng, size: {"request_id": request_id(rng.randrange(1, size.rows))}),
    "logs: the client's id": (
        "logs", lambda rng, size: {"request_id": f"mine-{rng.randrange(1, size.rows) // 100}00"}),
    "logs: slow ones": ("logs", lambda rng, size: {"min_latency_ms": 9190}),
    "logs: dear ones": ("logs", lambda rng, size: {"min_cost_usd": "0.004990"}),
    "logs: key, failed, slow": (
        "logs",
        lambda rng, size: {"key": _key(rng, size), "outcome": "failed", "min_latency_ms": 9000}),
    "histogram: a quarter": ("logs/histogram", lambda rng, size: _quarter(size)),
    "histogram: key": (
        "logs/histogram", lambda rng, size: {"key": _key(rng, size), **_some_time(rng, size)}),
    "facets: a day": (
        "logs/facets",
        lambda rng, size: {"field": "model", "from": size.end_at - DAY_MS, "to": size.end_at}),
    "decision": (
        "decisions/{}", lambda rng, size: {"": request_id(rng.randrange(1, size.rows))}),
    "rewards": ("rewards", lambda rng, size: {"model": _model(rng), "limit": 100}),
    "stats": ("stats", lambda rng, size: {}),
    "stats: a month by model": (
        "stats",
        lambda rng, size: {"group": "model", "from": size.end_at - 30 * DAY_MS, "to": size.end_at}),
    "stats: a quarter by key": (
        "stats", lambda rng, size: {"group": "key", "from": size.begin_at}),
    "stats: a time of a key": (
        "stats",
        lambda rng, size: {"group": "model", "key": _key(rng, size), **_some_time(rng, size)}),
    "spend: keys by day": ("spend", lambda rng, size: {"by": "key", "period": "day", "limit": 100}),
    "spend: a key": (
        "spend", lambda rng, size: {"by": "key", "period": "day", "id": _key(rng, size)}),
    "tsdb: requests, a quarter": ("tsdb/query", _series("requests", group="model", top=10)),
    "tsdb: cost by key, a quarter": ("tsdb/query", _series("cost", group="key", top=10, other=1)),
    "tsdb: p95, a quarter": ("tsdb/query", _series("latency", group="", agg="p95")),
    "tsdb: errors, a quarter": ("tsdb/query", _series("errors", group="error_class")),
    "tsdb: tokens of a key": (
        "tsdb/query",
        lambda rng, size: {"metric": "tokens", "key": _key(rng, size), "group": "",
                           "start": size.begin_at, "end": size.end_at}),
    "tsdb: the last hour": (
        "tsdb/query",
        lambda rng, size: {"metric": "requests", "start": size.end_at - HOUR_MS,
                           "end": size.end_at}),
    "tsdb: the last day": ("tsdb/query", lambda rng, size: {"metric": "latency", "agg": "p99"}),
    "usage: keys by day, a month": (
        "usage",
        lambda rng, size: {"group": "key", "step": "day", "from": size.end_at - 30 * DAY_MS,
                           "to": size.end_at}),
    "overview": ("overview", lambda rng, size: {}),
    "overview: a time": ("overview", _some_time),
    "attention": ("attention", lambda rng, size: {}),
    "health transitions": ("health/transitions", lambda rng, size: {"limit": 100}),
    "audit": ("audit", lambda rng, size: {"limit": 100}),
}  # fmt: skip


def address_of(name: str, rng: random.Random, size: Size) -> str:
    """A question of that kind as it is asked."""
    path, question = QUESTIONS[name]
    asked = question(rng, size)
    return f"/admin/v1/{path.format(asked.pop('', ''))}?{urlencode(asked)}"

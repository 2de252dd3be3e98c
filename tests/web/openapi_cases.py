"""Requests to every operation of the API, with the statuses that their answers must have: a success
and a refusal of each at least. `test_openapi_answers` sends them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.web.conftest import PASSWORD, Json
from tests.web.openapi_breakers import BREAKERS
from tests.web.openapi_reads import READS
from tests.web.openapi_series import SERIES
from tests.web.openapi_views import VIEWS

ADMIN, KEY, METRICS, NOBODY = "admin", "key", "metrics", "nobody"
CHAT = "/v1/chat/completions"
SOME_ID = "req_" + "0" * 32
HELLO = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class Ask:
    """A request and the status that its answer must have.

    Args:
        path: `{key}` in it is the id of a key, `{team}` that of its team.
        who: whose token it carries.
        method: another one than the operation's: how those refuse that take anything.
    """

    path: str
    status: int = 200
    body: Any = None
    who: str = ADMIN
    method: str = ""
    headers: Json = field(default_factory=dict)


def chat(model: str = "small", status: int = 200, **more: Any) -> Ask:
    """A chat request."""
    headers = more.pop("headers", {})
    who = more.pop("who", KEY)
    body = {"model": model, "messages": HELLO, **more}
    return Ask(CHAT, status, body, who=who, headers=headers)


A, V = "/admin/v1", "/v1/models"
CASES: dict[str, list[Ask]] = {
    "GET /healthz": [Ask("/healthz", who=NOBODY), Ask("/healthz", 405, method="POST")],
    "GET /readyz": [Ask("/readyz"), Ask("/readyz", 405, method="PUT")],
    "GET /metrics": [Ask("/metrics", who=METRICS), Ask("/metrics"), Ask("/metrics", 401, who=KEY)],
    "GET /openapi.json": [
        Ask("/openapi.json", who=NOBODY),
        Ask("/openapi.json", 405, method="POST"),
    ],
    f"POST {CHAT}": [
        chat(),
        chat("", stream=False, max_tokens=3, seed=7),
        chat(headers={"X-Request-Id": "mine"}),
        chat("fast"),
        chat(headers={"Idempotency-Key": "one"}),
        chat(headers={"Idempotency-Key": "one"}),
        chat(status=422, headers={"Idempotency-Key": "one"}, max_tokens=3),
        chat(status=400, headers={"X-Idempotency-Key": "two"}, messages=[]),
        chat(status=400, headers={"X-Idempotency-Key": "two"}, messages=[]),
        chat(status=400, messages=[]),
        chat(headers={"X-TokenHub-Mode": "cheap", "X-TokenHub-Max-Latency-Ms": "60000"}),
        chat(status=400, headers={"X-TokenHub-Mode": "dear"}),
        chat(status=400, tokenhub={"max_budget_usd": 0.0000001}),
        chat(status=400, tokenhub={"budget": 1}),
        Ask(CHAT, 400, "no object", who=KEY),
        chat("fault-policy", 400),
        chat("fault-422", 422),
        chat("fault-418", 418),
        chat(status=401, who=NOBODY),
        chat(status=403, who="scopeless"),
        chat("nobody-s", 404),
        Ask(CHAT, 405, method="GET", who=KEY),
        chat(status=413, padding="x" * (1 << 20)),
    ],
    "POST /v1/messages": [
        Ask("/v1/messages", body={"model": "small", "max_tokens": 9, "messages": HELLO}, who=KEY),
        Ask("/v1/messages", 400, {"max_tokens": 9, "messages": []}, who=KEY),
        Ask("/v1/messages", 401, {"max_tokens": 9, "messages": HELLO}, who=NOBODY),
        Ask("/v1/messages", 404, {"model": "x", "max_tokens": 9, "messages": HELLO}, who=KEY),
        Ask(
            "/v1/messages",
            400,
            {"model": "fault-policy", "max_tokens": 9, "messages": HELLO},
            who=KEY,
        ),
        Ask("/v1/messages", 403, {"max_tokens": 9, "messages": HELLO}, who="scopeless"),
        Ask("/v1/messages", 405, method="GET", who=KEY),
    ],
    "POST /v1/messages/count_tokens": [
        Ask("/v1/messages/count_tokens", body={"model": "small", "messages": HELLO}, who=KEY),
        Ask("/v1/messages/count_tokens", 400, {"messages": 1}, who=KEY),
        Ask("/v1/messages/count_tokens", 401, {"messages": HELLO}, who=NOBODY),
        Ask("/v1/messages/count_tokens", 404, {"model": "x", "messages": HELLO}, who=KEY),
    ],
    "POST /v1/responses": [
        Ask("/v1/responses", body={"model": "small", "input": "Hello"}, who=KEY),
        Ask("/v1/responses", 400, {"input": "Hello", "store": True}, who=KEY),
        Ask("/v1/responses", 401, {"input": "Hello"}, who=NOBODY),
    ],
    "POST /v1/completions": [
        Ask("/v1/completions", body={"model": "small", "prompt": "Hello"}, who=KEY),
        Ask("/v1/completions", 400, {"model": "small", "prompt": {}}, who=KEY),
        Ask("/v1/completions", 401, {"prompt": "Hello"}, who=NOBODY),
    ],
    "POST /v1/embeddings": [
        Ask("/v1/embeddings", body={"model": "vectors", "input": "Hello"}, who=KEY),
        Ask("/v1/embeddings", 400, {"model": "vectors", "input": []}, who=KEY),
        Ask("/v1/embeddings", 401, {"input": "Hello"}, who=NOBODY),
    ],
    "POST /v1/chat": [
        Ask(
            "/v1/chat", body={"request": {"messages": HELLO}, "policy": {"mode": "cheap"}}, who=KEY
        ),
        Ask("/v1/chat", body={"request": {"messages": HELLO, "stream": True}}, who=KEY),
        Ask("/v1/chat", 400, {"request": {"messages": []}}, who=KEY),
        Ask("/v1/chat", 400, {"request": {"messages": HELLO}, "policy": {"budget": 1}}, who=KEY),
        Ask("/v1/chat", 401, {"request": {"messages": HELLO}}, who=NOBODY),
    ],
    "POST /v1/plan": [
        Ask(
            "/v1/plan",
            body={"request": {"messages": HELLO}, "orchestration": {"mode": "refine"}},
            who=KEY,
        ),
        Ask(
            "/v1/plan",
            body={"request": {"messages": HELLO}, "orchestration": {"mode": "vote"}},
            who=KEY,
        ),
        Ask("/v1/plan", body={"request": {"messages": HELLO, "stream": True}}, who=KEY),
        Ask("/v1/plan", 400, {"request": {"messages": []}}, who=KEY),
        Ask(
            "/v1/plan",
            400,
            {"request": {"messages": HELLO}, "orchestration": {"mode": "x"}},
            who=KEY,
        ),
        Ask("/v1/plan", 401, {"request": {"messages": HELLO}}, who=NOBODY),
    ],
    f"GET {V}": [Ask(V, who=KEY), Ask(V, 401), Ask(V, 403, who="scopeless")],
    f"GET {V}/{{id}}": [
        Ask(f"{V}/small", who=KEY),
        Ask(f"{V}/fast", who=KEY),
        Ask(f"{V}/with/slashes", who=KEY),
        Ask(f"{V}/with%2Fslashes", who=KEY),
        Ask(f"{V}/none", 404, who=KEY),
    ],
    "GET /v1/key": [
        Ask("/v1/key", who=KEY),
        Ask("/v1/key", who="scopeless"),
        Ask("/v1/key", 401),
    ],
    "POST /v1/feedback": [
        Ask("/v1/feedback", 202, {"request_id": SOME_ID, "label": "good"}, who="scopeless"),
        Ask("/v1/feedback", 202, {"request_id": SOME_ID, "score": 0.5, "label": "so so"}),
        Ask("/v1/feedback", 400, {"request_id": SOME_ID, "label": "so so"}, who=KEY),
        Ask("/v1/feedback", 400, {"request_id": "mine", "score": 1}, who=KEY),
        Ask("/v1/feedback", 401, {"request_id": SOME_ID, "score": 1}, who=NOBODY),
        Ask("/v1/feedback", 405, method="GET", who=KEY),
    ],
    f"GET {A}/providers": [Ask(f"{A}/providers"), Ask(f"{A}/providers?limit=0", 400)],
    f"POST {A}/providers": [
        Ask(f"{A}/providers", body={"id": "b", "base_url": "https://b.example.com/v1"}),
        Ask(f"{A}/providers", 400, {"id": "b"}),
        Ask(f"{A}/providers", 503, {"id": "b", "base_url": "http://b.example.com", "api_key": "s"}),
    ],
    f"PATCH {A}/providers/{{id}}": [
        Ask(f"{A}/providers/acme", body={"enabled": False}),
        Ask(f"{A}/providers/none", 404, {"enabled": False}),
    ],
    f"DELETE {A}/providers/{{id}}": [
        Ask(f"{A}/providers/acme"),
        Ask(f"{A}/providers/gone?dry_run=true"),
        Ask(f"{A}/providers/a%00b", 404),
    ],
    f"GET {A}/providers/{{id}}/discover": [
        Ask(f"{A}/providers/acme/discover"),
        Ask(f"{A}/providers/none/discover", 404),
        Ask(f"{A}/providers/gone/discover", 502),
    ],
    f"GET {A}/models": [Ask(f"{A}/models?limit=2"), Ask(f"{A}/models?offset=x", 400)],
    f"POST {A}/models": [
        Ask(f"{A}/models", body={"id": "m", "provider_id": "acme", "weight": 7}),
        Ask(f"{A}/models", 409, {"id": "fast", "provider_id": "acme"}),
        Ask(f"{A}/models", 400, {"id": "m", "provider_id": "acme", "height": 7}),
    ],
    f"PATCH {A}/models/{{id}}": [
        Ask(f"{A}/models/with/slashes", body={"input_per_1k": 0.001}),
        Ask(f"{A}/models/small", 412, {"weight": 1}, headers={"If-Match": '"7"'}),
        Ask(f"{A}/models/none", 404, {}),
    ],
    f"DELETE {A}/models/{{id}}": [Ask(f"{A}/models/small"), Ask(f"{A}/models/small", 401, who=KEY)],
    f"GET {A}/aliases": [Ask(f"{A}/aliases"), Ask(f"{A}/aliases?limit=0", 400)],
    f"GET {A}/aliases/{{id}}": [Ask(f"{A}/aliases/fast"), Ask(f"{A}/aliases/none", 404)],
    f"PUT {A}/aliases/{{id}}": [
        Ask(f"{A}/aliases/a/b", body={"variants": [{"model_id": "small", "weight": 3}]}),
        Ask(f"{A}/aliases/small", 409, {"variants": [{"model_id": "a", "weight": 3}]}),
        Ask(f"{A}/aliases/a", 400, {"variants": []}),
    ],
    f"PATCH {A}/aliases/{{id}}": [
        Ask(f"{A}/aliases/fast", body={"sticky_by": "round_robin"}),
        Ask(f"{A}/aliases/none", 404, {}),
    ],
    f"DELETE {A}/aliases/{{id}}": [
        Ask(f"{A}/aliases/fast"),
        Ask(f"{A}/aliases/fast", 401, who=KEY),
    ],
    f"GET {A}/credentials-file": [
        Ask(f"{A}/credentials-file"),
        Ask(f"{A}/credentials-file", 401, who=KEY),
    ],
    f"GET {A}/prices": [Ask(f"{A}/prices"), Ask(f"{A}/prices", 401, who=NOBODY)],
    f"POST {A}/prices/refresh": [
        Ask(f"{A}/prices/refresh"),
        Ask(f"{A}/prices/refresh", 401, who=KEY),
    ],
    f"GET {A}/apikeys": [Ask(f"{A}/apikeys"), Ask(f"{A}/apikeys?limit=9999", 400)],
    f"POST {A}/apikeys": [
        Ask(f"{A}/apikeys", body={"name": "n", "scopes": ["chat"], "expires_in": "30d"}),
        Ask(f"{A}/apikeys", body={"name": "n", "policy": {"mode": "cheap"}, "tags": ["a"]}),
        Ask(f"{A}/apikeys", body={"name": "n", "monthly_budget_usd": 2.5}),
        Ask(f"{A}/apikeys", 400, {"name": "n", "monthly_budget_usd": -1}),
    ],
    f"PATCH {A}/apikeys/{{id}}": [
        Ask(f"{A}/apikeys/{{key}}", body={"expires_at": "2100-01-01T00:00:00Z"}),
        Ask(f"{A}/apikeys/{{key}}", 400, {"scopes": ["everything"]}),
        Ask(f"{A}/apikeys/none", 404, {}),
    ],
    f"DELETE {A}/apikeys/{{id}}": [
        Ask(f"{A}/apikeys/{{key}}"),
        Ask(f"{A}/apikeys/{{key}}", 401, who=NOBODY),
    ],
    f"POST {A}/apikeys/{{id}}/rotate": [
        Ask(f"{A}/apikeys/{{key}}/rotate", body={"grace": "24h"}),
        Ask(f"{A}/apikeys/{{key}}/rotate"),
        Ask(f"{A}/apikeys/{{key}}/rotate", 400, {"grace": "31d"}),
        Ask(f"{A}/apikeys/none/rotate", 404),
    ],
    f"GET {A}/teams": [Ask(f"{A}/teams"), Ask(f"{A}/teams?limit=0", 400)],
    f"POST {A}/teams": [
        Ask(f"{A}/teams", body={"name": "Dev", "models": ["gpt-*"], "rpm": 60}),
        Ask(f"{A}/teams", 409, {"name": "Dev"}),
        Ask(f"{A}/teams", 400, {"name": "Dev", "size": 3}),
    ],
    f"GET {A}/teams/{{id}}": [Ask(f"{A}/teams/{{team}}"), Ask(f"{A}/teams/none", 404)],
    f"PATCH {A}/teams/{{id}}": [
        Ask(f"{A}/teams/{{team}}", body={"enabled": False}),
        Ask(f"{A}/teams/none", 404, {}),
    ],
    f"DELETE {A}/teams/{{id}}": [
        Ask(f"{A}/teams/none"),
        Ask(f"{A}/teams/{{team}}", 409),
    ],
    f"GET {A}/budgets": [
        Ask(f"{A}/budgets"),
        Ask(f"{A}/budgets?subject_kind=host", 400),
        Ask(f"{A}/budgets?subject_kind=key", 400),
    ],
    f"PUT {A}/budgets/{{kind}}/{{id}}/{{period}}": [
        Ask(f"{A}/budgets/key/{{key}}/day", body={"limit_usd": 1.5}),
        Ask(f"{A}/budgets/team/{{team}}/total", body={"limit_usd": 0, "hard": False}),
        Ask(f"{A}/budgets/key/{{key}}/day", 400, {"limit_usd": -1}),
        Ask(f"{A}/budgets/key/none/day", 404, {"limit_usd": 1}),
        Ask(f"{A}/budgets/key/{{key}}/week", 404, {"limit_usd": 1}),
    ],
    f"DELETE {A}/budgets/{{kind}}/{{id}}/{{period}}": [
        Ask(f"{A}/budgets/key/{{key}}/day"),
        Ask(f"{A}/budgets/host/{{key}}/day", 404),
    ],
    f"POST {A}/budgets/{{kind}}/{{id}}/paid": [
        Ask(f"{A}/budgets/team/{{team}}/paid", body={"amount_usd": 5, "reason": "invoice 7"}),
        Ask(f"{A}/budgets/team/{{team}}/paid"),
        Ask(f"{A}/budgets/team/none/paid", 404),
        Ask(f"{A}/budgets/team/{{team}}/paid", 400, {"period": "week"}),
    ],
    f"POST {A}/apikeys/{{id}}/paid": [
        Ask(f"{A}/apikeys/{{key}}/paid", body={"period": "month"}),
        Ask(f"{A}/apikeys/{{key}}/paid"),
        Ask(f"{A}/apikeys/none/paid", 404),
    ],
    f"GET {A}/budgets/{{kind}}/{{id}}/credits": [
        Ask(f"{A}/budgets/key/{{key}}/credits"),
        Ask(f"{A}/budgets/key/{{key}}/credits?limit=0", 400),
        Ask(f"{A}/budgets/host/{{key}}/credits", 404),
    ],
    f"POST {A}/budgets/release": [
        Ask(f"{A}/budgets/release", body={"host_id": "host_gone"}),
        Ask(f"{A}/budgets/release", 400, {"host_id": " "}),
    ],
    f"GET {A}/spend": [
        Ask(f"{A}/spend?by=team&period=day&from=2020-01-01T00:00:00Z"),
        Ask(f"{A}/spend?by=model", 400),
    ],
    f"GET {A}/routing-config": [
        Ask(f"{A}/routing-config"),
        Ask(f"{A}/routing-config", 401, who=METRICS),
    ],
    f"GET {A}/log-level": [Ask(f"{A}/log-level"), Ask(f"{A}/log-level", 401, who=KEY)],
    f"PUT {A}/log-level": [
        Ask(f"{A}/log-level", body={"level": "warn"}),
        Ask(f"{A}/log-level", body={"level": "settings"}),
        Ask(f"{A}/log-level", 400, {"level": "loud"}),
    ],
    f"PUT {A}/routing-config": [
        Ask(f"{A}/routing-config", body={"default_mode": "cheap"}),
        Ask(f"{A}/routing-config", 400, {"default_mode": "turbo"}),
    ],
    f"POST {A}/routing/simulate": [
        Ask(f"{A}/routing/simulate", body={"mode": "cheap", "model_hint": "small"}),
        Ask(f"{A}/routing/simulate", body={"max_budget_usd": 0.000001}),
        Ask(f"{A}/routing/simulate", body={"model_hint": "fast", "exclude": ["small"]}),
        Ask(f"{A}/routing/simulate", body={"tags": ["no such"], "needs": ["json"]}),
        Ask(f"{A}/routing/simulate", body={"alias": "fast"}),
        Ask(f"{A}/routing/simulate", 400, {"token_count": -1}),
    ],
    f"GET {A}/tokens": [Ask(f"{A}/tokens"), Ask(f"{A}/tokens?limit=0", 400)],
    f"POST {A}/tokens": [
        Ask(f"{A}/tokens", body={"name": "ci", "role": "viewer", "expires_in": "30d"}),
        Ask(f"{A}/tokens", 409, {"name": "ci", "role": "viewer"}),
        Ask(f"{A}/tokens", 400, {"name": "cd", "role": "king"}),
    ],
    f"DELETE {A}/tokens/{{id}}": [
        Ask(f"{A}/tokens/none"),
        Ask(f"{A}/tokens/root", 400),
        Ask(f"{A}/tokens/a%00b", 404),
    ],
    f"POST {A}/admin-token/rotate": [
        Ask(f"{A}/admin-token/rotate"),
        Ask(f"{A}/admin-token/rotate", 401),  # with the old one
    ],
    f"POST {A}/session": [
        Ask(f"{A}/session"),
        Ask(f"{A}/session", 403, headers={"Origin": "https://elsewhere.example"}),
        Ask(f"{A}/session", 401, {"token": "guess"}),
        Ask(f"{A}/session", 400, {"token": 1}),
    ],
    f"GET {A}/session": [Ask(f"{A}/session"), Ask(f"{A}/session", 401, who=NOBODY)],
    f"DELETE {A}/session": [Ask(f"{A}/session"), Ask(f"{A}/session", 401, who=KEY)],
    f"GET {A}/sessions": [Ask(f"{A}/sessions"), Ask(f"{A}/sessions?offset=x", 400)],
    f"DELETE {A}/sessions/{{id}}": [
        Ask(f"{A}/sessions/none"),
        Ask(f"{A}/sessions/a%00b", 404),
    ],
    f"POST {A}/vault/unlock": [
        Ask(f"{A}/vault/unlock", body={"admin_password": PASSWORD}),
        Ask(f"{A}/vault/unlock", body={"admin_password": PASSWORD}),
        Ask(f"{A}/vault/unlock", 401, {"admin_password": "guess"}),
        Ask(f"{A}/vault/unlock", 400, {}),
    ],
    f"POST {A}/vault/rotate": [
        Ask(f"{A}/vault/rotate", body={"old_password": PASSWORD, "new_password": "a new password"}),
        Ask(f"{A}/vault/rotate", 401, {"old_password": PASSWORD, "new_password": "a newer one"}),
        Ask(f"{A}/vault/rotate", 400, {"old_password": PASSWORD, "new_password": "short"}),
    ],
    f"GET {A}/vault/secrets": [
        Ask(f"{A}/vault/secrets"),
        Ask(f"{A}/vault/secrets?limit=0", 400),
    ],
    f"GET {A}/vault/secrets/{{id}}": [
        Ask(f"{A}/vault/secrets/one"),
        Ask(f"{A}/vault/secrets/none", 404),
    ],
    f"PUT {A}/vault/secrets/{{id}}": [
        Ask(f"{A}/vault/secrets/a/b", body={"value": "v"}),
        Ask(f"{A}/vault/secrets/a%00b", 400, {"value": "v"}),
        Ask(f"{A}/vault/secrets/a", 400, {}),
    ],
    f"DELETE {A}/vault/secrets/{{id}}": [
        Ask(f"{A}/vault/secrets/one"),
        Ask(f"{A}/vault/secrets/one", 404),
    ],
    f"POST {A}/vault/lock": [Ask(f"{A}/vault/lock"), Ask(f"{A}/vault/lock", 401, who=KEY)],
    f"GET {A}/info": [Ask(f"{A}/info"), Ask(f"{A}/info", 401, who=NOBODY)],
    f"GET {A}/health": [Ask(f"{A}/health"), Ask(f"{A}/health", 401, who=NOBODY)],
    f"POST {A}/health/{{id}}/clear": [
        Ask(f"{A}/health/acme/clear"),
        Ask(f"{A}/health/with/slashes/clear"),
        Ask(f"{A}/health/none/clear", 404),
    ],
    **{name: [Ask(*each) for each in asks] for name, asks in BREAKERS.items()},
    f"GET {A}/hosts": [Ask(f"{A}/hosts"), Ask(f"{A}/hosts?offset=-1", 400)],
    f"GET {A}/engine/models": [
        Ask(f"{A}/engine/models"),
        Ask(f"{A}/engine/models?limit=-1", 400),
    ],
    **{name: [Ask(*each) for each in asks] for name, asks in (READS | SERIES | VIEWS).items()},
    f"POST {A}/tsdb/prune": [Ask(f"{A}/tsdb/prune"), Ask(f"{A}/tsdb/prune", 400, {"days": 1})],
    f"PUT {A}/tsdb/retention": [
        Ask(f"{A}/tsdb/retention", body={"days": 30}),
        Ask(f"{A}/tsdb/retention", 400, {"days": 0}),
    ],
}

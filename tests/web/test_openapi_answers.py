"""What the app really answers is what the description of the API says: a success and a refusal of
every operation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from tests.web.conftest import METRICS_TOKEN, PASSWORD, Admin, Json
from tests.web.openapi import Description
from tokenhub.host import journal_directory
from tokenhub.ingest import Ingester

API = Description()
ADMIN, KEY, METRICS, NOBODY = "admin", "key", "metrics", "nobody"
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class Ask:
    """A request and the status that its answer must have.

    Args:
        path: `{key}` in it is the id of a key.
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
        chat(status=400, messages=[]),
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
    f"GET {V}": [Ask(V, who=KEY), Ask(V, 401), Ask(V, 403, who="scopeless")],
    f"GET {V}/{{id}}": [
        Ask(f"{V}/small", who=KEY),
        Ask(f"{V}/with/slashes", who=KEY),
        Ask(f"{V}/with%2Fslashes", who=KEY),
        Ask(f"{V}/none", 404, who=KEY),
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
        Ask(f"{A}/models", 400, {"id": "m", "provider_id": "acme", "height": 7}),
    ],
    f"PATCH {A}/models/{{id}}": [
        Ask(f"{A}/models/with/slashes", body={"input_per_1k": 0.001}),
        Ask(f"{A}/models/none", 404, {}),
    ],
    f"DELETE {A}/models/{{id}}": [Ask(f"{A}/models/small"), Ask(f"{A}/models/small", 401, who=KEY)],
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
        Ask(f"{A}/apikeys", 400, {"name": "n", "monthly_budget_usd": 5}),
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
        Ask(f"{A}/apikeys/{{key}}/rotate"),
        Ask(f"{A}/apikeys/none/rotate", 404),
    ],
    f"GET {A}/routing-config": [
        Ask(f"{A}/routing-config"),
        Ask(f"{A}/routing-config", 401, who=METRICS),
    ],
    f"PUT {A}/routing-config": [
        Ask(f"{A}/routing-config", body={"default_mode": "cheap"}),
        Ask(f"{A}/routing-config", 400, {"default_mode": "turbo"}),
    ],
    f"POST {A}/routing/simulate": [
        Ask(f"{A}/routing/simulate", body={"mode": "cheap", "model_hint": "small"}),
        Ask(f"{A}/routing/simulate", body={"max_budget_usd": 0.000001}),
        Ask(f"{A}/routing/simulate", 400, {"token_count": -1}),
    ],
    f"POST {A}/vault/unlock": [
        Ask(f"{A}/vault/unlock", body={"admin_password": PASSWORD}),
        Ask(f"{A}/vault/unlock", body={"admin_password": PASSWORD}),
        Ask(f"{A}/vault/unlock", 401, {"admin_password": "guess"}),
        Ask(f"{A}/vault/unlock", 400, {}),
    ],
    f"POST {A}/vault/lock": [Ask(f"{A}/vault/lock"), Ask(f"{A}/vault/lock", 401, who=KEY)],
    f"GET {A}/info": [Ask(f"{A}/info"), Ask(f"{A}/info", 401, who=NOBODY)],
    f"GET {A}/health": [Ask(f"{A}/health"), Ask(f"{A}/health", 401, who=NOBODY)],
    f"POST {A}/health/{{id}}/clear": [
        Ask(f"{A}/health/acme/clear"),
        Ask(f"{A}/health/with/slashes/clear"),
        Ask(f"{A}/health/none/clear", 404),
    ],
    f"GET {A}/engine/models": [
        Ask(f"{A}/engine/models"),
        Ask(f"{A}/engine/models?limit=-1", 400),
    ],
    f"GET {A}/logs": [Ask(f"{A}/logs"), Ask(f"{A}/logs?limit=x", 400)],
    f"GET {A}/audit": [Ask(f"{A}/audit?limit=5"), Ask(f"{A}/audit?offset=-1", 400)],
}


class World:
    """A gateway with a provider that works, and everybody who asks it."""

    def __init__(self, app: Any, url: str) -> None:
        self.app = app
        self.client = app.test_client()
        admin = self.admin = Admin(self.client)
        admin.provider(base_url=url)
        admin.provider("gone", base_url="http://127.0.0.1:9", enabled=False)
        prices = {"input_per_1k": 0.001, "output_per_1k": 0.002}
        admin.model("small", upstream_model="sim-fast", max_context_tokens=4000, **prices)
        admin.model("with/slashes", upstream_model="sim-fast", enabled=True, **prices)
        issued = admin.ok("POST", "apikeys", {"name": "one"})
        scopeless = admin.ok("POST", "apikeys", {"name": "other", "scopes": []})
        app.services.catalog.current()
        self.key_id = issued["id"]
        self.tokens = {
            ADMIN: admin.headers["Authorization"].removeprefix("Bearer "),
            KEY: issued["key"],
            METRICS: METRICS_TOKEN,
            "scopeless": scopeless["key"],
        }

    def ask(self, operation: str, ask: Ask) -> Any:
        """Send it as somebody outside would."""
        model = ask.body.get("model", "") if isinstance(ask.body, dict) else ""
        if model.startswith("fault-"):  # alone, so that nobody else can answer
            self.admin.model(model)
        token = self.tokens.get(ask.who)
        return self.client.open(
            ask.path.format(key=self.key_id),
            method=ask.method or operation.partition(" ")[0],
            headers={**({"Authorization": f"Bearer {token}"} if token else {}), **ask.headers},
            json=ask.body,
        )


@pytest.fixture
def app(make_app, tmp_path):
    table = tmp_path / "prices.json"
    table.write_text('{"m": {"input_cost_per_token": 0.000001}}')
    return make_app(TOKENHUB_MAX_BODY_MB="1", TOKENHUB_PRICING_SOURCE=str(table))


@pytest.fixture
def world(app, simulator) -> World:
    return World(app, simulator.url)


def check(operation: str, response: Any) -> None:
    """The status, the headers and the body are as declared."""
    declared = API.find_response(operation, response.status_code)
    assert declared is not None, f"{response.status_code} is not declared"
    for name, found in declared["headers"].items():
        header = API.follow(found)
        value = response.headers.get(name)
        assert value is not None or "required" not in header, name
        if value is not None and header["schema"]["type"] != "string":
            number = float(value)
            assert API.validator(header["schema"]).is_valid(number), name
    ours = {name for name, _ in response.headers if name.startswith("X-")}
    assert ours - {"X-Accel-Buffering"} <= set(declared["headers"])
    content = declared["content"][response.mimetype]
    body = response.get_json() if response.is_json else response.text
    errors = API.validator(content["schema"], strict=True).iter_errors(body)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_there_is_a_success_and_a_refusal_of_every_operation():
    assert set(CASES) == set(API.operations)
    for operation, asks in CASES.items():
        statuses = {ask.status for ask in asks}
        assert 200 in statuses and max(statuses) >= 400, operation


@pytest.mark.parametrize("operation", list(CASES))
def test_answers_are_as_described(operation, world):
    for ask in CASES[operation]:
        response = world.ask(operation, ask)
        assert response.status_code == ask.status, response.text
        check(operation, response)
        if ask.body is not None and ask.status == 200:
            schema = API.body_schema(operation)
            assert schema is not None
            assert API.validator(schema).is_valid(ask.body)


@pytest.mark.parametrize(
    ("operation", "body"),
    [(name, ask.body) for name, asks in CASES.items() for ask in asks[:1] if ask.body is not None],
)
def test_required_fields_are_those_that_must_be_there(operation, body, world):
    schema = API.body_schema(operation)
    assert schema is not None
    ask = next(ask for ask in CASES[operation])
    required = schema.get("required", [])
    least = {name: value for name, value in body.items() if name in required}
    assert world.ask(operation, Ask(ask.path, body=least, who=ask.who)).status_code == 200
    for name in required:
        rest = {key: value for key, value in body.items() if key != name}
        refused = world.ask(operation, Ask(ask.path, body=rest, who=ask.who))
        assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, name)


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [("fault-429", 429, "rate_limited"), ("fault-401", 502, "all_attempts_failed")],
)
def test_what_failed_providers_amount_to_is_as_described(world, model, status, code):
    world.admin.send("DELETE", "models/small")
    world.admin.send("DELETE", "models/with/slashes")
    response = world.ask(f"POST {CHAT}", chat(model))
    assert (response.status_code, response.get_json()["error"]["code"]) == (status, code)
    check(f"POST {CHAT}", response)


def test_a_request_that_no_model_may_serve_is_refused_as_described(world):
    response = world.ask(f"POST {CHAT}", chat(messages=[{"role": "user", "content": "x" * 90_000}]))
    assert response.status_code == 200  # the other model has no limit
    world.admin.send("DELETE", "models/with/slashes")
    response = world.ask(f"POST {CHAT}", chat(messages=[{"role": "user", "content": "x" * 90_000}]))
    assert response.status_code == 503
    assert response.get_json()["error"]["skips"] == {"context_overflow": 1}
    check(f"POST {CHAT}", response)


@pytest.mark.parametrize(("model", "is_complete"), [("small", True), ("fault-cut", False)])
def test_streams_end_as_described(world, model, is_complete):
    with world.ask(f"POST {CHAT}", chat(model, stream=True)) as response:
        assert response.mimetype == "text/event-stream"
        check(f"POST {CHAT}", response)
        events = response.text.split("\n\n")
    assert events.pop() == ""
    if is_complete:
        assert events[-1] == "data: [DONE]"
        assert '"error"' not in response.text
    else:
        error = events[-1].removeprefix("data: ")
        schema = {"$ref": "#/components/schemas/Error"}
        assert API.validator(schema).is_valid(orjson.loads(error))
        assert "[DONE]" not in response.text


def test_logs_and_health_are_as_described_when_there_is_something_to_tell(world):
    for model in ("small", "fault-policy", "fault-401"):
        world.ask(f"POST {CHAT}", chat(model))
    hub = world.app.services
    ingester = Ingester(
        database=hub.database,
        board=hub.board,
        directory=journal_directory(hub.settings),
        host_id=hub.host_id,
    )
    while ingester.step():
        pass
    for path, rows in (("logs", "logs"), ("health", "models"), ("audit", "logs")):
        response = world.ask(f"GET {A}/{path}", Ask(f"{A}/{path}"))
        assert len(response.get_json()[rows]) >= 2
        check(f"GET {A}/{path}", response)


def declaring(status: str) -> list[str]:
    """The operations that declare a status of their own."""
    return [name for name, each in API.operations.items() if status in each["responses"]]


def test_whoever_has_no_token_or_the_wrong_one_is_refused_as_described(world):
    for operation in declaring("401"):
        ask = CASES[operation][0]
        for who in (NOBODY, "scopeless"):
            refused = world.ask(operation, Ask(ask.path, body=ask.body, who=who))
            is_known = who != NOBODY and "/v1/" in operation and A not in operation
            assert refused.status_code == (403 if is_known else 401), operation
            check(operation, refused)


def test_a_body_that_is_too_large_is_refused_as_described(world):
    for operation in declaring("413"):
        ask = CASES[operation][0]
        refused = world.ask(operation, Ask(ask.path, body={"x": "y" * (1 << 20)}, who=ask.who))
        assert refused.status_code == 413, operation
        check(operation, refused)


def test_other_methods_are_refused_as_described(world):
    for operation, asks in CASES.items():
        response = world.ask(operation, Ask(asks[0].path, method="TRACE"))
        assert response.status_code == 405, operation
        check(operation, response)


def test_without_the_database_answers_are_as_described(world, database_away):
    database_away("read", "write")
    statuses = {}
    for is_behind in (False, True):
        if is_behind:  # something has been changed elsewhere, and nobody can say what
            world.app.services.board.advance(10_000)
        for operation, asks in CASES.items():
            response = world.ask(operation, asks[0])
            statuses[operation, is_behind] = response.status_code
            check(operation, response)
    away = {name for (name, _), status in statuses.items() if status == 503}
    assert away == {name for name in declaring("503") if name != "GET /readyz"}
    assert statuses[f"POST {CHAT}", False] == 200

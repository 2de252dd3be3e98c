"""What the app really answers is what the description of the API says: a success and a refusal of
every operation."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.store.test_ingest import attempt_row, log_row, make_batch
from tests.web.conftest import METRICS_TOKEN, Admin
from tests.web.openapi import Description
from tests.web.openapi_cases import ADMIN, CASES, CHAT, KEY, METRICS, NOBODY, A, Ask, chat
from tokenhub import store
from tokenhub.host import journal_directory
from tokenhub.ingest import Ingester

API = Description()


class World:
    """A gateway with a provider that works, and everybody who asks it."""

    def __init__(self, app: Any, url: str) -> None:
        self.app = app
        self.client = app.test_client()
        admin = self.admin = Admin(self.client)
        admin.provider(base_url=url)
        admin.provider("gone", base_url="http://127.0.0.1:9", enabled=False)
        admin.provider("idle", base_url="http://127.0.0.1:9")  # somebody should see to it
        prices = {"input_per_1k": 0.001, "output_per_1k": 0.002}
        admin.model("small", upstream_model="sim-fast", max_context_tokens=4000, **prices)
        admin.model("with/slashes", upstream_model="sim-fast", enabled=True, **prices)
        variants = [{"model_id": id_, "weight": 1} for id_ in ("small", "with/slashes")]
        admin.ok("PUT", "aliases/fast", {"variants": variants})
        admin.model("vectors", upstream_model="sim-embed", capabilities=["embeddings"], **prices)
        self.team_id = admin.ok("POST", "teams", {"name": "Ops"})["team"]["id"]
        kept = make_batch(logs=[log_row(1, skips="{}")], attempts=[attempt_row(1, 0)])
        app.services.database.write(lambda connection: store.ingest(connection, kept))
        issued = admin.ok("POST", "apikeys", {"name": "one", "team_id": self.team_id})
        scopeless = admin.ok("POST", "apikeys", {"name": "other", "scopes": []})
        app.services.catalog.current()
        self.key_id = issued["id"]
        self._asked = 0
        self.tokens = {
            ADMIN: admin.headers["Authorization"].removeprefix("Bearer "),
            KEY: issued["key"],
            METRICS: METRICS_TOKEN,
            "scopeless": scopeless["key"],
        }

    def open_vault(self) -> None:
        """With a secret in it."""
        self.admin.unlock()
        self.admin.ok("PUT", "vault/secrets/one", {"value": "v"})

    def ask(self, operation: str, ask: Ask) -> Any:
        """Send it as somebody outside would."""
        model = ask.body.get("model", "") if isinstance(ask.body, dict) else ""
        if model.startswith("fault-"):  # alone, so that nobody else can answer
            self.admin.model(model)
        token = self.tokens.get(ask.who)
        self._asked += 1  # each from an address of its own: nobody has to wait
        address = f"10.0.{self._asked >> 8}.{self._asked & 255}"
        return self.client.open(
            ask.path.format(key=self.key_id, team=self.team_id),
            method=ask.method or operation.partition(" ")[0],
            headers={**({"Authorization": f"Bearer {token}"} if token else {}), **ask.headers},
            json=ask.body,
            environ_overrides={"REMOTE_ADDR": address},
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
        assert statuses & {200, 202} and max(statuses) >= 400, operation


@pytest.mark.parametrize("operation", list(CASES))
def test_answers_are_as_described(operation, world):
    if operation.partition("/vault/")[2].startswith(("rotate", "secrets")):
        world.open_vault()
    for ask in CASES[operation]:
        response = world.ask(operation, ask)
        assert response.status_code == ask.status, response.text
        check(operation, response)
        if ask.body is not None and ask.status in (200, 202):
            schema = API.body_schema(operation)
            assert schema is not None
            assert API.validator(schema).is_valid(ask.body)


@pytest.mark.parametrize(
    ("operation", "body"),
    [(name, ask.body) for name, asks in CASES.items() for ask in asks[:1] if ask.body is not None],
)
def test_required_fields_are_those_that_must_be_there(operation, body, world):
    if operation.partition("/vault/")[2].startswith(("rotate", "secrets")):
        world.open_vault()
    schema = API.body_schema(operation)
    assert schema is not None
    ask = next(ask for ask in CASES[operation])
    required = schema.get("required", [])
    either = schema.get("anyOf", [{}])[0].get("required", [])  # what the case has
    least = {name: value for name, value in body.items() if name in (*required, *either)}
    assert world.ask(operation, Ask(ask.path, body=least, who=ask.who)).status_code == ask.status
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
    assert response.get_json()["error"]["skips"] == {"capability": 1, "context_overflow": 1}
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
    for path, rows in (
        ("logs", "logs"),
        ("health", "models"),
        ("audit", "logs"),
        ("rewards", "rewards"),
    ):
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
            if is_known and operation in ("GET /v1/key", "POST /v1/feedback"):
                continue  # which any key opens
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
    nobody_is_asked = {"GET /readyz", "GET /metrics"}  # which knows its own token
    assert away == set(declaring("503")) - nobody_is_asked
    assert statuses[f"POST {CHAT}", False] == 200

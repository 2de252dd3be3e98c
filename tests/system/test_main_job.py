"""The main job with the official SDK: whole and streamed answers through two workers."""

from __future__ import annotations

import openai
import pytest

from tests.system.harness import (
    ADMIN_TOKEN,
    PROVIDER_KEY,
    VAULT_PASSWORD,
    Gateway,
    chat_body,
    wait_until,
)
from tests.system.load import Row

pytestmark = pytest.mark.system

QUESTION = [{"role": "user", "content": "Where is my lamp?"}]


@pytest.fixture
def client(shared: Gateway):
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{shared.port}/v1", api_key=shared.key, max_retries=0
    ) as found:
        yield found


def log_of(gateway: Gateway, request_id: str) -> Row:
    def find():
        rows = gateway.admin("GET", "logs?limit=1000")["logs"]
        return [row for row in rows if row["request_id"] == request_id]

    row: Row = wait_until(find, what="log row")[0]
    return row


def test_a_whole_answer_is_parsed_metered_and_logged(shared, client):
    raw = client.chat.completions.with_raw_response.create(model="sim-fast", messages=QUESTION)
    answer = raw.parse()
    assert answer.choices[0].message.content
    row = log_of(shared, raw.headers["x-request-id"])
    usage = answer.usage
    assert (row["input_tokens"], row["output_tokens"]) == (
        usage.prompt_tokens, usage.completion_tokens,
    )  # fmt: skip
    cost = usage.prompt_tokens * 0.001 / 1000 + usage.completion_tokens * 0.002 / 1000
    assert row["estimated_cost_usd"] == pytest.approx(cost, abs=1e-9)
    assert float(raw.headers["x-tokenhub-cost-usd"]) == pytest.approx(cost, abs=1e-9)
    assert (row["outcome"], row["status_code"], row["api_key_id"]) == (
        "answered", 200, shared.key_id,
    )  # fmt: skip
    assert raw.headers["x-negotiated-model"] == "sim-fast"
    assert raw.headers["x-tokenhub-provider"] == "sim"


def test_a_stream_is_whole_and_its_usage_is_counted_though_nobody_asked(shared, client):
    with client.chat.completions.with_streaming_response.create(
        model="sim-fast", messages=QUESTION, stream=True
    ) as raw:
        request_id = raw.headers["x-request-id"]
        chunks = list(raw.parse())
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert all(chunk.choices for chunk in chunks), "the usage chunk was not hidden"
    row = log_of(shared, request_id)
    assert (row["outcome"], row["stream"]) == ("answered", True)
    assert row["output_tokens"] > 0
    assert row["ttft_ms"] is not None


def test_the_usage_chunk_comes_when_it_was_asked_for(client):
    stream = client.chat.completions.create(
        model="sim-fast", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_the_router_chooses_when_no_model_is_named(shared):
    reply = shared.chat("*")
    assert reply.status == 200
    assert reply.headers["x-negotiated-model"] in {"sim-fast", "sim-smart", "sim-cheap"}
    assert reply.headers["x-tokenhub-reason"].startswith("routed-weight-")


def test_unknown_fields_reach_the_provider(shared):
    reply = shared.chat(seed=7, some_vendor_field={"a": [1, 2]})
    assert reply.status == 200


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (openai.AuthenticationError, {"api_key": "tokenhub_" + "0" * 64}),
        (openai.AuthenticationError, {"api_key": "sk-something-else"}),
        (openai.NotFoundError, {"model": "no-such-model"}),
        (openai.BadRequestError, {"messages": []}),
        (openai.BadRequestError, {"model": "fault-400"}),
        (openai.RateLimitError, {"model": "fault-429"}),
    ],
)
def test_every_error_is_the_sdks_own_exception(gateway_with_faults, error, call):
    gateway = gateway_with_faults
    for name in ("fault-400", "fault-429"):  # alone, so that nobody else can answer
        gateway.admin("PATCH", f"models/{name}", {"enabled": name == call.get("model")})
    with (
        openai.OpenAI(
            base_url=f"http://127.0.0.1:{gateway.port}/v1",
            api_key=call.get("api_key", gateway.key),
            max_retries=0,
        ) as client,
        pytest.raises(error) as raised,
    ):
        client.chat.completions.create(
            model=call.get("model", "sim-fast"), messages=call.get("messages", QUESTION)
        )
    assert raised.value.response.headers["x-request-id"].startswith("req_")
    assert raised.value.body["message"]
    assert PROVIDER_KEY not in raised.value.response.text


@pytest.fixture(scope="module")
def gateway_with_faults(tmp_path_factory):
    from tests.system.harness import running

    directory = tmp_path_factory.mktemp("faults")
    with running(directory, f"sqlite:///{directory / 'hub.sqlite'}") as found:
        for name in ("sim-fast", "sim-smart", "sim-cheap"):
            found.admin("PATCH", f"models/{name}", {"enabled": name == "sim-fast"})
        for name in ("fault-400", "fault-429"):
            found.add_model(name)
        found.simulate(model="sim-fast", fault="429", times=10_000)
        yield found


def test_models_are_listed_and_retrieved(shared, client):
    listed = {model.id for model in client.models.list()}
    assert listed == {"sim-fast", "sim-smart", "sim-cheap"}
    assert client.models.retrieve("sim-smart").owned_by == "sim"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_a_model_id_with_a_slash_is_one_model(gateway_slash):
    gateway = gateway_slash
    assert gateway.chat("vendor/sim fast").status == 200
    reply = gateway.ask("GET", "/v1/models/vendor/sim%20fast", token=gateway.key)
    assert reply.json["id"] == "vendor/sim fast"


@pytest.fixture
def gateway_slash(shared):
    shared.add_model("vendor/sim fast", upstream_model="sim-fast")
    yield shared
    shared.admin("DELETE", "models/vendor/sim%20fast")


def test_every_answer_carries_our_request_id_and_echoes_the_callers(shared):
    for path in ("/healthz", "/nowhere", "/v1/models", "/admin/v1/info"):
        reply = shared.ask("GET", path, X_Request_Id="mine-1")
        assert reply.headers["x-request-id"].startswith("req_")
        assert reply.headers["x-client-request-id"] == "mine-1"


def test_health_readiness_and_metrics_answer(shared):
    assert shared.ask("GET", "/healthz").json["status"] == "ok"
    assert shared.ask("GET", "/readyz").status == 200
    assert shared.ask("GET", "/metrics").status == 401
    metrics = shared.ask("GET", "/metrics", token=ADMIN_TOKEN)
    assert b"tokenhub_requests_total" in metrics.body


def test_metrics_are_the_same_whichever_worker_answers(shared):
    assert shared.chat().status == 200
    counted = set()
    for connection in shared.each_worker():
        text = connection.ask("GET", "/metrics", token=ADMIN_TOKEN).body.decode()
        counted.add(
            tuple(line for line in text.splitlines() if line.startswith("tokenhub_requests_total"))
        )
        connection.close()
    assert len(counted) == 1


def test_a_wrong_type_a_huge_body_and_an_unknown_path_are_envelopes(shared):
    for body, status in ((b"{", 400), (b"x" * (11 << 20), 413), (chat_body("sim-fast", n=0), 400)):
        reply = shared.ask("POST", "/v1/chat/completions", body, token=shared.key)
        assert reply.status == status
        assert set(reply.json["error"]) >= {"message", "type", "param", "code"}
    assert shared.ask("GET", "/v1/nothing").json["error"]["code"] == "not_found"
    assert shared.ask("GET", "/v1/chat/completions").status == 405


def test_no_secret_is_in_any_file_or_log_of_the_gateway(gateway_with_faults):
    gateway = gateway_with_faults
    for name in ("sim-fast", "fault-400", "fault-429"):
        gateway.chat(name, stream=True)
    gateway.ask("GET", f"/v1/models?key={gateway.key}", X_Request_Id=gateway.key[:40])
    secrets = [PROVIDER_KEY, ADMIN_TOKEN, VAULT_PASSWORD, gateway.key]
    files = [path for path in gateway.directory.rglob("*") if path.is_file()]
    assert any(path.suffix == ".open" for path in files), "the journal was not looked at"
    for path in files:
        found = [secret for secret in secrets if secret.encode() in path.read_bytes()]
        assert not found, (path, found)

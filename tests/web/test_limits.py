"""Who asks too often is refused before anything else is looked at, and told when to come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.gateway_kit import DONE, STOP, USAGE, answer, delta, fault
from tests.web.conftest import ADMIN_TOKEN, METRICS_TOKEN, Admin
from tests.web.openapi import Description
from tests.web.test_chat import MESSAGES, Chat, error_of
from tokenhub.errors import ClientClosed
from tokenhub.web.hub import Hub

LIMITED = {
    "TOKENHUB_RATE_LIMIT_RPS": "0.001",
    "TOKENHUB_RATE_LIMIT_BURST": "3",
    "TOKENHUB_ADMIN_RATE_LIMIT_RPS": "0.001",
    "TOKENHUB_ADMIN_RATE_LIMIT_BURST": "3",
}


@pytest.fixture
def chat(app, client, admin, make_key) -> Chat:
    admin.provider()
    admin.model("small")
    return Chat(app, client, make_key())


@pytest.fixture
def limited(make_app: Callable[..., Hub]) -> Hub:
    return make_app(**LIMITED)


def allow(admin: Admin, **limits: object) -> None:
    """Limit the only key."""
    [key] = admin.ok("GET", "apikeys")["keys"]
    admin.ok("PATCH", f"apikeys/{key['id']}", limits)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def rules_of(app: Hub, prefix: str) -> list[tuple[str, str]]:
    """Every method and path below a prefix, with something for each of its parameters."""
    return sorted(
        (method, "/".join("x" if part.startswith("<") else part for part in rule.rule.split("/")))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(prefix)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    )


@pytest.mark.parametrize(("prefix", "scope"), [("/v1/", "address"), ("/admin/v1/", "admin")])
def test_every_route_counts_its_address_before_the_credential(limited, prefix, scope):
    client = limited.test_client()
    for path in ("/v1/models", "/admin/v1/info"):
        for _ in range(3):
            assert client.get(path, headers=bearer("wrong")).status_code == 401
    rules = rules_of(limited, prefix)
    assert rules
    for method, path in rules:
        response = client.open(path, method=method, headers=bearer(ADMIN_TOKEN))
        assert response.status_code == 429, (method, path)
        error = error_of(response)
        assert (error["code"], error["scope"]) == ("rate_limit_exceeded", scope)
        assert int(response.headers["Retry-After"]) > 0
    metrics = client.get("/metrics", headers=bearer(METRICS_TOKEN)).text
    assert f'tokenhub_rate_limited_total{{scope="{scope}"}} {len(rules)}.0' in metrics


def test_refusals_are_as_described(limited, admin, chat):
    described = Description()
    client = limited.test_client()
    for _ in range(3):
        client.get("/v1/models")
        client.get("/admin/v1/info")
    allow(admin, tpm=1)
    found = {
        "GET /v1/models": client.get("/v1/models"),
        "GET /admin/v1/info": client.get("/admin/v1/info"),
        "POST /v1/chat/completions": chat.post(model="small", messages=MESSAGES * 100),
    }
    for operation, response in found.items():
        assert response.status_code == 429
        declared = described.find_response(operation, 429)
        assert declared is not None
        schema = declared["content"]["application/json"]["schema"]
        described.validator(schema, strict=True).validate(response.get_json())
        ours = {name for name, _ in response.headers if name.lower().startswith("x-")}
        assert ours <= set(declared["headers"])


def test_every_route_that_counts_its_address_says_so():
    operations = Description().operations
    silent = {
        operation
        for operation in operations
        if operation.partition(" ")[2].startswith(("/v1/", "/admin/v1/"))
        and "429" not in operations[operation]["responses"]
    }
    assert silent == set()


def test_what_machines_ask_is_never_limited(limited):
    client = limited.test_client()
    for _ in range(10):
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.get("/metrics", headers=bearer(METRICS_TOKEN)).status_code == 200
        assert client.get("/openapi.json").status_code == 200


def test_public_models_are_limited_as_well(make_app):
    client = make_app(TOKENHUB_PUBLIC_MODELS="true", **LIMITED).test_client()
    found = [client.get("/v1/models").status_code for _ in range(4)]
    assert found == [200, 200, 200, 429]


def test_the_address_is_the_clients_and_not_our_proxys(make_app):
    client = make_app(TOKENHUB_TRUSTED_PROXIES="127.0.0.0/8", **LIMITED).test_client()
    for last in range(5):
        forwarded = {"X-Forwarded-For": f"192.0.2.{last}"}
        assert client.get("/v1/models", headers=forwarded).status_code == 401
    same = {"X-Forwarded-For": "203.0.113.9, 192.0.2.77"}  # the client's word does not count
    found = [client.get("/v1/models", headers=same).status_code for _ in range(4)]
    assert found == [401, 401, 401, 429]


def test_workers_of_one_host_count_together(make_app):
    clients = [make_app(**LIMITED).test_client() for _ in range(2)]
    found = [clients[turn % 2].get("/v1/models").status_code for turn in range(4)]
    assert found == [401, 401, 401, 429]


def test_by_default_an_address_has_a_burst_of_120_and_an_administrators_60(make_app):
    defaults = dict.fromkeys(LIMITED, "")  # an empty variable is unset
    client = make_app(**defaults).test_client()
    for path, burst in (("/v1/models", 120), ("/admin/v1/info", 60)):
        found = [client.get(path).status_code for _ in range(burst + 100)]
        assert found[:burst] == [401] * burst
        assert 429 in found


def test_a_refused_address_leaves_no_row_and_no_room_taken(make_app, admin, make_key):
    app = make_app(**LIMITED)
    chat = Chat(app, app.test_client(), make_key())
    statuses = [chat.post(b"{}").status_code for _ in range(5)]
    assert statuses == [400, 400, 400, 429, 429]
    assert len(chat.rows) == 3


def test_a_limited_key_reads_what_it_has_left_and_then_when_to_come_back(chat, admin):
    chat.script(small=[answer(10, 5)] * 3)
    allow(admin, rpm=2, tpm=1000)
    for left in (1, 0):
        response = chat.post(model="small")
        assert response.status_code == 200
        headers = response.headers
        assert headers["x-ratelimit-limit-requests"] == "2"
        assert headers["x-ratelimit-remaining-requests"] == str(left)
        assert headers["x-ratelimit-limit-tokens"] == "1000"
        assert headers["x-ratelimit-remaining-tokens"] == str(1000 - 15 * (2 - left))
    response = chat.post(model="small")
    assert response.status_code == 429
    error = error_of(response)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert (error["scope"], error["limit"], error["allowed"]) == ("key", "rpm", 2)
    assert response.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(response.headers["Retry-After"]) in range(58, 62)
    assert len(chat.rows) == 2  # a counter and no row


def test_a_team_is_limited_for_all_of_its_keys_together(chat, admin, app, client, make_key):
    chat.script(small=[answer()] * 3)
    team_id = admin.ok("POST", "teams", {"name": "crew", "rpm": 2})["team"]["id"]
    ours = [Chat(app, client, make_key(team_id=team_id)) for _ in range(2)]
    assert [each.post(model="small").status_code for each in ours] == [200, 200]
    response = ours[0].post(model="small")
    assert (response.status_code, error_of(response)["scope"]) == (429, "team")
    assert chat.post(model="small").status_code == 200  # it is in no team


def test_a_key_without_limits_has_no_such_headers(chat):
    chat.script(small=[answer()])
    names = {name.lower() for name, _ in chat.post(model="small").headers}
    assert not {name for name in names if name.startswith("x-ratelimit")}


def test_a_request_for_more_tokens_than_are_left_is_recorded_as_refused(chat, admin):
    chat.script(small=[answer(10, 85)])
    allow(admin, tpm=100)
    assert chat.post(model="small").status_code == 200
    long = [{"role": "user", "content": "x" * 4 * 50}]
    response = chat.post(model="small", messages=long)
    assert response.status_code == 429
    assert error_of(response)["limit"] == "tpm"
    assert response.headers["x-ratelimit-remaining-tokens"] == "5"
    assert [row["ending"] for row in chat.rows] == ["answered", "refused"]
    assert chat.rows[1]["error_class"] == "rate_limit_exceeded"


def test_a_request_larger_than_its_keys_minute_is_not_worth_a_retry(chat, admin):
    allow(admin, tpm=100)
    response = chat.post(model="small", messages=[{"role": "user", "content": "x" * 500}])
    assert response.status_code == 429
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("given", "asked", "status"),
    [
        pytest.param(answer(), {"model": "small"}, 200, id="answered"),
        pytest.param(answer(), {"model": "none"}, 404, id="no such model"),
        pytest.param(answer(), {"body": b"{"}, 400, id="not JSON"),
        pytest.param(fault(next_step="stop", status=400), {"model": "small"}, 400, id="refused"),
        pytest.param([delta("a"), STOP, USAGE + DONE], {"model": "small", "stream": True}, 200,
                     id="streamed"),
        pytest.param(ClientClosed(), {"model": "small"}, None, id="left"),
    ],
)  # fmt: skip
def test_however_a_request_ends_its_place_is_free_again(chat, admin, given, asked, status):
    allow(admin, max_parallel=1)
    for _ in range(3):
        chat.script(small=[given])
        if status is None:
            with pytest.raises(ClientClosed):
                chat.post(**asked)
        else:
            response = chat.post(**asked)
            assert response.data
            assert response.status_code == status


def test_a_stream_that_nobody_reads_holds_its_place_until_it_is_closed(chat, admin):
    allow(admin, max_parallel=1)
    chat.script(small=[[delta("a"), STOP, USAGE + DONE], answer()])
    reading = chat.post(model="small", stream=True)
    response = chat.post(model="small")
    assert (response.status_code, error_of(response)["limit"]) == (429, "max_parallel")
    reading.close()
    assert chat.post(model="small").status_code == 200


def test_a_stream_tells_what_is_left_before_it_begins(chat, admin):
    chat.script(small=[[delta("hello"), STOP, USAGE + DONE]])
    allow(admin, rpm=5)
    response = chat.post(model="small", stream=True)
    assert response.headers["x-ratelimit-remaining-requests"] == "4"


def test_another_administrator_is_not_held_up(limited):
    client = limited.test_client()
    for _ in range(5):
        client.get("/admin/v1/info")
    elsewhere = {"REMOTE_ADDR": "192.0.2.1"}
    found = client.get("/admin/v1/info", headers=bearer(ADMIN_TOKEN), environ_overrides=elsewhere)
    assert found.status_code == 200
    assert Admin(client).send("GET", "info").status_code == 429


def send(chat: Chat, path: str, **fields: object):
    """Ask at a path of either dialect, which both take this body."""
    body = {"model": "small", "max_tokens": 50, "messages": MESSAGES, **fields}
    return chat.client.post(path, json=body, headers=chat.headers)


@pytest.mark.parametrize(
    ("path", "limit", "left"),
    [
        ("/v1/chat/completions", "x-ratelimit-limit-{}", "x-ratelimit-remaining-{}"),
        ("/v1/messages", "anthropic-ratelimit-{}-limit", "anthropic-ratelimit-{}-remaining"),
    ],
)
def test_what_a_key_may_ask_of_a_model_is_told_in_its_callers_words(chat, admin, path, limit, left):
    chat.script(small=[answer(10, 5), [delta("hello"), STOP, USAGE + DONE]])
    allow(admin, rpm=100, model_limits={"small": {"rpm": 2, "tpm": 1000}})
    response = send(chat, path)
    assert response.status_code == 200
    for what, allowed, remaining in (("requests", "2", "1"), ("tokens", "1000", "985")):
        assert response.headers[limit.format(what)] == allowed
        assert response.headers[left.format(what)] == remaining
    streamed = send(chat, path, stream=True)
    assert streamed.headers[left.format("requests")] == "0"
    assert streamed.data
    response = send(chat, path)
    assert response.status_code == 429
    error = error_of(response)
    assert error["type"] == "rate_limit_error"
    assert (error["scope"], error["limit"], error["allowed"]) == ("key and model", "rpm", 2)
    assert error["model"] == "small"
    assert response.headers[left.format("requests")] == "0"
    assert int(response.headers["Retry-After"]) in range(58, 62)
    names = {name for name, _ in response.headers if "ratelimit" in name.lower()}
    assert len(names) == 6
    assert all(name.startswith(limit.partition("-")[0]) for name in names)
    assert [row["ending"] for row in chat.rows] == ["answered", "answered", "refused"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_answers_and_refusals_for_a_model_are_as_described(chat, admin, path):
    allow(admin, model_limits={"small": {"rpm": 1, "tpm": 1000}})
    chat.script(small=[answer()])
    described = Description()
    for status in (200, 429):
        response = send(chat, path)
        assert response.status_code == status
        declared = described.find_response(f"POST {path}", status)
        assert declared is not None
        limits = {name for name, _ in response.headers if "ratelimit" in name}
        assert len(limits) == 6
        assert limits <= set(declared["headers"])
        schema = declared["content"]["application/json"]["schema"]
        described.validator(schema, strict=True).validate(response.get_json())


def test_who_counts_tokens_too_often_is_told_in_anthropics_words(chat, admin):
    allow(admin, rpm=1)
    found = [send(chat, "/v1/messages/count_tokens") for _ in range(2)]
    assert found[1].status_code == 429
    assert found[1].headers["anthropic-ratelimit-requests-remaining"] == "0"


def test_the_next_model_answers_where_the_choice_is_ours(chat, admin):
    admin.model("large", weight=1)
    allow(admin, model_limits={"small": {"rpm": 1}, "large": {"rpm": 2}})
    chat.script(small=[answer()], large=[answer(), answer()])
    found = [chat.post().headers["X-Negotiated-Model"] for _ in range(3)]
    assert sorted(found) == ["large", "large", "small"]
    assert chat.post().status_code == 429


def test_the_limits_of_an_alias_hold_for_what_is_asked_by_its_name(chat, admin):
    admin.ok("PUT", "aliases/any", {"variants": [{"model_id": "small", "weight": 1}]})
    allow(admin, model_limits={"any": {"rpm": 1}})
    chat.script(small=[answer(), answer()])
    assert chat.post(model="any").status_code == 200
    response = chat.post(model="any")
    assert (response.status_code, error_of(response)["model"]) == (429, "any")
    assert chat.post(model="small").status_code == 200


def test_a_count_of_refusals_has_those_for_models(chat, admin):
    allow(admin, model_limits={"small": {"tpm": 9}})
    assert chat.post(model="small", messages=MESSAGES * 100).status_code == 429
    metrics = chat.client.get("/metrics", headers=bearer(METRICS_TOKEN)).text
    assert 'tokenhub_rate_limited_total{scope="key and model"} 1.0' in metrics


@pytest.mark.parametrize("is_limited", [True, False])
def test_of_its_own_limits_a_provider_speaks_only_to_callers_who_have_none_of_ours(
    chat, admin, is_limited
):
    theirs = (("request-id", "req_theirs"), ("anthropic-ratelimit-requests-limit", "4000"))
    told = replace(answer(), headers=theirs)
    chat.script(small=[told])
    if is_limited:
        allow(admin, tpm=1000)
    response = send(chat, "/v1/messages")
    assert response.headers["request-id"] == "req_theirs"
    assert ("anthropic-ratelimit-requests-limit" in response.headers) == (not is_limited)
    assert ("anthropic-ratelimit-tokens-limit" in response.headers) == is_limited

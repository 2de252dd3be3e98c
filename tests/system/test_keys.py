"""What is changed about a key or its team holds on every worker from the next request on."""

from __future__ import annotations

import time

import pytest

from tests.system.harness import ADMIN_TOKEN, chat_body

pytestmark = pytest.mark.system

CHAT = "/v1/chat/completions"


@pytest.fixture
def workers(gateway):
    """A connection to each."""
    found = gateway.each_worker()
    assert len({worker.worker_pid for worker in found}) == gateway.workers == 2
    yield found
    for worker in found:
        worker.close()


@pytest.fixture
def statuses(workers):
    """What every worker answers to a chat request, the one that made the change last."""

    def ask(token, model="sim-fast"):
        replies = [each.ask("POST", CHAT, chat_body(model), token=token) for each in workers]
        return [
            200 if each.status == 200 else (each.status, each.json["error"]["code"])
            for each in replies
        ]

    return ask


@pytest.fixture
def admin(workers):
    """The admin API, of one worker and then the other."""
    turn = iter(range(10_000))

    def send(method, path, body=None):
        worker = workers[next(turn) % len(workers)]
        reply = worker.ask(method, f"/admin/v1/{path}", body, token=ADMIN_TOKEN)
        assert reply.status == 200, reply.body
        return reply.json

    return send


def test_every_change_of_a_key_holds_on_every_worker_from_the_next_request(admin, statuses):
    made = admin("POST", "apikeys", {"name": "k"})
    token, path = made["key"], f"apikeys/{made['id']}"
    for change, expected in (
        ({"enabled": False}, (401, "invalid_api_key")),
        ({"enabled": True}, 200),
        ({"scopes": ["plan"]}, (403, "insufficient_scope")),
        ({"scopes": ["chat"]}, 200),
        ({"models": ["sim-s*"]}, (403, "model_not_allowed")),
        ({"models": ["sim-f*"]}, 200),
        ({"allowed_ips": ["192.0.2.0/24"]}, (403, "ip_not_allowed")),
        ({"allowed_ips": ["127.0.0.0/8"]}, 200),
    ):
        admin("PATCH", path, change)
        assert statuses(token) == [expected] * 2, change
    admin("DELETE", path)
    assert statuses(token) == [(401, "invalid_api_key")] * 2


def test_time_ends_a_key_and_the_grace_of_its_old_secret_on_every_worker(admin, statuses):
    made = admin("POST", "apikeys", {"name": "k"})
    rotate = f"apikeys/{made['id']}/rotate"
    rotated = admin("POST", rotate, {"grace": "3s"})
    short = admin("POST", "apikeys", {"name": "s", "expires_in": "3s"})
    ends = time.monotonic() + 3
    tokens = [each["key"] for each in (made, rotated, short)]
    assert [statuses(each) for each in tokens] == [[200, 200]] * 3
    time.sleep(max(0.0, ends - time.monotonic()) + 0.01)
    over, none = [(401, "expired_api_key")] * 2, [(401, "invalid_api_key")] * 2
    assert [statuses(each) for each in tokens] == [over, [200, 200], over]
    last = admin("POST", rotate)["key"]
    assert [statuses(each) for each in (*tokens[:2], last)] == [none, none, [200, 200]]


def test_what_is_changed_about_a_team_holds_for_its_keys_on_every_worker(admin, statuses):
    team = admin("POST", "teams", {"name": "Ops"})["team"]["id"]
    token = admin("POST", "apikeys", {"name": "k", "team_id": team})["key"]
    for change, expected in (
        ({"enabled": False}, (403, "team_disabled")),
        ({"enabled": True}, 200),
        ({"models": ["sim-s*"]}, (403, "model_not_allowed")),
        ({"models": []}, 200),
    ):
        admin("PATCH", f"teams/{team}", change)
        assert statuses(token) == [expected] * 2, change

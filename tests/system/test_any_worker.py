"""What one worker is told, every worker obeys from the next request on."""

from __future__ import annotations

import pytest

from tests.system.harness import ADMIN_TOKEN, VAULT_PASSWORD, chat_body, running

pytestmark = pytest.mark.system


@pytest.fixture(params=[2, 4])
def gateway(request, tmp_path, dsn):
    with running(tmp_path, dsn, workers=request.param) as found:
        yield found


def ask_all(workers, path, body, token):
    return [worker.ask("POST", path, body, token=token) for worker in workers]


def test_disabling_revoking_and_locking_hold_on_every_worker_at_once(gateway):
    workers = gateway.each_worker()
    assert len({worker.worker_pid for worker in workers}) == gateway.workers
    chat = ("/v1/chat/completions", chat_body("sim-fast"), gateway.key)
    assert [reply.status for reply in ask_all(workers, *chat)] == [200] * gateway.workers

    for round_number in range(3):
        teller, name = workers[round_number % len(workers)], "sim-fast"
        teller.ask("PATCH", f"/admin/v1/models/{name}", {"enabled": False}, token=ADMIN_TOKEN)
        used = [reply.headers["x-negotiated-model"] for reply in ask_all(workers, *chat)]
        assert name not in used
        teller.ask("PATCH", f"/admin/v1/models/{name}", {"enabled": True}, token=ADMIN_TOKEN)
        used = [reply.headers["x-negotiated-model"] for reply in ask_all(workers, *chat)]
        assert set(used) == {name}

        made = teller.ask("POST", "/admin/v1/apikeys", {"name": "short-lived"}, token=ADMIN_TOKEN)
        second = (chat[0], chat[1], made.json["key"])
        assert {reply.status for reply in ask_all(workers, *second)} == {200}
        teller.ask("DELETE", f"/admin/v1/apikeys/{made.json['id']}", token=ADMIN_TOKEN)
        assert {reply.status for reply in ask_all(workers, *second)} == {401}

        locked = teller.ask("POST", "/admin/v1/vault/lock", {}, token=ADMIN_TOKEN)
        assert locked.json == {"ok": True}
        replies = ask_all(workers, *chat)
        assert {reply.status for reply in replies} == {503}
        assert {reply.json["error"]["code"] for reply in replies} == {"vault_locked"}
        wrong = teller.ask(
            "POST", "/admin/v1/vault/unlock", {"admin_password": "not the password"},
            token=ADMIN_TOKEN,
        )  # fmt: skip
        assert wrong.status == 401
        unlocked = teller.ask(
            "POST", "/admin/v1/vault/unlock", {"admin_password": VAULT_PASSWORD},
            token=ADMIN_TOKEN,
        )  # fmt: skip
        assert unlocked.json == {"ok": True}
        assert {reply.status for reply in ask_all(workers, *chat)} == {200}
    for worker in workers:
        worker.close()


def test_a_changed_scope_and_a_rotated_key_hold_on_every_worker_at_once(gateway):
    workers = gateway.each_worker()
    chat = ("/v1/chat/completions", chat_body("sim-fast"))
    gateway.admin("PATCH", f"apikeys/{gateway.key_id}", {"scopes": '["plan"]'})
    assert {reply.status for reply in ask_all(workers, *chat, gateway.key)} == {403}
    gateway.admin("PATCH", f"apikeys/{gateway.key_id}", {"scopes": '["chat"]'})
    fresh = gateway.admin("POST", f"apikeys/{gateway.key_id}/rotate")["key"]
    assert {reply.status for reply in ask_all(workers, *chat, gateway.key)} == {401}
    assert {reply.status for reply in ask_all(workers, *chat, fresh)} == {200}
    for worker in workers:
        worker.close()


def test_a_model_that_one_worker_saw_fail_is_left_alone_by_all(gateway):
    gateway.simulate(model="sim-fast", fault="429", times=10_000, retry_after=30)
    workers = gateway.each_worker()
    first = workers[0].ask("POST", "/v1/chat/completions", chat_body("sim-fast"), token=gateway.key)
    assert (first.status, first.headers["x-tokenhub-attempts"]) == (200, "2")
    replies = ask_all(workers, "/v1/chat/completions", chat_body("sim-fast"), gateway.key)
    assert {reply.headers["x-tokenhub-attempts"] for reply in replies} == {"1"}
    for worker in workers:
        worker.close()

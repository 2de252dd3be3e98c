"""The vault of a real gateway: what one worker is told holds for all, and no crash mixes it up."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from threading import Thread

import pytest

from tests.system.harness import (
    ADMIN_TOKEN,
    VAULT_PASSWORD,
    Gateway,
    Pinned,
    Reply,
    chat_body,
    kill,
    wait_until,
)

pytestmark = pytest.mark.system

V = "/admin/v1/vault"
WRONG = "not the password"


@contextmanager
def opened_by_hand(directory: Path, dsn: str, **extra: str) -> Iterator[Gateway]:
    """A configured gateway whose vault has no password in the settings."""
    gateway = Gateway(directory, dsn, extra={"TOKENHUB_VAULT_PASSWORD": "", **extra})
    try:
        gateway.migrate()
        gateway.start_simulator()
        gateway.start()
        assert unlock(gateway).status == 200
        gateway.set_up()
        gateway.admin("PUT", "vault/secrets/smtp", {"value": "hunter2"})
        yield gateway
    finally:
        gateway.stop()


def unlock(gateway: Gateway | Pinned, password: str = VAULT_PASSWORD) -> Reply:
    body = {"admin_password": password}
    return gateway.ask("POST", f"{V}/unlock", body, token=ADMIN_TOKEN)


def asks(worker: Pinned, key: str) -> list[Reply]:
    """Everything that needs the vault open, administrators' first and a request last."""
    return [
        worker.ask("GET", f"{V}/secrets", token=ADMIN_TOKEN),
        worker.ask("GET", f"{V}/secrets/smtp", token=ADMIN_TOKEN),
        worker.ask("PUT", f"{V}/secrets/smtp", {"value": "hunter2"}, token=ADMIN_TOKEN),
        worker.ask("PATCH", "/admin/v1/providers/sim", {"api_key": "sk"}, token=ADMIN_TOKEN),
        worker.ask("POST", "/v1/chat/completions", chat_body("sim-fast"), token=key),
    ]


def check(replies: list[Reply], status: int) -> None:
    assert [reply.status for reply in replies] == [status] * len(replies)
    if status == 503:
        assert {reply.json["error"]["code"] for reply in replies} == {"vault_locked"}


def test_what_needs_the_vault_is_refused_and_served_by_every_worker_from_the_next_request_on(
    tmp_path, dsn
):
    with opened_by_hand(tmp_path, dsn) as gateway:
        workers = gateway.each_worker()
        for teller in workers:
            for worker in workers:
                check(asks(worker, gateway.key), 200)
            assert teller.ask("POST", f"{V}/lock", token=ADMIN_TOKEN).status == 200
            for worker in workers:
                check(asks(worker, gateway.key), 503)
            assert unlock(teller).status == 200
        for turn in range(5):
            assert unlock(workers[turn % 2], WRONG).status == 401
        for worker in workers:
            refused = unlock(worker)
            assert (refused.status, refused.json["error"]["code"]) == (429, "too_many_attempts")
            assert 0 < int(refused.headers["retry-after"]) <= 30
            check(asks(worker, gateway.key), 200)
            worker.close()


def test_a_vault_that_locks_itself_does_so_on_every_worker_and_says_so_once(tmp_path):
    dsn = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    with opened_by_hand(tmp_path, dsn, TOKENHUB_VAULT_AUTOLOCK_SECS="3") as gateway:
        workers = gateway.each_worker()
        for worker in workers:
            assert worker.ask("GET", f"{V}/secrets/smtp", token=ADMIN_TOKEN).status == 200
        time.sleep(3)
        for worker in workers:
            *admins, chat = asks(worker, gateway.key)
            check(admins, 503)
            assert chat.status == 200
        wait_until(lambda: count(gateway, "vault.autolock"), 5, "the audit row")
        time.sleep(1.5)
        assert count(gateway, "vault.autolock") == 1
        assert unlock(workers[0]).json == {"ok": True}
        for worker in workers:
            check(asks(worker, gateway.key), 200)
            worker.close()


def test_a_crash_while_the_password_is_changed_leaves_the_old_one_or_the_new_one(tmp_path, dsn):
    rng, password, changed = random.Random(5), VAULT_PASSWORD, 0
    with opened_by_hand(tmp_path, dsn) as gateway:
        for number in range(3):
            new = f"password number {number}"
            changing = Thread(target=rotate, args=(gateway, password, new))
            changing.start()
            time.sleep(rng.uniform(0.1, 1.2))
            for pid in gateway.worker_pids():
                kill(pid)
            changing.join()
            wait_until(gateway.is_up, 20, "new workers")
            assert gateway.admin("GET", "vault/secrets/smtp")["value"] == "hunter2"
            statuses = {each: unlock(gateway, each).status for each in (password, new)}
            assert sorted(statuses.values()) == [200, 401]
            password = next(each for each in statuses if statuses[each] == 200)
            changed += password == new
            assert count(gateway, "vault.rotate") == changed
        assert gateway.chat().status == 200


def rotate(gateway: Gateway, old: str, new: str) -> None:
    with suppress(OSError, HTTPException):
        gateway.ask(
            "POST", f"{V}/rotate", {"old_password": old, "new_password": new}, token=ADMIN_TOKEN
        )


def count(gateway: Gateway, action: str) -> int:
    rows = gateway.admin("GET", "audit?limit=1000")["logs"]
    return sum(row["action"] == action for row in rows)

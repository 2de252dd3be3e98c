"""Starting while something is missing: a clear word, no stack trace, and the others go on."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from functools import partial

import pytest

from tests.system.harness import ADMIN_TOKEN, Gateway, kill, running, wait_until

pytestmark = pytest.mark.system


@pytest.fixture
def stopped(tmp_path):
    """Gateways that are ended after the test, whatever became of them."""
    made: list[Gateway] = []

    def make(dsn: str, **extra: str) -> Gateway:
        made.append(Gateway(tmp_path, dsn, extra=extra))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.mark.postgres
def test_a_start_without_the_database_waits_for_it_and_can_be_stopped(stopped, postgres_server):
    dsn = postgres_server.create_database()
    gateway = stopped(dsn)
    gateway.migrate()
    time.sleep(1)  # commits of the last moment are not on this server's disk yet
    postgres_server.stop()
    try:
        gateway.start(wait=False)
        wait_until(lambda: gateway.log_text().count("trying again") >= 3, 30, "some tries")
        began = time.monotonic()
        gateway.process.popen.terminate()
        assert gateway.process.popen.wait(20) == 0
        assert time.monotonic() - began < 8
        gateway.start(wait=False)
        wait_until(lambda: gateway.log_text().count("trying again") >= 6, 30, "some tries")
    finally:
        postgres_server.start()
    wait_until(gateway.is_up, 20, "up as soon as the database is")
    assert "Traceback" not in gateway.log_text()


@pytest.mark.postgres
def test_a_worker_that_dies_while_the_database_is_away_does_not_end_the_gateway(
    tmp_path, postgres_server
):
    with running(tmp_path, postgres_server.create_database()) as gateway:
        [victim, other] = gateway.worker_pids()
        time.sleep(1)  # both have caught up, and the server has written it down
        postgres_server.stop()
        try:
            kill(victim)
            wait_until(lambda: gateway.log_text().count("trying again") >= 2, 30, "some tries")
            assert gateway.process is not None and gateway.process.popen.poll() is None
            assert gateway.chat().status == 200
            assert other in gateway.worker_pids()
        finally:
            postgres_server.start()
        wait_until(gateway.is_up, 20, "both workers")
        assert gateway.chat().status == 200


def test_a_worker_that_comes_later_uses_the_settings_of_the_start(tmp_path):
    """An env file that is being edited neither ends the gateway nor sends a worker elsewhere."""
    with running(tmp_path, f"sqlite:///{tmp_path}/hub.sqlite") as gateway:
        env_file = tmp_path / "data" / "settings.env"
        for text in ("TOKENHUB_WORKERS=nonsense\n",
                     f"TOKENHUB_DB_DSN=sqlite:///{tmp_path}/other.sqlite\n"):  # fmt: skip
            env_file.write_text(text)
            [victim, _] = gateway.worker_pids()
            kill(victim)
            wait_until(partial(is_replaced, gateway, victim), 20, "another")
        assert not (tmp_path / "other.sqlite").exists()
        env_file.write_text("TOKENHUB_DEFAULT_MODE=nonsense\n")
        os.kill(pid_of(gateway), signal.SIGHUP)
        wait_until(lambda: gateway.log_text().count("reload refused") == 2, 10, "both to refuse")
        assert gateway.chat().status == 200


def test_a_worker_that_comes_after_a_reload_has_what_the_others_have(tmp_path):
    with running(tmp_path, f"sqlite:///{tmp_path}/hub.sqlite") as gateway:
        (tmp_path / "data" / "settings.env").write_text("TOKENHUB_DEFAULT_MODE=cheap\n")
        os.kill(pid_of(gateway), signal.SIGHUP)
        time.sleep(1)
        for pid in gateway.worker_pids():
            kill(pid)
        wait_until(gateway.is_up, 20, "new workers")
        time.sleep(0.5)
        for worker in gateway.each_worker():
            config = worker.ask("GET", "/admin/v1/routing-config", token=ADMIN_TOKEN)
            assert config.json["default_mode"] == "cheap"
            worker.close()


def test_a_vault_that_was_locked_stays_locked_whatever_worker_comes(tmp_path):
    with running(tmp_path, f"sqlite:///{tmp_path}/hub.sqlite") as gateway:
        assert not gateway.admin("GET", "info")["vault_locked"]
        gateway.admin("POST", "vault/lock")
        for pid in gateway.worker_pids():
            kill(pid)
        wait_until(gateway.is_up, 20, "new workers")
        assert gateway.admin("GET", "info")["vault_locked"]


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://u:canary@127.0.0.1:canary/d", "postgresql://u:canary@127.0.0.1/d?canary=1"],
)
def test_a_bad_address_of_the_database_ends_the_start_and_is_not_repeated(stopped, dsn):
    gateway = stopped(dsn)
    gateway.start(wait=False)
    assert gateway.process.popen.wait(20) != 0
    assert "tokenhub cannot start: " in gateway.log_text()
    assert "TOKENHUB_DB_DSN" in gateway.log_text()
    assert "canary@" not in gateway.log_text()
    assert "Traceback" not in gateway.log_text()


def is_replaced(gateway: Gateway, gone: int) -> bool:
    with suppress(OSError):
        return gateway.is_up() and gone not in gateway.worker_pids()
    return False


def pid_of(gateway: Gateway) -> int:
    assert gateway.process is not None
    return gateway.process.popen.pid

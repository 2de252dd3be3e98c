"""Admin tokens and sessions: what one worker is told holds on all, and after a restart."""

from __future__ import annotations

import sys
from http.cookies import SimpleCookie

import pytest

from tests.system.harness import ADMIN_TOKEN, running, wait_until
from tests.system.harness import Process as Child

pytestmark = pytest.mark.system

INFO = "/admin/v1/info"
"""Any read."""


@pytest.fixture
def gateway(tmp_path, dsn):
    with running(tmp_path, dsn, workers=2) as found:
        yield found


def statuses(workers, token="", **headers):
    return [worker.ask("GET", INFO, token=token, **headers).status for worker in workers]


def test_rotated_and_revoked_tokens_and_sessions_hold_on_every_worker_at_once(gateway, tmp_path):
    workers = gateway.each_worker()
    for teller in workers:
        made = teller.ask("POST", "/admin/v1/tokens", {"name": "ci", "role": "operator"},
                          token=ADMIN_TOKEN).json  # fmt: skip
        signed_in = teller.ask("POST", "/admin/v1/session", {"token": made["token"]})
        cookie = SimpleCookie(signed_in.headers["set-cookie"])["tokenhub_session"].value
        browser = {"Cookie": f"tokenhub_session={cookie}"}
        assert statuses(workers, made["token"]) == statuses(workers, **browser) == [200, 200]
        gone = teller.ask("DELETE", f"/admin/v1/tokens/{made['id']}", token=ADMIN_TOKEN)
        assert gone.status == 200
        assert statuses(workers, made["token"]) == statuses(workers, **browser) == [401, 401]

    rotated = workers[0].ask("POST", "/admin/v1/admin-token/rotate", token=ADMIN_TOKEN).json
    assert statuses(workers, ADMIN_TOKEN) == [401, 401]
    assert statuses(workers, rotated["token"]) == [200, 200]

    for worker in workers:
        worker.close()
    gateway.process.stop()
    gateway.start(wait=False)  # the environment still has the old token
    wait_until(lambda: is_up(gateway, rotated["token"]), 20, "the rotated token opens")
    assert gateway.ask("GET", INFO, token=ADMIN_TOKEN).status == 401

    reset = Child.start([sys.executable, "-m", "tokenhub", "reset-admin-token"],
                        tmp_path / "reset.log", gateway.env)  # fmt: skip
    assert reset.popen.wait(20) == 0, reset.log.read_text()
    wait_until(lambda: is_up(gateway, ADMIN_TOKEN), 5, "the configured token opens again")
    assert gateway.ask("GET", INFO, token=rotated["token"]).status == 401
    log = gateway.log_text()
    for secret in (ADMIN_TOKEN, rotated["token"], made["token"], cookie):
        assert secret not in log


def is_up(gateway, token):
    try:
        return gateway.ask("GET", INFO, token=token).status == 200
    except OSError:
        return False

"""What signals do to a gateway of two workers: SIGHUP changes what can change, a second SIGTERM
ends it at once."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import ADMIN_TOKEN, Gateway, Pinned, chat_body, running, wait_until
from tests.system.load import rows_by_id

pytestmark = pytest.mark.system


def logged(gateway: Gateway, message: str) -> list[dict[str, Any]]:
    lines = [line for line in gateway.log_text().splitlines() if line.startswith("{")]
    return [found for line in lines if (found := json.loads(line))["message"] == message]


def hang_up(gateway: Gateway) -> None:
    assert gateway.process is not None
    os.kill(gateway.process.popen.pid, signal.SIGHUP)


def write_settings(gateway: Gateway, **settings: object) -> None:
    lines = [f"TOKENHUB_{name}={value}\n" for name, value in settings.items()]
    (gateway.directory / "data" / "settings.env").write_text("".join(lines))


def ask_for_mode(connection: Pinned) -> Any:
    found = connection.ask("GET", "/admin/v1/routing-config", token=ADMIN_TOKEN)
    return found.json["default_mode"]


def test_sighup_applies_what_can_change_and_names_what_cannot(gateway):
    pids = gateway.worker_pids()
    connections = gateway.each_worker()  # kept alive all the time
    write_settings(gateway, DEFAULT_MODE="planning", MAX_BODY_MB=5, RATE_LIMIT_BURST=121)
    hang_up(gateway)
    wait_until(lambda: {ask_for_mode(each) for each in connections} == {"planning"}, 5, "both")
    [changed] = logged(gateway, "settings changed")
    assert changed["changed"] == {
        "TOKENHUB_DEFAULT_MODE": ["normal", "planning"], "TOKENHUB_RATE_LIMIT_BURST": [120, 121]
    }  # fmt: skip
    [waiting] = logged(gateway, "settings need a restart")
    assert waiting["settings"] == ["TOKENHUB_MAX_BODY_MB"]

    gateway.admin("PUT", "routing-config", {"default_mode": "cheap"})
    write_settings(gateway, DEFAULT_MODE="thompson", LOG_LEVEL="info")
    hang_up(gateway)
    wait_until(lambda: len(logged(gateway, "settings changed")) == 2, 5, "the second reload")
    time.sleep(0.5)
    assert {ask_for_mode(each) for each in connections} == {"cheap"}, "saved through the API"

    write_settings(gateway, DEFAULT_MODE="nonsense", RATE_LIMIT_RPS="many")
    hang_up(gateway)
    refused = wait_until(
        lambda: (found := logged(gateway, "reload refused"))[1:] and found, 5, "both to refuse"
    )
    assert all("'nonsense'" in each["problems"] for each in refused)
    assert all("TOKENHUB_RATE_LIMIT_RPS" in each["problems"] for each in refused)
    assert gateway.chat().status == 200
    assert gateway.worker_pids() == pids
    for each in connections:
        each.close()


def credentials(gateway: Gateway) -> Path:
    path = gateway.directory / ".tokenhub" / "credentials"
    path.parent.mkdir(exist_ok=True)
    return path


def test_sighup_has_every_worker_read_the_credentials_file_again(gateway):
    base_url = f"http://127.0.0.1:{gateway.simulator_port}"
    entry = {"id": "filed", "base_url": base_url, "api_key": "sk-in-the-file"}
    path = credentials(gateway)
    path.touch(mode=0o600)
    path.write_text(json.dumps({"providers": [entry]}))
    hang_up(gateway)
    wait_until(
        lambda: "filed" in {each["id"] for each in gateway.admin("GET", "providers")["items"]},
        10, "the provider",
    )  # fmt: skip
    path.write_text("{not JSON")
    wait_until(lambda: logged(gateway, "credentials file ignored"), 5, "the leader to see it")
    before = len(logged(gateway, "credentials file ignored"))
    hang_up(gateway)
    wait_until(
        lambda: len(logged(gateway, "credentials file ignored")) >= before + 2, 5, "both workers"
    )
    assert "sk-in-the-file" not in gateway.log_text()


def test_a_second_sigterm_ends_at_once_and_loses_nothing_that_was_answered(tmp_path, dsn):
    with running(tmp_path, dsn) as gateway:
        gateway.add_model("stream-400-100")
        answered = [gateway.chat().headers["x-request-id"] for _ in range(5)]
        found: list[str] = []

        def stream() -> None:
            connection = Pinned(gateway.port)
            body = chat_body("stream-400-100", stream=True)
            with suppress(OSError, HTTPException):
                connection.ask("POST", "/v1/chat/completions", body, token=gateway.key)
            found.append("ended")

        reader = threading.Thread(target=stream)
        reader.start()
        wait_until(lambda: gateway.simulator_stats()["open_requests"] == 1, 5, "the stream")
        assert gateway.process is not None
        gateway.process.popen.terminate()
        time.sleep(0.7)
        assert gateway.process.popen.poll() is None, "it waits for the stream"
        began = time.monotonic()
        gateway.process.popen.terminate()
        assert gateway.process.popen.wait(10) == 0
        assert time.monotonic() - began < 5
        reader.join(5)
        assert found == ["ended"]
        gateway.start()
        rows = wait_until(
            lambda: len(rows := rows_by_id(gateway)) == 6 and rows, 10, "the row of what was cut"
        )
        assert {rows[each][0]["outcome"] for each in answered} == {"answered"}
        [cut] = [row for each, [row] in rows.items() if each not in answered]
        assert cut["outcome"] in ("cut", "interrupted")
        assert cut["output_tokens"] > 0 or cut["outcome"] == "interrupted"

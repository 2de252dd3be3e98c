"""Schemathesis itself against a gateway that runs: what it makes up of the description is answered
as described, and none of it with a fault of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import ADMIN_TOKEN, VAULT_PASSWORD, Gateway, running

pytestmark = pytest.mark.system

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance",
)  # fmt: skip
CONFIG = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 501, 502, 503, 504, 529]
"""
"""Those that say who failed, where each operation has them; a 500 is always ours."""

EXAMPLES = os.environ.get("TOKENHUB_TEST_EXAMPLES", "5")
"""Of each operation."""

ROBS = r"(admin-token/rotate|/session|/vault/lock|/events)$"
"""What takes from the test what it comes in with, or goes on until somebody has enough."""

STAY_HERE = """
import socket, sys


def stay_here(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] != "127.0.0.1":
        raise OSError(101, "Network is unreachable")
    if event == "socket.getaddrinfo" and args[0] not in (None, "", "localhost", "127.0.0.1"):
        raise socket.gaierror(-2, "Name or service not known")


sys.addaudithook(stay_here)
"""
"""What Python reads as it starts: made-up hosts are not asked for, and made-up addresses not
called. Below gevent, so that nothing goes around it."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Gateway]:
    (tmp_path / "sitecustomize.py").write_text(STAY_HERE)
    quiet = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1",
             "TOKENHUB_HEALTH_PROBE_DISABLED": "true", "TOKENHUB_PRICING_SOURCE": "off",
             "TOKENHUB_ADMIN_RATE_LIMIT_RPS": "0", "TOKENHUB_RATE_LIMIT_RPS": "0"}  # fmt: skip
    with running(tmp_path, f"sqlite:///{tmp_path / 'hub.sqlite'}", extra=quiet) as found:
        found.admin("POST", "vault/unlock", {"admin_password": VAULT_PASSWORD})
        yield found


@pytest.fixture
def description(hub: Gateway, tmp_path: Path) -> Path:
    """What the gateway says of itself, without the statuses that it leaves open and without what
    it says of streams: in OpenAPI 3.1 that is one text, which the program takes for an event."""
    said = hub.ask("GET", "/openapi.json").json
    for operations in said["paths"].values():
        for operation in operations.values():
            if isinstance(operation, dict):
                operation.get("responses", {}).pop("default", None)
                for response in operation.get("responses", {}).values():
                    response.get("content", {}).get("text/event-stream", {}).pop("schema", None)
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(said))
    return path


def drive(hub: Gateway, description: Path, token: str, *words: str) -> None:
    """Run the program; it must find nothing."""
    config = description.with_name("schemathesis.toml")
    config.write_text(CONFIG)
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(config),
            "run", str(description), "--url", f"http://127.0.0.1:{hub.port}",
            "--header", f"Authorization: Bearer {token}", "--checks", ",".join(CHECKS),
            "--generation-deterministic", "--continue-on-failure", "--no-color",
            "--warnings", "off", *words,
        ],
        cwd=description.parent, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_what_is_made_up_of_the_description_is_answered_as_described(hub, description):
    clients = ("--exclude-path-regex", "^/(admin|metrics)", "--phases", "coverage,fuzzing")
    drive(hub, description, hub.key, *clients, "--max-examples", EXAMPLES)
    admins = ("--include-path-regex", "^/admin", "--exclude-path-regex", ROBS)
    drive(hub, description, ADMIN_TOKEN, *admins, "--phases", "fuzzing", "--max-examples", EXAMPLES)

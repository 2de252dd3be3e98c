"""No secret comes out where it should not: canaries in every field and header, all endpoints asked,
every sink looked through."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.canaries import API, CLIENTS, READ_SECRET, Canaries, Driver, Provider, callers
from tests.system.harness import ROOT, Gateway, Pinned, wait_until
from tests.web.conftest import PASSWORD
from tests.web.openapi_cases import Ask

pytestmark = pytest.mark.system

HOLDS_SECRETS = {".admin-token", ".host-api-key", "vault-password", "env", "credentials"}
"""Files that are there to hold one, for their owner alone."""

FAILURES = ("400", "401", "402", "403", "404", "413", "422", "429", "500", "529", "text", "stream",
            "cut")  # fmt: skip


class Planted:
    """A gateway with a canary wherever a secret goes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.canaries = Canaries()
        new = self.canaries.new
        self.canaries.add("vault password", PASSWORD)
        self.metrics_token, self.admin_token = new("metrics token"), new("admin token")
        self.provider_key, self.file_key = new("provider key"), new("key in the file")
        self.prompt = new("prompt", CLIENTS)
        self.provider = Provider(
            new("provider's own words", CLIENTS),
            answer=new("answer", CLIENTS),
            known=self.provider_key,
        )
        credentials = directory / "credentials"
        entry = {"id": "filed", "base_url": self.provider.url, "api_key": self.file_key}
        credentials.write_text(json.dumps({"providers": [entry]}))
        credentials.chmod(0o600)
        self.gateway = Gateway(
            directory,
            f"sqlite:///{directory / 'hub.sqlite'}",
            extra={
                "TOKENHUB_ADMIN_TOKEN": self.admin_token,
                "TOKENHUB_METRICS_TOKEN": self.metrics_token,
                "TOKENHUB_VAULT_PASSWORD": PASSWORD,
                "TOKENHUB_CREDENTIALS_FILE": str(credentials),
                "TOKENHUB_LOG_LEVEL": "debug",
                "TOKENHUB_HEALTH_PROBE_SECS": "1",
            },
        )
        self.driver = Driver(
            self.gateway,
            self.canaries,
            callers(self.gateway, self.admin_token, self.metrics_token),
        )

    def start(self) -> None:
        self.gateway.migrate()
        self.gateway.start(wait=False)
        wait_until(self._is_up, 20, "gateway is up")
        admin = self._admin
        url = self.provider.url
        admin("POST", "providers", {"id": "acme", "base_url": url, "api_key": self.provider_key})
        admin("POST", "providers", {"id": "claude", "type": "anthropic", "base_url": url,
                                    "api_key": self.canaries.new("anthropic key")})  # fmt: skip
        admin("POST", "providers", {"id": "gone", "base_url": "http://127.0.0.1:9"})
        for name in ("small", "with/slashes"):
            admin("POST", "models", {"id": name, "provider_id": "acme", "weight": 9})
        for how in FAILURES:
            for provider in ("acme", "filed", "claude"):
                model = {"id": f"{provider}-{how}", "provider_id": provider,
                         "upstream_model": f"parrot-{how}", "weight": 1}  # fmt: skip
                admin("POST", "models", model)
        issued = admin("POST", "apikeys", {"name": "canary"})
        self.gateway.key, self.gateway.key_id = issued["key"], issued["id"]
        self.driver.tokens["key"] = self.canaries.add("API key", issued["key"])
        admin("PUT", "vault/secrets/one", {"value": self.canaries.new("secret", READ_SECRET)})

    def post_passwords_in_addresses(self) -> None:
        """Where nobody should put one."""
        for field in ("base_url", "endpoints"):
            url = f"http://somebody:{self.canaries.new(f'password in {field}')}@127.0.0.1:9/v1"
            body: dict[str, object] = {"id": "addressed", "type": "vllm"}
            body["base_url"] = self.provider.url
            body[field] = [url] if field == "endpoints" else url
            self.driver.ask("POST /admin/v1/providers", Ask("/admin/v1/providers", body=body))

    def chat(self) -> None:
        """Every failure of every provider, whole and streamed."""
        operation = "POST /v1/chat/completions"
        messages = [{"role": "user", "content": self.prompt}]
        for how in FAILURES:
            for provider in ("acme", "filed", "claude"):
                for stream in (False, True):
                    body = {"model": f"{provider}-{how}", "messages": messages, "stream": stream}
                    self.driver.ask(operation, Ask("/v1/chat/completions", body=body, who="key"))
                self._admin("POST", f"health/{provider}/clear")
                path = f"/admin/v1/providers/{provider}/discover"
                self.driver.ask("GET /admin/v1/providers/{id}/discover", Ask(path))
        body = {"model": "small", "messages": messages}
        reply = self.driver.ask(operation, Ask("/v1/chat/completions", body=body, who="key"))
        assert reply is not None and reply.status == 200
        asked = reply.headers["x-request-id"]
        wait_until(lambda: asked in str(self._admin("GET", "logs?limit=1000")), 10, "its log row")

    def read_everything(self) -> None:
        """Once more all that can be read, now that there is something to see."""
        for path in API.doc["paths"]:
            if "get" in API.doc["paths"][path] and "{" not in path:
                who = (
                    "metrics" if path == "/metrics" else "key" if "/v1/models" in path else "admin"
                )
                who = "admin" if path.startswith("/admin") else who
                self.driver.ask(f"GET {path}", Ask(path, who=who))

    def stop(self) -> None:
        self.gateway.stop()
        self.provider.stop()

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Every file below the gateway's directory but those that are there to hold a secret."""
        for path in self.directory.rglob("*"):
            if path.is_file():
                if path.name in HOLDS_SECRETS:
                    assert path.stat().st_mode & 0o077 == 0, path
                else:
                    yield path.relative_to(self.directory).as_posix(), path.read_bytes()

    def rows(self) -> bytes:
        """What the database says, however it is laid out in its file."""
        with sqlite3.connect(self.directory / "hub.sqlite") as connection:
            return "\n".join(connection.iterdump()).encode()

    def find_in_files(self) -> list[str]:
        return [
            f"{canary.name} in {name}"
            for name, data in self.files()
            for canary in self.canaries.find_in(data)
        ]

    def _is_up(self) -> bool:
        assert self.gateway.process is not None
        assert self.gateway.process.popen.poll() is None, self.gateway.log_text()[-4000:]
        try:
            info = self.gateway.ask("GET", "/admin/v1/info", token=self.admin_token)
        except OSError:
            return False
        return info.status == 200 and len(info.json["workers"]) == self.gateway.workers

    def _admin(self, method: str, path: str, body: object = None) -> dict[str, str]:
        connection = Pinned(self.gateway.port)
        try:
            token = self.driver.tokens["admin"]
            reply = connection.ask(method, f"/admin/v1/{path}", body, token=token)
        finally:
            connection.close()
        assert reply.status == 200, (method, path, reply.status, reply.body)
        found: dict[str, str] = reply.json
        return found


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Planted]:
    found = Planted(tmp_path)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def test_no_canary_is_in_any_answer_log_file_or_row(planted):
    planted.chat()
    planted.post_passwords_in_addresses()
    succeeded = planted.driver.ask_everything()
    assert len(succeeded) > 0.8 * len(API.operations), sorted(API.operations.keys() - succeeded)
    planted.read_everything()
    assert sorted(set(planted.driver.find_leaks())) == []

    for is_running in (True, False):  # open journal and write-ahead log first, then what is left
        if not is_running:
            planted.gateway.stop()
        assert sorted(set(planted.find_in_files())) == []
        assert [each.name for each in planted.canaries.find_in(planted.rows())] == []
    names = {name for name, _ in planted.files()}
    assert {"gateway.log", "hub.sqlite"} <= names


def test_a_canary_would_be_found_in_each_of_these_places(planted):
    """The test of the test: what is there to be found is found."""
    visible = planted.canaries.add("visible", "visible-" + planted.canaries.new("x")[:30])
    planted._admin("POST", "models", {"id": visible, "provider_id": "acme"})
    planted.chat()
    planted.driver.ask("GET /admin/v1/models", Ask("/admin/v1/models"))
    planted.driver.ask("GET /nowhere", Ask(f"/nowhere/{visible}"))
    assert "visible in the answer to GET /admin/v1/models (200)" in planted.driver.find_leaks()
    found = planted.find_in_files()
    assert any(each.startswith("visible in hub.sqlite") for each in found)
    assert visible.encode() in planted.rows()


def test_the_settings_command_repeats_no_secret(planted):
    for bad in ("", "nonsense"):
        done = subprocess.run(
            [sys.executable, "-m", "tokenhub", "settings", "check"],
            cwd=ROOT,
            env={**planted.gateway.env, "TOKENHUB_WORKERS": bad},
            capture_output=True,
            timeout=30,
        )
        assert planted.canaries.find_in(done.stdout + done.stderr) == []

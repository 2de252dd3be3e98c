"""A real gateway for the tests: gunicorn with real workers, the simulator as provider, real HTTP.

Everything runs on 127.0.0.1, in a directory of its own, and is ended by PID.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ADMIN_TOKEN = "admin-token-of-the-tests-0123456789"
VAULT_PASSWORD = "vault-password-of-the-tests"
PROVIDER_KEY = "sk-provider-key-canary-7f3a"


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], secs: float = 10.0, what: str = "") -> Any:
    """Poll until `condition` is truthy; returns what it returned."""
    deadline = time.monotonic() + secs
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {secs} s: {what or condition}")
        time.sleep(0.05)


@dataclass
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Pinned:
    """A keep-alive connection: it stays with the worker that accepted it."""

    def __init__(self, port: int, *, timeout: float = 30.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self.worker_pid = 0

    def ask(
        self, method: str, path: str, body: Any = None, *, token: str = "", **headers: str
    ) -> Reply:
        """One request over this connection."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        self._connection.request(method, path, data, sent)
        answer = self._connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, found, answer.read())

    def close(self) -> None:
        self._connection.close()


@dataclass
class Process:
    """A child process whose output goes to a file."""

    popen: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, command: list[str], log: Path, env: dict[str, str]) -> Process:
        with log.open("ab") as output:
            popen = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT
            )
        return cls(popen, log)

    def stop(self, secs: float = 15.0) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(secs)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


@dataclass
class Gateway:
    """One running gateway with one simulated provider and three models, and a key to use them.

    Attributes:
        peers: other hosts on the same database.
    """

    directory: Path
    dsn: str
    workers: int = 2
    extra: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    simulator_port: int = field(default_factory=free_port)
    key: str = ""
    key_id: str = ""
    process: Process | None = None
    simulator: Process | None = None
    peers: list[Gateway] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {
            **kept,
            "HOME": str(self.directory),
            "PYTHONWARNINGS": "ignore",
            "TOKENHUB_LISTEN_ADDR": f"127.0.0.1:{self.port}",
            "TOKENHUB_DATA_DIR": str(self.directory / "data"),
            "TOKENHUB_DB_DSN": self.dsn,
            "TOKENHUB_WORKERS": str(self.workers),
            "TOKENHUB_ADMIN_TOKEN": ADMIN_TOKEN,
            "TOKENHUB_VAULT_PASSWORD": VAULT_PASSWORD,
            "TOKENHUB_LOG_LEVEL": "warn",
            "TOKENHUB_RATE_LIMIT_RPS": "0",
            "TOKENHUB_ADMIN_RATE_LIMIT_RPS": "0",
            **self.extra,
        }

    def migrate(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=ROOT, env=self.env, check=True, capture_output=True,
        )  # fmt: skip

    def start_simulator(self) -> None:
        command = [sys.executable, "-m", "tokenhub", "simulator", "--port",
                   str(self.simulator_port)]  # fmt: skip
        self.simulator = Process.start(command, self.directory / "simulator.log", self.env)
        wait_until(lambda: can_connect(self.simulator_port), what="simulator")

    def start(self, *, wait: bool = True) -> None:
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "app:app"]
        self.process = Process.start(command, self.directory / "gateway.log", self.env)
        if wait:
            wait_until(self.is_up, 20, "gateway is up")

    def is_up(self) -> bool:
        assert self.process is not None
        if self.process.popen.poll() is not None:
            raise AssertionError(self.log_text()[-4000:])
        with suppress(OSError, http.client.HTTPException):
            info = self.ask("GET", "/admin/v1/info", token=ADMIN_TOKEN)
            return info.status == 200 and len(info.json["workers"]) == self.workers
        return False

    def log_text(self) -> str:
        return (self.directory / "gateway.log").read_text(errors="replace")

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
        if self.simulator is not None:
            self.simulator.stop()

    def ask(self, method: str, path: str, body: Any = None, **kwargs: Any) -> Reply:
        """One request over a connection of its own."""
        connection = Pinned(self.port)
        try:
            return connection.ask(method, path, body, **kwargs)
        finally:
            connection.close()

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """An admin call that must succeed."""
        reply = self.ask(method, f"/admin/v1/{path}", body, token=ADMIN_TOKEN)
        assert reply.status == 200, (method, path, reply.status, reply.body)
        return reply.json

    def chat(self, model: str = "sim-fast", text: str = "hello", **fields: Any) -> Reply:
        """One whole chat request."""
        return self.ask("POST", "/v1/chat/completions", chat_body(model, text, **fields),
                        token=self.key)  # fmt: skip

    def simulate(self, **control: Any) -> None:
        """Set the simulator's faults and pacing."""
        connection = Pinned(self.simulator_port)
        assert connection.ask("POST", "/control", control).status == 200
        connection.close()

    def simulator_stats(self) -> Any:
        connection = Pinned(self.simulator_port)
        try:
            return connection.ask("GET", "/stats").json
        finally:
            connection.close()

    def wait_for_peers(self) -> None:
        """Until the other hosts have heard of what this one was told last."""
        told = self.admin("GET", "info")["catalog_version"]
        for peer in self.peers:
            wait_until(lambda: peer.admin("GET", "info")["catalog_version"] >= told)  # noqa: B023

    def worker_pids(self) -> list[int]:
        return list(self.admin("GET", "info")["workers"])

    def each_worker(self) -> list[Pinned]:
        """One connection to each worker; proves that every worker can be asked."""
        found: dict[int, Pinned] = {}
        deadline = time.monotonic() + 30  # who accepts is the kernel's choice
        while time.monotonic() < deadline:
            connection = Pinned(self.port)
            pid = connection.ask("GET", "/admin/v1/info", token=ADMIN_TOKEN).json["worker"]["pid"]
            if pid in found:
                connection.close()
            else:
                connection.worker_pid = pid
                found[pid] = connection
            if len(found) == self.workers:
                return list(found.values())
        raise AssertionError(f"only {len(found)} of {self.workers} workers answered")

    def set_up(self) -> None:
        """A provider with a real vault key, three models, and a key."""
        self.admin(
            "POST",
            "providers",
            {"id": "sim", "type": "openai", "api_key": PROVIDER_KEY,
             "base_url": f"http://127.0.0.1:{self.simulator_port}"},
        )  # fmt: skip
        for name, weight, price in (("sim-fast", 5, 0.001), ("sim-smart", 9, 0.01),
                                    ("sim-cheap", 3, 0.0001)):  # fmt: skip
            self.add_model(name, weight=weight, input_per_1k=price, output_per_1k=2 * price)
        made = self.admin("POST", "apikeys", {"name": "tests"})
        self.key, self.key_id = made["key"], made["id"]

    def add_model(self, name: str, **fields: Any) -> None:
        record = {"id": name, "provider_id": "sim", "weight": 1, "max_context_tokens": 128000,
                  "input_per_1k": 0.001, "output_per_1k": 0.002, "enabled": True}  # fmt: skip
        self.admin("POST", "models", {**record, **fields})


def chat_body(model: str, text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def can_connect(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextmanager
def running(directory: Path, dsn: str, **kwargs: Any) -> Iterator[Gateway]:
    """A migrated, configured gateway, stopped at the end whatever happens."""
    gateway = Gateway(directory, dsn, **kwargs)
    try:
        gateway.migrate()
        gateway.start_simulator()
        gateway.start()
        gateway.set_up()
        yield gateway
    finally:
        gateway.stop()
        with suppress(FileNotFoundError):
            if "Traceback" in gateway.log_text():
                print(gateway.log_text()[-6000:])


def kill(pid: int) -> None:
    """SIGKILL; a process that has gone meanwhile is fine."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

"""Starts the processes of a run and ends every one of them, by its id.

Knows how to wait for a server, not what is asked of it. Processes get only the environment they
are given, so that settings of the shell cannot change the figures.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.meter import read_stats, tree_of

ROOT = Path(__file__).resolve().parent.parent
_READY_SECS = 30.0
_STOP_SECS = 15.0
_LOG_LINES_SHOWN = 20


class BenchmarkFailed(Exception):
    """The run cannot go on, or its figures would mean nothing."""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(port: int, target: str, body: Any = None, token: str = "") -> Reply:
    """GET, or POST when there is a body (JSON, or bytes as they are), on 127.0.0.1.

    Raises:
        OSError: nobody listens, or it takes over ten seconds.
    """
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        if body is None:
            connection.request("GET", target, headers=headers)
        else:
            headers["Content-Type"] = "application/json"
            connection.request("POST", target, data, headers)
        answer = connection.getresponse()
        return Reply(answer.status, answer.read())
    except http.client.HTTPException as error:
        raise ConnectionError(type(error).__name__) from error
    finally:
        connection.close()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Process:
    """One started process and everything below it."""

    def __init__(self, name: str, popen: subprocess.Popen[str], log: Path) -> None:
        self.name = name
        self.pid = popen.pid
        self.popen = popen
        self._log = log

    def wait_for(self, port: int, target: str, body: Any = None, token: str = "") -> None:
        """Until it answers 200.

        Raises:
            BenchmarkFailed: it ended, or does not answer so in half a minute.
        """
        until = time.monotonic() + _READY_SECS
        last = "no connection"
        while time.monotonic() < until and self.popen.poll() is None:
            try:
                reply = ask(port, target, body, token)
                if reply.status == 200:
                    return
                last = f"status {reply.status}: {reply.body[:300]!r}"
            except OSError as error:
                last = type(error).__name__
            time.sleep(0.1)
        raise BenchmarkFailed(f"{self.name} is not ready: {last}\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines it wrote, to show why it failed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:])

    def stop(self) -> None:
        """Ask it to end; what is left of its tree after 15 seconds is killed."""
        below = tree_of(self.pid, read_stats())
        self.popen.terminate()
        try:
            self.popen.wait(_STOP_SECS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            for pid in below[1:]:
                _kill_orphan(pid)
        if self.popen.stdout:
            self.popen.stdout.close()


def _kill_orphan(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it went with its parent


class Launcher:
    """A directory for a run, and the processes in it; all end with the `with` block."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        while self._running:
            self._running.pop().stop()

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        home = str(self.directory)
        return {"PATH": os.defpath, "HOME": home, "LANG": "C.UTF-8", **(extra or {})}

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        extra: Mapping[str, str] | None = None,
        *,
        piped: bool = False,
    ) -> Process:
        """Run `python -m <arguments>`; what it writes goes to a log, or to us when `piped`."""
        log = self.directory / f"{name}.log"
        with log.open("w") as errors:
            popen = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=self.environment(extra),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else errors,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is ours: we end them in order
            )
        process = Process(name, popen, log)
        self._running.append(process)
        return process

    def run(self, name: str, arguments: Sequence[str], extra: Mapping[str, str]) -> None:
        """Run a command to its end.

        Raises:
            BenchmarkFailed: it took over a minute or did not succeed.
        """
        try:
            done = subprocess.run(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=self.environment(extra),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BenchmarkFailed(f"{name} took over a minute") from None
        if done.returncode:
            raise BenchmarkFailed(f"{name} failed\n{(done.stdout + done.stderr)[-2000:]}")

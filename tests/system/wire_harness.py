"""gunicorn with our worker class and the echo application, and a client that speaks bytes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.harness import ROOT, free_port, wait_until


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits for init to collect it does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@dataclass
class Answer:
    """A response as it came, chunks already joined."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Client:
    """A raw connection; every wait ends after `timeout` seconds."""

    def __init__(self, port: int, timeout: float = 8.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.rest = b""

    def send(self, data: bytes | str) -> Client:
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def get(self, path: str, *headers: str) -> Answer:
        return self.ask("GET", path, *headers)

    def ask(self, method: str, path: str, *headers: str, body: bytes = b"") -> Answer:
        lines = [f"{method} {path} HTTP/1.1", "Host: hub", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + body)
        return self.answer(has_body=method != "HEAD")

    def more(self) -> bytes:
        """One recv; the end of input is an error here."""
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(self.rest)
        self.rest += data
        return data

    def take(self, end: bytes) -> bytes:
        """Up to and without `end`."""
        while end not in self.rest:
            self.more()
        found, self.rest = self.rest.split(end, 1)
        return found

    def head(self) -> Answer:
        first, *lines = self.take(b"\r\n\r\n").decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return Answer(int(first.split(" ")[1]), {n.lower(): v for n, v in pairs}, b"")

    def chunk(self) -> bytes:
        """One chunk of a chunked body; b"" for the last."""
        size = int(self.take(b"\r\n"), 16)
        while len(self.rest) < size + 2:
            self.more()
        data, self.rest = self.rest[:size], self.rest[size + 2 :]
        return data

    def answer(self, *, has_body: bool = True) -> Answer:
        """The next whole response."""
        found = self.head()
        if not has_body or found.status in (100, 204, 304):
            return found
        if found.headers.get("transfer-encoding") == "chunked":
            found.body = b"".join(iter(self.chunk, b""))
        elif "content-length" in found.headers:
            size = int(found.headers["content-length"])
            while len(self.rest) < size:
                self.more()
            found.body, self.rest = self.rest[:size], self.rest[size:]
        else:
            found.body = self.to_end()
        return found

    def to_end(self) -> bytes:
        """All that comes until the server closes, properly."""
        while data := self.socket.recv(65536):
            self.rest += data
        data, self.rest = self.rest, b""
        return data

    def is_closed(self) -> bool:
        return self.to_end() == b""

    def close(self) -> None:
        self.socket.close()


class Server:
    """A running gunicorn."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = free_port()
        self.notes_path = directory / "notes"
        self.notes_path.touch()
        self.log_path = directory / "log"
        place = ("-b", f"127.0.0.1:{self.port}", "--error-logfile", str(self.log_path))
        module = "tests.system.echo_app"
        self.clients: list[Client] = []
        command = [sys.executable, "-m", "gunicorn", "-c", f"python:{module}", *place]
        with (directory / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, *options, f"{module}:app"],
                cwd=ROOT,
                env={**os.environ, "ECHO_NOTES": str(self.notes_path)},
                stderr=stderr,
            )

    def connect(self, timeout: float = 8.0) -> Client:
        """A new client; closed with the server if nobody closes it before."""
        client = Client(self.port, timeout)
        self.clients.append(client)
        return client

    def notes(self) -> list[str]:
        return self.notes_path.read_text().splitlines()

    def is_up(self) -> bool:
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return False
        return len(self.worker_pids()) > 0

    def worker_pids(self) -> list[int]:
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def client_of(self, pid: int) -> Client:
        """A connection that this worker accepted."""

        def find() -> Client | None:
            client = self.connect()
            if client.get("/echo").json["pid"] == pid:
                return client
            client.close()
            return None

        found: Client = wait_until(find, what=f"worker {pid} to accept")
        return found

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextmanager
def serving(directory: Path, *options: str) -> Iterator[Server]:
    """A server for the length of a `with`; killed by its PIDs at the end, whatever happened."""
    server = Server(directory, *options)
    try:
        wait_until(server.is_up, 15, "gunicorn to listen")
        yield server
    finally:
        pids = server.worker_pids() if server.process.poll() is None else []
        server.process.kill()
        server.process.wait(10)
        for client in server.clients:
            client.close()
        # Orphans end by themselves, but not at once.
        wait_until(lambda: not any(is_alive(pid) for pid in pids), 8, "the workers to end")

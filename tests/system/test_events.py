"""The event feed of two workers: the same on both, resumed on the other, ended with the gateway."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Connection

from tests.system.harness import ADMIN_TOKEN, Gateway, Pinned, running, wait_until
from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.db import Database

pytestmark = pytest.mark.system


class Listener:
    """A client that follows the feed on one worker."""

    def __init__(self, gateway: Gateway, pid: int, query: str = "", *, buffer: int = 0) -> None:
        self.pid = 0
        while self.pid != pid:  # who accepts is the kernel's choice
            self._connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5)
            if buffer:
                self._connection.sock = socket.socket()
                self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                self._connection.sock.settimeout(10)
                self._connection.sock.connect(("127.0.0.1", gateway.port))
            self.pid = self._ask("/admin/v1/info")["worker"]["pid"]
            if self.pid != pid:
                self._connection.close()
        self._connection.request("GET", f"/admin/v1/events{query}", headers=self._headers)
        self.response = self._connection.getresponse()
        assert self.response.status == 200
        assert self.next()[0] == "connected"

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {ADMIN_TOKEN}"}

    def _ask(self, path: str) -> Any:
        self._connection.request("GET", path, headers=self._headers)
        return json.loads(self._connection.getresponse().read())

    def next(self) -> tuple[str, str, Any]:
        """The type, the id and the data of the next event."""
        fields: dict[str, str] = {}
        while line := self.response.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if not name:
                if "data" in fields:
                    data = json.loads(fields["data"])
                    return fields["event"], fields.get("id", ""), data
                fields = {}
            fields[name] = value
        raise EOFError

    def next_of(self, kind: str) -> tuple[str, Any]:
        """The id and the data of the next event of a type."""
        while True:
            event, id_, data = self.next()
            if event == kind:
                return id_, data

    def close(self) -> None:
        """Hang up."""
        self.response.close()
        self._connection.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One for all tests here; the last of them ends it."""
    directory = tmp_path_factory.mktemp("events")
    with running(directory, f"sqlite:///{directory / 'hub.sqlite'}") as found:
        yield found


def test_what_one_worker_does_is_seen_on_the_other_and_resumed_there(gateway):
    first, second = gateway.each_worker()
    listener = Listener(gateway, second.worker_pid, "?types=route_success,config_change")
    body = {"model": "sim-fast", "messages": [{"role": "user", "content": "hello"}]}

    def ask(worker: Pinned) -> str:
        reply = worker.ask("POST", "/v1/chat/completions", body, token=gateway.key)
        assert reply.status == 200
        return reply.headers["x-request-id"]

    asked = ask(first)
    began = time.monotonic()
    place, told = listener.next_of("route_success")
    assert time.monotonic() - began < 1.0
    assert (told["request_id"], told["api_key_name"]) == (asked, "tests")
    listener.close()
    missed = [ask(worker) for worker in (first, second, first)]
    again = Listener(gateway, first.worker_pid, f"?types=route_success&last_event_id={place}")
    assert {again.next_of("route_success")[1]["request_id"] for _ in missed} == set(missed)
    later = ask(second)
    assert again.next_of("route_success")[1]["request_id"] == later
    for each in (again, first, second):
        each.close()


def test_a_slow_reader_is_told_what_it_has_lost_and_goes_on(gateway):
    slow = Listener(gateway, gateway.worker_pids()[0], "?types=config_change", buffer=2048)

    def change(count: int) -> int:
        """Many changes at once, as another host might make them; returns the last version."""

        now = unix_ms()

        def work(connection: Connection) -> int:
            for _ in range(count):
                version = store.record_change(connection, "team", "x" * 3000, now)
            return version

        with closing(Database(gateway.dsn)) as database:
            return database.write(work)

    before = change(1)
    assert slow.next_of("config_change")[1]["version"] == before
    change(2500)  # more than fits between us
    time.sleep(2.5)  # reads nothing meanwhile
    last = change(1)
    versions, dropped = [before], 0
    while versions[-1] != last:
        kind, _, data = slow.next()
        if kind == "dropped":
            dropped += data["count"]
        else:
            assert kind == "config_change", data
            versions.append(data["version"])
    assert dropped > 0 and len(versions) + dropped == last - before + 1
    assert versions == sorted(versions)
    slow.close()


def test_open_streams_do_not_hold_up_the_end(gateway):
    first, second = gateway.each_worker()
    listeners = [Listener(gateway, each.worker_pid) for each in (first, second)]
    assert gateway.process is not None
    began = time.monotonic()
    os.kill(gateway.process.popen.pid, signal.SIGTERM)
    assert [each.next_of("closed")[1] for each in listeners] == [{"reason": "shutdown"}] * 2
    for each in (first, second, *listeners):
        each.close()
    wait_until(lambda: gateway.process is not None and gateway.process.popen.poll() is not None, 5)
    assert time.monotonic() - began < 3.0

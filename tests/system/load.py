"""Mixed load with a tally: what each client was told, by request id, to compare with the log."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.system.harness import Gateway, chat_body

Row = dict[str, Any]


@dataclass
class Tally:
    """What the clients saw."""

    answered: set[str] = field(default_factory=set)
    aborted: set[str] = field(default_factory=set)
    broken: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Load:
    """Clients in threads, each asking whole, streamed and aborted requests until told to stop."""

    def __init__(self, gateway: Gateway, clients: int = 6) -> None:
        self._gateway = gateway
        self._stopping = threading.Event()
        self.tally = Tally()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(number),), daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> Tally:
        for thread in self._threads:
            thread.start()
        return self.tally

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, rng: random.Random) -> None:
        while not self._stopping.is_set():
            kind = rng.choice(("whole", "whole", "stream", "abort"))
            try:
                self._ask(kind)
            except (OSError, http.client.HTTPException):
                with self.tally.lock:
                    self.tally.broken += 1
                time.sleep(0.05)

    def _ask(self, kind: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._gateway.port, timeout=20)
        try:
            body = chat_body(
                "stream-8-10" if kind != "whole" else "sim-fast", stream=kind != "whole"
            )
            connection.request(
                "POST", "/v1/chat/completions", json.dumps(body),
                {"Authorization": f"Bearer {self._gateway.key}",
                 "Content-Type": "application/json"},
            )  # fmt: skip
            answer = connection.getresponse()
            request_id = answer.getheader("X-Request-Id") or ""
            if kind == "abort" and answer.status == 200:
                answer.read(60)
                with self.tally.lock:
                    self.tally.aborted.add(request_id)
                return
            text = answer.read()
            with self.tally.lock:
                if answer.status != 200:
                    self.tally.refused.append((answer.status, text[:300].decode()))
                elif kind == "whole" or b"[DONE]" in text:
                    self.tally.answered.add(request_id)
                else:
                    self.tally.broken += 1
        finally:
            with suppress(OSError):
                connection.close()


def rows_by_id(gateway: Gateway) -> dict[str, list[Row]]:
    """Every log row, by request id."""
    found: dict[str, list[Row]] = {}
    offset = 0
    while True:
        rows = gateway.admin("GET", f"logs?limit=1000&offset={offset}")["logs"]
        for row in rows:
            found.setdefault(row["request_id"], []).append(row)
        if len(rows) < 1000:
            return found
        offset += 1000

"""What each view of a gateway says that requests came to, in the same numbers.

A view tells a part of them: it is compared in what it has.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from typing import Any

from sqlalchemy import text

from tests.system.harness import ADMIN_TOKEN, Gateway, Pinned
from tests.system.mixed_load import TOKENS
from tokenhub.db import Database

Numbers = dict[str, int]

SUMS = ("requests", "attempts", *TOKENS, "cost_nanousd")
ENDINGS = ("answered", "rescued", "failed", "cut", "refused", "client_closed")


def nanos(usd: float) -> int:
    """Dollars as the API has them, in nano-dollars."""
    return round(usd * 1e9)


def of_rows(rows: Iterable[Any]) -> Numbers:
    """What rows of the log, or events of requests, add up to, in what they have."""
    found = dict.fromkeys((*SUMS, "total_tokens", *ENDINGS), 0)
    for row in rows:
        found["requests"] += 1
        found["attempts"] += row["attempts"]
        found["cost_nanousd"] += nanos(row.get("cost_usd", row.get("estimated_cost_usd")) or 0)
        found["total_tokens"] += row["total_tokens"]
        found[row["outcome"]] += 1
        for name in TOKENS:
            found[name] += row.get(name, 0)
    return found


class Views:
    """Everything that says what the requests of a key came to.

    Args:
        key_id: whose requests; the gateway has served no others.
    """

    def __init__(self, gateway: Gateway, key_id: str) -> None:
        self.gateway, self.key_id = gateway, key_id

    def log(self) -> list[Any]:
        """Every row of the log, by `GET logs`."""
        found: list[Any] = []
        cursor = ""
        while True:
            page = self.gateway.admin("GET", f"logs?limit=1000&key={self.key_id}{cursor}")
            found += page["logs"]
            if not page["next_cursor"]:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def of_table(self, statement: str) -> Numbers:
        """What a statement of one row says."""
        with closing(Database(self.gateway.dsn)) as database:
            rows = database.read(lambda each: each.execute(text(statement)).mappings().all())
        return {name: int(value or 0) for name, value in rows[0].items()}

    def of_attempts(self) -> Numbers:
        sums = ", ".join(f"sum({name}) AS {name}" for name in (*TOKENS, "cost_nanousd"))
        return self.of_table(f"SELECT count(*) AS attempts, {sums} FROM attempts")

    def of_buckets(self) -> Numbers:
        sums = ", ".join(f"sum({name}) AS {name}" for name in SUMS)
        return self.of_table(f"SELECT {sums} FROM buckets")

    def of_attempt_buckets(self) -> Numbers:
        names = ("attempts", "input_tokens", "output_tokens", "cost_nanousd")
        sums = ", ".join(f"sum({name}) AS {name}" for name in names)
        return self.of_table(f"SELECT {sums} FROM attempt_buckets")

    def of_stats(self, group: str = "") -> Numbers:
        """`GET stats`: the last day, or a group's parts together."""
        if group:
            rows = self.gateway.admin("GET", f"stats?group={group}")["stats"]
        else:
            found = self.gateway.admin("GET", "stats")["global"]
            rows = [each for each in found if each["window"] == "24h"]
        return {
            "requests": sum(row["request_count"] for row in rows),
            "attempts": sum(row["attempts"] for row in rows),
            "cost_nanousd": sum(nanos(row["total_cost_usd"]) for row in rows),
            "total_tokens": sum(row["total_tokens"] for row in rows),
            **{name: sum(row[name] for row in rows) for name in TOKENS},
            **{name: sum(row["outcomes"][name] for row in rows) for name in ENDINGS},
        }

    def of_series(self) -> Numbers:
        """`GET tsdb/query`: the last day, added up over all steps and groups."""
        ended = self._series("requests", "outcome")
        return {
            "requests": round(sum(self._series("requests", "model,key,mode").values())),
            "attempts": round(sum(self._series("attempts", "model,provider").values())),
            "total_tokens": round(sum(self._series("tokens", "endpoint").values())),
            "cost_nanousd": nanos(sum(self._series("cost", "provider").values())),
            **{name: round(ended.get(name, 0)) for name in ENDINGS},
        }

    def _series(self, metric: str, group: str) -> dict[str, float]:
        path = f"tsdb/query?metric={metric}&agg=sum&group={group}"
        series = self.gateway.admin("GET", path)["series"]
        return {
            each.get("outcome", str(number)): sum(point["v"] for point in each["points"])
            for number, each in enumerate(series)
        }

    def of_metrics(self) -> Numbers:
        """What Prometheus would add up."""
        found = metrics(self.gateway)
        read, written = (
            round(total(found, "tokenhub_tokens_total", f'direction="{way}"'))
            for way in ("input", "output")
        )
        return {
            "requests": round(total(found, "tokenhub_requests_total")),
            "attempts": round(total(found, "tokenhub_attempts_total")),
            "input_tokens": read,
            "output_tokens": written,
            "cost_nanousd": nanos(total(found, "tokenhub_cost_usd_total")),
            **{
                name: round(total(found, "tokenhub_requests_total", f'outcome="{name}"'))
                for name in ENDINGS
            },
        }

    def of_spend(self) -> Numbers:
        """The books, for administrators."""
        path = f"spend?by=key&period=total&id={self.key_id}"
        rows = self.gateway.admin("GET", path)["spend"]
        return {
            "cost_nanousd": sum(nanos(row["spent_usd"]) for row in rows),
            "requests": sum(row["requests"] for row in rows),
        }

    def of_own_key(self, key: str) -> Numbers:
        """The books, for the key's owner."""
        reply = self.gateway.ask("GET", "/v1/key", token=key)
        return {"cost_nanousd": nanos(reply.json["spend"]["total_usd"])}


class EventReader:
    """Follows the event feed of a gateway in a thread.

    Attributes:
        events: what came, but for what streams say of themselves.
    """

    def __init__(self, port: int, query: str) -> None:
        self.events: list[Any] = []
        self.words: list[str] = []
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        self._connection.request("GET", f"/admin/v1/events?{query}", headers=headers)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with suppress(OSError, HTTPException, ValueError, AttributeError):  # closed, by us
            for line in self._answer:
                if line.startswith(b"event: "):
                    self.words.append(line[7:].decode().strip())
                elif line.startswith(b"data: "):
                    found = json.loads(line[6:])
                    if "timestamp" in found:
                        self.events.append(found)

    def of(self, *types: str) -> list[Any]:
        """The events of these types."""
        return [each for each in list(self.events) if each["type"] in types]

    def close(self) -> None:
        if self._connection.sock is not None:
            self._connection.sock.shutdown(2)
        self._thread.join(10)
        self._connection.close()


@contextmanager
def following(gateway: Gateway, query: str = "") -> Iterator[EventReader]:
    """Somebody who listens to one worker of a gateway."""
    reader = EventReader(gateway.port, query)
    try:
        yield reader
    finally:
        reader.close()


def metrics(gateway: Gateway | Pinned) -> list[tuple[str, float]]:
    """Every sample of a host, or as one of its workers says: name with labels, and value."""
    lines = gateway.ask("GET", "/metrics", token=ADMIN_TOKEN).body.decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
    return [(name, float(value)) for name, value in pairs]


def total(samples: list[tuple[str, float]], name: str, label: str = "") -> float:
    """The sum of a metric over its labels."""
    return sum(
        value for sample, value in samples if sample.partition("{")[0] == name and label in sample
    )

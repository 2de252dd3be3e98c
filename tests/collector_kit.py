"""An OTLP collector for the tests: it takes spans as a real one does, and can be slow or rude."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent.pywsgi import WSGIServer

Json = dict[str, Any]


class Collector:
    """What was sent to it, and how it answers.

    Attributes:
        status: its answer to each post.
        delay_secs: how long it thinks before.
        posts: how many there were.
        headers: of the last one.
        batches: their bodies.
    """

    def __init__(self) -> None:
        self.status = 200
        self.delay_secs = 0.0
        self.posts = 0
        self.headers: dict[str, str] = {}
        self.batches: list[Json] = []
        self._server = WSGIServer(("127.0.0.1", 0), self._answer, log=None)
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def spans(self) -> list[Json]:
        """All spans, with their attributes as a dict."""
        return [
            {**span, "attributes": plain(span["attributes"])}
            for batch in self.batches
            for resource in batch["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]

    def wait(self, count: int, secs: float = 5.0) -> list[Json]:
        """The spans, as soon as there are so many."""
        with gevent.Timeout(secs):
            while len(self.spans) < count:
                gevent.sleep(0.02)
        return self.spans

    def stop(self) -> None:
        self._server.stop(timeout=0.1)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read()
        self.posts += 1
        self.headers = {
            name[5:].lower(): value for name, value in environ.items() if name.startswith("HTTP_")
        }
        gevent.sleep(self.delay_secs)
        if self.status == 200 and environ["PATH_INFO"] == "/v1/traces":
            assert environ["CONTENT_TYPE"] == "application/json"
            self.batches.append(json.loads(body))
        start_response(f"{self.status} so", [("Content-Type", "application/json")])
        return [b"{}"]


def plain(attributes: list[Json]) -> Json:
    """OTLP's attributes as a dict; integers are text there."""
    found = {each["key"]: _value(each["value"]) for each in attributes}
    assert len(found) == len(attributes)
    return found


def _value(value: Json) -> Any:
    [(kind, found)] = value.items()
    if kind == "intValue":
        return int(found)
    if kind == "arrayValue":
        return [_value(each) for each in found["values"]]
    return found


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector, stopped at the end."""
    found = Collector()
    try:
        yield found
    finally:
        found.stop()

"""The bare proxy: the least a Python gateway can do, to compare TokenHub with.

Flask on a gunicorn gevent worker with geventhttpclient and orjson. It checks one key, parses the
request, serialises it again, forwards it, parses the usage of the answer and answers; streams are
copied as they come. No routing, no accounting, no database. gunicorn starts it by
`benchmarks.bare:create_app(port, key)`.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Any

import orjson
from flask import Flask, Response, request
from geventhttpclient import HTTPClient

from benchmarks.wire import CHAT_PATH

_UPSTREAM_HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer upstream"}
_CONNECTIONS_MAX = 4000


def create_app(upstream_port: int, key: str) -> Flask:
    """The WSGI application, forwarding to a provider on 127.0.0.1."""
    app = Flask(__name__)
    upstream = HTTPClient(
        "127.0.0.1",
        upstream_port,
        concurrency=_CONNECTIONS_MAX,
        connection_timeout=10.0,
        network_timeout=60.0,
    )
    wanted = f"Bearer {key}".encode()

    def chat() -> Response:
        sent = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(sent, wanted):
            return Response('{"error":{"message":"wrong key"}}', 401, mimetype="application/json")
        body = orjson.loads(request.get_data(cache=False))
        answer = upstream.request("POST", CHAT_PATH, orjson.dumps(body), _UPSTREAM_HEADERS)
        if body.get("stream"):
            payload: Any = _pieces(answer)
        else:
            payload = bytes(answer.read())
            orjson.loads(payload).get("usage")
        return Response(
            payload,
            status=answer.status_code,
            content_type=str(answer.get("content-type")),
            direct_passthrough=True,
        )

    app.post(CHAT_PATH)(chat)
    return app


def _pieces(answer: Any) -> Iterator[bytes]:
    """The payload in the pieces in which it arrives.

    `answer.read(n)` waits until n bytes are there and `readline` cuts at every event, so the
    parser is fed from here; its buffer and socket have no public name.
    """
    try:
        while True:
            buffer = answer._body_buffer
            if buffer:
                piece = bytes(buffer)
                buffer.clear()
                yield piece
            elif answer.message_complete:
                return
            else:
                data = answer._sock.recv(65536)
                if not data:
                    raise ConnectionError("upstream closed mid-stream")
                answer.feed(data)
    finally:
        answer.release()

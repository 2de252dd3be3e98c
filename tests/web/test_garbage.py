"""A request that is over is freed at once: nothing of it waits for the garbage collector.

What a request leaves in cycles makes collections more frequent and longer for all that follow it.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.gateway_kit import DONE, STOP, USAGE, answer, delta, fault
from tests.web.test_chat import Chat

REQUESTS = 5
WHOLE = [delta("hello"), STOP, USAGE + DONE]


@pytest.fixture
def chat(app, client, admin) -> Chat:
    for name in ("small", "large"):
        admin.provider(name)
        admin.model(name, provider_id=name, input_per_1k=0.001, output_per_1k=0.002)
    return Chat(app, client, admin.ok("POST", "apikeys", {"name": "test"})["key"])


def left_by(serve: Callable[[], Any]) -> Counter[str]:
    """What so many requests leave behind of ours, by type."""
    serve()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(REQUESTS):
            serve()
        gc.collect()
        return Counter(
            type(each).__qualname__
            for each in gc.garbage
            if type(each).__module__.startswith("tokenhub")
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", [[], [fault()]], ids=["answered", "rescued"])
def test_a_request_leaves_nothing_to_the_garbage_collector(app, chat, first, stream):
    def serve() -> None:
        app.services.board.vitals.clear("small")
        script = [*first, *([WHOLE] if stream else [answer()])]
        adapter = chat.script(small=script[:1], large=script[1:] or [answer()])
        response = chat.post(stream=stream, model="small", tokenhub={"fallbacks": ["large"]})
        assert (response.status_code, bool(response.data)) == (200, True)
        response.close()
        assert adapter.asked == ["small", "large"][: 1 + len(first)]

    assert left_by(serve) == {}

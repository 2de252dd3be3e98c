"""How much of an answer an attempt is said to have brought, by real adapters and a real wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints_kit import CHAT, MESSAGE
from tests.web.world_kit import World, open_world
from tokenhub.domain import Attempt


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("bytes"), sqlite_template) as found:
        yield found


@pytest.fixture
def attempts(world: World, monkeypatch: pytest.MonkeyPatch) -> list[Attempt]:
    """Those of the requests of a test."""
    found: list[Attempt] = []
    recorder = world.app.services.recorder
    record = recorder.record

    def watch(outcome: Any, **more: Any) -> None:
        record(outcome, **more)
        found.extend(outcome.attempts)

    monkeypatch.setattr(recorder, "record", watch)
    return found


def test_what_goes_through_is_as_long_for_us_as_for_the_caller(world, attempts):
    body = world.post(CHAT, CHAT.body("of-openai")).data
    assert [each.response_bytes for each in attempts] == [len(body)]


def test_what_is_translated_is_counted_as_it_came(world, attempts):
    through = world.post(MESSAGE, MESSAGE.body("of-anthropic")).data
    translated = world.post(CHAT, CHAT.body("of-anthropic", {"max_tokens": 64})).data
    first, second = [each.response_bytes for each in attempts]
    assert first == len(through)
    assert abs(second - first) < 40  # the same message, but for its id
    assert second != len(translated)


def test_a_stream_is_counted_to_its_end(world, attempts):
    for kind in ("openai", "anthropic"):
        said = world.post(CHAT, CHAT.body(f"of-{kind}", stream=True)).data
        assert said.endswith(b"[DONE]\n\n")
        assert attempts[-1].response_bytes > 200


@pytest.mark.parametrize(
    ("fault", "least"), [("503", 20), ("malformed", 1), ("cut", 0), ("content-type", 0)]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_has_what_came_before_it(world, attempts, fault, least, stream):
    world.simulator.controls.apply({"model": "sim-fast", "fault": fault, "times": 1})
    world.post(CHAT, CHAT.body("of-openai", stream=stream)).get_data()
    assert attempts[0].next_step or fault == "cut"
    assert attempts[0].response_bytes >= least
    world.simulator.controls.apply({"model": "sim-fast", "fault": None})

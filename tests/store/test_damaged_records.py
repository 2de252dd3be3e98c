"""Records that are damaged, or of another version, are set aside and keep nobody out."""

from __future__ import annotations

import pytest

from tests.store.test_ingester import World, set_aside, some_traffic
from tokenhub.journal import END, EVENT, FEEDBACK, OPENING


@pytest.fixture
def world(tmp_path, database) -> World:
    return World(tmp_path, database)


@pytest.mark.parametrize("payload", [b"{", b"[]", b"1", b'[["too short"],[]]', b"[[],[],true]"])
@pytest.mark.parametrize("kind", [OPENING, END])
def test_records_of_another_version_are_set_aside(world, payload, kind):
    some_traffic(world)
    world.writers[0].append(kind, payload)
    some_traffic(world)
    world.settle()
    world.check()
    assert [each["payload"] for each in set_aside(world)] == [payload.decode()]


DAMAGED_EVENTS = [
    b"{", b"[]", b"7", b"null", b'[1,"health",""]', b'[1,"health","","{}",5]',
    b'["x","health","","{}"]', b'[1,null,"","{}"]', b'[1,"health","",7]',
    b'[1,"health","",{"of":1}]', b'{"at":1,"type":"x","api_key_id":"","fields":""}',
]  # fmt: skip
DAMAGED_FEEDBACK = [
    b"[", b"[]", b'[1,"req_1","key_1","a",0.5]', b'[1,"req_1","key_1","a","high","good"]',
    b'[null,"req_1","key_1","a",0.5,"good"]', b'[1,"req_1","key_1","a",0.5,["good"]]',
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "payload"),
    [*((EVENT, each) for each in DAMAGED_EVENTS), *((FEEDBACK, each) for each in DAMAGED_FEEDBACK)],
)
def test_damaged_events_and_feedback_are_set_aside(world, kind, payload):
    some_traffic(world)
    world.writers[0].append(kind, payload)
    some_traffic(world)
    world.settle()
    world.check()
    assert [each["payload"] for each in set_aside(world)] == [payload.decode()]


def test_a_refused_record_alone_does_not_come_back(world):
    world.expected.pop(world.whole(0, input_tokens=2**64 - 1))
    assert world.ingester.step() == 1
    assert world.ingester.step() == 0
    assert len(set_aside(world)) == 1
    world.settle()
    world.check()

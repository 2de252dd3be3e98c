"""Places in the feed, what waits for a listener, and what is told of health."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_vitals import Host
from tokenhub.board import Board
from tokenhub.board.transitions import Transition
from tokenhub.errors import Unavailable
from tokenhub.events import Events, Item, KeyNames, Listener, Wants
from tokenhub.events import feed as feeds
from tokenhub.journal import EVENT, Journal
from tokenhub.store.cursors import (
    GAPS_MAX,
    HOSTS_MAX,
    MISSING_SECS,
    Place,
    Tail,
    parse_place,
    tag_of,
)

HOSTS = ("a", "b", "c")


class Table:
    """Rows that are numbered when they are written and seen when they are committed."""

    def __init__(self) -> None:
        self.next = 1
        self.open: dict[str, list[int]] = {host: [] for host in HOSTS}
        self.seen: dict[int, str] = {}

    def write(self, host: str) -> None:
        self.open[host].append(self.next)
        self.next += 1

    def commit(self, host: str) -> None:
        self.seen.update(dict.fromkeys(self.open[host], host))
        self.open[host] = []

    def roll_back(self, host: str) -> None:
        self.open[host] = []

    def read(self, tail: Tail, rows_max: int, now: float = 0.0) -> list[tuple[int, Place]]:
        """What a reader makes of one look: numbers, and its place after each."""
        rows: list[int] = []
        wanted = tail.wanted(now)
        new = {each: host for each, host in self.seen.items() if each > wanted.read.get(host, 0)}
        for first, last in wanted.ranges:
            found = sorted(number for number in new if first <= number <= last)
            rows += found[: rows_max - len(rows)]
        return [
            (number, tail.place()) for number in rows if tail.take(number, self.seen[number], now)
        ]


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "write", "commit", "roll_back", "read"]),
              st.sampled_from(HOSTS), st.integers(1, 4)),
    max_size=80,
)  # fmt: skip


def read_all(table: Table, tail: Tail) -> list[tuple[int, Place]]:
    found: list[tuple[int, Place]] = []
    for _ in range(len(table.seen) + 9):  # some looks bring only what was read, and teach whose
        found += table.read(tail, 3)
    return found


@given(STEPS, st.data())
def test_every_row_is_read_once_and_in_its_hosts_order_and_a_place_resumes_anywhere(steps, data):
    table, tail = Table(), Tail(Place())
    found: list[tuple[int, Place]] = []
    for step, host, rows_max in steps:
        if step == "read":
            found += table.read(tail, rows_max)
        else:
            getattr(table, step)(host)
    for host in HOSTS:
        table.commit(host)
    found += read_all(table, tail)
    numbers = [number for number, _ in found]
    assert sorted(numbers) == sorted(table.seen)
    for host in HOSTS:
        theirs = [number for number in numbers if table.seen[number] == host]
        assert theirs == sorted(theirs)
    if found:
        at = data.draw(st.integers(0, len(found) - 1))
        place = parse_place(found[at][1].text())
        assert all(place.has(number, tag_of(table.seen[number])) for number in numbers[: at + 1])
        rest = [number for number, _ in read_all(table, Tail(place))]
        assert sorted(rest) == sorted(numbers[at + 1 :])


def test_what_never_comes_is_given_up_after_a_while():
    table, tail = Table(), Tail(Place())
    table.write("a")
    table.write("b")
    table.commit("b")
    assert [number for number, _ in table.read(tail, 9)] == [2]
    assert (tail.floor, tail.place()) == (0, Place(0, {tag_of("b"): 2}))
    assert table.read(tail, 9, now=MISSING_SECS) == []
    assert (tail.floor, tail.place()) == (2, Place(2))
    assert tail.wanted(0.0).ranges == [(3, 2**63 - 1)]


def test_however_many_rows_are_missing_a_reader_asks_for_few_ranges():
    table, tail = Table(), Tail(Place())
    for _ in range(100):
        table.write("a")
        table.write("b")
    table.commit("b")
    assert len(table.read(tail, 1000)) == 100
    assert len(tail.wanted(0.0).ranges) <= GAPS_MAX + 1
    table.commit("a")
    assert len(read_all(table, tail)) == 100


def test_a_place_is_short_however_many_hosts_there_are():
    marks = {tag_of(str(each)): 10**12 + each for each in range(1000)}
    text = Place(10**12 - 1, marks).text()
    assert len(text) < 800 and text.isascii()
    assert len(parse_place(text).marks) == HOSTS_MAX


@given(
    st.integers(0, 2**62),
    st.dictionaries(st.text(max_size=9).map(tag_of), st.integers(1, 2**40), max_size=9),
)
def test_places_survive_being_written(floor, further):
    place = Place(floor, {tag: floor + each for tag, each in further.items()})
    assert parse_place(place.text()) == place


@pytest.mark.parametrize("text", ["", "-1", "A", "1~", "1~abc1", "zzzzzzzzzzzzz", "1.2", "1\n"])
def test_what_is_no_place_is_refused(text):
    with pytest.raises(ValueError):
        parse_place(text)


def item(number: int, type_: str = "route_success", **fields: Any) -> Item:
    event = {"type": type_, "outcome": "answered", **fields}
    return Item(str(number), event, "logs", number, tag_of("a"), b"")


def numbers(items: Sequence[Item]) -> list[int]:
    return [each.number for each in items]


@pytest.mark.parametrize(
    ("wants", "expected"),
    [
        (Wants(), True),
        (Wants(types=frozenset({"route_error"})), False),
        (Wants(api_key_id="key_1", model_id="m", provider_id="p", outcome="answered"), True),
        (Wants(api_key_id="key_2"), False),
        (Wants(model_id="n"), False),
        (Wants(provider_id="q"), False),
        (Wants(outcome="rescued"), False),
    ],
)
def test_filters_hold_together(wants, expected):
    found = item(1, api_key_id="key_1", model_id="m", provider_id="p")
    assert wants.allows(found) is expected


def test_a_full_queue_loses_the_oldest_and_counts_them(monkeypatch):
    monkeypatch.setattr(feeds, "QUEUE_MAX", 4)
    listener = Listener(Wants())
    for number in range(7):
        listener.offer(item(number))
    assert (listener.take_lost(), listener.take_lost()) == (3, 0)
    assert numbers(listener.take(3)) == [3, 4, 5]
    listener.offer(item(7))
    assert numbers(listener.take(9)) == [6, 7]
    assert listener.is_idle


def test_what_was_replayed_is_not_told_again():
    listener = Listener(Wants())
    for number in (1, 2, 3):
        listener.offer(item(number))
    listener.skip({"logs": Place(1, {tag_of("a"): 2})})
    listener.offer(item(2))
    listener.offer(item(4))
    assert numbers(listener.take(9)) == [3, 4]


def test_above_a_rate_only_what_was_simply_answered_is_left_out():
    now = [100.2]
    listener = Listener(Wants(rate_max=2), lambda: now[0])
    for number in range(5):
        listener.offer(item(number))
    listener.offer(item(5, outcome="rescued"))
    listener.offer(item(6, "route_error", outcome="failed"))
    assert numbers(listener.take(9)) == [0, 1, 5, 6]
    assert (listener.take_left_out(), listener.take_left_out()) == (3, 0)
    now[0] = 101.0
    listener.offer(item(7))
    assert numbers(listener.take(9)) == [7]


def test_key_names_follow_the_keys():
    class Key:
        id, name = "key_1", "ci"

    keys: list[Any] = [{b"": Key}]
    names = KeyNames(lambda: keys[-1])
    assert (names("key_1"), names("key_2")) == ("ci", "")
    keys.append({})
    assert names("key_1") == ""


@pytest.fixture
def publish(tmp_path) -> Callable[..., Any]:
    """Publishes into a journal of its own; returns the journal, the board and what publishes."""

    def make(bytes_max: int) -> tuple[Journal, Board, Events]:
        board = Board(slots=1)
        journal = Journal(tmp_path, "w", board.next_segment, bytes_max=bytes_max,
                          segment_bytes=200_000)  # fmt: skip
        return journal, board, Events(journal=journal, board=board)

    return make


def test_an_event_never_takes_the_room_of_a_request(publish):
    journal, board, events = publish(400_000)
    admitted = 0
    with pytest.raises(Unavailable):
        while True:
            journal.admit()
            admitted += 1
    events.publish("feedback", label="lost")
    assert board.feeds.unpublished == 1
    journal.release()
    events.publish("feedback", label="kept", note="x" * 10_000)
    assert board.feeds.unpublished == 1
    journal.admit()
    for _ in range(admitted):
        journal.append(EVENT, b"x" * 30_000)
        journal.release()
    journal.close()


def test_streams_are_counted_by_worker_and_end_with_it():
    board = Board(slots=2)
    for slot in (0, 1, 1):
        board.feeds.enter(slot)
    board.feeds.note_dropped(1, 5)
    assert board.feeds.clients == 3
    board.feeds.leave(0)
    board.feeds.clear_slot(1)
    assert (board.feeds.clients, board.feeds.dropped) == (0, 5)


@pytest.fixture
def told() -> tuple[Host, list[Transition]]:
    found: list[Transition] = []
    host = Host()
    host.vitals.changes.on_change = found.append
    return host, found


def states(found: list[Transition]) -> list[tuple[str, str, str, str]]:
    said: list[tuple[str, str, str, str]] = [
        (each.id, each.old_state, each.new_state, each.reason) for each in found
    ]
    found.clear()
    return said


def test_every_change_of_health_is_told_once_whoever_finds_it(told):
    host, found = told
    for _ in range(4):
        host.fail()
    assert states(found) == [("m", "healthy", "degraded", "server_error")]
    host.fail()
    assert found[0].until == host.now + 30_000
    assert states(found) == [("m", "degraded", "down", "server_error")]
    host.vitals.tell_changes()
    assert found == []
    host.wait(30)
    host.vitals.tell_changes()
    assert (found[0].old_breaker, found[0].new_breaker) == ("open", "half_open")
    assert states(found) == [("m", "down", "degraded", "rest_over")]
    host.wait(2)
    host.succeed()
    assert states(found) == [("m", "degraded", "degraded", "answered")]
    host.wait(10)
    host.vitals.tell_changes()
    host.vitals.tell_changes()
    assert states(found) == [("m", "degraded", "healthy", "recovered")]


def test_what_comes_and_goes_is_told_at_most_once_a_second_but_down_at_once(told):
    host, found = told
    for _ in range(10):
        host.fail()
        host.fail()
        host.succeed()
    assert len(states(found)) == 1
    host.refuse_key()
    assert states(found) == [("p", "healthy", "down", "auth_failed")]
    host.wait(1)
    host.vitals.tell_changes()
    assert states(found) == [("m", "degraded", "healthy", "recovered")]


def test_silence_and_being_cleared_are_told(told):
    host, found = told
    for _ in range(3):
        host.probe(is_alive=False)
    assert states(found) == [("p", "healthy", "silent", "probes_failed")]
    host.wait(2)
    host.probe(is_alive=True)
    assert states(found) == [("p", "silent", "healthy", "recovered")]
    for _ in range(5):
        host.fail()
    found.clear()
    host.vitals.clear("m")
    host.vitals.clear("m")
    assert states(found) == [("m", "down", "healthy", "cleared")]

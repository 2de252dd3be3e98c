"""Rows of requests that may be sent twice: one serves, the others learn of it; old ones go."""

from __future__ import annotations

import threading

from sqlalchemy import func, select, update

from tokenhub.db import Database
from tokenhub.db.traffic_tables import idempotency_keys as table
from tokenhub.store import idempotency as rows
from tokenhub.store import retention as prunes
from tokenhub.store.hosts import now_ms

LEASE_MS, REST_MS, KEEP_MS = 60_000, 30_000, 90_000


def turn(name: str = "n", request_id: str = "req_1", digest: bytes = b"d") -> rows.Turn:
    return rows.Turn(name, "host/1", request_id, digest)


def claim(database: Database, wish: rows.Turn) -> rows.Found | None:
    return database.write(lambda c: rows.claim(c, wish, LEASE_MS, REST_MS))


def finish(database: Database, wish: rows.Turn, answer: bytes | None = b"a") -> None:
    database.write(lambda c: rows.finish(c, wish, answer, KEEP_MS))


def let_pass(database: Database) -> None:
    """Everything has had its time."""
    database.write(lambda c: c.execute(update(table).values(expires_at=now_ms(c) - 1)))


def names(database: Database) -> list[str]:
    return sorted(database.read(lambda c: c.scalars(select(table.c.name)).all()))


def test_the_first_serves_and_the_second_finds_it_at_work(database):
    assert claim(database, turn()) is None
    found = claim(database, turn(request_id="req_2", digest=b"other"))
    assert found is not None
    assert found[:4] == (rows.IN_FLIGHT, "req_1", b"d", b"")
    assert 0 < found.left_ms <= LEASE_MS
    assert database.read(lambda c: rows.list_waiting(c, ["n", "m"])) == {"n"}


def test_of_many_at_once_one_serves(database):
    found: list[rows.Found | None] = []

    def try_one(number: int) -> None:
        found.append(claim(database, turn(request_id=f"req_{number}")))

    threads = [threading.Thread(target=try_one, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 8
    assert found.count(None) == 1


def test_what_was_answered_is_found_until_its_time_is_over(database):
    assert claim(database, turn()) is None
    finish(database, turn())
    found = claim(database, turn(request_id="req_2"))
    assert found is not None
    assert (found.state, found.request_id, found.answer) == (rows.DONE, "req_1", b"a")
    assert not database.read(lambda c: rows.list_waiting(c, ["n"]))
    let_pass(database)
    assert claim(database, turn(request_id="req_2")) is None


def test_what_is_not_kept_is_not_served_again_either(database):
    assert claim(database, turn()) is None
    finish(database, turn(), None)
    found = claim(database, turn(request_id="req_2"))
    assert found is not None
    assert (found.state, found.answer) == (rows.UNKEPT, b"")


def test_what_came_to_nothing_is_the_next_ones(database):
    assert claim(database, turn()) is None
    database.write(lambda c: rows.release(c, turn(request_id="req_9")))  # not its own
    assert claim(database, turn(request_id="req_2")) is not None
    database.write(lambda c: rows.release(c, turn()))
    assert claim(database, turn(request_id="req_2")) is None


def test_an_owner_that_is_lost_is_told_of_before_another_serves(database):
    assert claim(database, turn()) is None
    let_pass(database)
    for _ in range(2):
        found = claim(database, turn(request_id="req_2"))
        assert found is not None
        assert (found.state, found.request_id) == (rows.LOST, "req_1")
        assert 0 < found.left_ms <= REST_MS
    let_pass(database)
    assert claim(database, turn(request_id="req_3")) is None
    finish(database, turn())  # the first was only slow: it is too late
    found = claim(database, turn(request_id="req_4"))
    assert found is not None
    assert (found.state, found.request_id) == (rows.IN_FLIGHT, "req_3")


def test_an_owner_that_was_taken_for_lost_may_still_end_or_go_on(database):
    assert claim(database, turn()) is None
    let_pass(database)
    assert claim(database, turn(request_id="req_2")) is not None
    database.write(lambda c: rows.renew(c, ["req_1"], LEASE_MS))
    found = claim(database, turn(request_id="req_2"))
    assert found is not None
    assert found.state == rows.IN_FLIGHT
    let_pass(database)
    assert claim(database, turn(request_id="req_2")) is not None
    finish(database, turn())
    found = claim(database, turn(request_id="req_2"))
    assert found is not None
    assert found.state == rows.DONE


def test_the_oldest_make_room_for_the_newest(database):
    for number in range(6):
        wish = turn(f"n{number}", f"req_{number}")
        assert claim(database, wish) is None
        if number:
            database.write(lambda c, w=wish, n=number: rows.finish(c, w, b"x" * 10, KEEP_MS + n))
    assert database.write(lambda c: rows.trim(c, 100, 1000)) == 0
    assert database.write(lambda c: rows.trim(c, 4, 1000)) == 1
    assert names(database) == ["n0", "n2", "n3", "n4", "n5"]  # the first is still being served
    assert database.write(lambda c: rows.trim(c, 100, 25)) == 2
    assert names(database) == ["n0", "n4", "n5"]
    let_pass(database)
    assert database.write(lambda c: rows.trim(c, 100, 1000)) == 2
    assert names(database) == ["n0"]


def test_who_was_lost_is_remembered_for_longer_than_what_was_answered(database):
    for number in range(2):
        assert claim(database, turn(f"n{number}", f"req_{number}")) is None
    finish(database, turn("n1", "req_1"))
    let_pass(database)
    now = database.read(now_ms)
    assert database.write(lambda c: prunes.prune_answers(c, now, 100)) == 1
    assert names(database) == ["n0"]
    later = now + 2 * prunes.ASKED_MS
    assert database.write(lambda c: prunes.prune_answers(c, later, 100)) == 1
    assert database.read(lambda c: c.scalar(select(func.count()).select_from(table))) == 0

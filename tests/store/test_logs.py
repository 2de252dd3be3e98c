"""Requests are found by what is asked of them, newest first, each once, whatever the page."""

from __future__ import annotations

from functools import partial
from itertools import count

import pytest

from tests.store.test_ingest import HOST, WIDTH, log_row, make_batch
from tokenhub import store
from tokenhub.db import Database
from tokenhub.db.sums_tables import REQUESTS
from tokenhub.store import searching
from tokenhub.store.log_sums import Span, count_by_step, count_by_word

NOW = 1_700_000_000_000
ENDINGS = ("answered", "answered", "answered", "failed", "rescued", "cut")


def never() -> bool:
    return False


def always() -> bool:
    return True


@pytest.fixture
def filled(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """300 requests, three at a time, in stretches of 25."""
    monkeypatch.setattr(searching, "STRETCH", 25)
    rows = [
        log_row(
            number,
            started_at=NOW + number // 3 * 1000,
            ending=ENDINGS[number % 6],
            status_code=502 if number % 6 in (3, 5) else 200,
            error_class="timeout" if number % 6 in (3, 5) else "",
            api_key_id=f"key_{number % 7}",
            model_id=f"m{number % 5}",
            latency_ms=number,
            stream=number % 2 == 0,
            client_request_id=f"theirs-{number}" if number % 50 == 0 else "",
        )
        for number in range(300)
    ]
    database.write(lambda connection: store.ingest(connection, make_batch(logs=rows)))
    return database


def page(database: Database, filters: store.LogFilters, part: store.Part, late=never):
    return database.read(lambda c: store.find_logs(c, filters, part, is_late=late))


def all_pages(database: Database, filters: store.LogFilters, limit: int, late=never) -> list[int]:
    """The positions of all that are found, page by page."""
    found: list[int] = []
    after = None
    for _ in range(400):
        part = page(database, filters, store.Part(limit, after=after), late)
        assert len(part.rows) <= limit
        found += [row["position"] for row in part.rows]
        if part.next is None:
            return found
        after = part.next
    raise AssertionError("it never ends")


FILTERS = {
    "all": (store.LogFilters(), lambda n: True),
    "time": (store.LogFilters(NOW + 5000, NOW + 9000), lambda n: 15 <= n < 27),
    "key": (store.LogFilters(words={"api_key_id": ("key_3",)}), lambda n: n % 7 == 3),
    "two keys": (
        store.LogFilters(words={"api_key_id": ("key_3", "key_4")}), lambda n: n % 7 in (3, 4)
    ),
    "key and model": (
        store.LogFilters(words={"api_key_id": ("key_3",), "model_id": ("m1",)}),
        lambda n: n % 7 == 3 and n % 5 == 1,
    ),
    "trouble": (
        store.LogFilters(words={"ending": ("failed", "cut")}), lambda n: n % 6 in (3, 5)
    ),
    "status": (store.LogFilters(statuses=((500, 599),)), lambda n: n % 6 in (3, 5)),
    "success": (store.LogFilters(statuses=((200, 299),)), lambda n: n % 6 not in (3, 5)),
    "no error": (store.LogFilters(words={"error_class": ("",)}), lambda n: n % 6 not in (3, 5)),
    "slow": (store.LogFilters(min_latency_ms=290), lambda n: n >= 290),
    "streams": (store.LogFilters(stream=True), lambda n: n % 2 == 0),
    "ours": (store.LogFilters(request_id="req_77"), lambda n: n == 77),
    "theirs": (store.LogFilters(request_id="theirs-50"), lambda n: n == 50),
    "theirs, but slow": (
        store.LogFilters(request_id="theirs-50", min_latency_ms=51), lambda n: False
    ),
    "nobody": (store.LogFilters(words={"provider_id": ("x",)}), lambda n: False),
}  # fmt: skip


@pytest.mark.parametrize("name", FILTERS)
def test_every_request_that_is_meant_is_found_once_newest_first(filled, name):
    filters, is_meant = FILTERS[name]
    meant = [n for n in range(300) if is_meant(n)]
    found = all_pages(filled, filters, 7)
    assert sorted(found) == meant
    # Of the same moment the last ingested comes first.
    assert found == meant[::-1]
    assert all_pages(filled, filters, 7, always) == found
    offset = page(filled, filters, store.Part(5, 11))
    assert [row["position"] for row in offset.rows] == found[11:16]
    counted = filled.read(lambda c: store.count_logs(c, filters, most=1000, is_late=never))
    assert counted == (len(meant), True)


def test_a_search_that_is_late_says_how_far_it_got(filled):
    filters = store.LogFilters(min_latency_ms=1000)
    found = page(filled, filters, store.Part(10), always)
    assert found == ([], (NOW + 91_000, found.next.id), NOW + 91_000)
    counted = filled.read(lambda c: store.count_logs(c, filters, most=1000, is_late=always))
    assert counted == (0, False)


def test_more_than_the_most_is_not_counted(filled):
    for filters in (store.LogFilters(), store.LogFilters(min_latency_ms=3)):
        counted = filled.read(partial(store.count_logs, filters=filters, most=50, is_late=never))
        assert counted == (50, False)


def test_rows_that_come_meanwhile_shift_no_page_of_a_cursor(filled):
    first = page(filled, store.LogFilters(), store.Part(10))
    late = [log_row(number, started_at=NOW + 900_000) for number in range(400, 420)]
    filled.write(lambda connection: store.ingest(connection, make_batch(logs=late)))
    second = page(filled, store.LogFilters(), store.Part(10, after=first.next))
    found = [row["position"] for row in [*first.rows, *second.rows]]
    assert found == list(range(299, 279, -1))


def test_what_the_sums_do_not_know_is_counted_in_the_log(filled):
    span = Span(NOW, NOW + 100_000, 10_000)
    filters = store.LogFilters(stream=True)
    found = filled.read(lambda c: count_by_step(c, filters, span, is_late=never))
    assert found.searched_to is None
    assert sum(found.counts.values()) == 150
    assert found.counts[NOW // 10_000, "answered"] == 10  # 0, 2, 6, 8 … of 30
    words = filled.read(lambda c: count_by_word(c, filters, span, "status_code", is_late=never))
    assert words.counts == {(200,): 150}
    late = filled.read(lambda c: count_by_word(c, filters, span, "requested_model", is_late=always))
    assert late.searched_to == NOW + 91_000
    assert sum(late.counts.values()) < 150


def test_an_hour_is_what_was_rolled_up_and_what_was_not(database):
    hour = NOW // 3_600_000 * 3_600_000
    ticks = count()

    def ingest(at: int, ending: str) -> None:
        number = next(ticks)
        row = log_row(number, started_at=at, ending=ending)
        sums = store_sums(at, ending)
        batch = make_batch(logs=[row], sums=sums)
        database.write(lambda connection: store.ingest(connection, batch))

    ingest(hour + 5, "answered")
    ingest(hour + 15_000, "failed")
    roll = partial(store.rollups.roll_up, settled_at=hour + 30_000, now=7, rows_max=100)
    database.write(roll)
    ingest(hour + 6, "answered")
    for step in (3_600_000, 10_000, 24 * 3_600_000):
        span = Span(hour // step * step, (hour // step + 1) * step, step)
        if step == 10_000:
            span = Span(hour, hour + 60_000, step)
        found = database.read(
            lambda c, span=span: count_by_word(c, store.LogFilters(), span, "ending", is_late=never)
        )
        assert found.counts == {("answered",): 2, ("failed",): 1}
        one = store.LogFilters(words={"ending": ("failed",), "model_id": ("m",)})
        bars = database.read(
            lambda c, span=span, one=one: count_by_step(c, one, span, is_late=never)
        )
        at = hour + 10_000 if step == 10_000 else span.from_at
        assert bars.counts == {(at // step, "failed"): 1}


def store_sums(at: int, ending: str):
    key = (HOST, at // 10_000 * 10_000, "m", "p", "k", "", "normal", "chat", ending, "", "")
    return {REQUESTS: {key: [1] * WIDTH}}

"""Duplicates in flight through the app: how long they wait for the first, and how many may."""

from __future__ import annotations

import time

import gevent
import pytest

from tests.unit.gateway_kit import answer
from tests.web.test_chat import Chat, error_of
from tests.web.test_idempotency import ONCE, chat, key, set_row, stored
from tokenhub import idempotency

__all__ = ["chat", "key"]  # fixtures


@pytest.mark.parametrize("bound", [("WAIT_SECS", 0.05), ("WAITING_MAX", 0)])
def test_who_waits_too_long_or_with_too_many_is_told_to_come_back(app, chat, monkeypatch, bound):
    monkeypatch.setattr(idempotency, *bound)
    chat.script(small=[answer()])
    assert chat.post(model="small", headers=ONCE).status_code == 200
    set_row(app, state="in_flight", answer=b"")
    response = chat.post(model="small", headers=ONCE)
    assert (response.status_code, error_of(response)["code"]) == (409, "idempotency_in_flight")
    assert response.headers["Retry-After"] == "1"
    assert chat.rows


def test_who_waits_is_answered_as_soon_as_the_first_is(app, client, chat, key):
    chat.script(small=[answer()])
    first = chat.post(model="small", headers=ONCE)
    [row] = stored(app)
    set_row(app, state="in_flight", answer=b"")
    other = gevent.spawn_later(0.15, set_row, app, state="done", answer=row["answer"])
    again = chat.post(model="small", headers=ONCE)
    other.get()
    assert (again.status_code, again.data) == (200, first.data)


@pytest.mark.parametrize("secs", [0.2, 0.1])
def test_who_waits_does_so_no_longer_than_its_deadline(app, chat, secs):
    chat.script(small=[answer()])
    headers = {**ONCE, "X-TokenHub-Max-Latency-Ms": str(int(secs * 1000))}
    assert chat.post(model="small", headers=headers).status_code == 200
    set_row(app, state="in_flight", answer=b"")
    began = time.monotonic()
    response = chat.post(model="small", headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (409, "idempotency_in_flight")
    assert secs <= time.monotonic() - began < idempotency.WAIT_SECS / 2


def test_one_keys_waiting_leaves_the_places_of_others(app, client, admin, chat, monkeypatch):
    """As many as may wait do; the next is told at once, and somebody else's waits still."""
    monkeypatch.setattr(idempotency, "WAITING_MAX", 1)
    chat.script(small=[answer()] * 2)
    other = Chat(app, client, admin.ok("POST", "apikeys", {"name": "other"})["key"])
    for each in (chat, other):
        assert each.post(model="small", headers=ONCE).status_code == 200
    set_row(app, state="in_flight")
    waiting = [gevent.spawn(each.post, model="small", headers=ONCE) for each in (chat, other)]
    gevent.sleep(0.05)
    assert chat.post(model="small", headers=ONCE).status_code == 409
    assert not any(each.ready() for each in waiting)
    set_row(app, state="done")
    assert [each.get().status_code for each in waiting] == [200, 200]

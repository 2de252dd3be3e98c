"""GET /admin/v1/hosts: who shares the database with us."""

from functools import partial

from tokenhub import __version__, store
from tokenhub.store.hosts import CLUSTER


def beat(app, host_id, **fields):
    values = {"name": "here", "version": __version__, "workers": 2, "started_at": 1_763_900_000_123}
    app.services.database.write(partial(store.beat_host, host_id=host_id, **{**values, **fields}))


def test_hosts_are_listed_with_whether_they_live_and_who_leads(admin, app):
    beat(app, "host_1")
    beat(app, "host_2", workers=8)
    write = app.services.database.write
    write(partial(store.take_lease, name=CLUSTER, holder="host_1", seconds=60))
    write(partial(store.end_host, host_id="host_2"))
    listed = admin.ok("GET", "hosts")
    assert (listed["total"], listed["limit"], listed["offset"]) == (2, 1000, 0)
    found = {each["id"]: each for each in listed["hosts"]}
    one, two = found["host_1"], found["host_2"]
    assert one.pop("seen_at")
    assert one == {
        "id": "host_1", "name": "here", "version": __version__, "workers": 2,
        "started_at": "2025-11-23T12:13:20.123Z", "ended_at": None,
        "is_live": True, "is_leader": True,
        "lag_secs": None, "waiting_bytes": None, "set_aside": None, "vault_locked": None,
    }  # fmt: skip
    assert (two["workers"], two["is_live"], two["is_leader"]) == (8, False, False)
    assert two["ended_at"]


def test_a_host_that_lives_says_how_it_stands(admin, app):
    beat(app, "host_1", state=store.HostState(lag_secs=1.5, waiting_bytes=9, vault_locked=True))
    [found] = admin.ok("GET", "hosts")["hosts"]
    assert (found["lag_secs"], found["waiting_bytes"]) == (1.5, 9)
    assert (found["set_aside"], found["vault_locked"]) == (0, True)


def test_a_host_knows_how_it_stands(admin, app):
    found = app.services.host_state()
    assert (found.vault_locked, found.set_aside, found.provider_answers) == (True, 0, False)
    assert found.lag_secs >= 0 and found.prices_at == 0
    admin.unlock()
    admin.provider()
    app.services.catalog.current()
    vitals = app.services.board.vitals
    vitals.note_probe("acme", is_alive=True, status=200, latency_ms=3)
    vitals.note_probe("nobody-s", is_alive=True, status=200, latency_ms=3)
    found = app.services.host_state()
    assert (found.vault_locked, found.provider_answers) == (False, True)


def test_hosts_come_in_pages(admin, app):
    for number in range(3):
        beat(app, f"host_{number}")
    page = admin.ok("GET", "hosts?limit=1&offset=1")
    assert (len(page["hosts"]), page["total"]) == (1, 3)


def test_without_the_database_nobody_knows(admin, database_away):
    database_away("read")
    assert admin.refused("GET", "hosts") == (503, "database_away", None)

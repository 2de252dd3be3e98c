"""Changing the vault's password, on one host of several; and what makes guessing it slow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import gevent
import pytest

from tests.web.conftest import PASSWORD, PROVIDER_KEY, Admin
from tokenhub import store
from tokenhub.board import Board
from tokenhub.config import Settings
from tokenhub.db import DatabaseAway
from tokenhub.domain import VaultRow
from tokenhub.factory import create_app
from tokenhub.host import Host
from tokenhub.secret_memory import SecretMemory
from tokenhub.web.hub import Hub

NEW = "a new password"


class Sites:
    """Hosts with a data directory of their own and one database for all."""

    def __init__(self, environ: dict[str, str], dsn: str, tmp_path) -> None:
        self._environ = {**environ, "TOKENHUB_DB_DSN": dsn}
        self._directory = tmp_path
        self.apps: list[Hub] = []

    def start(self, name: str, **variables: str) -> Admin:
        directory = self._directory / name
        directory.mkdir(mode=0o700, exist_ok=True)
        settings = Settings.from_env(
            {**self._environ, "TOKENHUB_DATA_DIR": str(directory), **variables}
        )
        board = Board(slots=2)
        shared = Host(settings, f"host_{name}", board, SecretMemory(lock=board.lock), ())
        self.apps.append(create_app(settings, shared))
        return Admin(self.apps[-1].test_client())

    def follow(self) -> None:
        """As each host's leader does every so often."""
        for app in self.apps:
            app.services.catalog.poll()


@pytest.fixture
def sites(environ, database_dsn, tmp_path, upstreams) -> Iterator[Sites]:
    found = Sites(environ, database_dsn, tmp_path)
    yield found
    for app in found.apps:
        app.on_stop()
        app.services.database.close()


@pytest.fixture
def logged(caplog) -> Iterator[Callable[[], list[str]]]:
    """The messages that the gateway logs."""
    logger = logging.getLogger("tokenhub")
    logger.addHandler(caplog.handler)
    yield lambda: [record.message for record in caplog.records]
    logger.removeHandler(caplog.handler)


def rotate(admin, old=PASSWORD, new=NEW):
    return admin.send("POST", "vault/rotate", {"old_password": old, "new_password": new})


def unlock(admin, password):
    return admin.send("POST", "vault/unlock", {"admin_password": password}).status_code


def row_of(app) -> VaultRow | None:
    found: VaultRow | None = app.services.database.read(store.find_vault)
    return found


def test_each_host_unlocks_itself_and_a_new_password_closes_none(sites):
    here, there = sites.start("here"), sites.start("there")
    here.unlock()
    sites.follow()
    assert there.ok("GET", "info")["vault_locked"] is True
    assert there.refused("GET", "vault/secrets")[1] == "vault_locked"
    there.unlock()
    there.ok("PUT", "vault/secrets/before", {"value": "one"})

    assert rotate(here).get_json() == {"ok": True}
    there.ok("PUT", "vault/secrets/after", {"value": "two"})
    there.provider(api_key=PROVIDER_KEY)
    sites.follow()
    assert here.ok("GET", "vault/secrets/after")["value"] == "two"
    provider = sites.apps[0].services.catalog.current().providers["acme"]
    assert sites.apps[0].services.gateway.secret_of(provider) == PROVIDER_KEY

    for admin in (here, there):
        admin.ok("POST", "vault/lock")
        assert unlock(admin, PASSWORD) == 401
        assert unlock(admin, NEW) == 200
    assert there.ok("GET", "vault/secrets/before")["value"] == "one"


def test_a_host_that_is_started_with_the_old_password_stays_locked_and_says_so(sites, logged):
    here = sites.start("here", TOKENHUB_VAULT_PASSWORD=PASSWORD)
    assert here.ok("GET", "info")["vault_locked"] is False
    assert rotate(here).status_code == 200
    assert "vault will stay locked at the next start" in logged()[-1]
    again = sites.start("again", TOKENHUB_VAULT_PASSWORD=PASSWORD)
    assert "vault stays locked" in logged()
    assert again.ok("GET", "info")["vault_locked"] is True
    assert unlock(again, NEW) == 200
    assert (
        sites.start("new", TOKENHUB_VAULT_PASSWORD=NEW).ok("GET", "info")["vault_locked"] is False
    )


@pytest.mark.parametrize("is_locked", [True, False])
def test_it_makes_no_difference_whether_it_is_locked(admin, is_locked):
    admin.unlock()
    if is_locked:
        admin.ok("POST", "vault/lock")
    assert rotate(admin).status_code == 200
    assert admin.ok("GET", "info")["vault_locked"] is is_locked
    assert unlock(admin, PASSWORD) == 401
    assert unlock(admin, NEW) == 200
    assert admin.ok("GET", "audit?limit=2")["logs"][-1 if is_locked else 0]["action"] == (
        "vault.rotate"
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "missing_field", "old_password")),
        ({"old_password": PASSWORD}, (400, "missing_field", "new_password")),
        ({"old_password": PASSWORD, "new_password": ""}, (400, "missing_field", "new_password")),
        ({"old_password": PASSWORD, "new_password": 12345678},
         (400, "invalid_request", "new_password")),
        ({"old_password": PASSWORD, "new_password": "1234567"},
         (400, "password_too_short", "new_password")),
        ({"old_password": PASSWORD + "!", "new_password": NEW}, (401, "wrong_password", None)),
    ],
)  # fmt: skip
def test_a_change_of_password_that_is_refused_changes_nothing(admin, app, body, expected):
    admin.unlock()
    row, audit = row_of(app), admin.ok("GET", "audit")
    assert admin.refused("POST", "vault/rotate", body) == expected
    assert (row_of(app), admin.ok("GET", "audit")) == (row, audit)


def test_a_vault_that_was_never_set_up_has_no_password_to_change(admin, app):
    body = {"old_password": PASSWORD, "new_password": NEW}
    assert admin.refused("POST", "vault/rotate", body) == (400, "vault_not_set_up", None)
    assert row_of(app) is None


def test_of_two_changes_of_the_password_at_once_one_is_told_that_it_lost(sites):
    admins = [sites.start(name) for name in ("here", "there")]
    admins[0].unlock()
    passwords = [f"password of {number}" for number in range(2)]
    jobs = [
        gevent.spawn(rotate, admin, PASSWORD, new)
        for admin, new in zip(admins, passwords, strict=True)
    ]
    gevent.joinall(jobs, raise_error=True)
    statuses = [job.value.status_code for job in jobs]
    winner = statuses.index(200)
    assert statuses[1 - winner] in (401, 409)
    assert unlock(admins[0], passwords[winner]) == 200
    assert unlock(admins[0], passwords[1 - winner]) == 401
    actions = [row["action"] for row in admins[0].ok("GET", "audit")["logs"]]
    assert actions.count("vault.rotate") == 1


def test_whoever_was_overtaken_while_deriving_is_told_and_changes_nothing(admin, app, monkeypatch):
    admin.unlock()
    vault = app.services.vault
    rewrap = vault.rewrap

    def rewrap_slowly(old: str, new: str) -> tuple[VaultRow, VaultRow]:
        found: tuple[VaultRow, VaultRow] = rewrap(old, new)
        monkeypatch.undo()
        assert rotate(admin).status_code == 200
        return found

    monkeypatch.setattr(vault, "rewrap", rewrap_slowly)
    response = rotate(admin, PASSWORD, "the loser's password")
    assert (response.status_code, response.get_json()["error"]["code"]) == (409, "overtaken")
    assert unlock(admin, NEW) == 200


def test_an_old_password_opens_nothing_while_the_database_is_away_either(sites, monkeypatch):
    here, there = sites.start("here"), sites.start("there")
    here.unlock()
    sites.follow()
    there.ok("GET", "info")
    assert rotate(here).status_code == 200
    sites.follow()
    database = sites.apps[1].services.database
    sites.apps[1].services.catalog.current()

    def away(*_: object, **__: object) -> None:
        raise DatabaseAway("the database is away")

    monkeypatch.setattr(database, "read", away)
    assert unlock(there, PASSWORD) == 401
    assert unlock(there, NEW) == 200


def test_without_the_database_nothing_is_rotated(admin, app, database_away, monkeypatch):
    admin.unlock()
    row = row_of(app)
    with monkeypatch.context():
        database_away("write")
        response = rotate(admin)
        assert (response.status_code, response.get_json()["error"]["code"]) == (
            503, "database_away",
        )  # fmt: skip
    monkeypatch.undo()
    assert row_of(app) == row


def test_too_many_wrong_passwords_are_429_on_every_worker_of_the_host(make_app, logged):
    here, there = (Admin(make_app().test_client()) for _ in range(2))
    here.unlock()
    for turn in range(5):
        if turn % 2:
            assert rotate((here, there)[turn % 2], "wrong password").status_code == 401
        else:
            assert unlock(here, "wrong password") == 401
    for admin in (here, there):
        for response in (
            rotate(admin, "wrong password"),
            admin.send("POST", "vault/unlock", {"admin_password": PASSWORD}),
        ):
            assert response.status_code == 429
            assert response.get_json()["error"]["code"] == "too_many_attempts"
            assert 25 <= int(response.headers["Retry-After"]) <= 30
    assert here.ok("GET", "info")["vault_locked"] is False
    assert "wrong password" not in "".join(map(str, logged()))

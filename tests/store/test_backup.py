"""Copies of a database that is in use: what is in them, and what becomes of a damaged one."""

from __future__ import annotations

import os
import random
import stat
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Boolean, String

from tests.conftest import alembic_config, migrated
from tests.store.backup_kit import contents, copied, fill, restored
from tokenhub import store
from tokenhub.backup import Archive, BadArchive, back_up, back_up_before_migration, verify
from tokenhub.budgets import Account
from tokenhub.db import Database, expected_head
from tokenhub.db.sums_tables import REQUESTS, buckets
from tokenhub.db.traffic_tables import request_logs
from tokenhub.errors import ConfigError


@pytest.fixture
def other(tmp_path: Path, sqlite_template: Path) -> str:
    return f"sqlite:///{tmp_path / 'other' / 'other.sqlite'}"


def test_a_copy_has_every_row_and_is_for_its_owner_alone(database, tmp_path, other):
    fill(database)
    path = tmp_path / "copy.zip"
    manifest = back_up(database, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (manifest.schema, manifest.dialect) == (expected_head(), database.dialect)
    assert verify(path) == manifest
    assert manifest.rows > 60
    assert "admin_sessions" not in {table.name for table in manifest.tables}
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("copy.zip.")] == []


def test_a_copy_takes_nobodys_place(database, tmp_path):
    path = tmp_path / "copy.zip"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        back_up(database, path)
    assert path.read_text() == "mine"


def test_a_database_without_tables_is_not_copied(empty_dsn, tmp_path):
    with closing(Database(empty_dsn)) as database, pytest.raises(ConfigError, match="is empty"):
        back_up(database, tmp_path / "copy.zip")
    assert not list(tmp_path.glob("copy*"))


class Writers:
    """Threads that ingest; in each transaction a row, and the same once more in its sums."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(2)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        host_id, position = f"host-{number}", 0
        with closing(Database(self._dsn)) as database:
            while not self._stopping.is_set():
                batch = a_batch(host_id, position)
                database.write(partial(store.ingest, batch=batch))
                position += 1


def a_batch(host_id: str, position: int) -> store.Batch:
    values = {"cost_nanousd": 7, "request_id": f"{host_id}-{position}"}
    row = [values.get(name, _made_up(request_logs.c[name].type)) for name in store.LOG_COLUMNS]
    counted = {"requests": 1, "cost_nanousd": 7}
    sums = [counted.get(name, 0) for name in REQUESTS.values]
    return store.Batch(
        host_id=host_id,
        positions={1: (position, position + 1)},
        logs=[(host_id, 1, position, *row)],
        attempts=[],
        openings_new=[],
        openings_done=[],
        sums={REQUESTS: {(host_id, 0, *["x"] * len(REQUESTS.key)): sums}},
        charges={Account("key", "k", "total", 0): store.Charge(spent_nanousd=7, requests=1)},
    )


def _made_up(kind: object) -> object:
    return False if isinstance(kind, Boolean) else "x" if isinstance(kind, String) else 1


def test_copies_made_under_load_are_each_of_one_moment(database_dsn, tmp_path):
    counts = []
    with Writers(database_dsn), closing(Database(database_dsn)) as database:
        for number in range(6):
            time.sleep(0.1)
            back_up(database, tmp_path / f"{number}.zip")
    for number in range(6):
        dsn = f"sqlite:///{tmp_path / f'{number}.sqlite'}"
        restored(Archive(tmp_path / f"{number}.zip"), dsn, tmp_path)
        with closing(Database(dsn)) as found:
            rows = contents(found)
        requests = len(rows["request_logs"])
        assert sum(each[buckets.c.keys().index("requests")] for each in rows["buckets"]) == requests
        assert sum(each[-1] for each in rows["journal_offsets"]) == requests
        assert sum(each[4] for each in rows["budget_ledgers"]) == 7 * requests
        counts.append(requests)
    assert counts == sorted(set(counts)), "it was written to in between"


def damaged(data: bytes, rng: random.Random) -> Iterator[bytes]:
    for _ in range(60):
        at = rng.randrange(len(data))
        yield data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    for _ in range(5):
        yield data[: rng.randrange(len(data))]
    yield b""
    yield b"no zip at all"


def test_a_damaged_copy_is_refused_or_has_the_same_rows(sqlite_template, tmp_path):
    dsn = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    migrated(dsn)
    with closing(Database(dsn)) as database:
        fill(database)
        back_up(database, tmp_path / "copy.zip")
    rows = [list(Archive(tmp_path / "copy.zip").rows(table))
            for table in Archive(tmp_path / "copy.zip").manifest.tables]  # fmt: skip
    refused = 0
    for number, data in enumerate(damaged((tmp_path / "copy.zip").read_bytes(), random.Random(5))):
        path = tmp_path / f"{number}.zip"
        path.write_bytes(data)
        try:
            archive = Archive(path)
            assert [list(archive.rows(table)) for table in archive.manifest.tables] == rows
        except BadArchive as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 40


def test_rows_that_were_taken_out_are_missed(database, tmp_path):
    fill(database)
    back_up(database, tmp_path / "copy.zip")
    with zipfile.ZipFile(tmp_path / "copy.zip") as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    members["tables/providers.jsonl"] = members["tables/providers.jsonl"].split(b"\n", 1)[1]
    with zipfile.ZipFile(tmp_path / "less.zip", "w") as less:
        for name, data in members.items():
            less.writestr(name, data)
    with pytest.raises(BadArchive, match="providers are not all there"):
        verify(tmp_path / "less.zip")


def test_a_copy_of_an_unknown_schema_is_not_tried(database, tmp_path):
    back_up(database, tmp_path / "copy.zip")
    with zipfile.ZipFile(tmp_path / "copy.zip") as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    head = expected_head().encode()
    members["manifest.json"] = members["manifest.json"].replace(head, b"9999_later")
    with zipfile.ZipFile(tmp_path / "later.zip", "w") as later:
        for name, data in members.items():
            later.writestr(name, data)
    with pytest.raises(BadArchive, match=r"9999_later.*does not know"):
        verify(tmp_path / "later.zip")


def at_schema(path: Path, revision: str) -> str:
    dsn = f"sqlite:///{path}"
    command.upgrade(alembic_config(dsn), revision)
    return dsn


def add_provider(dsn: str) -> None:
    """As any version would have: with the columns of the first one."""
    with closing(Database(dsn)) as database:
        database.write(lambda connection: connection.exec_driver_sql(
            "INSERT INTO providers (id, type, base_url, enabled, cred_store, demo, revision, "
            "created_at, updated_at) VALUES ('p', 'openai', 'http://p', 1, 'none', 0, 1, 1, 1)"
        ))  # fmt: skip


def test_a_copy_of_an_older_schema_is_migrated_when_it_is_restored(database_dsn, tmp_path):
    old = at_schema(tmp_path / "old.sqlite", "0001_create_schema")
    add_provider(old)
    archive = copied(old, tmp_path / "copy.zip")
    assert archive.manifest.schema == "0001_create_schema"
    assert verify(tmp_path / "copy.zip") == archive.manifest
    restored(archive, database_dsn, tmp_path)
    with closing(Database(database_dsn)) as database:
        [provider] = database.read(store.load_providers).values()
    assert (provider.id, provider.enabled, provider.endpoints) == ("p", True, ())


def test_what_is_about_to_be_migrated_is_copied_and_the_last_five_are_kept(tmp_path):
    copies = tmp_path / "backups"
    dsn = at_schema(tmp_path / "hub.sqlite", "0001_create_schema")
    assert back_up_before_migration(dsn, copies) is None, "nothing is in it"
    add_provider(dsn)
    made = [path for _ in range(7) if (path := back_up_before_migration(dsn, copies))]
    assert sorted(copies.iterdir()) == sorted(made[2:])
    assert verify(made[-1]).schema == "0001_create_schema"
    assert back_up_before_migration(migrated(dsn), copies) is None, "nothing will be migrated"


def test_nothing_is_copied_where_there_is_no_file_yet(tmp_path):
    dsn = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    assert back_up_before_migration(dsn, tmp_path / "backups") is None
    assert os.listdir(tmp_path) == []

"""A gateway that is copied while it serves, and put back after it has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from tests.system.harness import (
    ADMIN_TOKEN,
    PROVIDER_KEY,
    ROOT,
    VAULT_PASSWORD,
    Gateway,
    kill,
    running,
)
from tests.system.load import Load, rows_by_id
from tokenhub import store
from tokenhub.budgets import Account
from tokenhub.config import Settings
from tokenhub.db import Database
from tokenhub.db.traffic_tables import request_logs

pytestmark = pytest.mark.system


def command(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tokenhub", *arguments],
        cwd=ROOT, env=gateway.env, capture_output=True, text=True, timeout=90,
    )  # fmt: skip


def everything_in(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return b"\n".join(map(archive.read, archive.namelist()))


def count_segments(gateway: Gateway) -> int:
    return len(list((gateway.directory / "data" / "journal").glob("*-*")))


def books_of(gateway: Gateway) -> tuple[int, int]:
    """What the key has spent by its ledger, and what its requests cost."""

    def work(connection: Connection) -> tuple[int, int]:
        account = Account("key", gateway.key_id, "total", 0)
        spent = store.find_ledgers(connection, [account])[account].spent_nanousd
        costs = connection.scalar(select(func.sum(request_logs.c.cost_nanousd)))
        return spent, int(costs or 0)

    with closing(Database(Settings.from_env(gateway.env).db_dsn)) as database:
        return database.read(work)


def test_a_copy_made_under_load_is_put_back_and_what_the_journal_has_is_entered_once(tmp_path, dsn):
    is_file = dsn.startswith("sqlite")
    copy = tmp_path / "copy.zip"
    with running(tmp_path, dsn) as gateway:
        gateway.add_model("stream-8-10")
        with Load(gateway) as tally:
            time.sleep(1.5)
            early = set(tally.answered)
            time.sleep(2)
            done = command(gateway, "backup", "--to", str(copy))
            assert done.returncode == 0, done.stderr
            gateway.add_model("added-later")
            done = command(gateway, "restore", str(copy), "--yes")
            assert done.returncode == 1
            assert "another gateway is using" in done.stderr
            time.sleep(1)
        assert len(early) > 5 and tally.refused == []
        plain = everything_in(copy)
        for secret in (PROVIDER_KEY, VAULT_PASSWORD, ADMIN_TOKEN, gateway.key):
            assert secret.encode() not in plain

        # Killed, a host of a cluster would count as alive for half a minute.
        assert gateway.process is not None
        if is_file:
            for pid in (gateway.process.popen.pid, *gateway.worker_pids()):
                kill(pid)  # all of them at once: who is left would end in an orderly manner
            gateway.process.popen.wait()
        else:
            gateway.process.stop()
        done = command(gateway, "restore", str(copy), "--yes")
        assert done.returncode == 0, done.stderr
        if is_file:
            assert "records of the journal were entered" in done.stdout
            assert count_segments(gateway) == 0

        gateway.start()
        rows = rows_by_id(gateway)
        assert [len(found) for found in rows.values()] == [1] * len(rows), "none twice"
        assert early <= set(rows)
        if is_file:  # nothing had left the journal yet
            assert tally.answered <= set(rows)
        spent, costs = books_of(gateway)
        assert spent == costs > 0
        assert gateway.chat().status == 200, "key, vault and catalog are as they were"
        models = {each["id"] for each in gateway.admin("GET", "models")["items"]}
        assert "stream-8-10" in models and "added-later" not in models
        assert command(gateway, "verify", str(copy)).returncode == 0
        assert os.stat(copy).st_mode & 0o077 == 0

"""One gateway to a directory, and the same small files for everyone who asks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tokenhub import data_dir, host, journal
from tokenhub.config import Settings
from tokenhub.errors import ConfigError


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(data_dir, "LOCK_SECS", 0.2)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_directory_is_its_owners_alone(tmp_path):
    data_dir.prepare(tmp_path / "a" / "b")
    assert mode_of(tmp_path / "a" / "b") == 0o700
    data_dir.prepare(tmp_path / "a" / "b")


def test_a_lock_keeps_others_out_until_it_is_given_back(tmp_path):
    path = tmp_path / "lock"
    held = data_dir.lock(path, "the place")
    with pytest.raises(ConfigError, match="another gateway is using the place"):
        data_dir.lock(path, "the place")
    os.close(held)
    os.close(data_dir.lock(path, "the place"))


def test_a_lock_lasts_as_long_as_a_forked_worker_and_no_longer(tmp_path):
    path = tmp_path / "lock"
    held = data_dir.lock(path, "it")
    worker = os.fork()
    if worker == 0:
        signal.pause()
        os._exit(0)
    os.close(held)
    with pytest.raises(ConfigError):
        data_dir.lock(path, "it")
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    os.close(data_dir.lock(path, "it"))


def test_a_program_that_a_worker_runs_does_not_hold_its_lock(tmp_path):
    path = tmp_path / "lock"
    held = data_dir.lock(path, "it")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as program:
        os.close(held)
        os.close(data_dir.lock(path, "it"))
        program.communicate(b"\n")


def test_a_secret_is_made_once_and_read_by_its_owner_alone(tmp_path):
    path = tmp_path / "secret"
    first = data_dir.secret(path)
    assert len(first) == 64
    assert data_dir.secret(path) == first
    assert mode_of(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_all_who_ask_at_once_get_the_same_secret(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: data_dir.secret(tmp_path / "secret"), range(16)))
    assert len(set(found)) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "secret"]


def test_a_host_has_one_id_and_one_admin_token(tmp_path):
    assert data_dir.host_id(tmp_path).startswith("host_")
    assert data_dir.host_id(tmp_path) == data_dir.host_id(tmp_path)
    assert data_dir.admin_token(tmp_path) == (tmp_path / ".admin-token").read_text().strip()


def settings_for(directory: Path, dsn: str = "") -> Settings:
    return Settings.from_env({"TOKENHUB_DATA_DIR": str(directory), "TOKENHUB_DB_DSN": dsn})


def test_a_second_gateway_is_kept_off_the_directory(tmp_path):
    first = host.prepare(settings_for(tmp_path))
    with pytest.raises(ConfigError, match="another gateway"):
        host.prepare(settings_for(tmp_path))
    for fd in first.locks:
        os.close(fd)


def test_a_second_gateway_is_kept_off_the_database_by_whatever_name(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "other").symlink_to(tmp_path / "real")
    first = host.prepare(settings_for(tmp_path / "one", f"sqlite:///{tmp_path}/real/hub.sqlite"))
    for dsn in (f"sqlite:///{tmp_path}/real/hub.sqlite", f"sqlite:///{tmp_path}/other/hub.sqlite"):
        with pytest.raises(ConfigError, match="another gateway"):
            host.prepare(settings_for(tmp_path / "two", dsn))
    for fd in first.locks:
        os.close(fd)


def test_a_start_removes_segments_that_never_were_ready(tmp_path):
    directory = tmp_path / "journal"
    directory.mkdir()
    (directory / "0000000000000001-w1.new").write_bytes(b"\0" * 100)
    (directory / "0000000000000002-w1.open").write_bytes(b"\0" * 100)
    prepared = host.prepare(settings_for(tmp_path))
    assert [each.number for each in journal.list_segments(directory)] == [2]
    assert not list(directory.glob("*.new"))
    for fd in prepared.locks:
        os.close(fd)


def test_a_private_file_is_replaced_as_a_whole_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "env"
    path.write_text("an older and longer text, readable for all")
    path.chmod(0o644)
    (tmp_path / "env.new").write_text("left by a crash")
    data_dir.replace_file(path, b"A=1\n")
    assert path.read_text() == "A=1\n"
    assert mode_of(path) == 0o600
    assert os.listdir(tmp_path) == ["env"]

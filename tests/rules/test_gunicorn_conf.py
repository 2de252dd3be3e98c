"""The arbiter stays small: it patches first, and imports nothing that only a worker needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = (
    "flask", "werkzeug", "sqlalchemy", "numpy", "requests", "geventhttpclient", "psycopg", "bcrypt",
    "argon2", "cryptography", "prometheus_client", "apscheduler", "orjson",
)  # fmt: skip

SCRIPT = """
import importlib.util, sys, threading, _thread
was_imported = {"ssl", "socket", "select"} & set(sys.modules)
spec = importlib.util.spec_from_file_location("conf", "gunicorn.conf.py")
conf = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conf)
from gevent import monkey
"""


def run(script: str, tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Load the configuration as gunicorn does, in a process of its own."""
    env = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "TOKENHUB_DATA_DIR": str(tmp_path),
        **environ,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT + script],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def test_the_arbiter_imports_little_and_starts_no_thread(tmp_path):
    done = run(
        f"print([name for name in {HEAVY!r} if name in sys.modules], _thread._count())", tmp_path
    )
    assert (done.stdout, done.stderr) == ("[] 0\n", "")


def test_everything_is_patched_before_anything_is_imported(tmp_path):
    names = ("socket", "ssl", "select", "threading", "time", "subprocess", "os", "signal")
    done = run(f"print([each for each in {names!r} if not monkey.is_module_patched(each)])",
               tmp_path)  # fmt: skip
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_patch_is_the_first_thing_that_is_done():
    lines = (ROOT / "gunicorn.conf.py").read_text().split('"""')[2].split()
    assert lines[:6] == ["from", "gevent", "import", "monkey", "monkey.patch_all()", "import"]


def test_requests_works_after_the_patch_without_a_warning(tmp_path):
    done = run("import requests, ssl; ssl.create_default_context(); print('fine')", tmp_path)
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_bad_settings_end_the_start_in_one_line(tmp_path):
    done = run("", tmp_path, TOKENHUB_WORKERS="many", TOKENHUB_DEMO="perhaps")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("tokenhub cannot start: ")
    assert done.stderr.count("\n") == 1
    assert "TOKENHUB_WORKERS" in done.stderr and "TOKENHUB_DEMO" in done.stderr


@pytest.mark.parametrize("name", ["sequence", "gateway.lock"])
def test_a_data_directory_that_cannot_be_used_ends_the_start_in_one_line(tmp_path, name):
    if name == "sequence":
        (tmp_path / "journal").mkdir()
        (tmp_path / "journal" / name).write_text("not a number")
    else:
        (tmp_path / name).mkdir()
    done = run("conf.on_starting(object())", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("tokenhub cannot start: ")
    assert done.stderr.count("\n") == 1


def test_two_workers_forked_in_a_row_never_share_a_slot(tmp_path):
    done = run(
        """
from types import SimpleNamespace as Thing
from tokenhub import host
host.prepared = host.prepare(conf.settings)
server = Thing(WORKERS={}, log=Thing(error=print))
slots = []
for pid in range(5):
    worker = Thing(slot=None)
    conf.pre_fork(server, worker)  # nobody has sat down yet
    server.WORKERS[pid] = worker
    slots.append(worker.slot)
del server.WORKERS[1]
late = Thing(slot=None)
conf.pre_fork(server, late)
print(slots, late.slot)
""",
        tmp_path,
        TOKENHUB_WORKERS="2",
    )
    assert done.stdout == "no free slot for a worker\n[0, 1, 2, 3, None] 1\n"
    assert done.stderr == ""

"""The database away, the disk full: what is served, what is refused, what is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest

from tests.system.harness import ADMIN_TOKEN, chat_body, kill, running, wait_until
from tests.system.load import Load, rows_by_id

pytestmark = pytest.mark.system


@pytest.mark.postgres
@pytest.mark.parametrize("outage_secs", [12, pytest.param(60, marks=pytest.mark.rehearse)])
def test_with_the_database_gone_requests_are_served_and_their_rows_arrive_later(
    tmp_path, postgres_server, outage_secs
):
    with running(
        tmp_path, postgres_server.create_database(), extra={"TOKENHUB_MAX_STALE_SECS": "4"}
    ) as gateway:
        gateway.add_model("stream-8-10")
        with Load(gateway, clients=3) as tally:
            time.sleep(1)
            postgres_server.stop()
            began = time.monotonic()
            assert gateway.ask("GET", "/readyz").status == 200
            wait_until(lambda: gateway.ask("GET", "/readyz").status == 503, 10, "not ready")
            assert time.monotonic() - began > 3
            write = gateway.ask("POST", "/admin/v1/apikeys", {"name": "x"}, token=ADMIN_TOKEN)
            assert write.status == 503
            assert write.json["error"]["code"] == "database_away"
            kill(gateway.worker_pids()[0])  # its place stays empty until the catalog can be read
            answered = len(tally.answered)
            time.sleep(outage_secs - 6)
            assert len(tally.answered) > answered
            postgres_server.start()
            wait_until(lambda: gateway.ask("GET", "/readyz").status == 200, 20, "ready again")
            wait_until(gateway.is_up, 20, "both workers")
        assert not tally.refused, tally.refused[:3]
        wait_until(lambda: tally.answered <= set(rows_by_id(gateway)), 30, "all rows")
        assert all(len(rows) == 1 for rows in rows_by_id(gateway).values())


@contextmanager
def small_disk(path, megabytes: int):
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(path)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        if os.environ.get("TOKENHUB_TEST_REQUIRE") == "all" and os.geteuid() == 0:
            pytest.fail("cannot mount a small disk")
        pytest.skip("a small disk needs the right to mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_on_a_full_disk_nothing_is_paid_and_nothing_accepted_is_lost(tmp_path):
    """A segment's blocks are its own, so what has room is served; what has none is not begun."""
    with (
        small_disk(tmp_path / "disk", 100),
        running(
            tmp_path, f"sqlite:///{tmp_path / 'hub.sqlite'}",
            extra={"TOKENHUB_DATA_DIR": str(tmp_path / "disk/data")},
        ) as gateway,
    ):  # fmt: skip
        fill(tmp_path / "disk" / "filler")
        answered = [gateway.chat() for _ in range(40)]
        assert {reply.status for reply in answered} == {200}

        # A worker that starts now gets no segment: it refuses before any provider is asked.
        for pid in gateway.worker_pids():
            kill(pid)
        fill(tmp_path / "disk" / "filler2")
        wait_until(gateway.is_up, 20, "new workers")
        asked = gateway.simulator_stats()["requests"]
        refused = [reply for reply in (gateway.chat() for _ in range(20)) if reply.status != 200]
        for reply in refused:
            assert (reply.status, reply.json["error"]["code"]) == (503, "journal_full")
            assert reply.headers["retry-after"]
        assert gateway.simulator_stats()["requests"] - asked == 20 - len(refused)

        for name in ("filler", "filler2"):
            (tmp_path / "disk" / name).unlink()
        wait_until(lambda: all(gateway.chat().status == 200 for _ in range(10)), 10, "room again")
        ids = {reply.headers["x-request-id"] for reply in answered}
        wait_until(lambda: ids <= set(rows_by_id(gateway)), 20, "all rows")


def test_a_worker_without_journal_room_refuses_before_anything_is_paid(tmp_path):
    """Two workers take all of the journal that is allowed; a third finds none left."""
    with running(
        tmp_path, f"sqlite:///{tmp_path / 'hub.sqlite'}", extra={"TOKENHUB_JOURNAL_MAX_MB": "64"}
    ) as gateway:
        assert gateway.process is not None
        os.kill(gateway.process.popen.pid, signal.SIGTTIN)
        gateway.workers = 3
        wait_until(gateway.is_up, 20, "a third worker")
        asked = gateway.simulator_stats()["requests"]
        replies = []
        for worker in gateway.each_worker():
            replies.append(
                worker.ask("POST", "/v1/chat/completions", chat_body("sim-fast"), token=gateway.key)
            )
            worker.close()
        refused = [reply for reply in replies if reply.status != 200]
        assert len(refused) == 1
        assert (refused[0].status, refused[0].json["error"]["code"]) == (503, "journal_full")
        assert refused[0].headers["retry-after"]
        assert gateway.simulator_stats()["requests"] - asked == 2


def fill(path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * (1 << 16))

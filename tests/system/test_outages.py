"""The database away, the disk full: what is served, what is refused, what is kept."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager

import pytest

from tests.system.harness import ADMIN_TOKEN, running, wait_until
from tests.system.load import Load, rows_by_id

pytestmark = pytest.mark.system


@pytest.mark.postgres
def test_with_the_database_gone_requests_are_served_and_their_rows_arrive_later(
    tmp_path, postgres_server
):
    outage_secs = 12
    with running(
        tmp_path, postgres_server.create_database(), extra={"TOKENHUB_MAX_STALE_SECS": "4"}
    ) as gateway:
        with Load(gateway, clients=3) as tally:
            gateway.add_model("stream-8-10")
            time.sleep(1)
            postgres_server.stop()
            began = time.monotonic()
            assert gateway.ask("GET", "/readyz").status == 200
            wait_until(lambda: gateway.ask("GET", "/readyz").status == 503, 10, "not ready")
            assert time.monotonic() - began > 3
            write = gateway.ask("POST", "/admin/v1/apikeys", {"name": "x"}, token=ADMIN_TOKEN)
            assert write.status == 503
            assert write.json["error"]["code"] == "database_away"
            answered = len(tally.answered)
            time.sleep(outage_secs - 6)
            assert len(tally.answered) > answered
            postgres_server.start()
            wait_until(lambda: gateway.ask("GET", "/readyz").status == 200, 20, "ready again")
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
    """Room is refused before a provider is asked; what was accepted is in the log."""
    with (
        small_disk(tmp_path / "disk", 160),
        running(
            tmp_path, f"sqlite:///{tmp_path / 'hub.sqlite'}",
            extra={"TOKENHUB_DATA_DIR": str(tmp_path / "disk/data")},
        ) as gateway,
    ):  # fmt: skip
        before = gateway.chat()
        assert before.status == 200
        filler = tmp_path / "disk" / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(b"\0" * (1 << 20))
                    file.flush()
            except OSError:
                pass
        # The allocated segments still serve, for their blocks are theirs; then it is 503.
        answered = [before.headers["x-request-id"]]
        for _ in range(40):
            reply = gateway.chat()
            assert reply.status == 200
            answered.append(reply.headers["x-request-id"])
        filler.unlink()
        wait_until(lambda: set(answered) <= set(rows_by_id(gateway)), 20, "all rows")

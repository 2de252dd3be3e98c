"""Views of a gateway that has served for months: as fast as on the first day.

10 million requests over 90 days, 200 keys, 40 models. `TOKENHUB_TEST_ROWS` takes fewer.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import quantiles

import pytest

from tests.big_questions import QUESTIONS, address_of
from tests.big_tables import DAYS, Size, fill
from tests.system.harness import ADMIN_TOKEN, Gateway, Pinned, wait_until

pytestmark = [pytest.mark.system, pytest.mark.rehearse]

ROWS = int(os.environ.get("TOKENHUB_TEST_ROWS", "10000000"))
ASKED = 40
"""How often each kind of question is asked, each time of something else."""
P95_MS = 200
START_SECS = 120
"""An SQLite file is looked through for damage first."""


@pytest.fixture
def old(tmp_path: Path, dsn: str) -> Iterator[tuple[Gateway, Size]]:
    """A gateway with a past."""
    gateway = Gateway(tmp_path, dsn)
    size = Size(ROWS, int(time.time() * 1000))
    began = time.monotonic()
    gateway.migrate()
    fill(dsn, size)
    print(f"\n{ROWS} rows in {time.monotonic() - began:.0f} s")
    try:
        gateway.start(wait=False)
        wait_until(gateway.is_up, START_SECS, "gateway is up")
        yield gateway, size
    finally:
        gateway.stop()


def test_every_view_of_ten_million_requests_is_there_at_once(old):
    gateway, size = old
    print(f"{'':32}   p50   p95   max ms   of {DAYS} days, {ROWS} requests")
    took = measure(gateway, size)
    late = {name: p95 for name, (_, p95, _) in took.items() if p95 > P95_MS}
    assert late == {}


def measure(gateway: Gateway, size: Size) -> dict[str, tuple[float, float, float]]:
    """Median, p95 and longest time of each kind of question in ms; prints them."""
    found = {}
    with closing(Pinned(gateway.port, timeout=120)) as connection:
        for name in QUESTIONS:
            rng, took = random.Random(11), []
            for _ in range(ASKED):
                address = address_of(name, rng, size)
                began = time.monotonic()
                reply = connection.ask("GET", address, token=ADMIN_TOKEN)
                took.append((time.monotonic() - began) * 1000)
                assert reply.status == 200, (address, reply.body)
            p50, p95 = (quantiles(took, n=20)[at] for at in (9, 18))
            found[name] = (p50, p95, max(took))
            print(f"{name:32}{p50:6.0f}{p95:6.0f}{max(took):6.0f}")
    return found

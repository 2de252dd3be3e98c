"""Metrics of real workers that come and go."""

from __future__ import annotations

import re

import pytest

from tests.system.harness import ADMIN_TOKEN, Gateway, Pinned, kill, wait_until

pytestmark = pytest.mark.system


def scrape(connection: Gateway | Pinned) -> dict[str, float]:
    """Every sample, by its name and labels as they are written."""
    reply = connection.ask("GET", "/metrics", token=ADMIN_TOKEN)
    assert reply.status == 200
    lines = [line for line in reply.body.decode().splitlines() if line[0] != "#"]
    found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}
    assert len(found) == len(lines), "a series came twice"
    return found


def total(found: dict[str, float], name: str) -> float:
    return sum(value for key, value in found.items() if re.match(rf"{name}[{{]", key))


@pytest.mark.rehearse
def test_after_twenty_killed_workers_all_is_counted_and_a_scrape_is_no_longer(gateway):
    assert gateway.chat().status == 200
    before = scrape(gateway)
    for number in range(1, 21):
        pids = gateway.worker_pids()
        kill(pids[number % len(pids)])
        gateway.wait_for_peers()
        assert gateway.chat().status == 200

        def has_gone(exits: int = number) -> bool:
            return scrape(gateway)["tokenhub_worker_exits_total"] == exits

        wait_until(has_gone)
    wait_until(lambda: scrape(gateway)["tokenhub_workers"] == 2)
    found = []
    for connection in gateway.each_worker():
        found.append(scrape(connection))
        connection.close()
    for each in found:
        assert total(each, "tokenhub_requests_total") == 21
        assert total(each, "tokenhub_attempts_total") == 21
        assert each["tokenhub_overhead_seconds_count"] == 21
        slots = {key for key in each if "slot=" in key}
        assert set(each) - slots == set(before) - {key for key in before if "slot=" in key}
    wait_until(lambda: scrape(gateway)["tokenhub_journal_waiting_bytes"] == 0)
    assert scrape(gateway)["tokenhub_journal_lag_seconds"] < 5

"""Budgets over workers and hosts: not a request more than there is money for, whatever dies.

Whoever is interrupted is billed, nothing is handed out twice, and what was not used comes back.
"""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest

from tests.system import budget_kit as kit
from tests.system.budget_kit import CENT, Books, Payer
from tests.system.harness import ADMIN_TOKEN, Gateway, chat_body, kill, wait_until
from tokenhub.escrow import REMEMBER_SECS

pytestmark = [pytest.mark.system, pytest.mark.postgres]

REFUSALS = {"insufficient_quota", "budget_in_flight"}


@pytest.fixture(scope="module")
def both(tmp_path_factory, postgres_server) -> Iterator[list[Gateway]]:
    with kit.two_hosts(tmp_path_factory.mktemp("hosts"), postgres_server) as found:
        yield found


@pytest.fixture
def hosts(both: list[Gateway]) -> list[Gateway]:
    """Two hosts that run, whatever the test before has left."""
    for host in both:
        if host.process is None or host.process.popen.poll() is not None:
            host.start()
    return both


def check_all(hosts: list[Gateway], payer: Payer, cents: float) -> None:
    """Both hosts say that so much was spent, and that nothing is held back."""
    for host in hosts:
        found = kit.settled(host, payer, cents)
        assert found.remaining_usd == 0
        assert kit.spend(host, payer) == pytest.approx(cents * CENT)
    time.sleep(REMEMBER_SECS)  # so long a worker repeats what it said last


def test_of_400_at_once_on_two_hosts_exactly_the_37_that_are_paid_for_are_answered(hosts):
    payer = kit.make_payer(hosts[0], 37)
    replies = kit.ask_many(hosts, [payer], 400)
    codes = Counter(map(kit.code_of, replies))
    assert codes.pop("") == 37, codes
    assert set(codes) <= REFUSALS
    for reply in replies:
        if reply.status != 200:
            assert reply.status == 429
            is_final = kit.code_of(reply) == "insufficient_quota"
            assert reply.headers["x-should-retry"] == str(not is_final).lower()
            assert ("retry-after" in reply.headers) is not is_final
    check_all(hosts, payer, 37)
    assert {kit.code_of(kit.ask(host, payer)) for host in hosts} == {"insufficient_quota"}


def test_two_keys_of_a_team_share_its_budget(hosts):
    team = hosts[0].admin("POST", "teams", {"name": "two"})["team"]["id"]
    payers = [
        Payer(*kit.make_payer(hosts[0], None, team_id=team)[:2], "team", team) for _ in range(2)
    ]
    kit.set_budget(hosts[0], payers[0], 37)
    replies = kit.ask_many(hosts, payers, 200)
    codes = Counter(map(kit.code_of, replies))
    assert codes.pop("") == 37, codes
    assert set(codes) <= REFUSALS
    check_all(hosts, payers[0], 37)


def test_a_stream_that_its_client_cuts_costs_what_was_produced_and_frees_the_rest(hosts):
    payer = kit.make_payer(hosts[0], 1)
    body = chat_body("stream-10-200", stream=True, max_tokens=kit.TOKENS)
    client = http.client.HTTPConnection("127.0.0.1", hosts[0].port, timeout=20)
    headers = {"Authorization": f"Bearer {payer.key}", "Content-Type": "application/json"}
    client.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    stream = client.getresponse()
    while b"content" not in stream.readline():
        pass
    assert kit.code_of(kit.ask(hosts[1], payer)) == "budget_in_flight"
    client.close()

    def settled() -> Books | None:
        found = kit.books(hosts[1], payer)
        return found if found.spent_usd and not found.reserved_usd else None

    found = wait_until(settled, 10)
    assert 0 < found.spent_usd < CENT
    assert found.remaining_usd == pytest.approx(CENT - found.spent_usd)
    assert kit.ask(hosts[1], payer, max_tokens=2).status == 200


def test_a_failover_to_a_dearer_model_sets_more_aside(hosts):
    hosts[0].add_model("fault-500", input_per_1k=0, output_per_1k=1)
    hosts[0].add_model("sim-dear", input_per_1k=0, output_per_1k=4)
    only = {"models": ["fault-500", "sim-dear"], "policy": {"mode": "cheap"}}
    rich = kit.make_payer(hosts[0], 5, **only)
    reply = kit.ask(hosts[0], rich, "")
    assert (reply.status, reply.headers["x-tokenhub-attempts"]) == (200, "2")
    kit.settled(hosts[1], rich, 4)
    poor = kit.make_payer(hosts[0], 3, **only)
    assert kit.ask(hosts[0], poor, "").status != 200
    kit.settled(hosts[1], poor, 0)


def test_who_names_a_model_too_dear_is_refused_and_who_does_not_gets_a_cheaper_one(hosts):
    hosts[0].add_model("sim-dearer", weight=10, input_per_1k=0, output_per_1k=9)
    only = {"models": ["sim-dearer", kit.MODEL], "policy": {"mode": "high_confidence"}}
    payer = kit.make_payer(hosts[0], 1, **only)
    reply = kit.ask(hosts[0], payer, "sim-dearer")
    assert (reply.status, kit.code_of(reply)) == (429, "insufficient_quota")
    reply = kit.ask(hosts[0], payer, "")
    assert (reply.status, reply.headers["x-negotiated-model"]) == (200, kit.MODEL)


def test_a_model_without_a_price_is_not_for_keys_with_a_hard_budget(hosts):
    hosts[0].add_model("sim-unpriced", input_per_1k=None, output_per_1k=None)
    reply = kit.ask(hosts[0], kit.make_payer(hosts[0], 1), "sim-unpriced")
    assert (reply.status, kit.code_of(reply)) == (400, "price_unknown")
    assert kit.ask(hosts[0], kit.make_payer(hosts[0], None), "sim-unpriced").status == 200


def test_a_request_without_a_limit_gets_the_models(hosts):
    hosts[0].add_model("sim-short", input_per_1k=0, output_per_1k=1, max_output_tokens=5)
    payer = kit.make_payer(hosts[0], 1)
    reply = kit.ask(hosts[0], payer, "sim-short", max_tokens=None)
    assert reply.headers["x-tokenhub-max-tokens"] == "5"
    assert reply.json["usage"]["completion_tokens"] <= 5


@pytest.mark.parametrize("kind", [{"hard": False}, {"mode": "shadow"}], ids=["soft", "shadow"])
def test_a_budget_that_only_tells_refuses_nobody(hosts, kind):
    payer = kit.make_payer(hosts[0], None)
    kit.set_budget(hosts[0], payer, 1, **kind)
    assert {kit.ask(host, payer).status for host in hosts * 2} == {200}
    assert kit.settled(hosts[0], payer, 4).remaining_usd == 0


def test_paid_makes_room_on_every_host_at_once(hosts):
    payer = kit.make_payer(hosts[0], 1)
    assert kit.ask(hosts[0], payer).status == 200
    kit.settled(hosts[0], payer, 1)
    assert {kit.code_of(kit.ask(host, payer)) for host in hosts} == {"insufficient_quota"}
    hosts[0].admin("POST", f"budgets/key/{payer.key_id}/paid", {"reason": "invoice 7"})
    time.sleep(REMEMBER_SECS)
    assert kit.ask(hosts[1], payer).status == 200
    assert kit.spend(hosts[1], payer) >= CENT, "what was spent stays known"


def kill_host(host: Gateway) -> None:
    """All of its processes at once."""
    assert host.process is not None
    pids = [host.process.popen.pid, *host.worker_pids()]
    for pid in pids:
        kill(pid)
    host.process.popen.wait(5)


def test_a_killed_worker_leaves_a_bill_and_the_rest_of_the_money(hosts):
    payer = kit.make_payer(hosts[0], 20)
    with kit.in_flight(hosts[1], payer, 10) as asked:
        assert kit.books(hosts[0], payer).reserved_usd >= 10 * kit.CENT
        kill(hosts[1].worker_pids()[0])
        ended = [each.result() for each in asked]
    assert any(each is None for each in ended), "one of both had requests in flight"
    assert {each.status for each in ended if each is not None} <= {200}
    for host in hosts:
        kit.settled(host, payer, 10)
    replies = kit.ask_many(hosts, [payer], 30)
    assert Counter(map(kit.code_of, replies))[""] == 10
    kit.settled(hosts[0], payer, 20)
    wait_until(hosts[1].is_up, 10)


def test_what_a_killed_host_holds_is_nobody_elses_until_it_is_back(hosts):
    payer = kit.make_payer(hosts[0], 20)
    with kit.in_flight(hosts[1], payer, 10) as asked:
        kill_host(hosts[1])
        assert {each.result() for each in asked} == {None}
    replies = kit.ask_many(hosts[:1], [payer], 30)
    codes = Counter(map(kit.code_of, replies))
    assert codes[""] == 10
    assert set(codes) == {"", "budget_in_flight"}
    time.sleep(0.5)
    assert kit.books(hosts[0], payer).reserved_usd >= 10 * kit.CENT
    hosts[1].start()
    for host in hosts:
        kit.settled(host, payer, 20)


def test_a_killed_arbiter_takes_its_requests_along_and_leaves_their_bill(hosts):
    payer = kit.make_payer(hosts[0], 20)
    with kit.in_flight(hosts[1], payer, 10) as asked:
        assert hosts[1].process is not None
        kill(hosts[1].process.popen.pid)
        hosts[1].process.popen.wait(5)
        assert {each.result() for each in asked} == {None}
    hosts[1].start()
    found = kit.settled(hosts[0], payer, 10)
    assert found.remaining_usd == pytest.approx(10 * kit.CENT)
    assert Counter(map(kit.code_of, kit.ask_many(hosts, [payer], 30)))[""] == 10


def test_what_a_host_holds_that_is_gone_for_good_is_released_by_hand(hosts):
    payer = kit.make_payer(hosts[0], 20)
    gone = kit.host_id(hosts[1])
    with kit.in_flight(hosts[1], payer, 10) as asked:
        kill_host(hosts[1])
        assert {each.result() for each in asked} == {None}
    early = hosts[0].ask("POST", "/admin/v1/budgets/release", {"host_id": gone}, token=ADMIN_TOKEN)
    assert (early.status, kit.code_of(early)) == (409, "host_alive")
    with psycopg.connect(hosts[0].dsn.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("UPDATE hosts SET seen_at = seen_at - 60000 WHERE id = %s", [gone])
    released = hosts[0].admin("POST", "budgets/release", {"host_id": gone})
    assert released["released_usd"] == pytest.approx(10 * kit.CENT)
    replies = kit.ask_many(hosts[:1], [payer], 30)
    assert Counter(map(kit.code_of, replies))[""] == 20
    # It was not gone for good: its requests are billed all the same, and nothing is held back.
    hosts[1].start()
    for host in hosts:
        assert kit.settled(host, payer, 30).remaining_usd == 0
    time.sleep(REMEMBER_SECS)
    assert {kit.code_of(kit.ask(host, payer)) for host in hosts} == {"insufficient_quota"}


def test_a_host_that_is_stopped_leaves_nothing_behind(hosts):
    payer = kit.make_payer(hosts[0], 100)
    assert kit.ask(hosts[1], payer, max_tokens=900, stop=["asked"]).status == 200
    assert hosts[1].process is not None
    hosts[1].process.stop()
    assert kit.books(hosts[0], payer).reserved_usd == 0
    hosts[1].start()


@pytest.mark.parametrize("outage_secs", [2, pytest.param(30, marks=pytest.mark.rehearse)])
def test_without_the_database_a_host_spends_what_it_holds_and_no_more(
    hosts, postgres_server, outage_secs
):
    limited, free = kit.make_payer(hosts[0], 100), kit.make_payer(hosts[0], None)
    time.sleep(0.5)  # every worker has heard of them
    # Much is set aside and little used: the rest is this host's for a second.
    first = kit.ask(hosts[0], limited, max_tokens=300, stop=["asked"])
    assert first.status == 200
    postgres_server.stop()
    try:
        codes = Counter(kit.code_of(kit.ask(hosts[0], limited)) for _ in range(35))
        assert set(codes) <= {"", "budget_unavailable"}
        assert 1 <= codes[""] <= 29
        deadline = time.monotonic() + outage_secs
        while time.monotonic() < deadline:
            assert kit.ask(hosts[0], free).status == 200
            assert kit.code_of(kit.ask(hosts[0], limited)) == "budget_unavailable"
            assert kit.ask(hosts[1], limited).status == 503
    finally:
        postgres_server.start()
    first_usd = float(first.headers["x-tokenhub-cost-usd"])
    for host in hosts:
        kit.settled(host, limited, codes[""] + first_usd / kit.CENT)
    wait_until(lambda: kit.ask(hosts[1], limited).status == 200, 10)

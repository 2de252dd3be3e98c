"""A vault that no administrator uses locks itself: for them at once, for requests only if told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import gevent
import pytest

from tests.unit.vault_kit import PASSWORD, Rows, Shared, make_vault
from tokenhub.errors import VaultLocked
from tokenhub.vault import AutoLock, Vault, provider_entry, secret_entry

SECS = 60
NAME, OWN = provider_entry("openai"), secret_entry("smtp")


class Workers:
    """Two workers of one host, and who writes the audit."""

    def __init__(self, *, stops_traffic: bool) -> None:
        self.shared, self.rows = Shared(), Rows()
        self.clock = self.shared.clock
        auto_lock = AutoLock(SECS, stops_traffic)
        self.one, self.other = (
            make_vault(self.rows, shared=self.shared, auto_lock=auto_lock) for _ in range(2)
        )
        self.audit: list[str] = []
        self.one.unlock(PASSWORD)
        self.rows.entries = {each: self.one.seal(each, "value") for each in (NAME, OWN)}

    def tick(self) -> None:
        self.other.lock_if_idle(lambda: self.audit.append("vault.autolock"))

    def pass_secs(self, secs: float) -> None:
        self.clock.pass_secs(secs)

    def uses(self) -> list[Callable[[Vault], object]]:
        return [
            Vault.use,
            lambda vault: vault.seal(OWN, "x"),
            lambda vault: vault.open(OWN, self.rows.entries[OWN]),
        ]


@pytest.fixture(params=[False, True], ids=["traffic goes on", "traffic stops"])
def workers(request) -> Workers:
    return Workers(stops_traffic=request.param)


@pytest.fixture
def lenient() -> Workers:
    return Workers(stops_traffic=False)


def is_refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except VaultLocked as error:
        return error.code == "vault_locked"
    return False


@pytest.mark.parametrize("use", range(3))
def test_each_use_by_an_administrator_keeps_it_open_for_all(workers, use):
    for _ in range(5):
        workers.pass_secs(SECS - 0.001)
        assert not workers.one.is_locked
        workers.uses()[use](workers.other)
    workers.tick()
    assert workers.audit == []


def test_without_a_use_no_worker_takes_it_for_open_whether_or_not_anybody_has_looked(workers):
    workers.pass_secs(SECS)
    for vault in (workers.one, workers.other):
        assert vault.is_locked
        for use in workers.uses():
            assert is_refused(partial(use, vault))
    assert workers.one.is_locked, "to be refused is no use"


@pytest.mark.parametrize("is_looked_after", [True, False])
@pytest.mark.parametrize("is_cached", [True, False])
@pytest.mark.parametrize("stops_traffic", [True, False])
def test_requests_go_on_unless_the_settings_say_otherwise(
    stops_traffic, is_cached, is_looked_after
):
    workers = Workers(stops_traffic=stops_traffic)
    if is_cached:
        assert workers.one.get_secret(NAME) == "value"
    workers.pass_secs(SECS)
    if is_looked_after:
        workers.tick()
    for vault in (workers.one, workers.other):
        if stops_traffic:
            assert is_refused(partial(vault.get_secret, NAME))
        else:
            assert vault.get_secret(NAME) == "value"
    key_is_gone = stops_traffic and is_looked_after
    assert (workers.shared.key.read() is None) is key_is_gone


def test_requests_are_no_use(lenient):
    lenient.pass_secs(SECS - 1)
    assert lenient.one.get_secret(NAME) == "value"
    lenient.pass_secs(1)
    assert lenient.one.is_locked


def test_unlocking_opens_it_again_for_everybody_and_says_that_it_was_locked(workers):
    for _ in range(3):
        assert not workers.other.unlock(PASSWORD), "it is open"
        workers.pass_secs(SECS)
        assert workers.one.unlock(PASSWORD)
        assert not workers.other.is_locked
        assert workers.other.get_secret(NAME) == "value"
        assert workers.other.open(OWN, workers.rows.entries[OWN]) == "value"


def test_to_unlock_what_is_open_is_a_use(workers):
    workers.pass_secs(SECS - 1)
    workers.one.unlock(PASSWORD)
    workers.pass_secs(SECS - 1)
    assert not workers.other.is_locked


def test_it_is_written_down_once_for_each_time(workers):
    for times in (1, 2, 3):
        workers.pass_secs(SECS - 1)
        workers.tick()
        assert len(workers.audit) == times - 1
        workers.pass_secs(1)
        for _ in range(3):
            workers.tick()
        assert len(workers.audit) == times
        workers.one.unlock(PASSWORD)


def test_it_is_written_down_as_soon_as_that_is_possible(workers):
    def fail() -> None:
        raise RuntimeError

    workers.pass_secs(SECS)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            workers.one.lock_if_idle(fail)
    workers.tick()
    workers.tick()
    assert workers.audit == ["vault.autolock"]


def test_what_was_locked_by_hand_does_not_lock_itself(workers):
    workers.one.lock()
    workers.pass_secs(SECS)
    workers.tick()
    assert workers.audit == []
    assert workers.one.is_locked


def test_to_lock_by_hand_what_has_locked_itself_stops_the_traffic_too(lenient):
    lenient.pass_secs(SECS)
    assert lenient.one.lock()
    assert is_refused(lambda: lenient.other.get_secret(NAME))


@pytest.mark.parametrize("stops_traffic", [True, False])
def test_who_unlocks_while_it_locks_itself_finds_it_open(stops_traffic):
    workers = Workers(stops_traffic=stops_traffic)
    workers.pass_secs(SECS)
    workers.one.lock_if_idle(lambda: workers.other.unlock(PASSWORD))
    assert not workers.one.is_locked
    workers.pass_secs(SECS)
    workers.tick()
    assert workers.audit == ["vault.autolock"]


def test_a_key_that_was_written_after_the_look_at_the_clock_is_not_wiped(monkeypatch):
    workers = Workers(stops_traffic=True)
    workers.pass_secs(SECS)
    last_use = workers.shared.last_use
    find = last_use.find_left_open

    def find_and_be_overtaken(idle_ms: int) -> int | None:
        found = find(idle_ms)
        workers.one.unlock(PASSWORD)
        return found

    monkeypatch.setattr(last_use, "find_left_open", find_and_be_overtaken)
    workers.tick()
    assert not workers.one.is_locked
    assert workers.other.get_secret(NAME) == "value"


def test_who_unlocks_at_the_last_moment_finds_it_open_though_it_had_begun_to_lock(monkeypatch):
    workers = Workers(stops_traffic=True)
    workers.pass_secs(SECS - 1)
    last_use = workers.shared.last_use
    begin, find = last_use.begin, last_use.find_left_open
    ticking = gevent.Greenlet(workers.tick)

    def begin_late() -> None:
        workers.pass_secs(1)
        ticking.start()
        gevent.sleep(0)
        begin()

    def find_and_wait(idle_ms: int) -> int | None:
        found = find(idle_ms)
        gevent.sleep(0)
        return found

    monkeypatch.setattr(last_use, "begin", begin_late)
    monkeypatch.setattr(last_use, "find_left_open", find_and_wait)
    assert not workers.one.unlock(PASSWORD), "it was open"
    ticking.get()
    assert not workers.one.is_locked


def test_without_the_setting_it_stays_open_for_ever():
    vault = make_vault(shared=(shared := Shared()), unlocked=True)
    shared.clock.pass_secs(10**9)
    vault.lock_if_idle(lambda: pytest.fail("it was open"))
    vault.use()
    assert not vault.is_locked

"""A new password opens the vault and the old one does not; guessing gets slower and slower."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vault_kit import PASSWORD, Rows, Shared, make_vault
from tokenhub.board.vault import FREE_TRIES, WAIT_MS_MAX, wait_ms
from tokenhub.errors import InvalidRequest, RateLimited, VaultError, WrongPassword
from tokenhub.vault import Argon2Params, Vault, secret_entry

NEW = "a new password"
WRONG = "not the password"
NAME = secret_entry("smtp")


class Derivations:
    """Counts how often Argon2 runs."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, work: Callable[[], bytes]) -> bytes:
        self.count += 1
        return work()


@pytest.fixture
def rows() -> Rows:
    found = Rows()
    make_vault(found, unlocked=True)
    return found


@pytest.fixture
def shared() -> Shared:
    return Shared()


def guess(vault: Vault, password: str = WRONG) -> int:
    """Seconds to wait, or 0 if it was tried and wrong."""
    with pytest.raises((WrongPassword, RateLimited)) as caught:
        vault.unlock(password)
    return int(caught.value.headers.get("Retry-After", 0))


def rotate(vault: Vault, rows: Rows, old: str = PASSWORD, new: str = NEW) -> None:
    before, after = vault.rewrap(old, new)
    assert before == rows.row
    rows.row = after


@pytest.mark.parametrize("is_locked", [False, True])
def test_a_new_password_opens_what_the_old_one_did_and_the_old_one_nothing(rows, shared, is_locked):
    vault = make_vault(rows, shared=shared, unlocked=True)
    rows.entries[NAME] = vault.seal(NAME, "s3cret")
    if is_locked:
        vault.lock()
    old = rows.stored
    rotate(vault, rows)
    assert vault.is_locked is is_locked
    assert (old.id, old.salt == rows.stored.salt) == (rows.stored.id, False)
    elsewhere = make_vault(rows)
    with pytest.raises(WrongPassword):
        elsewhere.unlock(PASSWORD)
    assert elsewhere.unlock(NEW)
    assert elsewhere.open(NAME, rows.entries[NAME]) == "s3cret"


def test_who_has_it_open_elsewhere_goes_on_sealing_and_opening(rows, shared):
    elsewhere = make_vault(rows, unlocked=True)
    rotate(make_vault(rows, shared=shared), rows)
    rows.entries[NAME] = elsewhere.seal(NAME, "s3cret")
    here = make_vault(rows, unlocked=False)
    here.unlock(NEW)
    assert here.open(NAME, rows.entries[NAME]) == "s3cret"
    assert elsewhere.unlock(NEW) is False


def test_nothing_is_stored_until_somebody_does(rows):
    before = rows.row
    make_vault(rows).rewrap(PASSWORD, NEW)
    assert rows.row is before
    assert make_vault(rows).unlock(PASSWORD)


def test_a_new_password_is_wrapped_at_the_cost_of_today(rows):
    cost = Argon2Params(time_cost=2, memory_cost_kib=8, parallelism=1)
    rotate(make_vault(rows, kdf=cost), rows)
    assert rows.stored.kdf == cost.to_json()
    assert make_vault(rows).unlock(NEW)


@pytest.mark.parametrize("old", [WRONG, "short"])
def test_a_wrong_old_password_is_401_in_the_originals_words(rows, old):
    with pytest.raises(WrongPassword, match="old password does not match") as caught:
        make_vault(rows).rewrap(old, NEW)
    assert (caught.value.status, caught.value.code) == (401, "wrong_password")


@pytest.mark.parametrize(
    ("options", "new", "code"),
    [
        ({}, "1234567", "password_too_short"),
        ({}, NEW, "vault_not_set_up"),
        ({"enabled": False}, NEW, "vault_disabled"),
    ],
)
def test_what_cannot_be_rotated_is_400(options, new, code):
    with pytest.raises(InvalidRequest) as caught:
        make_vault(Rows(), **options).rewrap(PASSWORD, new)
    assert (caught.value.status, caught.value.code) == (400, code)


def test_past_five_wrong_passwords_nothing_is_derived_any_more(rows, shared):
    derived = Derivations()
    workers = [make_vault(rows, shared=shared, run_blocking=derived) for _ in range(2)]
    assert [guess(workers[turn % 2]) for turn in range(5)] == [0] * 5
    assert derived.count == 5
    for _ in range(50):
        assert guess(workers[0]) == 30
        with pytest.raises(RateLimited) as caught:
            workers[1].rewrap(WRONG, NEW)
        assert (caught.value.status, caught.value.code) == (429, "too_many_attempts")
        assert guess(workers[1], PASSWORD) == 30
    assert derived.count == 5


def test_each_further_wrong_password_costs_more_until_a_right_one_is_given(rows, shared):
    vault = make_vault(rows, shared=shared)
    waited = []
    for _ in range(5):
        guess(vault)
    for _ in range(7):
        waited.append(guess(vault))
        shared.clock.pass_secs(waited[-1])
        assert guess(vault) == 0
    assert waited == [30, 60, 120, 240, 480, 900, 900]
    shared.clock.pass_secs(900)
    assert vault.unlock(PASSWORD)
    assert [guess(vault) for _ in range(6)] == [0, 0, 0, 0, 0, 30]


def test_of_many_guesses_at_once_only_five_are_derived(rows, shared):
    derived = []

    def guess_more(work: Callable[[], bytes]) -> bytes:
        derived.append(work)
        if len(derived) < 50:
            guess(vault)
        return work()

    vault = make_vault(rows, shared=shared, run_blocking=guess_more)
    guess(vault)
    assert len(derived) == 5


def test_the_settings_password_and_one_that_is_too_short_say_nothing_about_guessing(rows, shared):
    vault = make_vault(rows, shared=shared)
    for _ in range(10):
        assert not vault.open_at_start(WRONG)
        with pytest.raises(WrongPassword):
            vault.unlock("short")
    assert [guess(vault) for _ in range(6)] == [0, 0, 0, 0, 0, 30]


def test_a_row_that_cannot_be_used_counts_as_a_try(rows, shared):
    rows.row = rows.stored.__class__("vault_1", "{}", b"", b"")
    for _ in range(5):
        with pytest.raises(VaultError):
            make_vault(rows, shared=shared).unlock(WRONG)
    assert guess(make_vault(rows, shared=shared)) == 30


@given(wrong=st.integers(0, 10**6))
def test_waiting_never_gets_shorter_and_has_an_end(wrong):
    assert wait_ms(wrong) <= wait_ms(wrong + 1) <= WAIT_MS_MAX
    assert (wait_ms(wrong) == 0) is (wrong < FREE_TRIES)


def test_no_error_about_a_password_repeats_it(rows, shared):
    for old, new in ((WRONG, NEW), ("s3cr", "n3w_"), ("wr0ng\ud800pass", NEW)):
        with pytest.raises((VaultError, InvalidRequest)) as caught:
            make_vault(rows, shared=shared).rewrap(old, new)
        error: BaseException | None = caught.value
        while error is not None:
            assert old not in repr(error) + str(vars(error))
            assert new not in repr(error) + str(vars(error))
            error = error.__cause__ or error.__context__

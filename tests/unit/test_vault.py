"""A secret opens with the right password, under its own name, in its own vault; not otherwise."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import gevent
import pytest
from gevent.threadpool import ThreadPool
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.vault_kit import CHEAP, PASSWORD, Rows, make_memory, make_vault
from tokenhub.errors import VaultError, VaultLocked, WrongPassword
from tokenhub.secret_memory import SecretMemory
from tokenhub.vault import Vault, provider_entry, secret_entry

NAME = provider_entry("openai")
TEXTS = st.text(st.characters(), max_size=200)  # lone surrogates and NUL included


def flip(data: bytes, bit: int) -> bytes:
    number = int.from_bytes(data, "big") ^ 1 << bit
    return number.to_bytes(len(data), "big")


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def memory() -> SecretMemory:
    return make_memory()


@pytest.fixture
def vault(rows: Rows, memory: SecretMemory) -> Vault:
    return make_vault(rows, memory, unlocked=True)


def test_the_first_unlock_sets_the_vault_up(rows, memory):
    vault = make_vault(rows, memory)
    assert (vault.is_initialized(), vault.is_locked) == (False, True)
    assert vault.unlock(PASSWORD)
    assert (vault.is_initialized(), vault.is_locked) == (True, False)


def test_a_vault_keeps_the_cost_it_was_set_up_with_by_default_the_originals(rows):
    assert make_vault(rows, kdf=None).unlock(PASSWORD)
    stored = json.loads(rows.stored.kdf)
    assert stored.pop("name") == "argon2id"
    assert stored == {
        "version": 19, "time_cost": 3, "memory_cost_kib": 65536, "parallelism": 4
    }  # fmt: skip
    assert len(rows.stored.salt) == 16
    assert make_vault(rows).unlock(PASSWORD)


def test_unlocking_an_open_vault_checks_the_password_and_changes_nothing(vault, memory):
    generation = memory.generation
    assert not vault.unlock(PASSWORD)
    with pytest.raises(WrongPassword):
        vault.unlock("another password")
    assert memory.generation == generation
    assert not vault.is_locked


@given(wrong=st.text(st.characters(), min_size=8, max_size=40))
def test_a_wrong_password_is_401_and_changes_nothing(wrong):
    rows, memory = Rows(), make_memory()
    make_vault(rows, memory, unlocked=True)
    memory.write(None)
    row, generation = rows.row, memory.generation
    vault = make_vault(rows, memory)
    with pytest.raises(WrongPassword) as caught:
        vault.unlock(wrong + "!")
    assert (caught.value.status, caught.value.code) == (401, "wrong_password")
    assert (rows.row, memory.generation, vault.is_locked) == (row, generation, True)


@pytest.mark.parametrize("password", ["", "1234567", "äöü7"])  # the last has 7 bytes
@pytest.mark.parametrize("is_new", [True, False])
def test_a_password_below_8_bytes_is_401_and_sets_nothing_up(password, is_new):
    rows, memory = Rows(), make_memory()
    if not is_new:
        make_vault(rows, unlocked=True)
    before = rows.row
    with pytest.raises(WrongPassword) as caught:
        make_vault(rows, memory).unlock(password)
    assert (caught.value.status, caught.value.code) == (401, "password_too_short")
    assert rows.row is before
    assert memory.read() is None


def test_lock_is_a_transition_only_once(vault):
    assert vault.lock()
    assert vault.is_locked
    assert not vault.lock()


def test_lock_and_unlock_are_seen_by_the_other_worker_at_once(vault, rows, memory):
    rows.entries[NAME] = vault.seal(NAME, "sk-live")
    other = make_vault(rows, memory)
    assert other.get_secret(NAME) == "sk-live"
    vault.lock()
    assert other.is_locked
    with pytest.raises(VaultLocked):
        other.get_secret(NAME)
    assert not other._opened.values
    other.unlock(PASSWORD)
    assert vault.get_secret(NAME) == "sk-live"


def test_a_writer_that_died_in_the_middle_leaves_the_vault_locked(rows):
    page = mmap.mmap(-1, mmap.PAGESIZE)
    vault = make_vault(rows, SecretMemory(nullcontext, page), unlocked=True)
    rows.entries[NAME] = vault.seal(NAME, "sk-live")
    assert vault.get_secret(NAME) == "sk-live"
    page[0] |= 1
    with pytest.raises(VaultLocked):
        vault.get_secret(NAME)
    assert vault.unlock(PASSWORD)
    assert vault.get_secret(NAME) == "sk-live"


def test_who_sets_up_at_once_with_another_password_is_refused(rows):
    memory = make_memory()
    rows.meanwhile = lambda: make_vault(rows).unlock("somebody else's")
    with pytest.raises(WrongPassword):
        make_vault(rows, memory).unlock(PASSWORD)
    assert memory.read() is None


def test_many_that_set_up_at_once_end_with_one_row_and_one_key(rows):
    pool, runs = ThreadPool(2), []

    def run_blocking(work: Callable[[], bytes]) -> bytes:
        runs.append(work)
        found: bytes = pool.apply(work)
        return found

    memories = [make_memory() for _ in range(20)]
    vaults = [make_vault(rows, each, run_blocking=run_blocking) for each in memories]
    gevent.joinall([gevent.spawn(each.unlock, PASSWORD) for each in vaults], raise_error=True)
    pool.kill()
    assert len({each.read() for each in memories}) == 1
    assert memories[0].read() is not None
    assert len(runs) > 20  # those who came second have derived a key twice


def test_a_disabled_vault_is_not_locked_but_cannot_be_set_up(rows, memory):
    vault = make_vault(rows, memory, enabled=False)
    answers = (vault.is_locked, vault.unlock(PASSWORD), vault.open_at_start(PASSWORD))
    assert answers == (False, False, False)
    assert (vault.lock(), rows.row) == (False, None)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_locked_or_disabled_vault_neither_opens_nor_seals(enabled, rows, memory):
    make_vault(rows, None if enabled else memory, unlocked=True)
    vault = make_vault(rows, memory, enabled=enabled)
    code = "vault_locked" if enabled else "vault_disabled"
    for call, expected in (
        (lambda: vault.get_secret(NAME), "vault_locked"),
        (lambda: vault.seal(NAME, "x"), code),
        (lambda: vault.open(NAME, b"x"), code),
        (vault.use, code),
    ):
        with pytest.raises(VaultLocked) as caught:
            call()
        assert (caught.value.status, caught.value.code) == (503, expected)


@pytest.mark.parametrize("password", ["2short2", "not the password"])
def test_a_wrong_password_at_start_is_one_warning_without_it(password, rows, caplog):
    assert make_vault(rows).open_at_start(PASSWORD)
    caplog.clear()
    assert not make_vault(rows).open_at_start(password)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert password not in str(vars(caplog.records[0]))


@given(name=TEXTS, value=TEXTS)
def test_any_text_is_read_back_under_any_name(name, value):
    rows = Rows()
    vault = make_vault(rows, unlocked=True)
    rows.entries[name] = vault.seal(name, value)
    assert vault.get_secret(name) == value


@settings(max_examples=300)
@given(data=st.data(), value=TEXTS)
def test_one_flipped_bit_or_a_cut_keeps_an_entry_shut(data, value):
    rows = Rows()
    vault = make_vault(rows, unlocked=True)
    sealed = vault.seal(NAME, value)
    cut = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
    flipped = flip(sealed, data.draw(st.integers(0, len(sealed) * 8 - 1)))
    for rows.entries[NAME] in (cut, flipped):
        with pytest.raises(VaultError) as caught:
            vault.get_secret(NAME)
        assert (caught.value.status, caught.value.code) == (500, "secret_unreadable")


@given(one=TEXTS, other=TEXTS)
def test_entries_that_were_swapped_do_not_open(one, other):
    rows = Rows()
    vault = make_vault(rows, unlocked=True)
    rows.entries[other] = vault.seal(one, "sk-live")
    if one == other:
        assert vault.get_secret(other) == "sk-live"
    else:
        with pytest.raises(VaultError):
            vault.get_secret(other)


def test_an_entry_of_another_vault_does_not_open_even_with_its_data_key(vault, rows, memory):
    rows.entries[NAME] = vault.seal(NAME, "sk-live")
    rows.row = replace(rows.stored, id="vault_of_another")
    with pytest.raises(VaultError):
        make_vault(rows, memory).get_secret(NAME)


def test_the_same_value_never_looks_the_same_twice(vault):
    assert len({vault.seal(NAME, "sk-live") for _ in range(100)}) == 100


def test_a_key_in_memory_without_a_vault_is_as_good_as_locked(memory):
    memory.write(bytes(32))
    with pytest.raises(VaultLocked):
        make_vault(Rows(), memory).seal(NAME, "sk-live")


def test_entries_are_read_once_until_the_generation_moves(vault, rows, memory):
    names = [NAME, secret_entry("other")]
    rows.entries = {name: vault.seal(name, name) for name in names}
    for reads in (2, 4):
        assert [vault.get_secret(name) for name in names * 3] == names * 3
        assert rows.reads == reads
        memory.write(memory.read())
    assert vault.get_secret(secret_entry("unknown")) is None


def test_forget_and_drop_cache_make_a_change_visible(vault, rows):
    other_name = secret_entry("other")
    rows.entries = {NAME: vault.seal(NAME, "one"), other_name: vault.seal(other_name, "kept")}
    assert (vault.get_secret(NAME), vault.get_secret(other_name)) == ("one", "kept")
    rows.entries[NAME] = vault.seal(NAME, "two")
    vault.forget(NAME)
    assert (vault.get_secret(NAME), vault.get_secret(other_name)) == ("two", "kept")
    assert rows.reads == 3
    rows.entries[NAME] = vault.seal(NAME, "three")
    vault.drop_cache()
    assert vault.get_secret(NAME) == "three"


@pytest.mark.parametrize("notice", [lambda vault: vault.forget(NAME), Vault.drop_cache])
def test_a_value_changed_while_it_was_being_read_does_not_come_back(notice, vault, rows):
    rows.entries[NAME] = vault.seal(NAME, "old")
    new = vault.seal(NAME, "new")

    def change() -> None:
        rows.entries[NAME] = new
        notice(vault)

    rows.meanwhile = change
    vault.get_secret(NAME)
    assert vault.get_secret(NAME) == "new"


def test_a_lock_while_an_entry_is_being_read_is_not_undone_by_the_cache(vault, rows, memory):
    rows.entries[NAME] = vault.seal(NAME, "sk-live")
    rows.meanwhile = lambda: memory.write(None)
    vault.get_secret(NAME)
    with pytest.raises(VaultLocked):
        vault.get_secret(NAME)


def test_the_cache_has_an_end_and_keeps_working(vault, rows):
    names = [secret_entry(str(number)) for number in range(1100)]
    rows.entries = {name: vault.seal(name, name) for name in names}
    assert [vault.get_secret(name) for name in names] == names
    assert len(vault._opened.values) == 1024
    assert vault.get_secret(names[0]) == names[0]


@settings(max_examples=200)
@given(
    name=st.sampled_from(["name", "version", "time_cost", "memory_cost_kib", "parallelism"]),
    value=st.one_of(st.none(), st.text(), st.floats(0, 9), st.integers(-9, 0), st.just(10**9)),
)
def test_damaged_parameters_are_said_to_be_damaged(name, value):
    rows = Rows()
    make_vault(rows, unlocked=True)
    changed = json.dumps(json.loads(CHEAP.to_json()) | {name: value})
    damaged = [replace(rows.stored, kdf=kdf) for kdf in (changed, changed[:-1], "[]", "null", "")]
    damaged.append(replace(rows.stored, salt=b""))
    for rows.row in damaged:
        with pytest.raises(VaultError) as caught:
            make_vault(rows).unlock(PASSWORD)
        assert (caught.value.status, caught.value.code) == (500, "vault_unreadable")


@given(data=st.data())
def test_a_wrapped_key_with_a_flipped_bit_or_moved_to_another_vault_does_not_open(data):
    rows = Rows()
    make_vault(rows, unlocked=True)
    wrapped = rows.stored.wrapped_key
    flipped = flip(wrapped, data.draw(st.integers(0, len(wrapped) * 8 - 1)))
    damaged = (
        replace(rows.stored, wrapped_key=flipped),
        replace(rows.stored, wrapped_key=wrapped[:20]),
        replace(rows.stored, id="vault_of_another"),
    )
    for rows.row in damaged:
        with pytest.raises(WrongPassword):
            make_vault(rows).unlock(PASSWORD)


def test_nothing_that_can_be_printed_shows_a_secret(vault, rows, memory):
    rows.entries[NAME] = vault.seal(NAME, "sk-live")
    vault.get_secret(NAME)
    shown = repr(vault) + repr(rows.row) + repr(memory) + str(vault._opened)
    for secret in (PASSWORD, "sk-live", repr(memory.read())[2:-1], repr(rows.stored.salt)[2:-1]):
        assert secret not in shown


def test_no_error_carries_a_secret_not_even_in_its_causes(vault, rows):
    rows.entries[NAME] = vault.seal("elsewhere", "sk-live")
    failures = [
        (lambda: vault.unlock("wr0ng\ud800pass"), "wr0ng"),
        (lambda: vault.unlock("s3cr"), "s3cr"),
        (lambda: vault.get_secret(NAME), "sk-live"),
        (lambda: make_vault(rows).seal(NAME, "sk-new"), "sk-new"),
    ]
    for fails, secret in failures:
        with pytest.raises(VaultError) as caught:
            fails()
        error: BaseException | None = caught.value
        while error is not None:
            assert secret not in repr(error) + str(vars(error))
            error = error.__cause__ or error.__context__


def test_the_names_of_entries_are_the_originals():
    assert provider_entry("openai") == "provider:openai:api_key"
    assert secret_entry("smtp") == "secret:smtp"

"""Keys and teams come back as they were saved, and uses of keys are no changes of theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from tests.store.test_ingest import BUCKET_KEY, bucket_key
from tokenhub import store
from tokenhub.db.catalog_tables import key_uses
from tokenhub.db.sums_tables import buckets
from tokenhub.domain import ApiKey, Limits, Team
from tokenhub.store.keys import DAY_MS, LATE_MS

KEY = ApiKey(
    id="key_1", name="büro", prefix="th_abc", sha256=b"\x00" * 32, bcrypt_hash="$2b$",
    scopes=frozenset({"chat"}), previous_sha256=b"\x01" * 32, previous_bcrypt_hash="$2a$",
    previous_until=7, owner="Zoë", team_id="team_1", tags=("a", "b"), models=("gpt-*", "m"),
    networks=("10.0.0.0/8",), directives=True, policy={"mode": "cheap", "max_budget_usd": 0.1},
    limits=Limits(1, 2, 2**40, 4), model_limits={"mödel": Limits(0, 5, 2**40), "m": Limits(3)},
)  # fmt: skip
PLAIN = ApiKey("key_2", "plain", "th_def", b"\x02" * 32, "$2b$")
TEAM = Team("team_1", "Ops", False, ("gpt-*",), Limits(1, 2, 3, 4), created_at=5)


@pytest.fixture
def write(database):
    """Calls a function of the store in a transaction of its own."""
    return lambda function, *args, **named: database.write(
        lambda connection: function(connection, *args, **named)
    )


@pytest.fixture
def read(database):
    """Calls a function of the store in a transaction that only reads."""
    return lambda function, *args: database.read(lambda connection: function(connection, *args))


def test_a_key_comes_back_with_all_it_was_saved_with(write, read):
    row = store.KeyRow(KEY, created_at=1)
    write(store.save_key, row)
    assert read(store.find_key, KEY.id) == KEY
    assert read(store.find_key_row, KEY.id) == row


def test_a_key_of_which_little_is_said_may_use_every_model_from_anywhere(write, read):
    write(store.save_key, store.KeyRow(PLAIN, created_at=1))
    assert read(store.find_key, PLAIN.id) == PLAIN


def test_saving_again_counts_the_revision_and_keeps_when_it_was_made(write, read):
    write(store.save_key, store.KeyRow(KEY, created_at=1))
    changed = replace(KEY, scopes=frozenset({"plan"}), enabled=False, team_id="", tags=())
    write(store.save_key, store.KeyRow(changed, created_at=2, rotated_at=8))
    row = read(store.find_key_row, KEY.id)
    assert row.key == replace(changed, revision=2)
    assert (row.created_at, row.rotated_at) == (1, 8)
    assert write(store.delete_key, KEY.id)
    assert not write(store.delete_key, KEY.id)
    assert read(store.find_key_row, KEY.id) is None


def test_both_secrets_find_the_key(write, read):
    write(store.save_key, store.KeyRow(KEY, created_at=1))
    write(store.save_key, store.KeyRow(PLAIN, created_at=1))
    keys = read(store.load_all).keys
    assert set(keys) == {KEY.sha256, KEY.previous_sha256, PLAIN.sha256}
    assert keys[KEY.sha256] == keys[KEY.previous_sha256] == KEY


@pytest.mark.parametrize(
    ("rotated_at", "expires_at", "due_at", "first"),
    [
        (None, None, 1 + 2 * DAY_MS, 1 + 2 * DAY_MS),
        (DAY_MS, None, 3 * DAY_MS, 3 * DAY_MS),
        (None, 9, 1 + 2 * DAY_MS, 9),
        (None, 9 * DAY_MS, 1 + 2 * DAY_MS, 1 + 2 * DAY_MS),
    ],
)
def test_a_key_closes_when_it_expires_or_must_have_been_rotated(
    write, read, rotated_at, expires_at, due_at, first
):
    row = store.KeyRow(
        PLAIN, created_at=1, rotated_at=rotated_at, expires_at=expires_at, rotation_days=2
    )
    write(store.save_key, row)
    key = read(store.find_key, PLAIN.id)
    assert (key.expires_at, key.rotation_due_at) == (first, due_at)
    assert read(store.find_key_row, PLAIN.id).expires_at == expires_at
    assert row.rotation_due_at == due_at


def test_keys_are_listed_newest_first_with_their_administration(write, read):
    for number in range(3):
        key = replace(PLAIN, id=f"key_{number}", sha256=bytes([number]) * 32)
        row = store.KeyRow(key, created_at=100 + number // 2, rotated_at=number)
        write(store.save_key, row)
    found, total = read(store.list_keys, 2, 0)
    assert ([each.key.id for each in found], total) == (["key_2", "key_1"], 3)
    assert found[0] == row


def test_the_same_digest_cannot_be_stored_twice(write):
    write(store.save_key, store.KeyRow(PLAIN, 1))
    with pytest.raises(IntegrityError):
        write(store.save_key, store.KeyRow(replace(PLAIN, id="key_3"), 1))


def test_keys_without_a_digest_are_not_in_the_snapshot(write, read):
    for key_id in ("old_1", "old_2"):
        write(store.save_key, store.KeyRow(replace(PLAIN, id=key_id, sha256=b""), 1))
    assert read(store.load_all).keys == {}
    assert read(store.find_key, "old_1") is None
    assert read(store.find_key_row, "old_1").key.sha256 == b""


def test_a_team_comes_back_as_it_was_saved_and_counts_its_revisions(write, read):
    assert write(store.save_team, TEAM, 5) == TEAM
    assert read(store.find_team, TEAM.id) == TEAM == read(store.load_all).teams[TEAM.id]
    again = write(store.save_team, replace(TEAM, enabled=True), 6)
    assert read(store.find_team, TEAM.id) == again == replace(TEAM, enabled=True, revision=2)
    assert write(store.delete_team, TEAM.id)
    assert not write(store.delete_team, TEAM.id)
    assert read(store.find_team, TEAM.id) is None


def test_teams_are_listed_by_name_which_only_one_of_them_has(write, read):
    for id_, name in (("team_1", "b"), ("team_2", "a")):
        write(store.save_team, replace(TEAM, id=id_, name=name), 5)
    found, total = read(store.list_teams, 1, 0)
    assert ([each.name for each in found], total) == (["a"], 2)
    assert read(store.is_team_name_taken, "a", "team_1")
    assert not read(store.is_team_name_taken, "a", "team_2")
    with pytest.raises(IntegrityError):
        write(store.save_team, replace(TEAM, id="team_3", name="a"), 5)


def test_the_keys_of_a_team_are_counted(write, read):
    for number in range(3):
        key = replace(PLAIN, id=str(number), sha256=bytes([number]) * 32, team_id="t" * number)
        write(store.save_key, store.KeyRow(key, 1))
    assert [read(store.count_keys_of, each) for each in ("t", "none")] == [1, 0]


@pytest.fixture
def use(write):
    """A sum of requests of a key, and then the job that looks for them."""

    def note(key_id, start_at):
        key = dict(zip(BUCKET_KEY, bucket_key(start_at), strict=True)) | {"api_key_id": key_id}
        names = {column.name for column in buckets.c} - {"rolled_at", *key}
        sums = dict.fromkeys(names, 0)
        write(lambda each: each.execute(insert(buckets).values(**key, **sums)))
        write(store.note_key_uses)

    return note


def test_when_a_key_was_last_used_is_told_without_touching_its_row(write, read, use):
    write(store.save_key, store.KeyRow(PLAIN, 1))
    before = read(store.find_key_row, PLAIN.id)
    assert before.last_used_at is None
    for start_at in (10**7, 2 * 10**7):
        use(PLAIN.id, start_at)
        assert read(store.find_key_row, PLAIN.id).last_used_at == start_at
    assert read(store.list_keys, 1, 0)[0][0].last_used_at == start_at
    assert read(store.find_key_row, PLAIN.id) == before  # it is no change


def test_a_last_use_never_goes_back_and_one_that_comes_late_is_seen(write, read, use):
    for key in (PLAIN, KEY):
        write(store.save_key, store.KeyRow(key, 1))
    use(PLAIN.id, 10**9)
    use(PLAIN.id, 10**9 - 10_000)
    use(KEY.id, 10**9 - LATE_MS)
    found = [read(store.find_key_row, each.id).last_used_at for each in (PLAIN, KEY)]
    assert found == [10**9, 10**9 - LATE_MS]


def test_uses_of_keys_that_are_gone_are_not_kept(write, read, use):
    write(store.save_key, store.KeyRow(PLAIN, 1))
    use(PLAIN.id, 10**9)
    write(store.delete_key, PLAIN.id)
    use("never", 10**9 + 10_000)
    assert read(lambda each: each.execute(select(key_uses)).all()) == []

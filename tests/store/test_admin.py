"""Admin tokens and sessions as both databases keep them."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from sqlalchemy.exc import IntegrityError

from tests.newest import list_audit
from tokenhub import cli, store
from tokenhub.access import AdminSession, AdminToken, binding_of, digest_of


def token(id_: str = "adm_1", **fields) -> AdminToken:
    values = {"name": id_, "role": "viewer", "sha256": digest_of(id_), "created_at": 1, **fields}
    return AdminToken(id=id_, **values)


def session(id_: str, token_id: str = "adm_1", created_at: int = 10, **fields) -> AdminSession:
    values = {"sha256": digest_of(id_), "binding": binding_of(id_, b"x"), "expires_at": 1000}
    return AdminSession(id=id_, token_id=token_id, created_at=created_at, **{**values, **fields})


def put(database, *things, most: int = 100) -> None:
    def work(connection):
        for each in things:
            if isinstance(each, AdminToken):
                store.save_admin_token(connection, each)
            else:
                store.insert_admin_session(connection, each, most=most)

    database.write(work)


def test_what_is_stored_is_read_back_as_it_was(database):
    first = token(prefix="tokenhub_admin_12345678", expires_at=5, created_by="admin", role="owner")
    browser = session("s", client_ip="::1", user_agent="Firefox “ß”")
    put(database, first, token("adm_2", created_at=2), browser)
    assert database.read(lambda c: store.find_admin_token(c, "adm_1")) == first
    assert database.read(lambda c: store.find_admin_session(c, "s")) == browser
    assert database.read(lambda c: store.find_admin_token(c, "s")) is None
    listed, total = database.read(lambda c: store.list_admin_tokens(c, 1, 0))
    assert ([each.id for each in listed], total) == (["adm_2"], 2)
    admins = database.read(store.load_admins)
    assert admins.tokens[digest_of("adm_1")] == first
    assert list(admins.sessions) == [digest_of("s")]


def test_a_token_is_replaced_by_its_id_and_has_a_name_and_a_digest_of_its_own(database):
    put(database, token("root", name="admin"), token())
    put(database, token("root", name="admin", sha256=digest_of("new")))
    admins = database.read(store.load_admins)
    assert sorted(each.id for each in admins.tokens.values()) == ["adm_1", "root"]
    assert digest_of("root") not in admins.tokens
    assert database.read(lambda c: store.is_admin_name_taken(c, "adm_1"))
    assert not database.read(lambda c: store.is_admin_name_taken(c, "adm_2"))
    for clash in (token("adm_2", name="adm_1"), token("adm_2", sha256=digest_of("adm_1"))):
        with pytest.raises(IntegrityError):
            put(database, clash)


def test_sessions_end_with_their_token_and_no_others_do(database):
    put(database, token(), token("adm_2"), session("a"), session("b"), session("c", "adm_2"))
    assert database.write(lambda c: store.delete_admin_token(c, "adm_1")) is True
    assert database.write(lambda c: store.delete_admin_token(c, "adm_1")) is False
    left = database.read(store.load_admins).sessions.values()
    assert [each.id for each in left] == ["c"]
    assert database.write(lambda c: store.delete_admin_session(c, "c")) is True
    assert database.write(lambda c: store.delete_admin_session(c, "c")) is False


def test_sessions_that_are_over_and_the_oldest_of_too_many_make_way(database):
    others = session("x", "adm_2", created_at=1)
    put(database, others, session("over", expires_at=12))
    put(database, *(session(f"s{at}", created_at=at) for at in range(20, 25)), most=3)
    assert database.read(lambda c: store.find_admin_session(c, "over")) is None
    listed, total = database.read(lambda c: store.list_admin_sessions(c, "adm_1", 500, 10, 0))
    assert ([each.id for each in listed], total) == (["s24", "s23", "s22"], 3)
    listed, total = database.read(lambda c: store.list_admin_sessions(c, None, 500, 2, 2))
    assert ([each.id for each in listed], total) == (["s22", "x"], 4)
    assert database.read(lambda c: store.list_admin_sessions(c, None, 1000, 10, 0)) == ([], 0)


def test_a_root_token_that_was_lost_is_reset_by_hand_and_workers_hear_of_it(
    database, database_dsn, tmp_path
):
    environ = {"TOKENHUB_DB_DSN": database_dsn, "TOKENHUB_DATA_DIR": str(tmp_path)}

    def reset() -> str:
        done = CliRunner(env=environ).invoke(cli.main, ["reset-admin-token"])
        assert done.exit_code == 0, done.output
        return done.output

    assert reset() == "it was never rotated\n"
    put(database, token("root", name="admin"), token(), session("s", "root"))
    before = database.read(store.load_generation)
    assert reset() == "it is reset\n"
    admins = database.read(store.load_admins)
    assert [each.id for each in admins.tokens.values()] == ["adm_1"]
    assert not admins.sessions
    (change,) = database.read(lambda c: store.changes_since(c, before))
    assert (change.kind, change.entity_id) == ("admin", "root")
    (row,) = database.read(lambda c: list_audit(c, 10, 0))
    assert (row["actor"], row["action"]) == ("cli", "admin_token.reset")


def test_the_last_use_never_goes_back_and_does_not_count_as_a_change(database):
    put(database, token(), session("s"))
    before = database.read(lambda c: store.find_admin_token(c, "adm_1"))
    for at in (50, 40):
        database.write(lambda c, at=at: store.note_admin_use(c, "adm_1", "s", at))
    after = database.read(lambda c: store.find_admin_token(c, "adm_1"))
    assert (after.last_used_at, after) == (50, before)
    database.write(lambda c: store.note_admin_use(c, "adm_1", "", 60))
    assert database.read(lambda c: store.find_admin_token(c, "adm_1")).last_used_at == 60
    assert database.read(lambda c: store.find_admin_session(c, "s")).last_used_at == 50

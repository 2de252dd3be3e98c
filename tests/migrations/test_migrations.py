"""The numbered migrations make the schema that the tables describe, forwards and backwards."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, make_url, text

from tests.conftest import ROOT, alembic_config, migrated
from tokenhub.db import SchemaBehind, check_head, expected_head, metadata

VERSIONS = ROOT / "migrations" / "versions"


def inspected(dsn, look):
    """What `look` finds in a database."""
    engine = create_engine(dsn)
    try:
        return look(inspect(engine))
    finally:
        engine.dispose()


def tables_of(dsn) -> set[str]:
    return set(inspected(dsn, lambda found: found.get_table_names())) - {"alembic_version"}


def alembic(dsn: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "alembic", *(("-x", f"dsn={dsn}") if dsn else ()),
         *arguments],
        cwd=ROOT, env=environment or None, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_files_are_numbered_without_gaps_and_named_like_their_revision():
    names = sorted(path.stem for path in VERSIONS.glob("*.py"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    script = ScriptDirectory.from_config(alembic_config(""))
    assert sorted(revision.revision for revision in script.walk_revisions()) == names


def test_the_head_file_names_the_only_head():
    script = ScriptDirectory.from_config(alembic_config(""))
    assert script.get_heads() == [expected_head()]


def test_up_down_up_leaves_no_trace_in_between(empty_dsn):
    migrated(empty_dsn)
    assert tables_of(empty_dsn) == set(metadata.tables)
    command.downgrade(alembic_config(empty_dsn), "base")
    assert tables_of(empty_dsn) == set()
    migrated(empty_dsn)
    assert tables_of(empty_dsn) == set(metadata.tables)


def test_the_tables_do_not_drift_from_the_migrations(database_dsn):
    command.check(alembic_config(database_dsn))


def test_checks_are_the_same_as_in_the_tables_which_alembic_does_not_compare(empty_dsn, tmp_path):
    def checks(found):
        return {
            (table, each["name"], each["sqltext"].strip("()"))
            for table in metadata.tables
            for each in found.get_check_constraints(table)
        }

    made = f"sqlite:///{tmp_path / 'made.sqlite'}"
    engine = create_engine(made)
    metadata.create_all(engine)
    engine.dispose()
    assert inspected(migrated(empty_dsn), checks) == inspected(made, checks)


def test_the_generation_begins_at_zero(database):
    query = text("SELECT * FROM generation")
    assert database.read(lambda connection: connection.execute(query).all()) == [(1, 0)]


def test_several_migrators_at_once_make_one_schema(empty_dsn):
    migrators = [alembic(empty_dsn, "upgrade", "head") for _ in range(3)]
    for migrator in migrators:
        output, _ = migrator.communicate(timeout=60)
        assert migrator.returncode == 0, output
    command.check(alembic_config(empty_dsn))


def test_a_failed_migration_leaves_nothing_behind(empty_dsn):
    # The last table of the migration is there already.
    engine = create_engine(empty_dsn)
    if make_url(empty_dsn).get_backend_name() == "sqlite":
        Path(make_url(empty_dsn).database or "").touch()
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE buckets (id INTEGER)"))
    engine.dispose()
    with pytest.raises(Exception, match="buckets"):
        migrated(empty_dsn)
    assert tables_of(empty_dsn) == {"buckets"}


def test_the_database_is_the_one_of_the_settings(tmp_path):
    path = tmp_path / "deep" / "hub.sqlite"
    process = alembic("", "upgrade", "head", TOKENHUB_DB_DSN=str(path),
                      TOKENHUB_DATA_DIR=str(tmp_path))  # fmt: skip
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    assert found == [(expected_head(),)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_the_sql_can_be_printed_instead_of_run(tmp_path):
    path = tmp_path / "hub.sqlite"
    process = alembic(f"sqlite:///{path}", "upgrade", "head", "--sql")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "CREATE TABLE request_logs" in output
    assert not path.exists()


def test_a_database_at_head_is_accepted(database):
    check_head(database)


def test_a_database_without_a_schema_is_refused_with_the_command_that_helps(
    empty_dsn, open_database
):
    with pytest.raises(SchemaBehind, match=r"nothing.*`alembic upgrade head`"):
        check_head(open_database(empty_dsn))


def test_a_database_of_another_version_is_refused(database):
    database.write(
        lambda connection: connection.execute(
            text("UPDATE alembic_version SET version_num = '9999_from_the_future'")
        )
    )
    with pytest.raises(SchemaBehind, match="9999_from_the_future"):
        check_head(database)

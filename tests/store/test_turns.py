"""Administrative changes take turns on Postgres as they do on SQLite."""

from contextlib import closing

import pytest

from tokenhub import store
from tokenhub.db import Database, DatabaseAway
from tokenhub.store.turns import take_turn

pytestmark = pytest.mark.postgres


def test_whoever_has_the_turn_keeps_others_out_until_it_commits(postgres_server, postgres_template):
    dsn = postgres_server.create_database(template=postgres_template)
    with closing(Database(dsn)) as first, closing(Database(dsn)) as second:

        def work(connection):
            take_turn(connection)
            with pytest.raises(DatabaseAway):
                second.write(take_turn, timeout_secs=0.3)
            return store.record_change(connection, "model", "m", 1)

        assert first.write(work) == 1
        second.write(take_turn)
        assert second.read(store.load_generation) == 1


def test_readers_do_not_wait_for_whoever_has_the_turn(postgres_server, postgres_template):
    dsn = postgres_server.create_database(template=postgres_template)
    with closing(Database(dsn)) as first, closing(Database(dsn)) as second:

        def work(connection):
            take_turn(connection)
            return second.read(store.load_generation, timeout_secs=1)

        assert first.write(work) == 0

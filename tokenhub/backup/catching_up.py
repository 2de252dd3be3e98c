"""What this host's journal knows, entered into a database that has just been restored.

What was spent since the copy was made, as far as it is still in the journal, counts again before
anybody can spend more. It is done once more at the next start if it fails here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from tokenhub import data_dir, host, store
from tokenhub.board import Board
from tokenhub.config import Settings
from tokenhub.db import Database
from tokenhub.ingest import Ingester

IDLE_STEPS = 3
"""So often there must be nothing new: what a dead writer left open shows in the second step."""


def carry_over(settings: Settings) -> int:
    """Ingest the journal, and give back the money that this host held when the copy was made.

    The locks of `host.lock` must be held.

    Returns: how many records there were.

    Raises:
        DatabaseAway: the leader of the next start will do the rest.
    """
    directory = host.journal_directory(settings)
    if not directory.is_dir():  # no gateway has ever run here
        return 0
    host_id = data_dir.host_id(settings.data_dir)
    with closing(Database(settings.db_dsn)) as database:
        found = sum(_ingest(directory, database, host_id))
        database.write(partial(_release_shares, host_id=host_id))
    return found


def _ingest(directory: Path, database: Database, host_id: str) -> Iterator[int]:
    ingester = Ingester(
        database=database, board=Board(slots=1), directory=directory, host_id=host_id
    )
    idle = 0
    while idle < IDLE_STEPS:
        found = ingester.step()
        idle = 0 if found else idle + 1
        yield found


def _release_shares(connection: Connection, host_id: str) -> None:
    """No gateway of ours runs, so nobody has this money any more."""
    for account, (granted, _) in store.list_shares(connection, host_id).items():
        store.release_share(connection, host_id, account, granted)

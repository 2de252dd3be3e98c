"""Runs the migrations inside a transaction of the caller's. Loads Alembic, so workers never do."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from tokenhub.db.head import HEAD_FILE

CONFIG_FILE = HEAD_FILE.parents[1] / "alembic.ini"


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring a database to a revision. Foreign keys must not be enforced (`open_for_migration`)."""
    config = Config(CONFIG_FILE)
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def is_known(revision: str) -> bool:
    """Whether this version's migrations lead to a revision."""
    try:
        return ScriptDirectory.from_config(Config(CONFIG_FILE)).get_revision(revision) is not None
    except CommandError:
        return False

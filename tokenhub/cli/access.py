"""Commands for who has lost their way in."""

from __future__ import annotations

from contextlib import closing

import click
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.access import ROOT_ID
from tokenhub.board.board import unix_ms
from tokenhub.catalog import Change, write_down
from tokenhub.cli.common import get_settings, told
from tokenhub.db import open_at_head


@click.command()
def reset_admin_token() -> None:
    """Forget what it was rotated to: the one of the settings or the data directory holds again."""

    def work(connection: Connection) -> bool:
        if not store.delete_admin_token(connection, ROOT_ID):
            return False
        change = Change("admin", ROOT_ID, "admin_token.reset", actor="cli")
        write_down(connection, change, unix_ms())
        return True

    with told(), closing(open_at_head(get_settings().db_dsn)) as database:
        was_rotated = database.write(work)
    click.echo("it is reset" if was_rotated else "it was never rotated")

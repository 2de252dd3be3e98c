"""WSGI entry: `gunicorn -c gunicorn.conf.py app:app`."""

import os
import sys
import time
from typing import NoReturn

from tokenhub import host
from tokenhub.config import Settings
from tokenhub.db import DatabaseAway
from tokenhub.errors import ConfigError
from tokenhub.factory import create_app

BOOT_ERROR = 3
"""gunicorn's exit code for a worker that cannot start: the arbiter ends the gateway."""

TRY_AGAIN = 1
"""For gunicorn a worker like any that died: another is started in its place."""

PAUSE_SECS = 2.0


def read_settings() -> Settings:
    """The settings as they are now: environment and env file."""
    return Settings.from_env(os.environ)


def give_up(error: ConfigError | DatabaseAway) -> NoReturn:
    """Say why this worker cannot start, and leave the others alone if they can serve."""
    board = host.prepared.board if host.prepared else None
    if isinstance(error, ConfigError) and not (board and board.has_seen_database):
        # One of them speaks for all: gunicorn trips over a second one while it ends.
        if board is None or board.slot == 0:
            sys.stderr.write(f"tokenhub cannot start: {error}\n")
            sys.exit(BOOT_ERROR)
    else:
        sys.stderr.write(f"tokenhub worker cannot start yet, trying again: {error}\n")
        sys.stderr.flush()
    time.sleep(PAUSE_SECS)
    sys.exit(TRY_AGAIN)


try:
    # All workers of a host use what it was started with; what may change at run time is read again
    # after SIGHUP. A file that is being edited must not send the next worker somewhere else.
    settings = host.prepared.settings if host.prepared else read_settings()
    app = create_app(settings, host.prepared, reload_settings=read_settings)
except (ConfigError, DatabaseAway) as error:
    give_up(error)

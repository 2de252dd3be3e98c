"""`python -m tokenhub.preflight`: may a gateway start with these settings, on this database?

The arbiter asks before it forks, in a process of its own so that it loads no database driver
itself. Exit status 0: yes, or nobody can tell because the database is away, for which the workers
wait. 1: no, with the reason on standard error.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing

from tokenhub import credentials, host
from tokenhub.config import Settings
from tokenhub.db import (
    DatabaseAway,
    DatabaseUnusable,
    check_room,
    find_room,
    look_for_damage,
    open_at_head,
)
from tokenhub.errors import ConfigError
from tokenhub.price_source import check_source
from tokenhub.web.admin.credentials import rules


def main() -> int:
    """Check settings, price source, credentials file and database; returns the exit status."""
    try:
        settings = Settings.from_env(os.environ)
        check_source(settings)
        credentials.check(settings.credentials_file, rules(settings))
        _check_database(settings)
    except (ConfigError, DatabaseUnusable) as error:
        sys.stderr.write(f"tokenhub cannot start: {error}\n")
        return 1
    except DatabaseAway as error:
        sys.stderr.write(f"tokenhub: {error}; the workers wait for it\n")
    return 0


def _check_database(settings: Settings) -> None:
    with closing(open_at_head(settings.db_dsn)) as database:
        look_for_damage(database)
        room = find_room(database)
    if room is None:
        return
    workers = host.worker_count(settings)
    warning = check_room(room, workers=workers, pool_size=settings.db_pool_size)
    if warning is not None:
        sys.stderr.write(f"tokenhub: {warning}\n")


if __name__ == "__main__":
    sys.exit(main())

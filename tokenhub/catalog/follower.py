"""How a host hears of changes made elsewhere: Postgres announces them, and now and then we ask.

An announcement only says that there is something to read; what counts is the generation that is
read then. So nothing is lost by one that is missed: after the line was cut the generation is read
again, and an announcement that never comes is found out by asking.
"""

from __future__ import annotations

import logging

from tokenhub import store
from tokenhub.catalog.catalog import Catalog
from tokenhub.db import Database, DatabaseAway

ASK_SECS = 0.25
"""How often we ask where nobody announces anything."""

CATCH_UP_SECS = 2.0
"""How often we ask while changes are announced."""

RECONNECT_SECS = 0.1
"""How soon after it was cut the line is tried again: changes should arrive within a second."""

LINE_SECS = 60.0
"""How long we wait for an announcement before we wait for the next one."""

log = logging.getLogger("tokenhub.catalog.follower")


class Follower:
    """The leader's ear. `poll` and `listen` run beside each other."""

    def __init__(self, catalog: Catalog, database: Database) -> None:
        self._catalog = catalog
        self._database = database
        self._is_listening = False
        self._is_deaf = False
        self._announced = 0
        self._found = 0

    def poll(self) -> float:
        """Ask how far the catalog is; returns the seconds to wait before the next time.

        Raises:
            DatabaseAway: it cannot be asked now.
        """
        # What was found the last time has been announced meanwhile, unless announcements do not
        # reach us: behind a pooler that changes connections under us, or on a line that is dead.
        if self._is_listening and not self._is_deaf and self._found > self._announced:
            self._is_deaf = True
            log.warning("changes are not announced", extra={"ask_secs": ASK_SECS})
        self._found = self._catalog.poll()
        return CATCH_UP_SECS if self._is_listening and not self._is_deaf else ASK_SECS

    def listen(self) -> float:
        """Follow what is announced until the line is cut; returns the seconds until it should be
        tried again.

        Raises:
            DatabaseAway: there is none now.
        """
        try:
            with self._database.listen(store.CHANNEL) as wait:
                self._announced = self._catalog.poll()  # what was announced before we listened
                self._is_listening = True
                while True:
                    if wait(LINE_SECS):
                        self._announced = self._catalog.poll()
                        self._is_deaf = False
        except DatabaseAway:
            if not self._is_listening:
                raise
            return RECONNECT_SECS
        finally:
            self._is_listening = False

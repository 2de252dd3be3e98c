"""What a worker does after SIGHUP: it reads the settings and the credentials file again.

Some settings can change while it runs; of the others it says that they need a restart. What was
saved through the admin API wins as before. While anything in a file is wrong, what was there before
stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

from tokenhub.access import digest_of
from tokenhub.catalog import Catalog
from tokenhub.config import Settings, rows, variable_of
from tokenhub.credentials import Credentials
from tokenhub.domain import NANOS_PER_USD, Mode, RoutingDefaults
from tokenhub.errors import ConfigError
from tokenhub.limiter import Limiter
from tokenhub.telemetry import LogLevel

APPLIED = frozenset({
    "log_level", "default_mode", "default_max_budget_usd", "default_max_latency_ms",
    "rate_limit_rps", "rate_limit_burst", "admin_rate_limit_rps", "admin_rate_limit_burst",
})  # fmt: skip
"""Settings that change while a worker runs. None is secret: what they change to is logged."""

log = logging.getLogger("tokenhub.reloading")


class Reloader:
    """Applies to one worker what has changed in its files.

    Args:
        settings: those it was started with.
        read: reads them again.
        is_speaker: whether this worker is the one that tells what has changed: all do the same.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        read: Callable[[], Settings],
        catalog: Catalog,
        limiter: Limiter,
        credentials: Credentials,
        log_level: LogLevel,
        is_speaker: Callable[[], bool],
    ) -> None:
        self._started_with = settings
        self._current = settings
        self._read = read
        self._catalog = catalog
        self._limiter = limiter
        self._credentials = credentials
        self._log_level = log_level
        self._is_speaker = is_speaker

    def reload(self) -> None:
        """Read and apply; what is wrong is logged, all at once, and changes nothing."""
        self._credentials.read_again()
        try:
            fresh = self._read()
        except ConfigError as error:
            log.error("reload refused", extra={"problems": str(error)})
            return
        if self._is_speaker():
            self._tell(fresh)
        self._log_level.configure(fresh.log_level)
        self._catalog.set_defaults(routing_defaults(fresh))
        self._limiter.configure(fresh)
        self._current = fresh

    def _tell(self, fresh: Settings) -> None:
        """Said before the level of the log may change, and so that it is seen at `warn`."""
        changed = {
            variable_of(name): [getattr(self._current, name), getattr(fresh, name)]
            for name in changes(self._current, fresh)
            if name in APPLIED
        }
        waiting = [
            variable_of(name)
            for name in changes(self._started_with, fresh)
            if name not in APPLIED and not self._is_in_force(name, fresh)
        ]
        if changed:
            log.warning("settings changed", extra={"changed": changed})
        if waiting:
            log.warning("settings need a restart", extra={"settings": waiting})
        if not changed and not waiting:
            log.info("settings are as before")

    def _is_in_force(self, name: str, fresh: Settings) -> bool:
        """An admin token that was rotated through the API has been put into its file as well."""
        admins = self._catalog.latest().admins
        return name == "admin_token" and digest_of(fresh.admin_token) in admins.tokens


def changes(old: Settings, new: Settings) -> list[str]:
    """The fields in which they differ."""
    return [name for name in rows() if getattr(old, name) != getattr(new, name)]


def routing_defaults(settings: Settings) -> RoutingDefaults:
    """The settings' routing defaults."""
    return RoutingDefaults(
        mode=cast(Mode, settings.default_mode),  # its parser lets no other word pass
        max_budget_nanousd=round(settings.default_max_budget_usd * NANOS_PER_USD),
        max_latency_ms=settings.default_max_latency_ms,
    )

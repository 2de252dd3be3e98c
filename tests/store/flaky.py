"""A database that fails when it is told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from tokenhub.db import Database, DatabaseAway


class Flaky:
    """A database that goes away as told: one word for each call, nothing for those after.

    "before": nothing was done. "after": it was done, and nobody learned of it.
    """

    def __init__(self, database: Database, faults: list[str]) -> None:
        self._database = database
        self.faults = faults

    def read(self, work: Callable[[Connection], Any], **limits: Any) -> Any:
        return self._call(self._database.read, work, limits)

    def write(self, work: Callable[[Connection], Any], **limits: Any) -> Any:
        return self._call(self._database.write, work, limits)

    def _call(self, method: Callable[..., Any], work: Any, limits: Any) -> Any:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "before":
            raise DatabaseAway("on purpose")
        value = method(work, **limits)
        if fault == "after":
            raise DatabaseAway("on purpose", is_outcome_unknown=True)
        return value

"""How much is logged: changed while the gateway runs, in every worker of all hosts."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.services import Services
from tokenhub.telemetry import LEVELS
from tokenhub.web import changes, forms, guards
from tokenhub.web.answers import answer, read

routes = Blueprint("log_level", __name__)

SETTINGS = "settings"
"""Instead of a level: what the settings say."""


@routes.get("/log-level")
def get_level() -> Response:
    """The level in force, and whether it was saved here or is that of the settings."""
    forms.check_query()
    hub = guards.services()
    return answer(_shown(hub, read(hub, _find)))


@routes.put("/log-level")
def put_level() -> Response:
    """Save another level; `settings` leaves it to them again."""
    hub = guards.services()
    level = forms.read_fields(hub, FIELDS, required=("level",))["level"]
    chosen = "" if level == SETTINGS else level
    saved = changes.save(
        hub,
        changes.Subject(kind=store.LOG_LEVEL, id="", find=_find, show=_record),
        "log-level.update",
        alter=lambda _: chosen,
        write=lambda connection, after: store.save_option(
            connection, store.LOG_LEVEL, after or None, unix_ms()
        ),
    )
    hub.catalog.current()  # this worker hears of it at once, the others within a second
    return answer(_shown(hub, saved))


def _find(connection: Connection) -> str:
    return store.find_option(connection, store.LOG_LEVEL) or ""


def _record(level: str) -> dict[str, Any]:
    return {"level": level or SETTINGS}


def _shown(hub: Services, saved: str) -> dict[str, Any]:
    return {"level": saved or hub.log_level.configured, "saved": bool(saved)}


FIELDS: dict[str, forms.Reader] = {"level": forms.one_of(*LEVELS, SETTINGS)}

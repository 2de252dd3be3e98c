"""Routing defaults: what applies when neither a request nor its key says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import Blueprint, Response

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.directives import BUDGET_USD_MAX, LATENCY_MS_MAX
from tokenhub.domain import (
    MODES,
    RoutingDefaults,
)
from tokenhub.pricing import nanos_from_usd, usd
from tokenhub.web import changes, forms, guards
from tokenhub.web.answers import answer, read

routes = Blueprint("routing", __name__)

TOKEN_COUNT_DEFAULT = 500
NAMES_MAX = 50


@routes.get("/routing-config")
def get_config() -> Response:
    """What applies when the caller does not say, saved here or from the settings."""
    hub = guards.services()
    forms.check_query()
    saved = read(hub, store.find_routing)
    shown = _record(saved or hub.catalog.current().defaults)
    return answer({**shown, "saved": saved is not None})


@routes.put("/routing-config")
def put_config() -> Response:
    """Save routing defaults; what is not given stays as it is in force now."""
    hub = guards.services()
    values = forms.read_fields(hub, CONFIG_FIELDS)
    given = {CONFIG_NAMES[name]: value for name, value in values.items() if value != ""}
    in_force = hub.catalog.current().defaults
    changes.save(
        hub,
        changes.Subject(kind="routing", id="", find=store.find_routing, show=_record),
        "routing-config.update",
        alter=lambda before: replace(before or in_force, **given),
        write=lambda connection, after: store.save_routing(connection, after, unix_ms()),
    )
    return answer({"ok": True})


def _record(defaults: RoutingDefaults) -> dict[str, Any]:
    return {
        "default_mode": defaults.mode,
        "default_max_budget_usd": usd(defaults.max_budget_nanousd),
        "default_max_latency_ms": defaults.max_latency_ms,
    }


def _read_budget(name: str, value: Any) -> int:
    return nanos_from_usd(forms.number(0, BUDGET_USD_MAX)(name, value))


CONFIG_NAMES = {
    "default_mode": "mode",
    "default_max_budget_usd": "max_budget_nanousd",
    "default_max_latency_ms": "max_latency_ms",
}
CONFIG_FIELDS: dict[str, forms.Reader] = {
    "default_mode": forms.one_of(*MODES, ""),
    "default_max_budget_usd": _read_budget,
    "default_max_latency_ms": forms.integer(0, LATENCY_MS_MAX),
}

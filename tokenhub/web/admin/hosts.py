"""The hosts that share the database: which of them live, and which leads."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import RowMapping

from tokenhub import store
from tokenhub.web import forms, guards
from tokenhub.web.answers import answer, listing, read, rfc3339

routes = Blueprint("hosts", __name__)


@routes.get("/hosts")
def list_all() -> Response:
    """Every host there has been, the one that was seen last first."""
    page = forms.read_page()
    rows, total = read(guards.services(), lambda connection: store.list_hosts(connection, *page))
    return answer(listing("hosts", [_host(each) for each in rows], total, page))


def _host(row: RowMapping) -> dict[str, Any]:
    state = store.host_state_of(row) if row["is_live"] else None
    return {
        "id": row["id"],
        "name": row["name"],
        "version": row["version"],
        "workers": row["workers"],
        "started_at": rfc3339(row["started_at"]),
        "seen_at": rfc3339(row["seen_at"]),
        "ended_at": rfc3339(row["ended_at"]),
        "is_live": bool(row["is_live"]),
        "is_leader": bool(row["is_leader"]),
        "lag_secs": None if state is None else state.lag_secs,
        "waiting_bytes": None if state is None else state.waiting_bytes,
        "set_aside": None if state is None else state.set_aside,
        "vault_locked": None if state is None else state.vault_locked,
    }

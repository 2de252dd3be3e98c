"""Teams: keys that share limits and a list of models. A disabled team's keys are refused."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.domain import Team
from tokenhub.errors import Conflict, NotFound
from tokenhub.web import changes, forms, guards, revisions
from tokenhub.web.admin import allowances, budgets, dependents
from tokenhub.web.answers import answer, listing, read, rfc3339

routes = Blueprint("teams", __name__)


@routes.get("/teams")
def list_all() -> Response:
    """All teams by name, in pages."""
    page = forms.read_page()
    rows, total = read(guards.services(), lambda connection: store.list_teams(connection, *page))
    return answer(listing("teams", [record(each) for each in rows], total, page))


@routes.post("/teams")
def create() -> Response:
    """Make a team. Its id is new: what a team of the past has spent is not its own."""
    hub = guards.services()
    values = forms.read_fields(hub, FIELDS, required=("name",))
    team = Team(f"team_{secrets.token_hex(8)}", values["name"], created_at=unix_ms())
    made = _altered(team, values)
    stored = changes.save(hub, _subject(team.id), "team.create", alter=lambda _: made, write=_write)
    return _answer_of(stored)


@routes.get("/teams/<path:team_id>")
def get(team_id: str) -> Response:
    """One team."""
    team_id = forms.path_id(team_id)
    forms.check_query()
    found = read(guards.services(), lambda connection: store.find_team(connection, team_id))
    team = _required(found)
    return revisions.answer_of(record(team), team.revision)


@routes.patch("/teams/<path:team_id>")
def patch(team_id: str) -> Response:
    """Change the fields that are given; in force from the next request on."""
    hub = guards.services()
    team_id = forms.path_id(team_id)
    values = forms.read_fields(hub, FIELDS)
    stored = changes.save(
        hub,
        _subject(team_id),
        "team.update",
        alter=lambda before: _altered(_required(before), values),
        write=_write,
    )
    return _answer_of(stored)


@routes.delete("/teams/<path:team_id>")
def delete(team_id: str) -> Response:
    """Remove a team that has no keys; well even if there is none. A dry run says which it has."""
    hub = guards.services()
    team_id = forms.path_id(team_id)
    if forms.read_switch("dry_run"):
        return dependents.foresee(hub, _subject(team_id), dependents.of_team)

    def remove(connection: Connection) -> None:
        count = store.count_keys_of(connection, team_id)
        if count:
            raise Conflict(f"{count} API keys belong to the team", code="team_in_use", param="id")
        budgets.drop(connection, ("team", team_id))
        store.delete_team(connection, team_id)

    changes.delete(hub, _subject(team_id), "team.delete", remove=remove)
    return answer({"ok": True})


def record(team: Team) -> dict[str, Any]:
    """A team as the API shows it."""
    return {**_shown(team), "revision": team.revision}


def _shown(team: Team) -> dict[str, Any]:
    """What an administrator sets of it, and when it was made."""
    return {
        "id": team.id,
        "name": team.name,
        "enabled": team.enabled,
        "models": list(team.models),
        **allowances.shown_limits(team.limits),
        "created_at": rfc3339(team.created_at),
    }


def _answer_of(team: Team) -> Response:
    return revisions.answer_of({"ok": True, "team": record(team)}, team.revision)


def _altered(team: Team, values: dict[str, Any]) -> Team:
    given = {name: values[name] for name in ("name", "enabled", "models") if name in values}
    return replace(team, **given, limits=allowances.limits_from(values, team.limits))


def _write(connection: Connection, team: Team) -> None:
    if store.is_team_name_taken(connection, team.name, but_of=team.id):
        raise Conflict("another team has this name", code="name_taken", param="name")
    store.save_team(connection, team, unix_ms())


def _required(team: Team | None) -> Team:
    if team is None:
        raise NotFound("there is no such team", param="id")
    return team


def _subject(team_id: str) -> changes.Subject[Team]:
    return changes.Subject(
        kind="team",
        id=team_id,
        find=lambda connection: store.find_team(connection, team_id),
        show=_shown,
        revision=lambda team: team.revision,
    )


FIELDS: dict[str, forms.Reader] = {
    "name": forms.label,
    "enabled": forms.flag,
    **allowances.FIELDS,
}

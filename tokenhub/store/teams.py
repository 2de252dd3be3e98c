"""Teams as rows. Whose keys they are is in the keys' rows."""

from __future__ import annotations

from dataclasses import replace

import orjson
from sqlalchemy import Connection, RowMapping, delete, select

from tokenhub.db.catalog_tables import teams
from tokenhub.domain import Team
from tokenhub.store.keys import limits_from
from tokenhub.store.statements import page_of, upsert_revised


def find_team(connection: Connection, team_id: str) -> Team | None:
    """A team by id."""
    row = connection.execute(select(teams).where(teams.c.id == team_id)).mappings().one_or_none()
    return None if row is None else _team_from(row)


def list_teams(connection: Connection, limit: int, offset: int) -> tuple[list[Team], int]:
    """A page of the teams by name, and how many there are."""
    rows, total = page_of(connection, select(teams).order_by(teams.c.name), limit, offset)
    return [_team_from(row) for row in rows], total


def load_teams(connection: Connection) -> dict[str, Team]:
    """All teams by id."""
    return {row["id"]: _team_from(row) for row in connection.execute(select(teams)).mappings()}


def is_team_name_taken(connection: Connection, name: str, but_of: str) -> bool:
    """Whether a team has this name, other than the one with the id `but_of`."""
    query = select(teams.c.id).where(teams.c.name == name, teams.c.id != but_of)
    return connection.execute(query).first() is not None


def save_team(connection: Connection, team: Team, at: int) -> Team:
    """Create or replace a team; returns it with its new revision.

    Raises:
        sqlalchemy.exc.IntegrityError: its name is another one's.
    """
    values = {
        "id": team.id,
        "name": team.name,
        "enabled": team.enabled,
        "models": orjson.dumps(team.models).decode(),
        "rate_limit_rps": team.limits.rps,
        "rpm": team.limits.rpm,
        "tpm": team.limits.tpm,
        "max_parallel": team.limits.parallel,
    }
    return replace(team, revision=upsert_revised(connection, teams, values, at))


def delete_team(connection: Connection, team_id: str) -> bool:
    """Delete a team; False if there was none. That no key belongs to it is for the caller to see
    to."""
    return connection.execute(delete(teams).where(teams.c.id == team_id)).rowcount > 0


def _team_from(row: RowMapping) -> Team:
    return Team(
        id=row["id"],
        name=row["name"],
        enabled=row["enabled"],
        models=tuple(orjson.loads(row["models"])),
        limits=limits_from(row),
        created_at=row["created_at"],
        revision=row["revision"],
    )

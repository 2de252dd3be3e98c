"""Administrators: their tokens and their sessions. A secret is nowhere, only its SHA-256."""

from __future__ import annotations

from sqlalchemy import Connection, RowMapping, Table, and_, delete, insert, or_, select, update

from tokenhub.access import Admins, AdminSession, AdminToken
from tokenhub.db.admin_tables import admin_sessions, admin_tokens
from tokenhub.store.statements import page_of, upsert


def load_admins(connection: Connection) -> Admins:
    """All tokens and sessions; some may be over."""
    tokens = connection.execute(select(admin_tokens)).mappings()
    sessions = connection.execute(select(admin_sessions)).mappings()
    return Admins(
        {row["sha256"]: _token_from(row) for row in tokens},
        {row["sha256"]: _session_from(row) for row in sessions},
    )


def find_admin_token(connection: Connection, token_id: str) -> AdminToken | None:
    """A token."""
    query = select(admin_tokens).where(admin_tokens.c.id == token_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _token_from(row)


def list_admin_tokens(
    connection: Connection, limit: int, offset: int
) -> tuple[list[AdminToken], int]:
    """A page of the tokens, newest first, and how many there are."""
    query = select(admin_tokens).order_by(
        admin_tokens.c.created_at.desc(), admin_tokens.c.id.desc()
    )
    rows, total = page_of(connection, query, limit, offset)
    return [_token_from(row) for row in rows], total


def is_admin_name_taken(connection: Connection, name: str) -> bool:
    """Whether some token has this name."""
    query = select(admin_tokens.c.id).where(admin_tokens.c.name == name)
    return connection.execute(query).first() is not None


def save_admin_token(connection: Connection, token: AdminToken) -> None:
    """Store a token, or replace the one that has its id.

    Raises:
        sqlalchemy.exc.IntegrityError: its name or its digest is another one's.
    """
    values = {
        "name": token.name,
        "role": token.role,
        "sha256": token.sha256,
        "prefix": token.prefix,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "created_by": token.created_by,
    }
    upsert(connection, admin_tokens, {"id": token.id}, values)


def delete_admin_token(connection: Connection, token_id: str) -> bool:
    """Delete a token, and the sessions that were made from it; False if there was none."""
    end_sessions_of(connection, token_id)
    done = connection.execute(delete(admin_tokens).where(admin_tokens.c.id == token_id))
    return done.rowcount > 0


def find_admin_session(connection: Connection, session_id: str) -> AdminSession | None:
    """A session; it may be over."""
    query = select(admin_sessions).where(admin_sessions.c.id == session_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _session_from(row)


def list_admin_sessions(
    connection: Connection, token_id: str | None, now: int, limit: int, offset: int
) -> tuple[list[AdminSession], int]:
    """A page of the sessions that are not over, newest first, and how many there are.

    Args:
        token_id: only those made from this token; None = all.
    """
    query = select(admin_sessions).where(admin_sessions.c.expires_at > now)
    if token_id is not None:
        query = query.where(admin_sessions.c.token_id == token_id)
    newest_first = (admin_sessions.c.created_at.desc(), admin_sessions.c.id.desc())
    rows, total = page_of(connection, query.order_by(*newest_first), limit, offset)
    return [_session_from(row) for row in rows], total


def insert_admin_session(connection: Connection, session: AdminSession, *, most: int) -> None:
    """Store a new session, and forget those that are over, and the oldest of its token's.

    Args:
        most: sessions that a token may have at a time.
    """
    table = admin_sessions
    connection.execute(delete(table).where(table.c.expires_at <= session.created_at))
    newest = (
        select(table.c.id)
        .where(table.c.token_id == session.token_id)
        .order_by(table.c.created_at.desc(), table.c.id.desc())
        .offset(most - 1)
    )
    oldest = list(connection.scalars(newest))
    connection.execute(delete(table).where(table.c.id.in_(oldest)))
    statement = insert(table).values(
        id=session.id,
        token_id=session.token_id,
        sha256=session.sha256,
        binding=session.binding,
        client_ip=session.client_ip,
        user_agent=session.user_agent,
        created_at=session.created_at,
        expires_at=session.expires_at,
    )
    connection.execute(statement)


def delete_admin_session(connection: Connection, session_id: str) -> bool:
    """End a session; False if there was none."""
    done = connection.execute(delete(admin_sessions).where(admin_sessions.c.id == session_id))
    return done.rowcount > 0


def end_sessions_of(connection: Connection, token_id: str) -> None:
    """End all sessions that were made from a token."""
    connection.execute(delete(admin_sessions).where(admin_sessions.c.token_id == token_id))


def note_admin_use(connection: Connection, token_id: str, session_id: str, at: int) -> None:
    """Remember when a token, and the session it is used by if any, were last used."""
    for table, id_ in ((admin_tokens, token_id), (admin_sessions, session_id)):
        if id_:
            _note_use(connection, table, id_, at)


def _note_use(connection: Connection, table: Table, id_: str, at: int) -> None:
    is_older = or_(table.c.last_used_at.is_(None), table.c.last_used_at < at)
    connection.execute(
        update(table).where(and_(table.c.id == id_, is_older)).values(last_used_at=at)
    )


def _token_from(row: RowMapping) -> AdminToken:
    return AdminToken(**row)


def _session_from(row: RowMapping) -> AdminSession:
    return AdminSession(**row)

"""Browser sessions: sign in, who am I, sign out, list and revoke.

The cookie is 256 random bits that script cannot read; we keep their SHA-256. A session ends with
the token it was made from.
"""

from __future__ import annotations

import secrets
from typing import Any

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.access import (
    Admin,
    Admins,
    AdminSession,
    AdminToken,
    binding_of,
    csrf_token_of,
    digest_of,
    is_allowed,
    needs,
)
from tokenhub.board.board import unix_ms
from tokenhub.errors import InvalidRequest, NotFound, Unauthenticated
from tokenhub.services import Services
from tokenhub.web import access, changes, forms, guards
from tokenhub.web.answers import answer, listing, read, rfc3339

routes = Blueprint("sessions", __name__)

SESSIONS_MAX = 100
"""Sessions of one token; the oldest makes way."""

TOKEN_CHARS_MAX = 1024
USER_AGENT_CHARS_MAX = 200


@routes.post("/session")
@needs(None)
def sign_in() -> Response:
    """Show a token, in the body or as for any call, and get a session's cookie."""
    hub = guards.services()
    environ = request.environ
    access.check_origin(environ, is_needed=False)
    values = forms.read_fields(hub, FIELDS, may_be_empty=True)
    given = values.get("token", "").strip().encode()
    given = given or guards.bearer_token(environ).encode("latin-1", "replace")
    if not given:
        raise Unauthenticated("the admin token is required", code="missing_admin_token")
    admin = access.check_token(hub, given)
    access.welcome(hub, admin)
    secret = secrets.token_hex(32)
    session = _new_session(hub, admin.token, secret)
    stored = changes.save(
        hub, _subject(session.id), "session.create", alter=lambda _: session, write=_insert
    )
    response = answer(_shown(Admin(admin.token, stored), csrf_token_of(secret)))
    _set_cookie(hub, response, secret, (session.expires_at - session.created_at) // 1000)
    return response


@routes.get("/session")
def who_am_i() -> Response:
    """Who asks, and what their page must send along with changes."""
    forms.check_query()
    admin = access.current_admin()
    secret = request.cookies.get(access.COOKIE, "")
    return answer(_shown(admin, csrf_token_of(secret) if admin.session else None))


@routes.delete("/session")
@needs("viewer")
def sign_out() -> Response:
    """End the session that asks; well even if a token does."""
    forms.check_query()
    hub = guards.services()
    session = access.current_admin().session
    if session is not None:
        _end(hub, session.id)
    response = answer({"ok": True})
    _set_cookie(hub, response, "", 0)
    return response


@routes.get("/sessions")
def list_all() -> Response:
    """Sessions that are not over, newest first: an owner sees all, others those of their token."""
    hub = guards.services()
    admin, page, now = access.current_admin(), forms.read_page(), unix_ms()
    token_id = None if _is_owner(admin) else admin.token.id
    rows, total = read(
        hub, lambda connection: store.list_admin_sessions(connection, token_id, now, *page)
    )
    admins = hub.catalog.current().admins
    current = "" if admin.session is None else admin.session.id
    shown = [
        {**_named(hub, admins, each), **record(each), "is_current": each.id == current}
        for each in rows
    ]
    return answer(listing("sessions", shown, total, page))


@routes.delete("/sessions/<path:session_id>")
@needs("viewer")
def revoke(session_id: str) -> Response:
    """End a session, everywhere at once; well even if there is none. Others' only as an owner."""
    forms.check_query()
    hub = guards.services()
    session_id = forms.path_id(session_id)
    admin = access.current_admin()
    found = read(hub, lambda connection: store.find_admin_session(connection, session_id))
    if found is not None:
        if found.token_id != admin.token.id and not _is_owner(admin):
            raise NotFound("there is no such session of yours", param="id")
        _end(hub, session_id)
    return answer({"ok": True})


def record(session: AdminSession) -> dict[str, Any]:
    """A session as the API shows it."""
    return {
        "id": session.id,
        "token_id": session.token_id,
        "created_at": rfc3339(session.created_at),
        "expires_at": rfc3339(session.expires_at),
        "last_used_at": rfc3339(session.last_used_at),
        "client_ip": session.client_ip,
        "user_agent": session.user_agent,
    }


def _new_session(hub: Services, token: AdminToken, secret: str) -> AdminSession:
    now = unix_ms()
    ends = [now + hub.settings.session_secs * 1000, token.expires_at]
    said = request.headers.get("User-Agent", "")[:USER_AGENT_CHARS_MAX]
    return AdminSession(
        id=f"ses_{secrets.token_hex(8)}",
        token_id=token.id,
        sha256=digest_of(secret),
        binding=binding_of(secret, token.sha256),
        created_at=now,
        expires_at=min(each for each in ends if each is not None),
        client_ip=guards.client_ip(request.environ, hub.settings.trusted_proxies),
        user_agent=said if said.isprintable() else "",
    )


def _insert(connection: Connection, session: AdminSession) -> None:
    store.insert_admin_session(connection, session, most=SESSIONS_MAX)


def _end(hub: Services, session_id: str) -> None:
    changes.delete(
        hub,
        _subject(session_id),
        "session.end",
        remove=lambda connection: store.delete_admin_session(connection, session_id),
    )


def _subject(session_id: str) -> changes.Subject[AdminSession]:
    return changes.Subject(
        kind="admin",
        id=session_id,
        find=lambda connection: store.find_admin_session(connection, session_id),
        show=record,
    )


def _shown(admin: Admin, csrf_token: str | None) -> dict[str, Any]:
    session = admin.session
    return {
        "ok": True,
        "name": admin.token.name,
        "role": admin.token.role,
        "session_id": None if session is None else session.id,
        "expires_at": rfc3339(admin.token.expires_at if session is None else session.expires_at),
        "csrf_token": csrf_token,
    }


def _named(hub: Services, admins: Admins, session: AdminSession) -> dict[str, Any]:
    token = admins.find_by_id(session.token_id, hub.root)
    return {"name": "" if token is None else token.name, "role": token and token.role}


def _is_owner(admin: Admin) -> bool:
    return is_allowed(admin.token.role, "owner")


def _set_cookie(hub: Services, response: Response, value: str, secs: int) -> None:
    response.set_cookie(
        access.COOKIE,
        value,
        max_age=secs,
        path="/",
        secure=access.is_tls(hub, request.environ),
        httponly=True,
        samesite="Strict",
    )


def _read_token(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > TOKEN_CHARS_MAX:
        raise InvalidRequest(
            f"{name} must be a string of at most {TOKEN_CHARS_MAX} characters", param=name
        )
    return value


FIELDS: dict[str, forms.Reader] = {"token": _read_token}

"""Administrators' tokens: issue, list, revoke, rotate the root token. A secret is shown once."""

from __future__ import annotations

import logging
import re
import secrets
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub import data_dir, store
from tokenhub.access import (
    ROLES,
    ROOT_ID,
    ROOT_NAME,
    TOKEN_PREFIX,
    AdminToken,
    digest_of,
    needs,
    prefix_of,
)
from tokenhub.board.board import unix_ms
from tokenhub.errors import Conflict, InvalidRequest
from tokenhub.keys import parse_expiry
from tokenhub.services import Services
from tokenhub.web import access, changes, forms, guards
from tokenhub.web.answers import answer, listing, read, rfc3339

log = logging.getLogger("tokenhub.web.tokens")

routes = Blueprint("tokens", __name__)

WARNING = "Store this token now: it cannot be shown again."
STILL_CONFIGURED = (
    "TOKENHUB_ADMIN_TOKEN still has another token; the new one holds, also after a restart"
)
NOT_WRITTEN = (
    "the token's file could not be written and has the old token; the new one holds all the same"
)

ACTORS = frozenset({ROOT_NAME, "autolock", "cli", "credentials-file", "prices", "run"})
"""Names that stand for somebody else in the audit."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_CHOSEN = re.compile(r"[\x21-\x7e]{16,200}")


@routes.get("/tokens")
@needs("owner")
def list_all() -> Response:
    """All admin tokens, newest first; never a secret. The root token is there once rotated."""
    page = forms.read_page()
    rows, total = read(
        guards.services(), lambda connection: store.list_admin_tokens(connection, *page)
    )
    return answer(listing("tokens", [record(each) for each in rows], total, page))


@routes.post("/tokens")
@needs("owner")
def create() -> Response:
    """Issue a token of its own name and role."""
    hub = guards.services()
    values = forms.read_fields(hub, FIELDS, required=("name", "role"))
    now = unix_ms()
    secret = new_token()
    token = AdminToken(
        id=f"adm_{secrets.token_hex(8)}",
        name=values["name"],
        role=values["role"],
        sha256=digest_of(secret),
        prefix=prefix_of(secret),
        created_at=now,
        expires_at=parse_expiry(values.get("expires_in"), values.get("expires_at"), now),
        created_by=access.current_admin().actor,
    )
    stored = changes.save(
        hub, _subject(token.id), "admin_token.create", alter=lambda _: token, write=_insert
    )
    return answer({"ok": True, "token": secret, "warning": WARNING, **record(stored)})


@routes.delete("/tokens/<path:token_id>")
@needs("owner")
def delete(token_id: str) -> Response:
    """Revoke a token and end its sessions, everywhere at once; well even if there is none."""
    forms.check_query()
    hub = guards.services()
    token_id = forms.path_id(token_id)
    if token_id == ROOT_ID:
        raise InvalidRequest("the root token can only be rotated", param="id")
    changes.delete(
        hub,
        _subject(token_id),
        "admin_token.revoke",
        remove=lambda connection: store.delete_admin_token(connection, token_id),
    )
    return answer({"ok": True})


@routes.post("/admin-token/rotate")
@needs("owner")
def rotate() -> Response:
    """Give the root token a new secret; the old one and its sessions end everywhere at once."""
    hub = guards.services()
    values = forms.read_fields(hub, ROTATE_FIELDS, may_be_empty=True)
    secret: str = values.get("token") or new_token()
    admins = hub.catalog.current().admins
    olds = {hub.root.sha256, admins.root(hub.root).sha256}
    fresh = AdminToken(
        id=ROOT_ID,
        name=ROOT_NAME,
        role="owner",
        sha256=digest_of(secret),
        prefix=prefix_of(secret),
        created_at=unix_ms(),
    )
    if any(each.sha256 == fresh.sha256 for each in admins.tokens.values()):
        raise InvalidRequest("token is in use already", param="token")

    def write(connection: Connection, token: AdminToken) -> None:
        store.save_admin_token(connection, token)
        store.end_sessions_of(connection, ROOT_ID)

    changes.save(hub, _subject(ROOT_ID), "admin_token.rotate", alter=lambda _: fresh, write=write)
    return answer({"ok": True, "token": secret, "warning": WARNING, **_keep(hub, olds, secret)})


def new_token() -> str:
    """A token of 256 random bits."""
    return TOKEN_PREFIX + secrets.token_hex(32)


def record(token: AdminToken) -> dict[str, Any]:
    """A token as the API shows it."""
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "prefix": token.prefix,
        "created_at": rfc3339(token.created_at),
        "expires_at": rfc3339(token.expires_at),
        "last_used_at": rfc3339(token.last_used_at),
        "created_by": token.created_by,
    }


def _insert(connection: Connection, token: AdminToken) -> None:
    if store.is_admin_name_taken(connection, token.name):
        raise Conflict("another admin token has this name", code="name_taken", param="name")
    store.save_admin_token(connection, token)


def _subject(token_id: str) -> changes.Subject[AdminToken]:
    return changes.Subject(
        kind="admin",
        id=token_id,
        find=lambda connection: store.find_admin_token(connection, token_id),
        show=record,
    )


def _keep(hub: Services, olds: set[bytes], secret: str) -> dict[str, Any]:
    """Write the new root token where the old one was read from; says what still has an old one."""
    try:
        is_written = data_dir.replace_admin_token(
            hub.settings.data_dir, lambda found: digest_of(found) in olds, secret
        )
    except OSError as error:
        log.error("admin token file was not written", extra={"reason": error.strerror})
        return {"file_written": False, "note": NOT_WRITTEN}
    is_configured = hub.settings.admin_token and not is_written
    return {"file_written": is_written, "note": STILL_CONFIGURED if is_configured else None}


def _read_name(name: str, value: Any) -> str:
    found: str = forms.text(64)(name, value)
    if _NAME.fullmatch(found) is None:
        raise InvalidRequest(
            f"{name} must begin with a letter or a digit and have of others only . _ @ -",
            param=name,
        )
    if found.lower() in ACTORS:
        raise InvalidRequest(f"{name} stands for somebody else in the audit", param=name)
    return found


def _read_chosen(name: str, value: Any) -> str:
    if not isinstance(value, str) or _CHOSEN.fullmatch(value) is None:
        raise InvalidRequest(
            f"{name} must have 16 to 200 printable ASCII characters without spaces", param=name
        )
    return value


FIELDS: dict[str, forms.Reader] = {
    "name": _read_name,
    "role": forms.one_of(*ROLES),
    "expires_in": forms.anything,  # parse_expiry checks it
    "expires_at": forms.anything,
}
ROTATE_FIELDS: dict[str, forms.Reader] = {"token": _read_chosen}

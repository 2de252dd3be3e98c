"""Unlock and lock the vault, for all workers of this host at once."""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, Response, request

from tokenhub.db import DatabaseAway
from tokenhub.errors import InvalidRequest, Unavailable, WrongPassword
from tokenhub.services import Services
from tokenhub.web import changes, forms, guards
from tokenhub.web.answers import answer

log = logging.getLogger("tokenhub.web.vault")

blueprint = Blueprint("vault", __name__, url_prefix="/admin/v1/vault")

PASSWORD_CHARS_MAX = 1024


@blueprint.before_request
def require_admin() -> None:
    """Nothing here is for anybody else."""
    guards.require_admin(guards.services())


@blueprint.post("/unlock")
def unlock() -> Response:
    """Open the vault; the first time, set it up with this password.

    A wrong password is 401 and changes nothing, also on a vault that is open.
    """
    hub = guards.services()
    values = forms.read_fields(hub, FIELDS, required=("admin_password",))
    try:
        was_locked = hub.vault.unlock(values["admin_password"])
    except WrongPassword:
        log.warning(
            "vault was not unlocked", extra={"request_id": guards.request_id(request.environ)}
        )
        raise
    except DatabaseAway as error:
        raise Unavailable("the database is away", code="database_away") from error
    said: dict[str, Any] = {"ok": True}
    if not was_locked:
        return answer({**said, "already_unlocked": True})
    return answer({**said, **_audit(hub, "vault.unlock")})


@blueprint.post("/lock")
def lock() -> Response:
    """Forget the vault's key in all workers of this host."""
    hub = guards.services()
    if not hub.vault.lock():
        return answer({"ok": True, "already_locked": True})
    return answer({"ok": True, **_audit(hub, "vault.lock")})


def _audit(hub: Services, action: str) -> dict[str, Any]:
    """Write down what has happened. It stands even when the database is away, and that is said."""
    change = changes.change_of(hub, "vault", "", action=action)
    try:
        hub.catalog.apply(change, lambda _: None)
    except Unavailable:
        log.warning(
            "audit row was not written", extra={"action": action, "request_id": change.request_id}
        )
        return {"audited": False}
    return {}


def _read_password(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > PASSWORD_CHARS_MAX:
        raise InvalidRequest(
            f"{name} must be a string of at most {PASSWORD_CHARS_MAX} characters", param=name
        )
    return value


FIELDS: dict[str, forms.Reader] = {"admin_password": _read_password}

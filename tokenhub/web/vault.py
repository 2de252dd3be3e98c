"""The vault: unlock and lock it for all workers of this host, change its password, keep secrets.

Operators' own secrets go in and come out here, each time with a row in the audit; the keys of
providers share the vault with them, and cannot be reached this way.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from tokenhub import ids, store
from tokenhub.board.board import unix_ms
from tokenhub.db import DatabaseAway
from tokenhub.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    RateLimited,
    Unavailable,
    WrongPassword,
)
from tokenhub.services import Services
from tokenhub.vault import secret_entry
from tokenhub.web import access, changes, forms, guards
from tokenhub.web.answers import answer, read

log = logging.getLogger("tokenhub.web.vault")

blueprint = Blueprint("vault", __name__, url_prefix="/admin/v1/vault")

PASSWORD_CHARS_MAX = 1024
NAME_BYTES_MAX = 200
VALUE_CHARS_MAX = 65_536


@blueprint.before_request
def require_admin() -> None:
    """Nothing here is for anybody else."""
    access.require_admin(guards.services(), "owner")
    if request.endpoint != f"{blueprint.name}.{list_secrets.__name__}":
        forms.check_query()


@blueprint.post("/unlock")
def unlock() -> Response:
    """Open the vault; the first time, set it up with this password.

    A wrong password is 401 and changes nothing, also on a vault that is open.
    """
    hub = guards.services()
    values = forms.read_fields(hub, UNLOCK_FIELDS, required=("admin_password",))
    with _noticing("vault was not unlocked"):
        was_locked = hub.vault.unlock(values["admin_password"])
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


@blueprint.post("/rotate")
def rotate() -> Response:
    """Change the vault's password. What is open stays open, here and on other hosts, and what is
    locked stays locked."""
    hub = guards.services()
    values = forms.read_fields(hub, ROTATE_FIELDS, required=("old_password", "new_password"))
    with _noticing("vault password was not changed"):
        before, after = hub.vault.rewrap(values["old_password"], values["new_password"])

    def work(connection: Connection) -> None:
        if not store.replace_vault(connection, before, after):
            raise Conflict("somebody else has just changed the password", code="overtaken")

    hub.catalog.apply(changes.change_of(hub, "vault", "", action="vault.rotate"), work)
    if hub.settings.vault_password not in ("", values["new_password"]):
        log.warning("vault will stay locked at the next start: its setting has the old password")
    return answer({"ok": True})


@blueprint.get("/secrets")
def list_secrets() -> Response:
    """The names of the secrets, in pages."""
    hub = guards.services()
    page = forms.read_page()
    hub.vault.use()
    names, total = read(hub, lambda connection: store.list_secrets(connection, *page))
    return answer({"secrets": names, "total": total, **page._asdict()})


@blueprint.get("/secrets/<path:key>")
def show_secret(key: str) -> Response:
    """A secret's value. Nobody reads it without a row in the audit."""
    hub = guards.services()
    key = forms.path_id(key)
    hub.vault.use()
    change = changes.change_of(hub, "secret", key, action="vault.secret.read")
    sealed = hub.catalog.apply(change, lambda connection: _get_entry(connection, key))
    return answer({"key": key, "value": hub.vault.open(secret_entry(key), sealed)})


@blueprint.put("/secrets/<path:key>")
def set_secret(key: str) -> Response:
    """Create a secret, or replace it."""
    hub = guards.services()
    fault = ids.find_fault(key, NAME_BYTES_MAX, with_slashes=True)
    if fault is not None:
        raise InvalidRequest(f"key {fault}", param="key")
    values = forms.read_fields(hub, SECRET_FIELDS, required=("value",))
    sealed = hub.vault.seal(secret_entry(key), values["value"])
    changes.save(
        hub,
        _subject(key),
        "vault.secret.set",
        alter=lambda _: sealed,
        write=lambda connection, after: store.save_entry(
            connection, secret_entry(key), after, unix_ms()
        ),
    )
    return answer({"ok": True, "key": key})


@blueprint.delete("/secrets/<path:key>")
def delete_secret(key: str) -> Response:
    """Remove a secret, whether or not it can be opened."""
    hub = guards.services()
    key = forms.path_id(key)
    hub.vault.use()

    def remove(connection: Connection) -> None:
        _get_entry(connection, key)
        store.delete_entry(connection, secret_entry(key))

    changes.delete(hub, _subject(key), "vault.secret.delete", remove=remove)
    return answer({"ok": True, "key": key})


def _subject(key: str) -> changes.Subject[bytes]:
    return changes.Subject(
        kind="secret",
        id=key,
        find=lambda connection: store.find_entry(connection, secret_entry(key)),
        show=lambda _: {"key": key, "value": changes.MASKED},
    )


def _get_entry(connection: Connection, key: str) -> bytes:
    """Raises: NotFound: there is no such secret."""
    sealed = store.find_entry(connection, secret_entry(key))
    if sealed is None:
        raise NotFound("there is no such secret", param="key")
    return sealed


@contextmanager
def _noticing(message: str) -> Iterator[None]:
    """Log a password that is refused, and say in the API's words that the database is away."""
    try:
        yield
    except (WrongPassword, RateLimited) as error:
        facts = {"reason": error.code, "request_id": guards.request_id(request.environ)}
        log.warning(message, extra=facts)
        raise
    except DatabaseAway as error:
        raise Unavailable("the database is away", code="database_away") from error


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
    return _read_string(name, value, PASSWORD_CHARS_MAX)


def _read_value(name: str, value: Any) -> str:
    """Any text: keys and certificates have several lines."""
    return _read_string(name, value, VALUE_CHARS_MAX)


def _read_string(name: str, value: Any, chars_max: int) -> str:
    if not isinstance(value, str) or len(value) > chars_max:
        raise InvalidRequest(
            f"{name} must be a string of at most {chars_max} characters", param=name
        )
    return value


UNLOCK_FIELDS: dict[str, forms.Reader] = {"admin_password": _read_password}
ROTATE_FIELDS: dict[str, forms.Reader] = {
    "old_password": _read_password,
    "new_password": _read_password,
}
SECRET_FIELDS: dict[str, forms.Reader] = {"value": _read_value}

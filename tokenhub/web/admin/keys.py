"""API keys: issue, list, change, rotate, revoke. A secret is shown once, when it is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from flask import Blueprint, Response

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.domain import DEFAULT_SCOPES, ApiKey
from tokenhub.errors import InvalidRequest, NotFound
from tokenhub.keys import IssuedKey, issue, parse_expiry, parse_scopes
from tokenhub.pricing import usd
from tokenhub.store import KeyRow
from tokenhub.web import changes, forms, guards
from tokenhub.web.answers import answer, listing, read, rfc3339

routes = Blueprint("keys", __name__)

WARNING = "Store this key now: it cannot be shown again."


@routes.post("/apikeys")
def create() -> Response:
    """Issue a key."""
    hub = guards.services()
    values = forms.read_fields(hub, FIELDS, required=("name",))
    now = unix_ms()
    expires_at = parse_expiry(values.get("expires_in"), values.get("expires_at"), now)
    issued = issue(hub.run_blocking)
    row = KeyRow(
        ApiKey(
            id=issued.id,
            name=values["name"],
            prefix=issued.prefix,
            sha256=issued.sha256,
            bcrypt_hash=issued.bcrypt_hash,
            scopes=frozenset(values.get("scopes", DEFAULT_SCOPES)),
            expires_at=expires_at,
        ),
        created_at=now,
    )
    stored = changes.save(
        hub,
        _subject(issued.id),
        "apikey.create",
        alter=lambda _: row,
        write=lambda connection, row: store.insert_key(connection, row.key, row.created_at),
    )
    told = {key: value for key, value in record(stored).items() if key in TOLD}
    return answer({**_secret(issued), "prefix": issued.prefix, **told})


@routes.get("/apikeys")
def list_all() -> Response:
    """All keys, newest first, in pages; never a secret."""
    page = forms.read_page()
    rows, total = read(guards.services(), lambda connection: store.list_keys(connection, *page))
    return answer(listing("keys", [record(each) for each in rows], total, page))


@routes.patch("/apikeys/<path:key_id>")
def patch(key_id: str) -> Response:
    """Change the fields that are given; in force from the next request on."""
    hub = guards.services()
    key_id = forms.path_id(key_id)
    values = forms.read_fields(hub, PATCHABLE)
    given: dict[str, Any] = {name: values[name] for name in ("name", "enabled") if name in values}
    if "scopes" in values:
        given["scopes"] = frozenset(values["scopes"])
    if "expires_at" in values:
        given["expires_at"] = parse_expiry(None, values["expires_at"], unix_ms())

    def alter(before: KeyRow | None) -> KeyRow:
        old = _required(before)
        return replace(old, key=replace(old.key, **given))

    stored = changes.save(
        hub,
        _subject(key_id),
        "apikey.update",
        alter=alter,
        write=lambda connection, _: store.update_key(connection, key_id, **given),
    )
    return answer({"ok": True, "apikey": record(stored)})


@routes.post("/apikeys/<path:key_id>/rotate")
def rotate(key_id: str) -> Response:
    """Give a key a new secret; the old one is worth nothing from the next request on."""
    hub = guards.services()
    key_id = forms.path_id(key_id)
    _required(read(hub, lambda connection: store.find_key_row(connection, key_id)))
    issued = issue(hub.run_blocking)
    columns: dict[str, Any] = {
        "key_prefix": issued.prefix,
        "sha256": issued.sha256,
        "bcrypt_hash": issued.bcrypt_hash,
        "rotated_at": unix_ms(),
    }

    def alter(before: KeyRow | None) -> KeyRow:
        old = _required(before)
        key = replace(old.key, prefix=issued.prefix)
        return replace(old, key=key, rotated_at=columns["rotated_at"])

    changes.save(
        hub,
        _subject(key_id),
        "apikey.rotate",
        alter=alter,
        write=lambda connection, _: store.update_key(connection, key_id, **columns),
    )
    return answer({**_secret(issued), "id": key_id, "prefix": issued.prefix})


@routes.delete("/apikeys/<path:key_id>")
def delete(key_id: str) -> Response:
    """Revoke a key for good; well even if there is none."""
    hub = guards.services()
    key_id = forms.path_id(key_id)
    changes.delete(
        hub,
        _subject(key_id),
        "apikey.revoke",
        remove=lambda connection: store.delete_key(connection, key_id),
    )
    return answer({"ok": True})


def record(row: KeyRow) -> dict[str, Any]:
    """A key as the API shows it; scopes are, as in the original, a string that holds JSON."""
    key = row.key
    return {
        "id": key.id,
        "key_prefix": key.prefix,
        "name": key.name,
        "scopes": orjson.dumps(sorted(key.scopes)).decode(),
        "created_at": rfc3339(row.created_at),
        "rotated_at": rfc3339(row.rotated_at),
        "last_used_at": rfc3339(row.last_used_at),
        "expires_at": rfc3339(key.expires_at),
        "rotation_days": row.rotation_days,
        "monthly_budget_usd": usd(row.monthly_budget_nanousd),
        "budget_reset_at": rfc3339(row.budget_reset_at),
        "rate_limit_rps": row.rate_limit_rps,
        "enabled": key.enabled,
    }


TOLD = ("id", "name", "scopes", "expires_at")
"""What of the record the one who made the key is told."""


def _secret(issued: IssuedKey) -> dict[str, Any]:
    return {"ok": True, "key": issued.token, "warning": WARNING}


def _required(row: KeyRow | None) -> KeyRow:
    if row is None:
        raise NotFound("there is no such API key", param="id")
    return row


def _subject(key_id: str) -> changes.Subject[KeyRow]:
    return changes.Subject(
        kind="key",
        id=key_id,
        find=lambda connection: store.find_key_row(connection, key_id),
        show=record,
    )


def _read_scopes(name: str, value: Any) -> tuple[str, ...]:
    return parse_scopes(value)


def _refuse_limit(name: str, value: Any) -> None:
    """A limit that nobody enforces would be a lie; 0 and null ask for none."""
    if value not in (None, 0) or value is False:
        raise InvalidRequest(
            f"{name} is not available yet: it would not be enforced",
            code="not_available_yet",
            param=name,
        )


LIMITS = ("rotation_days", "monthly_budget_usd", "rate_limit_rps")
PATCHABLE: dict[str, forms.Reader] = {
    "name": forms.label,
    "scopes": _read_scopes,
    "enabled": forms.flag,
    "expires_at": forms.anything,  # parse_expiry checks it
    **dict.fromkeys(LIMITS, _refuse_limit),
}
FIELDS: dict[str, forms.Reader] = {
    "name": forms.label,
    "scopes": _read_scopes,
    "expires_in": forms.anything,
    "expires_at": forms.anything,
    **dict.fromkeys(LIMITS, _refuse_limit),
}

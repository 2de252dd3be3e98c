"""API keys: issue, list, change, rotate, revoke. A secret is shown once, when it is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.domain import ApiKey
from tokenhub.errors import InvalidRequest, NotFound
from tokenhub.keys import IssuedKey, issue, parse_expiry, parse_grace, parse_scopes
from tokenhub.pricing import usd
from tokenhub.store import KeyRow
from tokenhub.web import changes, forms, guards, revisions
from tokenhub.web.admin import allowances, budgets, dependents
from tokenhub.web.answers import answer, listing, read, rfc3339

routes = Blueprint("keys", __name__)

WARNING = "Store this key now: it cannot be shown again."
TAGS_MAX = 50
ROTATION_DAYS_MAX = 3650


@routes.post("/apikeys")
def create() -> Response:
    """Issue a key."""
    hub = guards.services()
    values = forms.read_fields(hub, FIELDS, required=("name",))
    now = unix_ms()
    given = _given(values, now)
    issued = issue(hub.run_blocking)
    key = ApiKey(issued.id, values["name"], issued.prefix, issued.sha256, issued.bcrypt_hash)
    row = _altered(KeyRow(key, created_at=now), given)
    stored = changes.save(
        hub, _subject(issued.id), "apikey.create", alter=lambda _: row, write=_write
    )
    told = {key: value for key, value in record(stored).items() if key in TOLD}
    return revisions.answer_of(
        {**_secret(issued), "prefix": issued.prefix, **told}, stored.key.revision
    )


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
    given = _given(forms.read_fields(hub, FIELDS), unix_ms())
    stored = changes.save(
        hub,
        _subject(key_id),
        "apikey.update",
        alter=lambda before: _altered(_required(before), given),
        write=_write,
    )
    return revisions.answer_of({"ok": True, "apikey": record(stored)}, stored.key.revision)


@routes.post("/apikeys/<path:key_id>/rotate")
def rotate(key_id: str) -> Response:
    """Give a key a new secret; the old one is worth nothing from the next request on, or when the
    grace is over."""
    hub = guards.services()
    key_id = forms.path_id(key_id)
    values = forms.read_fields(hub, ROTATE_FIELDS, may_be_empty=True)
    grace_ms: int = values.get("grace", 0)
    _required(read(hub, lambda connection: store.find_key_row(connection, key_id)))
    issued, now = issue(hub.run_blocking), unix_ms()

    def alter(before: KeyRow | None) -> KeyRow:
        old = _required(before)
        is_kept = grace_ms > 0
        key = replace(
            old.key,
            prefix=issued.prefix,
            sha256=issued.sha256,
            bcrypt_hash=issued.bcrypt_hash,
            previous_sha256=old.key.sha256 if is_kept else b"",
            previous_bcrypt_hash=old.key.bcrypt_hash if is_kept else "",
            previous_until=now + grace_ms if is_kept else None,
        )
        return replace(old, key=key, rotated_at=now)

    stored = changes.save(hub, _subject(key_id), "apikey.rotate", alter=alter, write=_write)
    key = stored.key
    told = {"id": key_id, "prefix": issued.prefix, "revision": key.revision}
    until = rfc3339(key.previous_until)
    return revisions.answer_of({**_secret(issued), **told, "previous_until": until}, key.revision)


@routes.delete("/apikeys/<path:key_id>")
def delete(key_id: str) -> Response:
    """Revoke a key for good; well even if there is none. A dry run says what goes with it."""
    hub = guards.services()
    key_id = forms.path_id(key_id)
    if forms.read_switch("dry_run"):
        return dependents.foresee(hub, _subject(key_id), dependents.of_key)

    def remove(connection: Connection) -> None:
        budgets.drop(connection, ("key", key_id))
        store.delete_key(connection, key_id)

    changes.delete(hub, _subject(key_id), "apikey.revoke", remove=remove)
    return answer({"ok": True})


def record(row: KeyRow) -> dict[str, Any]:
    """A key as the API shows it."""
    return {**_shown(row), "revision": row.key.revision}


def _shown(row: KeyRow) -> dict[str, Any]:
    """What there is of it but its secret; scopes are, as in the original, a string that holds
    JSON."""
    key = row.key
    return {
        "id": key.id,
        "key_prefix": key.prefix,
        "name": key.name,
        "owner": key.owner,
        "team_id": key.team_id or None,
        "tags": list(key.tags),
        "scopes": orjson.dumps(sorted(key.scopes)).decode(),
        "models": list(key.models),
        "allowed_ips": list(key.networks),
        "directives": key.directives,
        "policy": dict(key.policy),
        "created_at": rfc3339(row.created_at),
        "rotated_at": rfc3339(row.rotated_at),
        "previous_until": rfc3339(key.previous_until),
        "last_used_at": rfc3339(row.last_used_at),
        "expires_at": rfc3339(row.expires_at),
        "rotation_days": row.rotation_days,
        "rotation_due_at": rfc3339(row.rotation_due_at),
        "monthly_budget_usd": usd(row.monthly_budget_nanousd),
        "budget_reset_at": rfc3339(row.budget_reset_at),
        **allowances.shown_limits(key.limits),
        "model_limits": {
            name: allowances.shown_limits(each) for name, each in key.model_limits.items()
        },
        "enabled": key.enabled,
    }


TOLD = ("id", "name", "scopes", "expires_at", "revision")
"""What of the record the one who made the key is told."""


def _given(values: dict[str, Any], now: int) -> dict[str, Any]:
    """The fields as they are kept; both ways to give an expiry become one."""
    expiry = {name: values.pop(name) for name in ("expires_in", "expires_at") if name in values}
    if expiry:
        values["expires_at"] = parse_expiry(expiry.get("expires_in"), expiry.get("expires_at"), now)
    return values


def _altered(row: KeyRow, given: dict[str, Any]) -> KeyRow:
    """The key with what is given changed."""
    of_key = {word: given[name] for name, word in OF_KEY.items() if name in given}
    of_row = {name: given[name] for name in OF_ROW if name in given}
    if "monthly_budget_usd" in given:
        of_row["monthly_budget_nanousd"] = given["monthly_budget_usd"]
    limits = allowances.limits_from(given, row.key.limits)
    return replace(row, key=replace(row.key, **of_key, limits=limits), **of_row)


def _write(connection: Connection, row: KeyRow) -> None:
    team_id = row.key.team_id
    if team_id and store.find_team(connection, team_id) is None:
        raise InvalidRequest("team_id: there is no such team", param="team_id")
    store.save_key(connection, row)
    budgets.write_monthly(connection, row.key.id, row.monthly_budget_nanousd)


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
        show=_shown,
        revision=lambda row: row.key.revision,
    )


def _read_scopes(name: str, value: Any) -> frozenset[str]:
    return frozenset(parse_scopes(value))


def _read_team(name: str, value: Any) -> str:
    found: str = "" if value is None else forms.text()(name, value)
    return found


def _read_grace(name: str, value: Any) -> int:
    return parse_grace(value)


def _read_monthly(name: str, value: Any) -> int:
    found: int = 0 if value is None else budgets.limit(name, value)
    return found


OF_KEY = {
    "name": "name",
    "owner": "owner",
    "team_id": "team_id",
    "tags": "tags",
    "scopes": "scopes",
    "models": "models",
    "allowed_ips": "networks",
    "directives": "directives",
    "policy": "policy",
    "model_limits": "model_limits",
    "enabled": "enabled",
}
"""The fields of `ApiKey` by their names in the API; its own limits are besides."""
OF_ROW = ("expires_at", "rotation_days")

FIELDS: dict[str, forms.Reader] = {
    "name": forms.label,
    "owner": forms.text(),
    "team_id": _read_team,
    "tags": forms.word_list(TAGS_MAX),
    "scopes": _read_scopes,
    "enabled": forms.flag,
    "expires_in": forms.anything,  # parse_expiry checks it
    "expires_at": forms.anything,
    "rotation_days": allowances.limit(ROTATION_DAYS_MAX),
    "allowed_ips": allowances.read_networks,
    "directives": forms.flag,
    "policy": allowances.read_policy,
    "monthly_budget_usd": _read_monthly,
    **allowances.FIELDS,
    "model_limits": allowances.read_model_limits,
}
ROTATE_FIELDS: dict[str, forms.Reader] = {"grace": _read_grace}

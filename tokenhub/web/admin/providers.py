"""Providers: accounts at an endpoint, and their credentials, which go in and never come out.

A provider key is stored in one place only: as an entry of the vault, written in the transaction
that writes the provider. The entry exists exactly as long as `cred_store` is `vault`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.access import is_allowed
from tokenhub.board.board import unix_ms
from tokenhub.catalog import Change, write_down
from tokenhub.credentials import PROVIDER_TYPE
from tokenhub.domain import Provider
from tokenhub.errors import InvalidRequest, NotFound, PermissionDenied
from tokenhub.ids import PROVIDER_ID_BYTES_MAX
from tokenhub.outbound import check_url
from tokenhub.providers.calls import normalise_base_url
from tokenhub.providers.connection import resolve
from tokenhub.providers.upstream import endpoint_of
from tokenhub.services import Services
from tokenhub.vault import provider_entry
from tokenhub.web import access, changes, forms, guards, revisions
from tokenhub.web.admin import dependents
from tokenhub.web.answers import answer, listing, read

routes = Blueprint("providers", __name__)

URL_CHARS_MAX = 2000
ENDPOINTS_MAX = 64
API_KEY_CHARS_MAX = 8192
NAME_LOOKUP_SECS = 2.0
"""How long saving a provider waits to hear where its host names lead, all of them together."""

MANY_ENDPOINTS_TYPE = "vllm"
"""The type whose providers may have several endpoints: copies of one server, under one key."""

Alter = Callable[[Provider | None], Provider]


@routes.post("/providers")
def upsert() -> Response:
    """Create a provider, or replace it but for a credential that is not mentioned."""
    hub = guards.services()
    values = forms.read_fields(hub, FIELDS, required=("id", "base_url"))
    fresh = Provider(id=values.pop("id"), type=PROVIDER_TYPE, base_url="")

    def base(before: Provider | None) -> Provider:
        return fresh if before is None else replace(fresh, cred_store=before.cred_store)

    stored = _save(hub, "provider.upsert", fresh.id, values=values, base=base)
    said = {"ok": True, "cred_store": stored.cred_store, "revision": stored.revision}
    return revisions.answer_of(said, stored.revision)


@routes.get("/providers")
def list_all() -> Response:
    """All providers, in pages."""
    page = forms.read_page()
    items, total = read(
        guards.services(), lambda connection: store.list_providers(connection, *page)
    )
    return answer(listing("items", [record(each) for each in items], total, page))


@routes.patch("/providers/<path:provider_id>")
def patch(provider_id: str) -> Response:
    """Change the fields that are given."""
    hub = guards.services()
    provider_id = forms.path_id(provider_id)
    values = forms.read_fields(hub, PATCHABLE)

    def base(before: Provider | None) -> Provider:
        if before is None:
            raise NotFound("there is no such provider", param="id")
        return before

    stored = _save(hub, "provider.patch", provider_id, values=values, base=base)
    return revisions.answer_of({"ok": True, "provider": record(stored)}, stored.revision)


@routes.delete("/providers/<path:provider_id>")
def delete(provider_id: str) -> Response:
    """Remove a provider, its models and its credential; well even if there is none. A dry run says
    what would go with it, and who would miss it."""
    hub = guards.services()
    provider_id = forms.path_id(provider_id)
    if forms.read_switch("dry_run"):
        return dependents.foresee(hub, _subject(provider_id), dependents.of_provider)
    changes.delete(
        hub,
        _subject(provider_id),
        "provider.delete",
        remove=lambda connection: _remove(connection, provider_id),
    )
    hub.vault.forget(provider_entry(provider_id))
    return answer({"ok": True})


def record(provider: Provider) -> dict[str, Any]:
    """A provider as the API shows it."""
    return {**_shown(provider), "revision": provider.revision}


def _shown(provider: Provider) -> dict[str, Any]:
    """What an administrator sets of it."""
    return {
        "id": provider.id,
        "type": provider.type,
        "enabled": provider.enabled,
        "base_url": provider.base_url,
        "endpoints": list(provider.endpoints),
        "native_responses": provider.native_responses,
        "cred_store": provider.cred_store,
        "demo": provider.demo,
    }


def _save(
    hub: Services, action: str, provider_id: str, *, values: dict[str, Any], base: Alter
) -> Provider:
    """Store `base` with `values` over it, and the credential with it.

    Raises:
        InvalidRequest: the type is unknown, or an address is none that we may call.
        PermissionDenied: a key that was stored before would go elsewhere.
        VaultLocked: a key was given and cannot be sealed; nothing was stored.
    """
    entry = provider_entry(provider_id)
    api_key: str = values.pop("api_key", "")
    wanted: str = "vault" if api_key else values.pop("cred_store", "")
    values.pop("cred_store", None)
    check_type(hub, values)
    _check_addresses(hub, values)
    _check_store(hub, wanted, "api_key" if api_key else "cred_store")
    sealed = hub.vault.seal(entry, api_key) if api_key else None
    demos = _demo_changes(hub, but=provider_id)

    def alter(before: Provider | None) -> Provider:
        after = replace(base(before), **values)
        check_endpoints(after)
        after = replace(after, cred_store=wanted) if wanted else after
        check_recipient(before, after, api_key)
        return after

    def write(connection: Connection, after: Provider) -> None:
        if not after.demo:
            for demo in demos:
                _remove(connection, demo.entity_id)
                write_down(connection, demo, unix_ms())
        store.save_provider(connection, after, unix_ms())
        if sealed is not None:
            _put_entry(connection, entry, sealed)
        elif after.cred_store != "vault":
            _drop_entry(connection, entry)
        elif wanted and store.find_entry(connection, entry) is None:
            raise InvalidRequest("the vault has no key of this provider", param="api_key")

    note = {"api_key": changes.MASKED} if api_key else {}
    subject = _subject(provider_id)
    stored = changes.save(hub, subject, action, alter=alter, write=write, note=note)
    hub.vault.forget(entry)
    return stored


def _subject(provider_id: str) -> changes.Subject[Provider]:
    return changes.Subject(
        kind="provider",
        id=provider_id,
        find=lambda connection: store.find_provider(connection, provider_id),
        show=_shown,
        revision=lambda provider: provider.revision,
    )


def check_recipient(before: Provider | None, after: Provider, api_key: str) -> None:
    """Let only owners send a key elsewhere that is stored already: whoever may, can have it.

    Args:
        api_key: the one that takes its place, if any.

    Raises:
        PermissionDenied: see above.
    """
    if api_key or after.cred_store == "none":
        return
    is_as_before = before is not None and after.sends_key_as(before)
    if not is_as_before and not is_allowed(access.current_admin().token.role, "owner"):
        raise PermissionDenied(
            "to send a stored key to another address, or in another way, asks for the role "
            "'owner', or for the api_key anew",
            code="insufficient_role",
            param="base_url",
        )


def check_type(hub: Services, values: dict[str, Any]) -> None:
    if "type" in values and values["type"] not in hub.gateway.adapters:
        known = ", ".join(sorted(hub.gateway.adapters))
        raise InvalidRequest(f"type must be one of: {known}", param="type")


def _check_store(hub: Services, wanted: str, field: str) -> None:
    if wanted == "vault" and not hub.settings.vault_enabled:
        raise InvalidRequest(
            "the vault is switched off: keep the key in the credentials file",
            code="vault_disabled",
            param=field,
        )


def _check_addresses(hub: Services, values: dict[str, Any]) -> None:
    """Refuse what we may not call, as far as it can be told now; connecting looks again."""
    deadline = monotonic() + NAME_LOOKUP_SECS

    def look_up(host: str) -> list[str]:
        return resolve(host, max(deadline - monotonic(), 0.01))

    given = [("base_url", values["base_url"])] if "base_url" in values else []
    given += [("endpoints", each) for each in values.get("endpoints", ())]
    for name, url in given:
        try:
            check_url(url, allow_private=hub.settings.allow_private_providers, resolve=look_up)
        except ValueError as error:
            raise InvalidRequest(f"{name}: {url} {error}", param=name) from None


def check_endpoints(provider: Provider) -> None:
    if provider.endpoints and provider.type != MANY_ENDPOINTS_TYPE:
        raise InvalidRequest(
            f"only a provider of type {MANY_ENDPOINTS_TYPE} has further endpoints",
            param="endpoints",
        )
    urls = (provider.base_url, *provider.endpoints)
    if len(set(urls)) < len(urls):
        raise InvalidRequest(
            "endpoints are the addresses besides base_url, each once", param="endpoints"
        )


def _demo_changes(hub: Services, but: str) -> list[Change]:
    """The changes that remove the demo: it is gone as soon as there is a real provider."""
    return [
        changes.change_of(
            hub,
            "provider",
            each.id,
            action="provider.delete",
            detail={"before": _shown(each), "after": None},
        )
        for each in hub.catalog.current().providers.values()
        if each.demo and each.id != but
    ]


def _remove(connection: Connection, provider_id: str) -> None:
    _drop_entry(connection, provider_entry(provider_id))
    store.delete_provider(connection, provider_id)


def _put_entry(connection: Connection, entry: str, sealed: bytes) -> None:
    now = unix_ms()
    store.save_entry(connection, entry, sealed, now)
    store.record_change(connection, "vault", entry, now)


def _drop_entry(connection: Connection, entry: str) -> None:
    if store.delete_entry(connection, entry):
        store.record_change(connection, "vault", entry, unix_ms())


def _read_type(name: str, value: Any) -> str:
    """An empty type is the original's word for its default."""
    found: str = forms.text()(name, value)
    return found or PROVIDER_TYPE


def _read_url(name: str, value: Any) -> str:
    url = normalise_base_url(forms.text(URL_CHARS_MAX)(name, value))
    try:
        endpoint_of("GET", url)
    except ValueError as error:
        raise InvalidRequest(f"{name}: {error}", param=name) from error
    return url


def _read_endpoints(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > ENDPOINTS_MAX:
        raise InvalidRequest(f"{name} must be a list of at most {ENDPOINTS_MAX} URLs", param=name)
    return tuple(_read_url(name, each) for each in value)


def _read_api_key(name: str, value: Any) -> str:
    """null and "" are no key: forms send them for "as it is"."""
    if value is None:
        return ""
    key = value.strip() if isinstance(value, str) else value
    found: str = forms.text(API_KEY_CHARS_MAX)(name, key)
    if not found.isascii():  # it goes into a header
        raise InvalidRequest("api_key must be one line of ASCII", param=name)
    return found


PATCHABLE: dict[str, forms.Reader] = {
    "type": _read_type,
    "base_url": _read_url,
    "endpoints": _read_endpoints,
    "native_responses": forms.flag,
    "enabled": forms.flag,
    "cred_store": forms.one_of("vault", "file", "none", ""),
    "api_key": _read_api_key,
}
FIELDS: dict[str, forms.Reader] = {
    "id": forms.identifier(PROVIDER_ID_BYTES_MAX, with_slashes=False),
    **PATCHABLE,
}

"""What a changed file changes: field by field, and only what is new in the file.

What was last applied is remembered in the database, so that a field whose value in the file has not
changed since then is left as it is, whatever became of it through the API. That a thing is missing
which was applied before means that somebody deleted it: it comes back when its entry in the file
changes. What left the file is reported and stays. Of a key it is remembered only that there was
one: any trace of the key itself would be something to guess it by.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.batches import Step, apply_all, expect
from tokenhub.board.board import unix_ms
from tokenhub.capabilities import new_model
from tokenhub.catalog import Catalog
from tokenhub.credentials import PROVIDER_TYPE, Contents, Entry, Rules
from tokenhub.db import Database
from tokenhub.domain import Model, Provider
from tokenhub.errors import InvalidRequest
from tokenhub.provisioning.state import ACTOR, State, change_of, load, with_values
from tokenhub.store import FileEntry
from tokenhub.vault import provider_entry

OURS_ALONE = ("has_key", "autoload_models")
"""What is remembered of a provider's entry besides fields of the provider."""

RECIPIENTS = ("type", "base_url", "endpoints")
"""Where a key is sent, and how."""

log = logging.getLogger("tokenhub.provisioning")


class Applying:
    """One worker's way to apply a file; it keeps nothing between two."""

    def __init__(self, *, catalog: Catalog, database: Database, rules: Rules) -> None:
        self._catalog = catalog
        self._database = database
        self._rules = rules

    def apply(self, contents: Contents) -> None:
        """Apply what is new. What was done before an error stays done, and is not done again.

        Raises:
            Unavailable, DatabaseAway: the database is away.
            Overtaken: somebody else was changing the same things.
        """
        if not contents.is_there:
            return  # a disk that is not mounted, or a host without one, takes nothing back
        state = self._database.read(load)
        for entry in contents.providers.values():
            self._apply_provider(entry, state)
        state = self._database.read(load)
        for entry in contents.models.values():
            self._apply_model(entry, state)
        self._note_missing(contents, state)

    def _apply_provider(self, entry: Entry, state: State) -> None:
        row = state.entries.get(("provider", entry.id))
        before = state.providers.get(entry.id)
        values = {
            "type": PROVIDER_TYPE,
            "enabled": True,
            **entry.values,
            "has_key": bool(entry.api_key),
            "autoload_models": entry.autoload_models,
        }
        fresh = _fresh(values, row)
        if _is_deleted(before, row, fresh):
            return
        base = before or Provider(entry.id, PROVIDER_TYPE, "")
        if before is None:
            fresh = values
        fields = {name: value for name, value in fresh.items() if name not in OURS_ALONE}
        if fresh.get("has_key"):
            # A key that comes goes where its file says, and to nobody that was named meanwhile.
            fields.update({"endpoints": (), **{n: values[n] for n in RECIPIENTS if n in values}})
        after = replace(base, **fields, cred_store=_cred_store(base, fresh), demo=False)
        try:
            self._rules.check_provider(after)
        except InvalidRequest as error:
            self._refuse("provider", entry.id, row, error.message)
            return
        applied = _applied("provider", entry.id, values, row)
        if after == before:
            self._remember(applied, row)
            return
        demos = [each for each in state.providers.values() if each.demo and each.id != entry.id]
        steps = [_removal(demo) for demo in demos]
        steps.append(_provider_step(before, after, row, applied))
        apply_all(self._catalog, steps)
        for demo in demos:
            del state.providers[demo.id]
        log.info("provider applied from the credentials file", extra={"provider": entry.id})

    def _apply_model(self, entry: Entry, state: State) -> None:
        row = state.entries.get(("model", entry.id))
        before = state.models.get(entry.id)
        values = {"enabled": True, **entry.values}
        fresh = _fresh(values, row)
        if _is_deleted(before, row, fresh):
            return
        upstream_model = values.get("upstream_model", "")
        base = before or new_model(entry.id, values["provider_id"], upstream_model)
        after = with_values(base, values if before is None else fresh)
        if after.provider_id not in state.providers:
            self._refuse("model", entry.id, row, "its provider is not there")
            return
        applied = _applied("model", entry.id, values, row)
        if after == before:
            self._remember(applied, row)
            return
        apply_all(self._catalog, [_model_step(before, after, row, applied)])
        log.info("model applied from the credentials file", extra={"model": entry.id})

    def _note_missing(self, contents: Contents, state: State) -> None:
        """Report what has left the file; removing is the operator's to do."""
        listed: Mapping[str, Mapping[str, Entry]] = {
            "provider": contents.providers,
            "model": contents.models,
        }
        for (kind, entity_id), row in state.entries.items():
            if row.is_listed and kind in listed and entity_id not in listed[kind]:
                log.warning(
                    "no longer in the credentials file", extra={"kind": kind, "id": entity_id}
                )
                self._remember(replace(row, is_listed=False), row)

    def _refuse(self, kind: str, entity_id: str, row: FileEntry | None, problem: str) -> None:
        """Note why an entry cannot be applied; it is tried again with the next change."""
        applied = replace(row or FileEntry(kind, entity_id, {}), problem=problem, is_listed=True)
        if applied != row:
            facts = {"kind": kind, "id": entity_id, "reason": problem}
            log.error("credentials file entry cannot be applied", extra=facts)
        self._remember(applied, row)

    def _remember(self, applied: FileEntry, row: FileEntry | None) -> None:
        if applied != row:
            self._database.write(lambda connection: store.save_file_entry(connection, applied))


def _fresh(values: Mapping[str, Any], row: FileEntry | None) -> dict[str, Any]:
    """The values that differ from what was last applied."""
    remembered = row.values if row else {}
    plain = orjson.loads(orjson.dumps(values))
    return {
        name: values[name]
        for name in values
        if name not in remembered or remembered[name] != plain[name]
    }


def _is_deleted(thing: object, row: FileEntry | None, fresh: Mapping[str, Any]) -> bool:
    """Whether somebody deleted what the file made, and the file has not asked again since."""
    return thing is None and row is not None and row.is_listed and not fresh


def _applied(
    kind: str, entity_id: str, values: Mapping[str, Any], row: FileEntry | None
) -> FileEntry:
    """What to remember: the row as it is when there is nothing new in it."""
    plain = orjson.loads(orjson.dumps(values))
    if row is not None and replace(row, values=plain, problem="", is_listed=True) == row:
        return row
    return FileEntry(kind, entity_id, plain, applied_at=unix_ms())


def _cred_store(provider: Provider, fresh: Mapping[str, Any]) -> str:
    """Where the key is from now on: where it was, unless the file has one now or has none any
    more."""
    if fresh.get("has_key"):
        return "file"
    if "has_key" in fresh and provider.cred_store == "file":
        return "none"
    return provider.cred_store


def _provider_step(
    before: Provider | None, after: Provider, row: FileEntry | None, applied: FileEntry
) -> Step:
    def work(connection: Connection) -> None:
        expect(store.find_file_entry(connection, "provider", after.id), row)
        expect(store.find_provider(connection, after.id), before)
        if after.cred_store != "vault":
            _drop_secret(connection, after.id)
        if before is None:
            _forget_models(connection, after.id)
        now = unix_ms()
        store.save_provider(connection, after, now)
        store.save_file_entry(connection, applied)

    return Step(change_of(before, after, "file"), work)


def _model_step(
    before: Model | None, after: Model, row: FileEntry | None, applied: FileEntry
) -> Step:
    def work(connection: Connection) -> None:
        expect(store.find_file_entry(connection, "model", after.id), row)
        expect(store.find_model(connection, after.id), before)
        expect(store.find_provider(connection, after.provider_id) is not None, True)
        store.save_model(connection, after, unix_ms())
        store.save_file_entry(connection, applied)

    return Step(change_of(before, after, "file"), work)


def _removal(demo: Provider) -> Step:
    """The demo is gone as soon as there is a real provider."""
    gone = replace(change_of(None, demo, "delete"), detail="", actor=ACTOR)
    return Step(gone, lambda connection: store.delete_provider(connection, demo.id))


def _drop_secret(connection: Connection, provider_id: str) -> None:
    entry = provider_entry(provider_id)
    if store.delete_entry(connection, entry):
        store.record_change(connection, "vault", entry, unix_ms())


def _forget_models(connection: Connection, provider_id: str) -> None:
    """They went with their provider, not one by one: now they come back with it."""
    for row in store.list_file_entries(connection):
        if row.kind != "provider" and row.values.get("provider_id") == provider_id:
            store.forget_file_entry(connection, row.kind, row.id)

"""Writes down what happens besides requests, for all who listen on any host.

An event goes the way of a request's record, through the journal, but never in its place: without
room, or when the disk fails, it is dropped and counted, and nobody who publishes notices. Knows
nothing of streams, and no SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from tokenhub.board import Board
from tokenhub.board.board import unix_ms
from tokenhub.board.transitions import Transition
from tokenhub.errors import Unavailable
from tokenhub.events.words import Published
from tokenhub.journal import EVENT, Journal

TEXT_MAX = 200
"""Characters kept of a field; there are few, so that an event always fits its room."""

_CONTROLS = dict.fromkeys((*range(0x20), 0x7F), "\ufffd")


class Events:
    """One worker's way to publish.

    Args:
        provider_of: the provider of a model, "" if there is none.
    """

    def __init__(
        self, *, journal: Journal, board: Board, provider_of: Callable[[str], str] = lambda _: ""
    ) -> None:
        self._journal = journal
        self._board = board
        self._provider_of = provider_of

    def publish(self, type_: Published, *, api_key_id: str = "", **fields: Any) -> None:
        """Tell everybody. Never raises, and waits for nothing but the disk.

        Args:
            type_: what has happened.
            api_key_id: whose key it is about.
            fields: as JSON says them; what is None, "" or an empty list is left out.
        """
        payload = encode(unix_ms(), type_, api_key_id, fields)
        try:
            self._journal.admit()
        except Unavailable:
            self._board.feeds.note_unpublished(self._board.slot)
            return
        try:
            self._journal.append(EVENT, payload)
        except OSError:
            self._board.feeds.note_unpublished(self._board.slot)
        finally:
            self._journal.release()

    def tell_transition(self, found: Transition) -> None:
        """The health of a model or a provider has changed on this host."""
        is_model = found.kind == "model"
        self.publish(
            "health_change",
            kind=found.kind,
            model_id=found.id if is_model else "",
            provider_id=self._provider_of(found.id) if is_model else found.id,
            old_state=found.old_state,
            new_state=found.new_state,
            old_breaker=found.old_breaker,
            breaker=found.new_breaker,
            reason=found.reason,
            until_at=found.until or None,
        )

    def tell_change(self, kind: str, entity_id: str, action: str, detail: str) -> None:
        """An administrator's change is in force: tell of what it means for health and the vault.

        Args:
            kind, entity_id, action, detail: see `catalog.Change`.
        """
        if kind == "vault" and action.startswith("vault."):
            self.publish("vault_change", reason=action)
        elif action == "admin_token.rotate":
            self.publish("health_change", kind="admin", reason="admin token rotated")
        elif kind in ("provider", "model"):
            self._tell_enabled(kind, entity_id, detail)

    def _tell_enabled(self, kind: str, entity_id: str, detail: str) -> None:
        found = orjson.loads(detail) if detail else {}
        before, after = found.get("before"), found.get("after")
        states = _state_of(before), _state_of(after)
        if before is None or states[0] == states[1]:
            return
        provider_id = entity_id if kind == "provider" else before.get("provider_id", "")
        self.publish(
            "health_change",
            kind=kind,
            model_id=entity_id if kind == "model" else "",
            provider_id=provider_id,
            old_state="unknown" if after is None else states[0],
            new_state=states[1],
            reason=f"{kind} {states[1]}",
        )


def encode(at: int, type_: Published, api_key_id: str, fields: Mapping[str, Any]) -> bytes:
    """An event as the journal keeps it.

    Args:
        at: unix ms.
    """
    return orjson.dumps([at, type_, api_key_id, fields_text(fields)])


def fields_text(fields: Mapping[str, Any]) -> str:
    """The fields as JSON text, each of them short."""
    kept = {name: _clipped(each) for name, each in fields.items() if each not in (None, "", [])}
    return orjson.dumps(kept).decode()


def _clipped(value: Any) -> Any:
    return value[:TEXT_MAX].translate(_CONTROLS) if isinstance(value, str) else value


def _state_of(shown: Mapping[str, Any] | None) -> str:
    if shown is None:
        return "removed"
    return "enabled" if shown.get("enabled", True) else "disabled"

"""What needs somebody, what may wait until later, and how far the first setup has got."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub import __version__
from tokenhub.board.board import unix_ms
from tokenhub.db import DatabaseAway
from tokenhub.errors import InvalidRequest, NotFound
from tokenhub.services import Services
from tokenhub.store.snoozes import Snooze, delete_snooze, find_snooze, save_snooze
from tokenhub.views import facts, setup
from tokenhub.views.attention import Attention, judge
from tokenhub.views.facts import Facts, HostFact
from tokenhub.views.items import Item
from tokenhub.web import access, changes, forms, guards
from tokenhub.web.admin import asking
from tokenhub.web.answers import answer, read, rfc3339

routes = Blueprint("attention", __name__)

WORDS_SECS = {"1h": 3600, "1d": 86_400}
SNOOZE_SECS_MIN, SNOOZE_SECS_MAX = 60, 7 * 86_400

PRICES_LATE = 3
"""Price tables are old when so many refreshes have been missed."""


@routes.get("/attention")
def attention() -> Response:
    """Everything, the worst first; while the database is away, what this host remembers."""
    asking.read_query({})
    hub = guards.services()
    try:
        found = hub.database.read(lambda connection: read_facts(connection, hub, unix_ms()))
    except DatabaseAway:
        found = _remembered(hub)
    judged = judge(found)
    return answer(
        {
            "as_of": rfc3339(found.now),
            "database": "away" if found.is_away else "ok",
            "counts": judged.counts,
            "attention": [_item(each) for each in judged.items],
            "snoozed": [
                {**_item(each), "snoozed_until": rfc3339(until)} for each, until in judged.snoozed
            ],
        }
    )


@routes.post("/attention/<path:item_id>/snooze")
def snooze(item_id: str) -> Response:
    """Let an item wait: it is not shown and not counted until then."""
    hub, item_id = guards.services(), forms.path_id(item_id)
    secs = forms.read_fields(hub, SNOOZE_FIELDS, required=("for",))["for"]
    now = unix_ms()
    found = read(hub, lambda connection: judge(read_facts(connection, hub, now)))
    if item_id not in _ids(found):
        raise NotFound("there is no such item", param="id")
    until_at = now + secs * 1000
    wanted = Snooze(item_id, until_at, access.current_admin().actor)
    changes.save(
        hub,
        _subject(item_id),
        "attention.snooze",
        alter=lambda _: wanted,
        write=lambda connection, snooze: save_snooze(connection, snooze, now),
    )
    return answer({"ok": True, "snoozed_until": rfc3339(until_at)})


@routes.delete("/attention/<path:item_id>/snooze")
def wake(item_id: str) -> Response:
    """Show an item again; well even if it does not wait."""
    hub, item_id = guards.services(), forms.path_id(item_id)
    changes.delete(
        hub,
        _subject(item_id),
        "attention.wake",
        remove=lambda connection: delete_snooze(connection, item_id),
    )
    return answer({"ok": True})


@routes.get("/setup")
def show_setup() -> Response:
    """The steps of the first setup, and which of them are done."""
    asking.read_query({})
    hub, now = guards.services(), unix_ms()
    snapshot = hub.catalog.current()
    found = read(hub, lambda connection: setup.read(connection, snapshot, now))
    steps = [{"step": name, "done": done} for name, done in found.steps.items()]
    return answer(
        {
            "done": all(found.steps.values()),
            "next": next((name for name, done in found.steps.items() if not done), None),
            "steps": steps,
            "demo_providers": list(found.demo),
        }
    )


def read_facts(connection: Connection, hub: Services, now: int) -> Facts:
    """What there is to judge."""
    return facts.read(connection, hub.catalog.latest(), now, _prices_due_ms(hub))


def _remembered(hub: Services) -> Facts:
    now, board = unix_ms(), hub.board
    here = HostFact(
        hub.host_id, hub.host_id, __version__, board.started_at, now, True, False, hub.host_state()
    )
    return facts.remember(board.vitals, hub.catalog.latest(), here, now, _prices_due_ms(hub))


def _prices_due_ms(hub: Services) -> int:
    settings = hub.settings
    if not settings.pricing_refresh_enabled or not settings.pricing_source:
        return 0
    return int(PRICES_LATE * 1000 * settings.pricing_refresh_interval_secs)


def _item(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "severity": item.severity,
        "kind": item.kind,
        "subject": {"kind": item.subject_kind, "id": item.subject_id, "name": item.name},
        "since": rfc3339(item.since_at),
        "facts": item.facts,
        "links": [{"rel": rel, **link._asdict()} for rel, link in item.links.items()],
    }


def _ids(found: Attention) -> set[str]:
    return {each.id for each in found.items} | {each.id for each, _ in found.snoozed}


def _subject(item_id: str) -> changes.Subject[Snooze]:
    return changes.Subject(
        kind="attention",
        id=item_id,
        find=lambda connection: find_snooze(connection, item_id),
        show=lambda found: {"until": rfc3339(found.until_at), "actor": found.actor},
    )


def _read_secs(name: str, value: Any) -> int:
    if isinstance(value, str):
        if value not in WORDS_SECS:
            raise InvalidRequest(f"{name} must be 1h, 1d or a number of seconds", param=name)
        return WORDS_SECS[value]
    found: int = forms.integer(SNOOZE_SECS_MIN, SNOOZE_SECS_MAX)(name, value)
    return found


SNOOZE_FIELDS: dict[str, forms.Reader] = {"for": _read_secs}

"""How the admin API changes one thing: read, alter, write, all or nothing, with its audit row.

What the thing shall become is worked out before the transaction (a key may have to be sealed, and
the audit wants the before and the after); the transaction then makes sure that it still is what was
read, so that of two changes at once neither is lost. Knows no entity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson
from flask import request
from sqlalchemy import Connection

from tokenhub.batches import Overtaken, expect
from tokenhub.catalog import Change
from tokenhub.errors import Conflict
from tokenhub.services import Services
from tokenhub.store.turns import take_turn
from tokenhub.web import access, answers, guards, revisions

TRIES = 5

MASKED = "***"
"""Stands for a secret where the audit must say that there is one."""

T = TypeVar("T")
R = TypeVar("R")
Shown = dict[str, Any]


@dataclass(frozen=True)
class Subject(Generic[T]):
    """One thing that can be changed.

    Args:
        kind, id: see `catalog.Change`.
        find: reads it; None = there is none.
        show: as it stands in the audit; never a secret.
        revision: which one it is, for `If-Match`; None = such things have none.
    """

    kind: str
    id: str
    find: Callable[[Connection], T | None]
    show: Callable[[T], Shown]
    revision: Callable[[T], int] | None = None


def save(
    hub: Services,
    subject: Subject[T],
    action: str,
    *,
    alter: Callable[[T | None], T],
    write: Callable[[Connection, T], object],
    note: Mapping[str, Any] | None = None,
) -> T:
    """Create or change something; returns it as it is stored, read in the same transaction.

    Args:
        alter: what it shall be, from what it is. It may refuse, and is asked again when somebody
            else was faster.
        write: stores what `alter` said. May run in another thread: nothing of Flask or gevent.
        note: what else the audit should say of the after.

    Raises:
        Unavailable: the database is away.
        Conflict: others kept changing it.
        InvalidRequest, PreconditionFailed: see `revisions`.
        TokenHubError: whatever `alter` or `write` refused; nothing was changed.
    """

    def attempt(before: T | None) -> T:
        after = alter(before)
        check_revision(subject, before)

        def work(connection: Connection) -> T:
            _check(connection, subject, before)
            write(connection, after)
            stored = subject.find(connection)
            if stored is None:
                raise Overtaken
            return stored

        detail = {
            "before": None if before is None else subject.show(before),
            "after": {**subject.show(after), **(note or {})},
        }
        change = change_of(hub, subject.kind, subject.id, action=action, detail=detail)
        return hub.catalog.apply(change, work)

    return _retry(hub, subject, attempt)


def delete(
    hub: Services, subject: Subject[T], action: str, *, remove: Callable[[Connection], object]
) -> None:
    """Remove something, or nothing if there is none.

    Args:
        remove: as `write` of `save`.

    Raises:
        Unavailable, Conflict, InvalidRequest, PreconditionFailed: as `save`.
    """

    def attempt(before: T | None) -> None:
        if before is not None:  # else it is as it shall be
            check_revision(subject, before)

        def work(connection: Connection) -> None:
            _check(connection, subject, before)
            remove(connection)

        detail = {"before": None if before is None else subject.show(before), "after": None}
        change = change_of(hub, subject.kind, subject.id, action=action, detail=detail)
        hub.catalog.apply(change, work)

    _retry(hub, subject, attempt)


def change_of(
    hub: Services, kind: str, entity_id: str, *, action: str, detail: Shown | None = None
) -> Change:
    """The change as it is written down, by the admin of the request at hand."""
    environ = request.environ
    return Change(
        kind=kind,
        entity_id=entity_id,
        action=action,
        actor=access.current_admin().actor,
        client_ip=guards.client_ip(environ, hub.settings.trusted_proxies),
        request_id=guards.request_id(environ),
        detail="" if detail is None else orjson.dumps(detail).decode(),
    )


def check_revision(subject: Subject[T], found: T | None) -> None:
    """See `revisions.check`."""
    if subject.revision is None:
        revisions.refuse()
    else:
        revisions.check(None if found is None else subject.revision(found))


def _retry(hub: Services, subject: Subject[T], attempt: Callable[[T | None], R]) -> R:
    for _ in range(TRIES):
        try:
            return attempt(answers.read(hub, subject.find))
        except Overtaken:
            continue
    raise Conflict("others are changing this at the same time; try again", code="overtaken")


def _check(connection: Connection, subject: Subject[T], before: T | None) -> None:
    take_turn(connection)
    expect(subject.find(connection), before)

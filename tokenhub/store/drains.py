"""What operators keep out of use for a while: rows among the options, one for each.

Those that are over count nothing, and go when the next one comes.
"""

from __future__ import annotations

from dataclasses import asdict

import orjson
from sqlalchemy import Connection, delete, select

from tokenhub.db.admin_tables import options
from tokenhub.domain import Drain
from tokenhub.store.options import save_option

PREFIX = "drain:"

Drained = tuple[str, str]
"""Kind (provider or model) and id."""


def load_drains(connection: Connection) -> dict[Drained, Drain]:
    """All that there are, those that are over too."""
    query = select(options.c.name, options.c.value).where(options.c.name.startswith(PREFIX))
    return {_who(name): Drain(**orjson.loads(value)) for name, value in connection.execute(query)}


def save_drain(connection: Connection, who: Drained, drain: Drain, at: int) -> None:
    """Keep something out of use, in place of what was said of it before."""
    for other, each in load_drains(connection).items():
        if each.until_at <= at:
            save_option(connection, _name(other), None, at)
    save_option(connection, _name(who), orjson.dumps(asdict(drain)).decode(), at)


def delete_drain(connection: Connection, who: Drained) -> bool:
    """Let it be used again; False if it was not kept from it."""
    gone = connection.execute(delete(options).where(options.c.name == _name(who)))
    return gone.rowcount > 0


def _name(who: Drained) -> str:
    return PREFIX + ":".join(who)


def _who(name: str) -> Drained:
    kind, _, id_ = name.removeprefix(PREFIX).partition(":")
    return kind, id_

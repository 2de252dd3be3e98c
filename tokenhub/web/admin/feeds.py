"""Long lists that are newest first, by page or whole: the same for requests, changes and rewards.

A page is found within a time, however many rows there are, and comes short when that is over. An
export reads the list a page at a time, each in a transaction of its own, so that it neither holds
up the database nor grows in memory. Knows no entity.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import orjson
from flask import Response
from sqlalchemy import Connection

from tokenhub.board.board import unix_ms
from tokenhub.errors import InvalidRequest
from tokenhub.services import Services
from tokenhub.store import Found, IsLate, Part
from tokenhub.web.admin import asking
from tokenhub.web.answers import answer, read, rfc3339

TOTAL_MAX = 10_000
"""What more than that is counted as."""

PAGE_SECS, TOTAL_SECS = 0.07, 0.03
"""How long is looked for a page, and then for how many there are in all."""

BATCH_ROWS, BATCH_SECS = 500, 1.0
"""Of an export."""

# What a spreadsheet would take for a formula: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")

F = TypeVar("F", contravariant=True)
T = TypeVar("T")
Row = dict[str, Any]


class Finds(Protocol[F]):
    """Finds a page of what the filters mean."""

    def __call__(
        self, connection: Connection, filters: F, part: Part, *, is_late: IsLate
    ) -> Found: ...


class Counts(Protocol[F]):
    """Says how many there are of what the filters mean, and whether that is all."""

    def __call__(
        self, connection: Connection, filters: F, *, most: int, is_late: IsLate
    ) -> tuple[int, bool]: ...


@dataclass(frozen=True)
class Feed(Generic[F]):
    """One of the lists.

    Args:
        name: of exports.
        rows: the name of its rows in an answer.
        columns: of its CSV, which are fields of what `show` returns.
    """

    name: str
    rows: str
    columns: tuple[str, ...]
    find: Finds[F]
    count: Counts[F]
    show: Callable[[Row], Row]

    def serve(self, hub: Services, filters: F, asked: Mapping[str, Any]) -> Response:
        """The page, or the export, that is asked for.

        Raises:
            InvalidRequest: naming what does not go together.
            Unavailable: the database is away.
        """
        form = asking.form_of(asked)
        if form != "json":
            return self._export(hub, filters, asked, form)
        part = asking.part_of(asked)

        def work(connection: Connection) -> tuple[Found, int, bool]:
            found = self.find(connection, filters, part, is_late=late_after(PAGE_SECS))
            if found.next is None and part.after is None and not part.offset:
                return found, len(found.rows), True
            patience = late_after(TOTAL_SECS)
            return found, *self.count(connection, filters, most=TOTAL_MAX, is_late=patience)

        found, total, is_exact = read(hub, work)
        page = {
            self.rows: [self.show(each) for each in found.rows],
            "total": total,
            "total_is_capped": not is_exact,
            "limit": part.limit,
            "offset": part.offset,
            "next_cursor": asking.written(found.next),
            "searched_to": rfc3339(found.searched_to),
        }
        return answer(page)

    def _export(
        self, hub: Services, filters: F, asked: Mapping[str, Any], form: asking.Form
    ) -> Response:
        for name in ("limit", "offset"):
            if name in asked:
                raise InvalidRequest(f"an export has all rows: give no {name}", param=name)
        part = Part(BATCH_ROWS, after=asked.get("cursor"))
        first = self._batch(hub, filters, part)
        response = Response(
            self._pieces(hub, filters, first, form), mimetype=asking.CONTENT_TYPES[form]
        )
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(unix_ms() / 1000))
        file = f"tokenhub-{self.name}-{at}.{form}"
        response.headers["Content-Disposition"] = f'attachment; filename="{file}"'
        response.headers["Cache-Control"] = "no-store"
        return response

    def _batch(self, hub: Services, filters: F, part: Part) -> Found:
        return read(
            hub,
            lambda connection: self.find(connection, filters, part, is_late=late_after(BATCH_SECS)),
        )

    def _pieces(
        self, hub: Services, filters: F, found: Found, form: asking.Form
    ) -> Iterator[bytes]:
        """A batch each. A database that goes away meanwhile breaks the answer off, so that nobody
        takes it for whole."""
        if form == "csv":
            yield csv_lines([self.columns])
        while True:
            rows = [self.show(each) for each in found.rows]
            if form == "csv":
                yield csv_lines([[row[name] for name in self.columns] for row in rows])
            else:
                yield b"".join(orjson.dumps(row) + b"\n" for row in rows)
            if found.next is None:
                return
            found = self._batch(hub, filters, Part(BATCH_ROWS, after=found.next))


def late_after(secs: float) -> IsLate:
    """Says whether so many seconds have passed since it was made."""
    end = time.monotonic() + secs
    return lambda: time.monotonic() > end


def csv_lines(rows: Any) -> bytes:
    """Lines of CSV (RFC 4180). Text that a spreadsheet would run gets an apostrophe before it."""
    text = io.StringIO()
    csv.writer(text).writerows([_cell(each) for each in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value

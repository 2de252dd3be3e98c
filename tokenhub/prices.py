"""Prices from a published table: read, kept, and given to the models that want one.

A price that somebody set by hand, or that a provider told, is never touched: a model takes the
table's when it has no price at all, or has one from a table already. The last table that was good
is kept in the data directory and stands in while its source fails. What to do with the entries of a
table is `price_table`'s business.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson
from sqlalchemy import Connection

from tokenhub import data_dir, price_table, store
from tokenhub.batches import Overtaken, Step, apply_all, expect
from tokenhub.board.board import unix_ms
from tokenhub.catalog import Catalog, Change
from tokenhub.config import Settings
from tokenhub.db import Database, DatabaseAway
from tokenhub.domain import Model, Price, Provider
from tokenhub.errors import Conflict, Unavailable
from tokenhub.price_source import SourceFailed, read_source, shown_source
from tokenhub.price_table import Entry, Table
from tokenhub.pricing import shown_prices

BATCH = 100
"""Models that one transaction changes."""
TRIES = 5

STATUS_FILE = "prices-status.json"

TABLE = "litellm"
"""The pricing source of models whose price is a table's."""

BY_ITSELF = Change("model", "", "model.price", actor="prices")

log = logging.getLogger("tokenhub.prices")


@dataclass(frozen=True)
class Report:
    """What a refresh did.

    Args:
        updated, unchanged, unmatched: models that take their price from the table, by what became
            of them; unmatched = the table does not know them.
        fetched_at: when the table was read from its source.
        error: why it was not read this time; "" when it was.
    """

    updated: int
    unchanged: int
    unmatched: int
    source: str
    fetched_at: int
    error: str = ""


@dataclass(frozen=True)
class Status:
    """What is known on this host about the table.

    Args:
        source: where the kept table came from; "" = none is kept.
        fetched_at: when it was read; 0 = never.
        entries: how many prices it has.
        refused: entries whose price made no sense.
        error: why the last try to read it failed; "" = it did not.
        tried_at: when that was.
    """

    source: str = ""
    fetched_at: int = 0
    entries: int = 0
    refused: int = 0
    error: str = ""
    tried_at: int = 0


class Prices:
    """The price table of one gateway. What it must remember is in the data directory, so any worker
    may have one of its own.

    Args:
        settings: where the table is, and where to keep it.
    """

    def __init__(self, *, settings: Settings, catalog: Catalog, database: Database) -> None:
        self._source = settings.pricing_source
        self._shown = shown_source(settings.pricing_source)
        self._allow_private = settings.allow_private_providers
        self._directory = settings.data_dir
        self._catalog = catalog
        self._database = database

    def refresh(self, change: Change = BY_ITSELF) -> Report:
        """Read the table and give its prices to the models that take theirs from it.

        Args:
            change: who asks, as it is written down for each model that changes.

        Raises:
            Conflict: there is no source, or another refresh is under way on this host.
            Unavailable: the source failed and no table of it is kept, or the database is away.
        """
        if not self._source:
            raise Conflict(
                "there is no price table: set TOKENHUB_PRICING_SOURCE", code="no_price_source"
            )
        with self._alone():
            table, status = self._load()
            counts = self._apply(table, change)
        report = Report(*counts, status.source, status.fetched_at, status.error)
        if report.updated:
            log.info("prices were updated", extra=asdict(report))
        return report

    def refresh_all(self) -> Report:
        """Refresh without being asked to.

        Raises:
            Conflict, Unavailable: see `refresh`; also when the prices are those of the kept table,
                so that the source is tried again soon.
        """
        report = self.refresh()
        if report.error:
            raise Unavailable("the price table is an old one", code="price_source_failed")
        return report

    def status(self) -> Status:
        """How the table stands, whichever worker read it last."""
        return load_status(self._directory)

    @property
    def _table_file(self) -> Path:
        return self._directory / "prices.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the host's lock on refreshing."""
        lock = self._directory / "prices.lock"
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(
                f"prices.lock cannot be opened: {error.strerror}", code="price_source_failed"
            ) from error
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict("prices are being refreshed", code="refresh_running") from None
            yield
        finally:
            os.close(fd)

    def _load(self) -> tuple[Table, Status]:
        """The table from its source, or the one that is kept of it."""
        kept, now = self.status(), unix_ms()
        try:
            data = read_source(self._source, allow_private=self._allow_private)
            table = _parse(data)
        except SourceFailed as error:
            log.warning(
                "price table cannot be read", extra={"source": self._shown, "reason": error.word}
            )
            status = replace(kept, error=error.word, tried_at=now)
            self._keep(status)
            return self._load_kept(status), status
        status = Status(self._shown, now, len(table.entries), table.refused, tried_at=now)
        self._keep(status, data)
        return table, status

    def _keep(self, status: Status, data: bytes | None = None) -> None:
        try:
            if data is not None:
                data_dir.replace_file(self._table_file, data)
            data_dir.replace_file(self._directory / STATUS_FILE, orjson.dumps(asdict(status)))
        except OSError as error:  # a full disk: the prices are good all the same
            log.warning("price table cannot be kept", extra={"reason": error.strerror})

    def _load_kept(self, status: Status) -> Table:
        try:
            if status.source != self._shown:
                raise SourceFailed("none is kept of this source")
            return _parse(self._table_file.read_bytes())
        except (OSError, SourceFailed):
            raise Unavailable(
                f"the price table cannot be read ({status.error}), and none is kept of this source",
                code="price_source_failed",
            ) from None

    def _apply(self, table: Table, change: Change) -> tuple[int, int, int]:
        updated: set[str] = set()
        for _ in range(TRIES):
            steps, unchanged, unmatched = self._plan(table, change)
            try:
                for start in range(0, len(steps), BATCH):
                    batch = steps[start : start + BATCH]
                    apply_all(self._catalog, batch)
                    updated |= {each.change.entity_id for each in batch}
            except Overtaken:
                continue
            return len(updated), len(unchanged - updated), unmatched
        raise Conflict("others are changing models at the same time; try again", code="overtaken")

    def _plan(self, table: Table, change: Change) -> tuple[list[Step], set[str], int]:
        """What is to be done, the models that have their price, and how many get none."""
        providers, models = self._load_catalog()
        steps: list[Step] = []
        unchanged: set[str] = set()
        unmatched = 0
        for model in models.values():
            provider = providers[model.provider_id]
            if provider.demo or not takes_price(model):
                continue
            entry = table.find(model, provider)
            if entry is None:
                unmatched += 1
                continue
            after = priced(model, entry, self._shown)
            if after == model:
                unchanged.add(model.id)
            else:
                steps.append(_step(model, after, change))
        return steps, unchanged, unmatched

    def _load_catalog(self) -> tuple[dict[str, Provider], dict[str, Model]]:
        def work(connection: Connection) -> tuple[dict[str, Provider], dict[str, Model]]:
            return store.load_providers(connection), store.load_models(connection)

        try:
            return self._database.read(work)
        except DatabaseAway as error:
            raise Unavailable("the database is away", code="database_away") from error


def load_status(directory: Path) -> Status:
    """How the table of a data directory stands."""
    try:
        return Status(**orjson.loads((directory / STATUS_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):  # none yet, or one of another version
        return Status()


def takes_price(model: Model) -> bool:
    """Whether a model's price is the table's to say: it is already, or there is none."""
    price = replace(model.price, version=0)
    return model.pricing_source == TABLE or price == Price()


def priced(model: Model, entry: Entry, source: str) -> Model:
    """A model with an entry's price, and with what else it says and nobody has said before."""
    return replace(
        model,
        price=replace(entry.price, version=model.price.version),
        pricing_source=TABLE,
        pricing_origin=f"{source}#{entry.name}",
        max_context_tokens=model.max_context_tokens or entry.max_context_tokens,
        max_output_tokens=model.max_output_tokens or entry.max_output_tokens,
        capabilities=model.capabilities or entry.capabilities,
    )


def _step(before: Model, after: Model, change: Change) -> Step:
    def work(connection: Connection) -> None:
        expect(store.find_model(connection, before.id), before)
        store.save_model(connection, after, unix_ms())

    detail = {"before": _shown(before), "after": _shown(after)}
    detailed = replace(change, entity_id=before.id, detail=orjson.dumps(detail).decode())
    return Step(detailed, work)


def _shown(model: Model) -> dict[str, object]:
    """What a refresh can change, by the admin API's names."""
    return {
        **shown_prices(model.price),
        "pricing_source": model.pricing_source,
        "pricing_origin": model.pricing_origin,
        "max_context_tokens": model.max_context_tokens,
        "max_output_tokens": model.max_output_tokens,
        "capabilities": list(model.capabilities),
    }


def _parse(data: bytes) -> Table:
    try:
        return price_table.parse(data)
    except ValueError:
        raise SourceFailed("not_a_table") from None

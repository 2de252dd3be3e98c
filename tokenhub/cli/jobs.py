"""Commands for what a gateway does from time to time: what was done last, and doing it now."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any

import click
from sqlalchemy import RowMapping

from tokenhub import store
from tokenhub.board import Board
from tokenhub.catalog import Catalog
from tokenhub.cli.common import get_settings, told
from tokenhub.config import Settings
from tokenhub.db import Database, open_at_head, upkeep
from tokenhub.domain import RoutingDefaults
from tokenhub.errors import TokenHubError
from tokenhub.jobs import Job
from tokenhub.providers import ADAPTERS
from tokenhub.schedule import upkeep_jobs

VACUUM = "vacuum"
LINE = "{:<18}{:<10}{:<22}{}"


@click.group()
def jobs() -> None:
    """Show or run what a gateway does from time to time."""


@jobs.command("list")
def list_all() -> None:
    """What there is, and how the last run ended, on whichever host it was."""
    settings = get_settings()
    with told(), closing(open_at_head(settings.db_dsn)) as database:
        found = _find(settings, database)
        last = {row["job"]: row for row in database.read(store.list_last_runs)}
    click.echo(LINE.format("job", "every", "last run (UTC)", ""))
    for job in found.values():
        every = f"{job.every_secs:g} s" if job.every_secs else "-"
        click.echo(LINE.format(job.name, every, *_shown(last.get(job.name), job)))


@jobs.command("run")
@click.argument("name")
def run_one(name: str) -> None:
    """Run one now, in this process. Gateways may run meanwhile, and go on by their own clock."""
    settings = get_settings()
    # What is done is said as it is in a gateway's log, but not among what the command prints.
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    with told(), closing(open_at_head(settings.db_dsn)) as database:
        found = _find(settings, database)
        if name not in found:
            raise click.ClickException(f"no job {name!r}: there are {', '.join(found)}")
        try:
            result = found[name].run()
        except TokenHubError as error:
            raise click.ClickException(str(error)) from error
    click.echo(", ".join(f"{key}: {value}" for key, value in _items(result)) or "done")


def _find(settings: Settings, database: Database) -> dict[str, Job]:
    """The jobs by name: those of a gateway that need neither its memory nor its vault."""
    catalog = Catalog(
        database=database,
        board=Board(slots=1),  # nobody else's: gateways learn of changes from the database
        defaults=RoutingDefaults(),
        adapter_types=ADAPTERS,
        with_demo=settings.demo,
    )
    found = upkeep_jobs(settings, database, catalog)
    if database.dialect == "sqlite":
        found.append(Job(VACUUM, 0, lambda: upkeep.rebuild(settings.db_dsn)))
    return {job.name: job for job in found}


def _items(result: object) -> list[tuple[str, Any]]:
    if is_dataclass(result) and not isinstance(result, type):
        result = asdict(result)
    return list(result.items()) if isinstance(result, Mapping) else []


def _shown(run: RowMapping | None, job: Job) -> tuple[str, str]:
    """When it last began, and how that ended."""
    if run is None:
        return ("", "") if job.scope == "cluster" else ("", "not written down")
    began = datetime.fromtimestamp(run["started_at"] / 1000, UTC)
    if run["error"] is not None:
        how = f"failed: {run['error']}"
    else:
        how = "running" if run["finished_at"] is None else "done"
    return f"{began:%Y-%m-%d %H:%M:%S}", f"{how} on {run['host_id']}, try {run['tries']}"

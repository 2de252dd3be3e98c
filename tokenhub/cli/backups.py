"""Commands that copy the database, check a copy, and put it back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from sqlalchemy import make_url

from tokenhub import host
from tokenhub.backup import (
    Archive,
    Manifest,
    back_up,
    carry_over,
    find_free_name,
    open_target,
)
from tokenhub.backup import verify as try_out
from tokenhub.cli.common import BACKUPS, get_settings, told
from tokenhub.config import Settings
from tokenhub.db import Database, DatabaseAway
from tokenhub.errors import ConfigError
from tokenhub.telemetry import configure_logging

NEW = click.Path(path_type=Path, dir_okay=False)
EXISTING = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.option("--to", type=NEW, help="A new file. Default: backups/ in the data directory.")
def backup(to: Path | None) -> None:
    """Copy the database into one file. The gateway may run meanwhile."""
    settings = get_settings()
    os.umask(0o077)
    with told(), closing(_open_existing(settings)) as database:
        path = to or find_free_name(settings.data_dir / BACKUPS, "tokenhub")
        manifest = back_up(database, path)
    click.echo(f"{path}: {_shown(manifest)}")


@click.command()
@click.argument("file", type=EXISTING)
@click.option("--yes", is_flag=True, help="Do not ask before what is there is replaced.")
def restore(file: Path, yes: bool) -> None:
    """Put a copy in the place of the database. The gateway must be stopped.

    What was there is kept, and the copy is migrated if it is of an older version.
    """
    settings = get_settings()
    os.umask(0o077)
    with told(), _alone(settings):
        archive = Archive(file)
        _check_address(settings)
        target = open_target(settings, settings.data_dir / BACKUPS)
        if not yes and not target.is_empty():
            words = f"Put the {_shown(archive.manifest)} in the place of what is there?"
            click.confirm(words, abort=True)
        kept = target.restore(archive)
        click.echo(f"restored: {_shown(archive.manifest)}")
        if kept is not None:
            click.echo(f"what was there is in {kept}")
        _catch_up(settings)


@click.command()
@click.argument("file", type=EXISTING)
def verify(file: Path) -> None:
    """Read a copy and restore it into a file that is thrown away; exit 1 if that fails."""
    with told():
        manifest = try_out(file)
    click.echo(f"{file} is good: {_shown(manifest)}")


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Keep gateways out meanwhile.

    Raises:
        ConfigError: one is running.
    """
    locks = host.lock(settings)
    try:
        yield
    finally:
        for fd in locks:
            os.close(fd)


def _open_existing(settings: Settings) -> Database:
    """Raises ConfigError if there is no file: one would be made."""
    file = host.sqlite_file(settings)
    if file is None:
        _check_address(settings)
    elif not file.exists():
        raise ConfigError(f"there is no database at {file}")
    return Database(settings.db_dsn)


def _check_address(settings: Settings) -> None:
    """Raises ConfigError, without the address: a password may be in it."""
    try:
        make_url(settings.db_dsn)
    except ValueError as error:
        raise ConfigError(f"TOKENHUB_DB_DSN cannot be used: {type(error).__name__}") from None


def _catch_up(settings: Settings) -> None:
    configure_logging("error")  # each request that was cut would be told of
    try:
        records = carry_over(settings)
    except DatabaseAway as error:
        click.echo(f"the journal waits for the next start: {error}")
        return
    if records:
        click.echo(f"{records} records of the journal were entered")


def _shown(manifest: Manifest) -> str:
    made = datetime.fromtimestamp(manifest.created_at / 1000, UTC)
    return (
        f"{manifest.rows} rows as of {made:%Y-%m-%d %H:%M:%S} UTC, by TokenHub "
        f"{manifest.version} on {manifest.dialect}"
    )

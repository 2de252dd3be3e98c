"""What several commands need: the settings, and Alembic. Alone here in reading the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from sqlalchemy.exc import SQLAlchemyError

from tokenhub.config import Settings
from tokenhub.db import DatabaseAway
from tokenhub.errors import ConfigError

ROOT = Path(__file__).parents[2]

BACKUPS = "backups"
"""Where in the data directory backups are put."""


def environment() -> dict[str, str]:
    """The environment, for a process that takes our place."""
    return dict(os.environ)


def get_settings() -> Settings:
    """The settings as a gateway that is started now would have them.

    Raises:
        click.ClickException: naming everything that is wrong with them.
    """
    try:
        return Settings.from_env(os.environ)
    except ConfigError as error:
        problems = str(error).replace("; ", "\n  ")
        raise click.ClickException(f"the settings are wrong:\n  {problems}") from error


@contextmanager
def told() -> Iterator[None]:
    """Say what went wrong in a line, and exit with 1, where it is nobody's bug."""
    try:
        yield
    except (ConfigError, DatabaseAway, OSError) as error:
        raise click.ClickException(str(error)) from error
    except SQLAlchemyError as error:  # what it says may repeat the address, password included
        raise click.ClickException(
            f"TOKENHUB_DB_DSN cannot be used: {type(error).__name__}"
        ) from None


def migrate() -> None:
    """Bring the schema to its head, in a process of its own.

    Raises:
        ConfigError: with what Alembic says.
    """
    upgrade = [sys.executable, "-m", "alembic", "upgrade", "head"]
    done = subprocess.run(  # noqa: S603 - our own interpreter, fixed arguments
        upgrade, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConfigError(f"the database could not be migrated:\n{done.stderr}")

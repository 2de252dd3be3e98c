"""Commands about the settings."""

from __future__ import annotations

import click

from tokenhub.cli.common import get_settings
from tokenhub.config import render_docs, render_env_example


@click.group()
def settings() -> None:
    """Explain or check the settings."""


@settings.command()
def env() -> None:
    """Print `.env.example`."""
    click.echo(render_env_example(), nl=False)


@settings.command()
def docs() -> None:
    """Print `docs/settings.md`."""
    click.echo(render_docs(), nl=False)


@settings.command()
def check() -> None:
    """Name everything that is wrong with the settings; exit 1 if there is anything."""
    get_settings()
    click.echo("the settings are fine")

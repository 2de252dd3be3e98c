"""Commands that ask: is the gateway alive, and what version is this?"""

from __future__ import annotations

import http.client
from contextlib import closing

import click

from tokenhub import __version__
from tokenhub.cli.addresses import reachable
from tokenhub.cli.common import get_settings

HEALTH_SECS = 5.0


@click.command()
def healthcheck() -> None:
    """Ask the running gateway whether it is alive; exit 1 if not."""
    address = get_settings().listen_addr
    connection = http.client.HTTPConnection(reachable(address), address.port, timeout=HEALTH_SECS)
    try:
        with closing(connection):
            connection.request("GET", "/healthz")
            status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(f"no answer from {address}: {error}") from error
    if status != 200:
        raise click.ClickException(f"{address} answered {status}")


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)

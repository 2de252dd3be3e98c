"""The command that plays a provider."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import click

from tokenhub.providers.simulator import serve

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8089, show_default=True, type=click.IntRange(1, 65535))
@click.option("--with-parent", is_flag=True, hidden=True, help="End when the parent does.")
def simulator(host: str, port: int, with_parent: bool) -> None:
    """Serve made-up models: for a first look, for tests, for measuring."""
    if with_parent:
        _end_with_parent()
    try:
        serve(host, port)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _end_with_parent() -> None:
    """Have the kernel end this process with its parent. Linux only, like the gateway itself."""
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it died before we had asked
        sys.exit()

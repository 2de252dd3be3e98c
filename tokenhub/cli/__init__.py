"""The server-side command line: `python -m tokenhub …`.

One module for each group of commands, put together here. They come before any monkey patch, and
what they start does not outlive the gateway.
"""

from __future__ import annotations

import click

from tokenhub.cli import access, backups, doctor, jobs, probing, running, settings, simulating


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """TokenHub's server-side commands."""


for command in (
    running.run,
    simulating.simulator,
    settings.settings,
    backups.backup,
    backups.restore,
    backups.verify,
    jobs.jobs,
    access.reset_admin_token,
    doctor.doctor,
    probing.healthcheck,
    probing.version,
):
    main.add_command(command)

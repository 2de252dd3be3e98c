"""The command that starts a gateway: it prepares what there must be, and becomes gunicorn."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import closing
from typing import NoReturn

import click

from tokenhub import __version__, store
from tokenhub.backup import back_up_before_migration
from tokenhub.cli.addresses import check_address, url_of
from tokenhub.cli.common import BACKUPS, ROOT, environment, get_settings, migrate, told
from tokenhub.cli.demo import DEMO_MODELS, arrange_demo
from tokenhub.cli.first_start import (
    API_KEY,
    ensure_host_key,
    make_directory,
    secret_files,
    sole_use,
    write_client_env,
)
from tokenhub.config import Settings
from tokenhub.db import Database, check_file

GREETING = """
TokenHub {version} is starting.

  dashboard    {url}/admin/
  admin token  {data}/.admin-token
  API key      {data}/.host-api-key
  models       {models}

Try it:

  curl {url}/v1/chat/completions \\
    -H "Authorization: Bearer $(cat {key_file})" \\
    -H 'Content-Type: application/json' \\
    -d '{{"model":"{model}","messages":[{{"role":"user","content":"Hello"}}]}}'

Ctrl-C stops it.
"""


@click.command()
def run() -> NoReturn:
    """Prepare the data directory and the database, then serve.

    Everything is kept from one start to the next; what exists is used as it is.
    """
    settings = get_settings()
    os.umask(0o077)
    with told():
        environ, words = prepare(settings)
    click.echo(words)
    sys.stdout.flush()
    os.chdir(ROOT)
    gunicorn = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "app:app"]
    os.execve(sys.executable, gunicorn, environ)  # noqa: S606 - to be gunicorn, not to have it


def prepare(settings: Settings) -> tuple[dict[str, str], str]:
    """Make and fill what a gateway needs; returns gunicorn's environment and the greeting."""
    directory = settings.data_dir
    make_directory(directory)
    with sole_use(directory):
        check_address(settings.listen_addr)
        check_file(settings.db_dsn)
        made = back_up_before_migration(settings.db_dsn, directory / BACKUPS)
        if made is not None:
            click.echo(f"the database was copied to {made} before its migration")
        migrate()
        with closing(Database(settings.db_dsn)) as database:
            by_file = secret_files(settings, database)
            api_key = ensure_host_key(database, directory / API_KEY)
            loaded = database.read(store.load_all)
            providers = list(loaded.providers.values())
            has_demo = arrange_demo(database, providers, wanted=settings.demo)
        write_client_env(settings, api_key)
    has_own = any(not provider.demo for provider in providers)
    return {**environment(), **by_file}, greeting(settings, has_demo=has_demo, has_own=has_own)


def greeting(settings: Settings, *, has_demo: bool, has_own: bool) -> str:
    """What the terminal shows: where things are, and no secret."""
    models = "yours" if has_own else "none yet: README.md says how to add a provider"
    if has_demo:
        models = ", ".join(model.id for model in DEMO_MODELS)
        models += " (simulated, gone when you add a provider)"
    return GREETING.format(
        version=__version__,
        url=url_of(settings.listen_addr),
        data=settings.data_dir,
        models=models,
        model=DEMO_MODELS[0].id if has_demo else "*",
        key_file=shlex.quote(str(settings.data_dir / API_KEY)),
    )

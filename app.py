"""WSGI entry: `gunicorn -c gunicorn.conf.py app:app`."""

import os
import sys

from tokenhub import host
from tokenhub.config import Settings
from tokenhub.errors import ConfigError
from tokenhub.factory import create_app

BOOT_ERROR = 3
"""gunicorn's exit code for a worker that cannot start: the arbiter gives up instead of retrying."""


def read_settings() -> Settings:
    """The settings as they are now: environment and env file."""
    return Settings.from_env(os.environ)


try:
    app = create_app(read_settings(), host.prepared, reload_settings=read_settings)
except ConfigError as error:
    sys.stderr.write(f"tokenhub cannot start: {error}\n")
    sys.exit(BOOT_ERROR)

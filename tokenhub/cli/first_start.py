"""What `run` puts where there is nothing yet: the data directory, its secrets, a key of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from tokenhub import data_dir, store
from tokenhub.board.board import unix_ms
from tokenhub.catalog import Change, write_down
from tokenhub.cli.addresses import url_of
from tokenhub.config import Settings
from tokenhub.db import Database
from tokenhub.domain import ApiKey
from tokenhub.errors import ConfigError
from tokenhub.keys import digest_of, issue

# Files of the data directory; `data_dir` knows the others.
API_KEY = ".host-api-key"
VAULT_PASSWORD = "vault-password"  # noqa: S105 - a file name

HOST_KEY_NAME = "host-local"


def make_directory(directory: Path) -> None:
    """Make the data directory; one that exists must not be writable for others.

    Raises:
        ConfigError: it is.
    """
    data_dir.prepare(directory)
    if directory.stat().st_mode & 0o022:
        raise ConfigError(f"others may write to {directory}; set TOKENHUB_DATA_DIR")


@contextmanager
def sole_use(directory: Path) -> Iterator[None]:
    """Be the only one while we prepare: two gateways would overwrite each other's demo and files.

    The lock is the arbiter's, and free again for the one that we become.

    Raises:
        ConfigError: a gateway is running.
    """
    fd = data_dir.lock(directory / "gateway.lock", str(directory))
    try:
        yield
    finally:
        os.close(fd)


def secret_files(settings: Settings, database: Database) -> dict[str, str]:
    """Variables for the secrets that the operator has not set; the files are made if need be."""
    directory = settings.data_dir
    variables = {}
    if not settings.admin_token:
        data_dir.admin_token(directory)
        variables["TOKENHUB_ADMIN_TOKEN_FILE"] = str(directory / data_dir.ADMIN_TOKEN)
    if settings.vault_enabled and not settings.vault_password:
        path = directory / VAULT_PASSWORD
        # A vault that somebody has set up has a password of theirs: a new one would not open it.
        if path.exists() or database.read(store.find_vault) is None:
            data_dir.secret(path, partial(secrets.token_urlsafe, 32))
            variables["TOKENHUB_VAULT_PASSWORD_FILE"] = str(path)
    return variables


def write_client_env(settings: Settings, api_key: str) -> None:
    """What a client on this machine reads: where we are, and its credentials."""
    directory = settings.data_dir
    lines = {
        "TOKENHUB_URL": url_of(settings.listen_addr),
        "TOKENHUB_ADMIN_TOKEN": settings.admin_token or data_dir.admin_token(directory),
        "TOKENHUB_API_KEY": api_key,
    }
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    data_dir.replace_file(directory / data_dir.CLIENT_ENV, text.encode())


def ensure_host_key(database: Database, path: Path) -> str:
    """The token for use on this machine; issued anew if the database does not know it."""
    token = path.read_text().strip() if path.exists() else ""
    if digest_of(token) in database.read(store.load_all).keys:
        return token
    issued = issue(lambda work: work())
    key = ApiKey(issued.id, HOST_KEY_NAME, issued.prefix, issued.sha256, issued.bcrypt_hash)

    def work(connection: Connection) -> None:
        now = unix_ms()
        store.save_key(connection, store.KeyRow(key, created_at=now))
        note(connection, "key", key.id, "apikey.create", now)

    database.write(work)
    data_dir.replace_file(path, f"{issued.token}\n".encode())
    return issued.token


def note(connection: Connection, kind: str, entity_id: str, action: str, now: int) -> None:
    """The change-log row and the audit row that go with every change."""
    write_down(connection, Change(kind, entity_id, action, actor="run"), now)

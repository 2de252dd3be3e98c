"""The server-side command line: `python -m tokenhub …`.

`run` prepares a data directory and a database, so that a newcomer needs to know nothing, and then
becomes gunicorn. It comes before any monkey patch, and what it starts does not outlive the gateway.
One of the few modules that may read the environment and write to the terminal.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import click
from sqlalchemy import Connection

from tokenhub import __version__, data_dir, store
from tokenhub.board.board import unix_ms
from tokenhub.catalog import Change, write_down
from tokenhub.config import Address, Settings, render_docs, render_env_example
from tokenhub.db import Database, DatabaseAway
from tokenhub.domain import ApiKey, Model, Price, Provider
from tokenhub.errors import ConfigError
from tokenhub.keys import digest_of, issue
from tokenhub.providers.simulator import serve

ROOT = Path(__file__).parents[1]

# Files of the data directory; `data_dir` knows the others.
API_KEY = ".host-api-key"
VAULT_PASSWORD = "vault-password"  # noqa: S105 - a file name
CLIENT_ENV = "env"

HOST_KEY_NAME = "host-local"
SIMULATOR_START_SECS = 15.0
HEALTH_SECS = 5.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h

DEMO_PROVIDERS = ("demo-a", "demo-b")
_DEMO = partial(Model, max_context_tokens=128_000, capabilities=("chat", "vision", "tools", "json"))
DEMO_MODELS = (
    _DEMO("demo/fast", "demo-a", "sim-fast", 5, price=Price(150_000_000, 600_000_000)),
    _DEMO("demo/smart", "demo-a", "sim-smart", 9, price=Price(2_500_000_000, 10_000_000_000)),
    _DEMO("demo/cheap", "demo-b", "sim-cheap", 3, price=Price(50_000_000, 200_000_000)),
)

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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """TokenHub's server-side commands."""


@main.command()
def run() -> NoReturn:
    """Prepare the data directory and the database, then serve.

    Everything is kept from one start to the next; what exists is used as it is.
    """
    settings = _get_settings(os.environ)
    os.umask(0o077)
    try:
        environ, greeting = _prepare(settings)
    except (ConfigError, DatabaseAway, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(greeting)
    sys.stdout.flush()
    os.chdir(ROOT)
    gunicorn = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "app:app"]
    os.execve(sys.executable, gunicorn, environ)  # noqa: S606 - to be gunicorn, not to have it


@main.command()
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


@main.group()
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
    _get_settings(os.environ)
    click.echo("the settings are fine")


@main.command()
def healthcheck() -> None:
    """Ask the running gateway whether it is alive; exit 1 if not."""
    address = _get_settings(os.environ).listen_addr
    connection = http.client.HTTPConnection(_reachable(address), address.port, timeout=HEALTH_SECS)
    try:
        with closing(connection):
            connection.request("GET", "/healthz")
            status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(f"no answer from {address}: {error}") from error
    if status != 200:
        raise click.ClickException(f"{address} answered {status}")


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


def _get_settings(environ: Mapping[str, str]) -> Settings:
    try:
        return Settings.from_env(environ)
    except ConfigError as error:
        problems = str(error).replace("; ", "\n  ")
        raise click.ClickException(f"the settings are wrong:\n  {problems}") from error


# What `run` prepares


def _prepare(settings: Settings) -> tuple[dict[str, str], str]:
    """Make and fill what a gateway needs; returns gunicorn's environment and the greeting."""
    directory = settings.data_dir
    _make_directory(directory)
    with _sole_use(directory):
        _check_address(settings.listen_addr)
        _migrate()
        with closing(Database(settings.db_dsn)) as database:
            by_file = _secret_files(settings, database)
            api_key = _ensure_host_key(database, directory / API_KEY)
            loaded = database.read(store.load_all)
            providers = list(loaded.providers.values())
            has_demo = _arrange_demo(database, providers, wanted=settings.demo)
        _write_client_env(settings, api_key)
    has_own = any(not provider.demo for provider in providers)
    return {**os.environ, **by_file}, _greeting(settings, has_demo=has_demo, has_own=has_own)


def _make_directory(directory: Path) -> None:
    """Make the data directory; one that exists must not be writable for others.

    Raises:
        ConfigError: it is.
    """
    data_dir.prepare(directory)
    if directory.stat().st_mode & 0o022:
        raise ConfigError(f"others may write to {directory}; set TOKENHUB_DATA_DIR")


@contextmanager
def _sole_use(directory: Path) -> Iterator[None]:
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


def _secret_files(settings: Settings, database: Database) -> dict[str, str]:
    """Variables for the secrets that the operator has not set; the files are made if need be."""
    directory = settings.data_dir
    variables = {}
    if not settings.admin_token:
        data_dir.admin_token(directory)
        variables["TOKENHUB_ADMIN_TOKEN_FILE"] = str(directory / ".admin-token")
    if settings.vault_enabled and not settings.vault_password:
        path = directory / VAULT_PASSWORD
        # A vault that somebody has set up has a password of theirs: a new one would not open it.
        if path.exists() or database.read(store.find_vault) is None:
            data_dir.secret(path, partial(secrets.token_urlsafe, 32))
            variables["TOKENHUB_VAULT_PASSWORD_FILE"] = str(path)
    return variables


def _write_client_env(settings: Settings, api_key: str) -> None:
    """What a client on this machine reads: where we are, and its credentials."""
    directory = settings.data_dir
    lines = {
        "TOKENHUB_URL": _url(settings.listen_addr),
        "TOKENHUB_ADMIN_TOKEN": settings.admin_token or data_dir.admin_token(directory),
        "TOKENHUB_API_KEY": api_key,
    }
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    data_dir.replace_file(directory / CLIENT_ENV, text.encode())


def _migrate() -> None:
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


def _ensure_host_key(database: Database, path: Path) -> str:
    """The token for use on this machine; issued anew if the database does not know it."""
    token = path.read_text().strip() if path.exists() else ""
    if digest_of(token) in database.read(store.load_all).keys:
        return token
    issued = issue(lambda work: work())
    key = ApiKey(issued.id, HOST_KEY_NAME, issued.prefix, issued.sha256, issued.bcrypt_hash)

    def work(connection: Connection) -> None:
        now = unix_ms()
        store.insert_key(connection, key, now)
        _note(connection, "key", key.id, "apikey.create", now)

    database.write(work)
    data_dir.replace_file(path, f"{issued.token}\n".encode())
    return issued.token


def _arrange_demo(database: Database, providers: list[Provider], *, wanted: bool) -> bool:
    """Have demo models if they are wanted and nothing real exists, else have none."""
    if wanted and all(provider.demo for provider in providers):
        database.write(partial(_save_demo, base_url=_start_simulator()))
        return True
    gone = [provider.id for provider in providers if provider.demo]
    if gone:
        database.write(partial(_delete_demo, provider_ids=gone))
    return False


def _save_demo(connection: Connection, *, base_url: str) -> None:
    now = unix_ms()
    for provider_id in DEMO_PROVIDERS:
        store.save_provider(connection, Provider(provider_id, "openai", base_url, demo=True), now)
        _note(connection, "provider", provider_id, "provider.upsert", now)
    for model in DEMO_MODELS:
        store.save_model(connection, model, now)
        _note(connection, "model", model.id, "model.upsert", now)


def _delete_demo(connection: Connection, *, provider_ids: list[str]) -> None:
    now = unix_ms()
    for provider_id in provider_ids:
        store.delete_provider(connection, provider_id)
        _note(connection, "provider", provider_id, "provider.delete", now)


def _note(connection: Connection, kind: str, entity_id: str, action: str, now: int) -> None:
    """The change-log row and the audit row that go with every change."""
    write_down(connection, Change(kind, entity_id, action, actor="run"), now)


def _start_simulator() -> str:
    """Start it on a free port, to end when this process (gunicorn by then) does; its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "tokenhub", "simulator", "--port", str(port), "--with-parent"]
    # A session of its own: Ctrl-C is for the gateway, whose requests in flight need it to the end.
    child = subprocess.Popen(  # noqa: S603 - our own interpreter, fixed arguments
        command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True
    )
    give_up_at = time.monotonic() + SIMULATOR_START_SECS
    while time.monotonic() < give_up_at and child.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return f"http://127.0.0.1:{port}"
        time.sleep(0.05)
    child.kill()
    raise ConfigError("the simulator of the demo did not start")


def _end_with_parent() -> None:
    """Have the kernel end this process with its parent. Linux only, like the gateway itself."""
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it died before we had asked
        sys.exit()


def _check_address(address: Address) -> None:
    """Find out now that we cannot listen, rather than after gunicorn has tried for a while.

    Raises:
        ConfigError: we cannot.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {address}: {error.strerror}; set TOKENHUB_LISTEN_ADDR"
            ) from error


def _reachable(address: Address) -> str:
    """The host by which this machine reaches an address that may be "every interface"."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104


def _url(address: Address) -> str:
    host = _reachable(address)
    return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"


def _greeting(settings: Settings, *, has_demo: bool, has_own: bool) -> str:
    models = "yours" if has_own else "none yet: README.md says how to add a provider"
    if has_demo:
        models = ", ".join(model.id for model in DEMO_MODELS)
        models += " (simulated, gone when you add a provider)"
    return GREETING.format(
        version=__version__,
        url=_url(settings.listen_addr),
        data=settings.data_dir,
        models=models,
        model=DEMO_MODELS[0].id if has_demo else "*",
        key_file=shlex.quote(str(settings.data_dir / API_KEY)),
    )

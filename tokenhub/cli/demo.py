"""The demo of `run`: made-up models, and the simulator that answers for them."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

from sqlalchemy import Connection

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.cli.common import ROOT
from tokenhub.cli.first_start import note
from tokenhub.db import Database
from tokenhub.domain import Model, Price, Provider
from tokenhub.errors import ConfigError

SIMULATOR_START_SECS = 15.0

DEMO_PROVIDERS = ("demo-a", "demo-b")
_DEMO = partial(Model, max_context_tokens=128_000, capabilities=("chat", "vision", "tools", "json"))
DEMO_MODELS = (
    _DEMO("demo/fast", "demo-a", "sim-fast", 5, price=Price(150_000_000, 600_000_000)),
    _DEMO("demo/smart", "demo-a", "sim-smart", 9, price=Price(2_500_000_000, 10_000_000_000)),
    _DEMO("demo/cheap", "demo-b", "sim-cheap", 3, price=Price(50_000_000, 200_000_000)),
)


def arrange_demo(database: Database, providers: list[Provider], *, wanted: bool) -> bool:
    """Have demo models if they are wanted and nothing real exists, else have none."""
    if wanted and all(provider.demo for provider in providers):
        database.write(partial(save_demo, base_url=_start_simulator()))
        return True
    gone = [provider.id for provider in providers if provider.demo]
    if gone:
        database.write(partial(_delete_demo, provider_ids=gone))
    return False


def save_demo(connection: Connection, *, base_url: str) -> None:
    """Have the demo's providers, at the simulator, and their models."""
    now = unix_ms()
    for provider_id in DEMO_PROVIDERS:
        store.save_provider(connection, Provider(provider_id, "openai", base_url, demo=True), now)
        note(connection, "provider", provider_id, "provider.upsert", now)
    for model in DEMO_MODELS:
        store.save_model(connection, model, now)
        note(connection, "model", model.id, "model.upsert", now)


def _delete_demo(connection: Connection, *, provider_ids: list[str]) -> None:
    now = unix_ms()
    for provider_id in provider_ids:
        store.delete_provider(connection, provider_id)
        note(connection, "provider", provider_id, "provider.delete", now)


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

"""The one object that carries what the web layer works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenhub.access import AdminToken
from tokenhub.board import Board
from tokenhub.catalog import Catalog
from tokenhub.config import Settings
from tokenhub.db import Database
from tokenhub.events import Events, Feed
from tokenhub.gateway import Gateway
from tokenhub.idempotency import Idempotency
from tokenhub.keys import KeyVerifier
from tokenhub.limiter import Limiter
from tokenhub.recorder import Recorder
from tokenhub.store import HostState
from tokenhub.telemetry import LogLevel
from tokenhub.tracing import Tracer
from tokenhub.vault import Vault


@dataclass(frozen=True)
class Services:
    """Made by the factory, once for each worker; found in `app.extensions["tokenhub"]`.

    Args:
        root: the admin token of the settings or the data directory.
        run_blocking: runs a function that would hold the hub up (bcrypt, Argon2) in a small pool
            and returns its result.
        log_level: what decides how much this worker logs.
        host_state: how this host stands, as it also tells the others.
        tracer: None = nothing is traced.
    """

    settings: Settings
    root: AdminToken
    host_id: str
    database: Database
    board: Board
    catalog: Catalog
    vault: Vault
    keys: KeyVerifier
    limiter: Limiter
    recorder: Recorder
    events: Events
    feed: Feed
    idempotency: Idempotency
    gateway: Gateway
    run_blocking: Callable[..., Any]
    log_level: LogLevel
    host_state: Callable[[], HostState]
    tracer: Tracer | None = None

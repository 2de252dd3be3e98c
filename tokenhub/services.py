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
from tokenhub.gateway import Gateway
from tokenhub.idempotency import Idempotency
from tokenhub.keys import KeyVerifier
from tokenhub.limiter import Limiter
from tokenhub.recorder import Recorder
from tokenhub.vault import Vault


@dataclass(frozen=True)
class Services:
    """Made by the factory, once for each worker; found in `app.extensions["tokenhub"]`.

    Args:
        root: the admin token of the settings or the data directory.
        run_blocking: runs a function that would hold the hub up (bcrypt, Argon2) in a small pool
            and returns its result.
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
    idempotency: Idempotency
    gateway: Gateway
    run_blocking: Callable[..., Any]

"""Puts the parts together: one `Services` for each worker, and the Flask app around it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gevent.threadpool import ThreadPool

from tokenhub import data_dir, host
from tokenhub.access import ROOT_ID, ROOT_NAME, AdminToken, digest_of, prefix_of
from tokenhub.board import Board
from tokenhub.catalog import Catalog, Snapshot, StoredVault
from tokenhub.config import Settings
from tokenhub.credentials import Credentials, KeyMissing
from tokenhub.db import Database, open_at_head
from tokenhub.domain import Provider
from tokenhub.duties import background_of
from tokenhub.errors import VaultError
from tokenhub.escrow import Escrow
from tokenhub.events import Events, Feed, KeyNames
from tokenhub.gateway import Gateway, stream_timeouts, whole_timeouts
from tokenhub.host import Host
from tokenhub.idempotency import Idempotency
from tokenhub.journal import Journal
from tokenhub.keys import KeyVerifier
from tokenhub.limiter import Limiter
from tokenhub.providers import ADAPTERS
from tokenhub.providers.upstream import Upstream
from tokenhub.recorder import Recorder
from tokenhub.reloading import Reloader, routing_defaults
from tokenhub.services import Services
from tokenhub.store import HostState
from tokenhub.telemetry import LogLevel
from tokenhub.tracing import Asked, find_tracer
from tokenhub.vault import AutoLock, Vault, provider_entry
from tokenhub.views.host_state import state_of
from tokenhub.web import (
    admin,
    chat,
    cors,
    errors,
    feedback,
    messages,
    native,
    own_key,
    plan,
    probes,
    ui,
    vault,
)
from tokenhub.web.access_log import AccessLog
from tokenhub.web.admin.credentials import rules
from tokenhub.web.hub import Hub, NoSessions

log = logging.getLogger("tokenhub.factory")


def create_app(
    settings: Settings,
    shared: Host | None = None,
    *,
    reload_settings: Callable[[], Settings] | None = None,
) -> Hub:
    """Build the app of one worker; start its background work with `app.background.start()`.

    Args:
        shared: what the arbiter prepared; made here when there is no arbiter.
        reload_settings: reads the settings again, for SIGHUP.

    Raises:
        ConfigError: also when the database is not at head, or is none.
        DatabaseAway: it cannot be reached now.
    """
    log_level = LogLevel(settings.log_level)
    shared = shared or host.prepare(settings)
    database = open_at_head(settings.db_dsn, pool_size=settings.db_pool_size)
    app = Hub(__name__, static_folder=None, template_folder=str(_root() / "templates"))
    blocking = ThreadPool(2)
    journal = Journal(
        host.journal_directory(settings),
        f"{os.getpid()}-{time.time_ns():x}",
        shared.board.next_segment,
        bytes_max=settings.journal_max_mb << 20,
        # Not behind bcrypt and Argon2, or they would decide how much a power loss may cost.
        run_blocking=ThreadPool(1).apply,
        on_append=lambda size: shared.board.backlog.note_appended(shared.board.slot, size),
    )
    file = Credentials(settings.credentials_file, rules(settings))
    file.contents()  # before anybody can break it: the last good one is what this worker has read
    app.services = _services(
        settings, shared, database, journal, blocking, file, log_level=log_level
    )
    reloader = Reloader(
        settings=settings,
        read=reload_settings or (lambda: settings),
        catalog=app.services.catalog,
        limiter=app.services.limiter,
        credentials=file,
        log_level=log_level,
        is_speaker=partial(_is_speaker, shared.board),
    )
    app.background = background_of(app.services, shared, journal, reloader=reloader, file=file)
    app.extensions["tokenhub"] = app.services
    app.session_interface = NoSessions()
    if settings.access_log != "off":
        app.on_answer = AccessLog(settings)
    app.url_map.strict_slashes = False
    for module in (chat, native, messages, plan, own_key, feedback, admin, vault, probes, ui):
        app.register_blueprint(module.blueprint)
    cors.register(app, settings.cors_origins)  # before what adds headers: Flask asks it last
    errors.register(app)
    return app


def _services(
    settings: Settings,
    shared: Host,
    database: Database,
    journal: Journal,
    blocking: ThreadPool,
    file: Credentials,
    *,
    log_level: LogLevel,
) -> Services:
    board = shared.board
    parts: dict[str, Any] = {}  # the vault and the catalog each need the other
    stored = StoredVault(database, lambda: parts["catalog"])
    secrets_vault = _vault(settings, shared, stored, blocking)
    events = Events(
        journal=journal,
        board=board,
        provider_of=lambda model_id: _provider_of(parts["catalog"].latest(), model_id),
    )
    board.vitals.changes.on_change = events.tell_transition
    catalog = parts["catalog"] = Catalog(
        database=database,
        board=board,
        defaults=routing_defaults(settings),
        adapter_types=ADAPTERS,
        with_demo=settings.demo,
        wildcard=settings.wildcard_models,
        on_vault_change=secrets_vault.drop_cache,
        on_log_level=log_level.save,
        on_applied=lambda each: events.tell_change(
            each.kind, each.entity_id, each.action, each.detail
        ),
    )
    _open_vault(secrets_vault, settings)
    tracer = find_tracer(settings, partial(_asked, catalog.latest))
    recorder = Recorder(
        journal=journal, board=board, models=lambda: catalog.latest().models, tracer=tracer
    )
    secret_of = _secret_finder(secrets_vault, file, catalog.latest)
    gateway = _gateway(settings, shared, database, recorder, secret_of=secret_of)
    return Services(
        settings=settings,
        root=_root_token(settings),
        host_id=shared.host_id,
        database=database,
        board=board,
        catalog=catalog,
        vault=secrets_vault,
        keys=KeyVerifier(seen=board, run_blocking=blocking.apply),
        limiter=Limiter(board, settings),
        recorder=recorder,
        events=events,
        feed=Feed(database=database, board=board, name_of=KeyNames(lambda: catalog.latest().keys)),
        idempotency=Idempotency(database=database, board=board, host_id=shared.host_id),
        gateway=gateway,
        run_blocking=blocking.apply,
        log_level=log_level,
        host_state=_host_state(settings, shared, catalog),
        tracer=tracer,
    )


def _host_state(settings: Settings, shared: Host, catalog: Catalog) -> Callable[[], HostState]:
    return partial(
        state_of,
        settings=settings,
        board=shared.board,
        secret_memory=shared.secret_memory,
        snapshot_of=catalog.latest,
    )


def _vault(settings: Settings, shared: Host, rows: StoredVault, blocking: ThreadPool) -> Vault:
    return Vault(
        rows=rows,
        memory=shared.secret_memory,
        last_use=shared.board.vault_use,
        tries=shared.board.vault_tries,
        enabled=settings.vault_enabled,
        auto_lock=_auto_lock(settings),
        run_blocking=blocking.apply,
    )


def _gateway(
    settings: Settings,
    shared: Host,
    database: Database,
    recorder: Recorder,
    *,
    secret_of: Callable[[Provider], str | None],
) -> Gateway:
    upstream = Upstream(
        settings.max_response_mb << 20, allow_private=settings.allow_private_providers
    )
    return Gateway(
        board=shared.board,
        recorder=recorder,
        escrow=Escrow(database=database, board=shared.board, host_id=shared.host_id),
        adapters={name: make(upstream) for name, make in ADAPTERS.items()},
        secret_of=secret_of,
        whole_timeouts=whole_timeouts(settings),
        stream_timeouts=stream_timeouts(settings),
        temperature=settings.exploration_temp,
        unknown_model=settings.unknown_model,
        hedge_after_secs=settings.hedge_after_ms / 1000,
        hedged_max=settings.max_hedged_providers,
    )


def _provider_of(snapshot: Snapshot, model_id: str) -> str:
    model = snapshot.models.get(model_id)
    return "" if model is None else model.provider_id


def _root_token(settings: Settings) -> AdminToken:
    token = settings.admin_token or data_dir.admin_token(settings.data_dir)
    return AdminToken(ROOT_ID, ROOT_NAME, "owner", digest_of(token), prefix_of(token))


def _auto_lock(settings: Settings) -> AutoLock:
    """None where the password is in the settings, as in the original: who could not open it?"""
    idle_secs = 0 if settings.vault_password else settings.vault_autolock_secs
    return AutoLock(idle_secs, settings.vault_autolock_stops_traffic)


def _open_vault(found: Vault, settings: Settings) -> None:
    if not (settings.vault_enabled and settings.vault_password):
        return
    try:
        found.open_at_start(settings.vault_password)
    except VaultError as error:  # what needs no secret is served all the same
        log.error("vault stays locked", extra={"reason": error.code})


def _secret_finder(
    found: Vault, file: Credentials, latest: Callable[[], Snapshot]
) -> Callable[[Provider], str | None]:
    def secret_of(provider: Provider) -> str | None:
        match provider.cred_store:
            case "vault":
                secret = found.get_secret(provider_entry(provider.id))
            case "file":
                secret = file.get_key(provider.id)
            case _:
                return None
        # A request goes on with the provider it began with, but secrets are those of now: a new one
        # must not go to an old address.
        now = latest().providers.get(provider.id)
        if now is provider or (now is not None and provider.sends_key_as(now)):
            return secret
        raise KeyMissing(
            "the provider has just been changed", code="catalog_stale", headers={"Retry-After": "1"}
        )

    return secret_of


def _asked(latest: Callable[[], Snapshot], model_id: str, provider_id: str) -> Asked:
    """Of whom an attempt asked, for its span; what has been deleted since has only its ids."""
    snapshot = latest()
    model, provider = snapshot.models.get(model_id), snapshot.providers.get(provider_id)
    return Asked(
        provider=provider.type if provider else "",
        model=model.upstream_model if model else model_id,
        base_url=provider.base_url if provider else "",
    )


def _is_speaker(board: Board) -> bool:
    """Whether this worker is the one that says what all of them do."""
    return os.getpid() == min(board.worker_pids(), default=os.getpid())


def _root() -> Path:
    return Path(__file__).parent.parent

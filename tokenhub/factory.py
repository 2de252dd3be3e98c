"""Puts the parts together: one `Services` for each worker, and the Flask app around it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin
from gevent.threadpool import ThreadPool
from werkzeug.routing import MapAdapter

from tokenhub import data_dir, host
from tokenhub.access import ROOT_ID, ROOT_NAME, AdminToken, digest_of, prefix_of
from tokenhub.board import Board
from tokenhub.catalog import Catalog, Change, Snapshot, StoredVault
from tokenhub.cluster import Cluster
from tokenhub.config import Settings
from tokenhub.credentials import Credentials, KeyMissing
from tokenhub.db import Database, open_at_head
from tokenhub.domain import Provider
from tokenhub.errors import Unavailable, VaultError
from tokenhub.escrow import Escrow
from tokenhub.gateway import Gateway
from tokenhub.host import Host
from tokenhub.idempotency import Idempotency
from tokenhub.ingest import Ingester
from tokenhub.jobs import Background, Job, Leader
from tokenhub.journal import Journal
from tokenhub.keys import KeyVerifier
from tokenhub.limiter import Limiter
from tokenhub.prober import Prober
from tokenhub.providers import ADAPTERS
from tokenhub.providers.base import Timeouts
from tokenhub.providers.upstream import Upstream
from tokenhub.provisioning import TICK_SECS, Provisioner
from tokenhub.recorder import Recorder
from tokenhub.reloading import Reloader, routing_defaults
from tokenhub.schedule import upkeep_jobs
from tokenhub.services import Services
from tokenhub.steward import Steward
from tokenhub.telemetry import configure_logging
from tokenhub.vault import AutoLock, Vault, provider_entry
from tokenhub.web import (
    admin,
    chat,
    cors,
    errors,
    messages,
    native,
    own_key,
    plan,
    probes,
    ui,
    vault,
)
from tokenhub.web.admin.credentials import rules

log = logging.getLogger("tokenhub.factory")


class Hub(Flask):
    """The WSGI app of one worker.

    `on_drain` and `on_stop` are called by the worker class: when it stops accepting, and when the
    last request has been served.
    """

    services: Services
    background: Background
    is_draining = False

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """As Flask's, which looks at the host twice, and no route of ours depends on it."""
        if request is None or "HTTP_UPGRADE" in request.environ:
            return super().create_url_adapter(request)
        return self.url_map.bind(
            request.host,
            request.root_path,
            "",
            request.scheme,
            request.method,
            request.path,
            query_args=request.environ.get("QUERY_STRING", ""),
        )

    def on_drain(self) -> None:
        """Fail readiness: whoever balances the load should look elsewhere.

        What would keep a connection open for as long as its client likes is to be ended here.
        """
        self.is_draining = True

    def on_stop(self) -> None:
        """Leave nothing behind in memory."""
        self.background.stop()


class _NoSession(dict[str, Any], SessionMixin):
    """What Flask is given instead of a cookie session: always the same, always empty."""


class _NoSessions(SessionInterface):
    """Flask's cookie sessions are not used; making an empty one for each request costs 20 µs."""

    _none = _NoSession()

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        return self._none

    def is_null_session(self, obj: object) -> bool:
        return True

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Nothing to save."""


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
    configure_logging(settings.log_level)
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
    )
    file = Credentials(settings.credentials_file, rules(settings))
    file.contents()  # before anybody can break it: the last good one is what this worker has read
    app.services = _services(settings, shared, database, journal, blocking, file)
    reloader = Reloader(
        settings=settings,
        read=reload_settings or (lambda: settings),
        catalog=app.services.catalog,
        limiter=app.services.limiter,
        credentials=file,
        is_speaker=partial(_is_speaker, shared.board),
    )
    app.background = _background(app.services, shared, journal, reloader, _jobs(app.services, file))
    app.extensions["tokenhub"] = app.services
    app.session_interface = _NoSessions()
    app.url_map.strict_slashes = False
    for module in (chat, native, messages, plan, own_key, admin, vault, probes, ui):
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
) -> Services:
    board = shared.board
    parts: dict[str, Any] = {}  # the vault and the catalog each need the other
    secrets_vault = Vault(
        rows=StoredVault(database, lambda: parts["catalog"]),
        memory=shared.secret_memory,
        last_use=board.vault_use,
        tries=board.vault_tries,
        enabled=settings.vault_enabled,
        auto_lock=_auto_lock(settings),
        run_blocking=blocking.apply,
    )
    catalog = parts["catalog"] = Catalog(
        database=database,
        board=board,
        defaults=routing_defaults(settings),
        adapter_types=ADAPTERS,
        with_demo=settings.demo,
        wildcard=settings.wildcard_models,
        on_vault_change=secrets_vault.drop_cache,
    )
    if settings.vault_enabled and settings.vault_password:
        _open_vault(secrets_vault, settings.vault_password)
    recorder = Recorder(journal=journal, board=board)
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
        idempotency=Idempotency(database=database, board=board, host_id=shared.host_id),
        gateway=gateway,
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
        whole_timeouts=_whole_timeouts(settings),
        stream_timeouts=_stream_timeouts(settings),
        temperature=settings.exploration_temp,
        unknown_model=settings.unknown_model,
        hedge_after_secs=settings.hedge_after_ms / 1000,
        hedged_max=settings.max_hedged_providers,
    )


def _root_token(settings: Settings) -> AdminToken:
    token = settings.admin_token or data_dir.admin_token(settings.data_dir)
    return AdminToken(ROOT_ID, ROOT_NAME, "owner", digest_of(token), prefix_of(token))


def _auto_lock(settings: Settings) -> AutoLock:
    """None where the password is in the settings, as in the original: who could not open it?"""
    idle_secs = 0 if settings.vault_password else settings.vault_autolock_secs
    return AutoLock(idle_secs, settings.vault_autolock_stops_traffic)


def _open_vault(found: Vault, password: str) -> None:
    try:
        found.open_at_start(password)
    except VaultError as error:  # what needs no secret is served all the same
        log.error("vault stays locked", extra={"reason": error.code})


def _stream_timeouts(settings: Settings) -> Timeouts:
    return Timeouts(
        connect_secs=settings.first_byte_secs,
        first_byte_secs=settings.first_byte_secs,
        idle_secs=settings.stream_idle_secs,
        total_secs=settings.provider_total_secs,
    )


def _whole_timeouts(settings: Settings) -> Timeouts:
    """A provider that does not stream says nothing until it has finished."""
    total_secs = settings.provider_timeout_secs or settings.provider_total_secs
    return replace(_stream_timeouts(settings), first_byte_secs=total_secs, total_secs=total_secs)


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


def _jobs(services: Services, file: Credentials) -> list[Job]:
    """What the leader does from time to time."""
    settings, gateway = services.settings, services.gateway
    provisioner = Provisioner(
        file=file,
        catalog=services.catalog,
        database=services.database,
        adapters=gateway.adapters,
        secret_of=gateway.secret_of,
    )
    jobs = [Job("credentials file", TICK_SECS, provisioner.tick)]
    if _auto_lock(settings).idle_secs:
        jobs.append(Job("vault auto-lock", 1.0, partial(_lock_if_idle, services)))
    if not settings.health_probe_disabled:
        prober = Prober(
            latest=services.catalog.latest,
            adapters=gateway.adapters,
            secret_of=gateway.secret_of,
            vitals=services.board.vitals,
            endpoints=services.board.endpoints,
        )
        jobs.append(Job("probe", settings.health_probe_secs, prober.run))
    return [*jobs, *upkeep_jobs(settings, services.database, services.catalog)]


def _lock_if_idle(services: Services) -> None:
    change = Change("vault", "", "vault.autolock", actor="autolock")
    with suppress(Unavailable):  # it is written down as soon as the database is back
        services.vault.lock_if_idle(lambda: services.catalog.apply(change, lambda _: None))


def _background(
    services: Services,
    shared: Host,
    journal: Journal,
    reloader: Reloader,
    scheduled: Sequence[Job],
) -> Background:
    settings, catalog = services.settings, services.catalog
    ingester = Ingester(
        database=services.database,
        board=services.board,
        directory=host.journal_directory(settings),
        host_id=shared.host_id,
    )
    leader = Leader(
        lock_path=settings.data_dir / "leader.lock",
        catalog=catalog,
        ingester=ingester,
        steward=Steward(
            database=services.database,
            board=services.board,
            host_id=shared.host_id,
            caught_up_at=lambda: ingester.caught_up_at,
        ),
        database=services.database,
        board=services.board,
        host_id=shared.host_id,
    )

    return Background(
        journal=journal,
        catalog=catalog,
        leader=leader,
        board=services.board,
        cluster=Cluster(services.database, shared.host_id),
        on_reload=reloader.reload,
        sync_secs=settings.journal_sync_ms / 1000,
        scheduled=scheduled,
    )


def _is_speaker(board: Board) -> bool:
    """Whether this worker is the one that says what all of them do."""
    return os.getpid() == min(board.worker_pids(), default=os.getpid())


def _root() -> Path:
    return Path(__file__).parent.parent

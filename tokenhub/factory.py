"""Puts the parts together: one `Services` for each worker, and the Flask app around it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin
from gevent.threadpool import ThreadPool
from werkzeug.routing import MapAdapter

from tokenhub import data_dir, host, store
from tokenhub.board.board import unix_ms
from tokenhub.catalog import Catalog
from tokenhub.config import Settings
from tokenhub.credentials import Credentials
from tokenhub.db import Database, DatabaseAway, open_at_head
from tokenhub.domain import NANOS_PER_USD, Mode, Provider, RoutingDefaults, VaultRow
from tokenhub.errors import ConfigError, VaultError
from tokenhub.gateway import Gateway
from tokenhub.host import Host
from tokenhub.ingest import Ingester
from tokenhub.jobs import Background, Job, Leader
from tokenhub.journal import Journal
from tokenhub.keys import KeyVerifier
from tokenhub.prices import Prices
from tokenhub.prober import Prober
from tokenhub.providers import ADAPTERS
from tokenhub.providers.base import Timeouts
from tokenhub.providers.upstream import Upstream
from tokenhub.provisioning import TICK_SECS, Provisioner
from tokenhub.recorder import Recorder
from tokenhub.services import Services
from tokenhub.telemetry import configure_logging
from tokenhub.vault import Vault, provider_entry
from tokenhub.web import admin, chat, errors, probes, ui, vault
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
        """Fail readiness: whoever balances the load should look elsewhere."""
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


class _VaultRows:
    """The vault's rows: the sealed entries from the Snapshot, the rest from the database.

    The row that was read last serves while the database is away, so that the vault can be unlocked
    then as well.
    """

    def __init__(self, database: Database, catalog: Callable[[], Catalog]) -> None:
        self._database = database
        self._catalog = catalog
        self._row = database.read(store.find_vault)

    def find(self) -> VaultRow | None:
        try:
            self._row = self._database.read(store.find_vault)
        except DatabaseAway:
            if self._row is None:
                raise
        return self._row

    def create(self, row: VaultRow) -> bool:
        now = unix_ms()
        return self._database.write(lambda connection: store.insert_vault(connection, row, now))

    def find_entry(self, name: str) -> bytes | None:
        return self._catalog().latest().sealed.get(name)


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
    database = open_at_head(settings.db_dsn)
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
    app.background = _background(
        app.services, shared, journal, reload_settings, _jobs(app.services, file)
    )
    app.extensions["tokenhub"] = app.services
    app.session_interface = _NoSessions()
    app.url_map.strict_slashes = False
    for module in (chat, admin, vault, probes, ui):
        app.register_blueprint(module.blueprint)
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
        rows=_VaultRows(database, lambda: parts["catalog"]),
        memory=shared.secret_memory,
        enabled=settings.vault_enabled,
        run_blocking=blocking.apply,
    )
    catalog = parts["catalog"] = Catalog(
        database=database,
        board=board,
        defaults=routing_defaults(settings),
        adapter_types=ADAPTERS,
        with_demo=settings.demo,
        on_vault_change=secrets_vault.drop_cache,
    )
    if settings.vault_enabled and settings.vault_password:
        _open_vault(secrets_vault, settings.vault_password)
    recorder = Recorder(journal=journal, board=board)
    upstream = Upstream(
        settings.max_response_mb << 20, allow_private=settings.allow_private_providers
    )
    gateway = Gateway(
        board=board,
        recorder=recorder,
        adapters={name: make(upstream) for name, make in ADAPTERS.items()},
        secret_of=_secret_finder(secrets_vault, file),
        whole_timeouts=_whole_timeouts(settings),
        stream_timeouts=_stream_timeouts(settings),
        temperature=settings.exploration_temp,
        unknown_model=settings.unknown_model,
    )
    return Services(
        settings=settings,
        admin_token=settings.admin_token or data_dir.admin_token(settings.data_dir),
        host_id=shared.host_id,
        database=database,
        board=board,
        catalog=catalog,
        vault=secrets_vault,
        keys=KeyVerifier(seen=board, run_blocking=blocking.apply),
        recorder=recorder,
        gateway=gateway,
        run_blocking=blocking.apply,
    )


def _open_vault(found: Vault, password: str) -> None:
    try:
        found.open_at_start(password)
    except VaultError as error:  # what needs no secret is served all the same
        log.error("vault stays locked", extra={"reason": error.code})


def routing_defaults(settings: Settings) -> RoutingDefaults:
    """The settings' routing defaults."""
    return RoutingDefaults(
        mode=cast(Mode, settings.default_mode),  # its parser lets no other word pass
        max_budget_nanousd=round(settings.default_max_budget_usd * NANOS_PER_USD),
        max_latency_ms=settings.default_max_latency_ms,
    )


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


def _secret_finder(found: Vault, file: Credentials) -> Callable[[Provider], str | None]:
    def secret_of(provider: Provider) -> str | None:
        match provider.cred_store:
            case "vault":
                return found.get_secret(provider_entry(provider.id))
            case "file":
                return file.get_key(provider.id)
        return None

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
    if not settings.health_probe_disabled:
        prober = Prober(
            latest=services.catalog.latest,
            adapters=gateway.adapters,
            secret_of=gateway.secret_of,
            vitals=services.board.vitals,
            endpoints=services.board.endpoints,
        )
        jobs.append(Job("probe", settings.health_probe_secs, prober.run))
    if settings.pricing_refresh_enabled and settings.pricing_source:
        prices = Prices(settings=settings, catalog=services.catalog, database=services.database)
        jobs.append(Job("prices", prices.tick_secs, prices.tick))
    return jobs


def _background(
    services: Services,
    shared: Host,
    journal: Journal,
    reload_settings: Callable[[], Settings] | None,
    scheduled: Sequence[Job],
) -> Background:
    settings, catalog = services.settings, services.catalog
    leader = Leader(
        lock_path=settings.data_dir / "leader.lock",
        catalog=catalog,
        ingester=Ingester(
            database=services.database,
            board=services.board,
            directory=host.journal_directory(settings),
            host_id=shared.host_id,
        ),
        database=services.database,
        host_id=shared.host_id,
    )

    def on_reload() -> None:
        if reload_settings is None:
            return
        try:
            fresh = reload_settings()
        except ConfigError as error:
            log.error("reload refused", extra={"problems": str(error)})
            return
        configure_logging(fresh.log_level)
        catalog.set_defaults(routing_defaults(fresh))
        log.info("settings were read again")

    return Background(
        journal=journal,
        catalog=catalog,
        leader=leader,
        board=services.board,
        on_reload=on_reload,
        sync_secs=settings.journal_sync_ms / 1000,
        scheduled=scheduled,
    )


def _root() -> Path:
    return Path(__file__).parent.parent

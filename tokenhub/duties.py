"""What a worker does beside answering: its background work, put together.

Every worker follows the catalog and syncs its journal; the one that leads its host also ingests,
probes, and does what comes round from time to time.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from tokenhub import host
from tokenhub.catalog import Change
from tokenhub.cluster import Cluster
from tokenhub.credentials import Credentials
from tokenhub.errors import Unavailable
from tokenhub.host import Host
from tokenhub.ingest import Ingester
from tokenhub.jobs import Background, Job, Leader
from tokenhub.journal import Journal
from tokenhub.prober import Prober
from tokenhub.provisioning import TICK_SECS, Provisioner
from tokenhub.reloading import Reloader
from tokenhub.schedule import upkeep_jobs
from tokenhub.services import Services
from tokenhub.steward import Steward

HEARTBEAT_SECS = 15.0
"""As in the original."""

TELL_SECS = 1.0
"""How often it is looked whose health time has changed."""


def background_of(
    services: Services, shared: Host, journal: Journal, *, reloader: Reloader, file: Credentials
) -> Background:
    """The background work of a worker: its own, and what it does while it leads its host.

    Args:
        shared: what the arbiter prepared.
        file: the credentials file.
    """
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
        state=services.host_state,
    )
    return Background(
        journal=journal,
        catalog=catalog,
        leader=leader,
        board=services.board,
        cluster=Cluster(services.database, shared.host_id),
        on_reload=reloader.reload,
        sync_secs=settings.journal_sync_ms / 1000,
        scheduled=_jobs(services, file),
    )


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
    jobs.append(Job("heartbeat", HEARTBEAT_SECS, services.board.beat))
    jobs.append(Job("health changes", TELL_SECS, services.board.vitals.tell_changes))
    if services.vault.locks_itself:
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

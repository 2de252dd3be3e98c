"""What the arbiter makes before it forks, and every worker then shares.

`gunicorn.conf.py` calls `prepare` and keeps the result in `prepared`; `app.py` picks it up in each
worker. Imports little: the arbiter should stay small and start no threads.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tokenhub import data_dir, journal
from tokenhub.board import Board
from tokenhub.config import Settings
from tokenhub.secret_memory import SecretMemory


@dataclass(frozen=True)
class Host:
    """The shared parts of one host.

    Args:
        settings: as they were at the start: all workers of a host use the same.
        locks: descriptors that keep other gateways out; open as long as anybody lives.
    """

    settings: Settings
    host_id: str
    board: Board
    secret_memory: SecretMemory
    locks: tuple[int, ...]


prepared: Host | None = None


def worker_count(settings: Settings) -> int:
    """How many workers to start: as configured, or one for each core we may use."""
    return settings.workers or len(os.sched_getaffinity(0))


def journal_directory(settings: Settings) -> Path:
    """Where the host's workers write their journal."""
    return settings.data_dir / "journal"


def sqlite_file(settings: Settings) -> Path | None:
    """The database file, by its own name; None if the database is no file."""
    if not settings.db_dsn.startswith("sqlite:///"):
        return None
    return Path(settings.db_dsn.removeprefix("sqlite:///").partition("?")[0]).resolve()


def lock(settings: Settings) -> tuple[int, ...]:
    """Keep other gateways off the data directory and the SQLite file.

    Returns: the descriptors that do, as long as anybody has them open.

    Raises:
        ConfigError: a gateway is using them.
    """
    data_dir.prepare(settings.data_dir)
    locks = [data_dir.lock(settings.data_dir / "gateway.lock", str(settings.data_dir))]
    file = sqlite_file(settings)
    if file is not None:
        locks.append(data_dir.lock(file.with_name(file.name + ".lock"), str(file)))
    return tuple(locks)


def prepare(settings: Settings) -> Host:
    """Take the data directory (and the SQLite file) for this host and lay out what is shared.

    Raises:
        ConfigError: another gateway is using them.
    """
    locks = lock(settings)
    first_segment = journal.first_segment_number(journal_directory(settings))
    journal.remove_unfinished(journal_directory(settings))
    board = Board(
        slots=2 * worker_count(settings),
        first_segment=first_segment,
    )
    return Host(
        settings=settings,
        host_id=data_dir.host_id(settings.data_dir),
        board=board,
        secret_memory=SecretMemory(lock=board.lock),
        locks=locks,
    )

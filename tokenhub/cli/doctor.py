"""The command that examines an installation from within: what must be right for a gateway to run.

It changes nothing, and can be run while a gateway is running and when none starts.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from tokenhub import data_dir, host
from tokenhub.cli.common import get_settings
from tokenhub.cli.first_start import API_KEY, VAULT_PASSWORD
from tokenhub.config import Settings
from tokenhub.config.findings import Finding, has_failed, render_findings
from tokenhub.db import (
    Database,
    DatabaseAway,
    DatabaseUnusable,
    check_room,
    find_room,
    look_for_damage,
    open_at_head,
)
from tokenhub.errors import ConfigError
from tokenhub.journal import list_segments

IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "ceph", "glusterfs", "9p"})
MOUNTS = Path("/proc/self/mounts")
BOARD_MB_MIN = 16
FREE_MB_FAIL, FREE_MB_WARN = 200, 2048
BACKLOG_WARN = 8
SKEW_WARN_MS = 1000
FILES_PER_WORKER_MIN = 1024
MB = 1 << 20
OTHERS = 0o077


@click.command()
@click.option("--json", "is_json", is_flag=True, help="The findings as JSON.")
def doctor(is_json: bool) -> None:
    """Examine settings, data directory, database and machine; exit 1 if something fails."""
    findings = list(examine())
    click.echo(render_findings(findings, is_json=is_json))
    if has_failed(findings):
        raise click.exceptions.Exit(1)


def examine() -> Iterator[Finding]:
    """All checks, one after the other; without settings there is nothing to look at."""
    try:
        settings = get_settings()
    except click.ClickException as error:
        problems = " ".join(error.message.split())
        yield Finding("settings", "fail", problems, "mend them: docs/settings.md")
        return
    yield Finding("settings", "ok", "all are valid")
    for check in (directory, disk, secret_files, journal, shared_memory, limits):
        try:
            yield check(settings)
        except OSError as error:
            name = check.__name__.replace("_", " ")
            yield Finding(name, "fail", f"not checked: {error.strerror}", "see who may read it")
    yield from database(settings)


def directory(settings: Settings) -> Finding:
    """Whether the data directory is ours alone, on a disk of this machine."""
    found = settings.data_dir
    if not found.is_dir():
        return Finding("directory", "warn", f"{found} is not there yet", "`make run` makes it")
    if found.stat().st_mode & 0o022:
        return Finding("directory", "fail", f"others may write to {found}", f"chmod 700 {found}")
    if not os.access(found, os.W_OK | os.X_OK):
        return Finding("directory", "fail", f"we may not write to {found}", "chown it to our user")
    kind = file_system(found)
    if kind in IN_MEMORY:
        told = f"{found} is in memory ({kind}): a restart of the machine loses what was not entered"
        return Finding("directory", "warn", told, "set TOKENHUB_DATA_DIR to a disk")
    if kind in REMOTE:
        told = f"{found} is on a network ({kind}), where locks and syncs may not hold"
        return Finding("directory", "fail", told, "set TOKENHUB_DATA_DIR to a local disk")
    return Finding("directory", "ok", f"{found} is ours, on {kind or 'a disk'}")


def disk(settings: Settings) -> Finding:
    """Whether there is room for the journal."""
    free = shutil.disk_usage(_existing(settings.data_dir)).free // MB
    told = f"{free} MB are free; the journal may take {settings.journal_max_mb}"
    if free < FREE_MB_FAIL:
        return Finding("disk", "fail", told, "make room")
    if free < min(FREE_MB_WARN, settings.journal_max_mb):
        return Finding("disk", "warn", told, "make room, or lower TOKENHUB_JOURNAL_MAX_MB")
    return Finding("disk", "ok", told)


def secret_files(settings: Settings) -> Finding:
    """Whether only we can read what is secret."""
    found = settings.data_dir
    names = (data_dir.ADMIN_TOKEN, API_KEY, VAULT_PASSWORD, data_dir.CLIENT_ENV, "settings.env")
    paths = [*(found / name for name in names), settings.credentials_file]
    paths += [settings.env_file] if settings.env_file else []
    there = [path for path in paths if path.is_file()]
    open_to_others = [str(path) for path in there if path.stat().st_mode & OTHERS]
    if open_to_others:
        shown = " ".join(open_to_others)
        return Finding("secret files", "fail", f"others may read {shown}", f"chmod 600 {shown}")
    return Finding("secret files", "ok", f"{len(there)}, readable by us alone")


def journal(settings: Settings) -> Finding:
    """Whether the journal can be written, and how much of it waits."""
    found = host.journal_directory(settings)
    if not found.is_dir():
        return Finding("journal", "ok", "none yet")
    if not os.access(found, os.W_OK | os.X_OK):
        return Finding("journal", "fail", f"we may not write to {found}", "chown it to our user")
    sealed = [each for each in list_segments(found) if each.is_sealed]
    if len(sealed) > BACKLOG_WARN:
        told = f"{len(sealed)} full segments wait to be entered into the database"
        return Finding("journal", "warn", told, "see whether the database keeps up")
    return Finding("journal", "ok", f"{len(sealed)} full segments wait")


def shared_memory(settings: Settings) -> Finding:
    """Whether there is memory for the board that workers share."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MB
    told = f"{available} MB of memory are free"
    if available < BOARD_MB_MIN:
        return Finding("memory", "warn", told, "give the machine more, or lower TOKENHUB_WORKERS")
    return Finding("memory", "ok", told)


def limits(settings: Settings) -> Finding:
    """Whether each worker may have enough connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    workers = host.worker_count(settings)
    told = f"{workers} workers, each with up to {soft} open files"
    if soft != resource.RLIM_INFINITY and soft < FILES_PER_WORKER_MIN:
        todo = f"ulimit -n {min(hard, 8192) if hard > 0 else 8192}, or LimitNOFILE= in systemd"
        return Finding("limits", "warn", told, todo)
    return Finding("limits", "ok", told)


def database(settings: Settings) -> Iterator[Finding]:
    """Whether it is there, at head, unhurt, large enough, and has our time."""
    try:
        file = host.sqlite_file(settings)
        if file is not None and not file.exists():
            yield Finding("database", "fail", f"there is no file {file}", "alembic upgrade head")
            return
        with closing(open_at_head(settings.db_dsn)) as found:
            look_for_damage(found)
            yield Finding("database", "ok", f"{found.dialect}, reachable, at head, not damaged")
            for check in (_clock, _room):
                yield check(settings, found)
    except (ConfigError, DatabaseAway, DatabaseUnusable) as error:
        yield Finding("database", "fail", str(error), "see docs/reliability.md")
    except (SQLAlchemyError, ValueError) as error:  # its words may repeat the password
        yield Finding("database", "fail", type(error).__name__, "mend TOKENHUB_DB_DSN")


def _clock(settings: Settings, found: Database) -> Finding:
    if found.dialect == "sqlite":
        return Finding("clock", "ok", "the database is on this machine")
    began = time.time()
    query = text("SELECT extract(epoch FROM clock_timestamp())")
    theirs = float(found.read(lambda connection: connection.execute(query).scalar_one()))
    skew_ms = (theirs - (began + time.time()) / 2) * 1000
    told = f"the database is {abs(skew_ms):.0f} ms {'ahead' if skew_ms > 0 else 'behind'}"
    if abs(skew_ms) > SKEW_WARN_MS:
        return Finding("clock", "warn", told, "have both machines keep their time (NTP)")
    return Finding("clock", "ok", told)


def _room(settings: Settings, found: Database) -> Finding:
    room = find_room(found)
    if room is None:
        return Finding("connections", "ok", "no limit")
    workers = host.worker_count(settings)
    warning = check_room(room, workers=workers, pool_size=settings.db_pool_size)
    if warning is not None:
        return Finding("connections", "warn", warning, "lower TOKENHUB_DB_POOL_SIZE")
    return Finding("connections", "ok", "the server has enough for all workers")


def file_system(path: Path) -> str:
    """The type of the file system that a path is on, or "" if nobody says."""
    at, best, kind = path.resolve(), Path(), ""
    for line in MOUNTS.read_text().splitlines() if MOUNTS.exists() else ():
        _, point, found, *_ = line.split(" ")
        mount = Path(point.replace("\\040", " "))
        if at.is_relative_to(mount) and len(mount.parts) >= len(best.parts):
            best, kind = mount, found
    return kind


def _existing(path: Path) -> Path:
    """The path, or the first above it that exists."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())

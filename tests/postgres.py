"""A throw-away Postgres server: a temporary directory, loopback, nothing kept, no durability."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql

USER = "tokenhub"

# Nothing here outlives the server, so nothing is forced to disk.
OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def find_binaries() -> Path | None:
    """The directory of `initdb` and `pg_ctl`: PATH first, then where Debian puts them."""
    found = shutil.which("pg_ctl")
    if found and shutil.which("initdb", path=Path(found).resolve().parent):
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")
    paths = sorted(versions, key=lambda path: float(path.parts[-3]))
    return paths[-1].parent if paths else None


class PostgresServer:
    """One server; `stop()` and `start()` make an outage, the data stays.

    Args:
        binaries: where `initdb` and `pg_ctl` are.
    """

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        # Not below pytest's directory: a socket's path is short, and root's is closed to others.
        self._directory = Path(tempfile.mkdtemp(prefix="tokenhub-pg-"))
        self._data = self._directory / "data"
        self._names = (f"test_{number}" for number in count(1))
        # Postgres refuses to run as root.
        self._become: tuple[str, ...] = ()
        if os.geteuid() == 0:
            self._become = ("runuser", "-u", "postgres", "--")
            os.chown(self._directory, pwd.getpwnam("postgres").pw_uid, -1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def dsn(self) -> str:
        """The server's own database."""
        return self._dsn("postgres")

    def create(self) -> None:
        """Make the cluster."""
        self._run("initdb", "--auth=trust", "--no-sync", "--username", USER, "--encoding=UTF8",
                  "--locale=C")  # fmt: skip

    def start(self) -> None:
        """Start, and wait until connections are accepted."""
        settings = (
            *OPTIONS, "listen_addresses=127.0.0.1", f"port={self.port}",
            f"unix_socket_directories={self._directory}",
        )  # fmt: skip
        options = " ".join(f"-c {each}" for each in settings)
        log = self._directory / "log"
        self._run("pg_ctl", "--wait", "--log", str(log), "--options", options, "start")

    def stop(self) -> None:
        """Stop at once, whoever is connected."""
        self._run("pg_ctl", "--wait", "--mode=immediate", "stop")

    def remove(self) -> None:
        """Stop if it runs, and leave nothing behind."""
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._directory)

    def create_database(self, *, template: str = "template0") -> str:
        """Make a database; returns its DSN."""
        name = next(self._names)
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template)
        )
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement)
        return self._dsn(name)

    def _dsn(self, name: str) -> str:
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._become, str(self._binaries / program), "-D", str(self._data), *arguments]
        # To a file, not a pipe: the server would inherit the pipe and keep it open.
        with (self._directory / "output").open("w+") as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=60
            )
            output.seek(0)
            assert done.returncode == 0, output.read()

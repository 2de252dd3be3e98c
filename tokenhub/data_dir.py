"""The data directory: who owns it, and the small files in it.

A host is one gunicorn arbiter with its data directory. Its id lives here, and the arbiter holds a
kernel lock on it as long as it or one of its workers lives. Knows nothing of what the files mean.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from tokenhub.errors import ConfigError

ADMIN_TOKEN = ".admin-token"  # noqa: S105 - a file name
CLIENT_ENV = "env"
"""What clients on this machine read, as `KEY=VALUE` lines."""

ADMIN_VARIABLE = "TOKENHUB_ADMIN_TOKEN="

LOCK_SECS = 5.0
"""How long a start waits for the workers of an arbiter that was killed to notice and leave."""


def prepare(directory: Path) -> None:
    """Make the directory, for its owner alone."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def lock(path: Path, owner: str) -> int:
    """Hold `path` against every other gateway; returns the descriptor that holds it.

    The lock belongs to the open file, which forked workers share: it is free again when the last
    of them is gone.

    Raises:
        ConfigError: somebody else holds it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_SECS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise ConfigError(f"another gateway is using {owner}") from None
            time.sleep(0.1)  # before the first fork: nobody is kept waiting
        else:
            return fd


def secret(path: Path, make: Callable[[], str] = lambda: secrets.token_hex(32)) -> str:
    """The text of a 0600 file, made the first time; the same for everyone who asks at once."""
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(make() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass  # somebody was faster: theirs counts
        finally:
            fresh.unlink()
    return path.read_text().strip()


def replace_file(path: Path, data: bytes) -> None:
    """Replace a 0600 file as a whole: nobody sees half of it. One writer at a time.

    Raises:
        OSError: it could not be written, and is as it was.
    """
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def host_id(directory: Path) -> str:
    """This host's random id."""
    return secret(directory / "host-id", lambda: "host_" + secrets.token_hex(8))


def admin_token(directory: Path) -> str:
    """The admin token of this directory, made at the first start."""
    return secret(directory / ADMIN_TOKEN)


def replace_admin_token(directory: Path, is_old: Callable[[str], bool], token: str) -> bool:
    """Put a new admin token where an old one is: in its own file, and in what clients here read.

    Args:
        is_old: whether a token is one that the new one takes the place of; others stay.

    Returns: whether the directory had an old one in its own file.

    Raises:
        OSError: a file could not be written, and is as it was.
    """
    own, clients = directory / ADMIN_TOKEN, directory / CLIENT_ENV
    if clients.exists():
        lines = clients.read_text().splitlines()
        fresh = [f"{ADMIN_VARIABLE}{token}" if _has_old(line, is_old) else line for line in lines]
        if fresh != lines:
            replace_file(clients, "".join(f"{line}\n" for line in fresh).encode())
    if not own.exists() or not is_old(own.read_text().strip()):
        return False
    replace_file(own, f"{token}\n".encode())
    return True


def _has_old(line: str, is_old: Callable[[str], bool]) -> bool:
    return line.startswith(ADMIN_VARIABLE) and is_old(line.removeprefix(ADMIN_VARIABLE))

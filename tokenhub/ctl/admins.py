"""Commands about administrators: the root token, tokens of others, sessions of browsers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

from tokenhub.ctl.client import Failed, segment
from tokenhub.ctl.common import Answer, Nouns, answering, client, session, watching
from tokenhub.ctl.config import read_env
from tokenhub.ctl.show import clean, moment, table

CONTAINERS = ("tokenhub-tokenhub-1", "tokenhub")
CONTAINER_TOKEN = "/data/.admin-token"  # noqa: S105 - a file name
DOCKER_SECS = 10
STDIN = "-"


@click.command("admin-token")
@answering
def admin_token() -> Answer:
    """Print the admin token that commands use."""
    found = session().config().admin_token or _token_of_container()
    if not found:
        raise Failed(
            "there is no admin token: not in the environment, ~/.tokenhub/env, the data directory "
            "or a container\n  to do: set TOKENHUB_ADMIN_TOKEN"
        )
    return Answer({"token": found}, clean(found))


def _token_of_container() -> str:
    docker = shutil.which("docker")
    if docker is None:
        return ""
    for name in CONTAINERS:
        command = [docker, "exec", name, "cat", CONTAINER_TOKEN]
        try:
            done = subprocess.run(  # noqa: S603 - fixed arguments
                command, capture_output=True, text=True, timeout=DOCKER_SECS, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    return ""


@click.command("rotate-admin-token")
@click.argument("token", required=False)
@answering
def rotate_admin_token(token: str | None) -> Answer:
    """Give the root token a new secret: TOKEN (- reads it), or a random one. It is printed once."""
    asking = client()
    if token == STDIN:
        token = sys.stdin.readline().strip()
    body = {"token": token} if token else {}
    asking.keep_secret(token or "")
    said = asking.ask("POST", "admin-token/rotate", body=body)
    new, config = str(said["token"]), asking.config
    is_kept = replace_token(config.home_env, config.admin_token, new)
    hint = f"{config.home_env} has it now." if is_kept else "Set TOKENHUB_ADMIN_TOKEN to it."
    notes = [clean(said[name]) for name in ("warning", "note") if said.get(name)]
    return Answer(said, clean(new), "\n".join([hint, *notes]))


def replace_token(path: Path, old: str, new: str) -> bool:
    """Put the new token in the place of the old one in an env file; whether it was there."""
    if not old or read_env(path).get("TOKENHUB_ADMIN_TOKEN") != old:
        return False
    lines = [
        f"TOKENHUB_ADMIN_TOKEN={new}" if line.strip() == f"TOKENHUB_ADMIN_TOKEN={old}" else line
        for line in path.read_text().splitlines()
    ]
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write("".join(f"{line}\n" for line in lines))
    fresh.replace(path)
    return True


@click.group("tokens", cls=Nouns, default="list")
def tokens() -> None:
    """Admin tokens of people and programs, each with a role."""


@tokens.command("list")
@watching
def list_tokens() -> Answer:
    """All of them, without their secrets."""
    found = client().get_all("tokens", "tokens")
    rows = [
        (
            each.get("id"), each.get("name"), each.get("role"), each.get("prefix"),
            moment(each.get("created_at")), moment(each.get("expires_at")),
        )
        for each in found["tokens"]
    ]  # fmt: skip
    return Answer(found, table(("ID", "NAME", "ROLE", "PREFIX", "CREATED", "EXPIRES"), rows))


@tokens.command("create")
@click.argument("name")
@click.argument("role", type=click.Choice(["viewer", "operator", "owner"]))
@click.option("--expires-in", metavar="TIME", help="Such as 720h or 30d.")
@answering
def create_token(name: str, role: str, expires_in: str | None) -> Answer:
    """Issue one; it is printed once."""
    given = {"name": name, "role": role, "expires_in": expires_in}
    body = {field: value for field, value in given.items() if value}
    said = client().ask("POST", "tokens", body=body)
    return Answer(said, clean(said["token"]), clean(said.get("warning", "")))


@tokens.command("delete")
@click.argument("token_id")
@answering
def delete_token(token_id: str) -> Answer:
    """Revoke one, and end its sessions."""
    said = client().ask("DELETE", f"tokens/{segment(token_id)}")
    return Answer(said, f"Token {clean(token_id)} deleted")


@click.group("sessions", cls=Nouns, default="list")
def sessions() -> None:
    """Sessions of browsers."""


@sessions.command("list")
@watching
def list_sessions() -> Answer:
    """Those that are not over."""
    found = client().get_all("sessions", "sessions")
    rows = [
        (
            each.get("id"), each.get("name"), each.get("role"), each.get("client_ip"),
            moment(each.get("created_at")), moment(each.get("expires_at")),
        )
        for each in found["sessions"]
    ]  # fmt: skip
    return Answer(found, table(("ID", "NAME", "ROLE", "ADDRESS", "CREATED", "EXPIRES"), rows))


@sessions.command("delete")
@click.argument("session_id")
@answering
def delete_session(session_id: str) -> Answer:
    """End one."""
    said = client().ask("DELETE", f"sessions/{segment(session_id)}")
    return Answer(said, f"Session {clean(session_id)} ended")


COMMANDS: list[tuple[click.Command, tuple[str, ...]]] = [
    (admin_token, ()), (rotate_admin_token, ()), (tokens, ("token",)), (sessions, ("session",)),
]  # fmt: skip

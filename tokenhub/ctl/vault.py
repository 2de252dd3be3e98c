"""Commands about the vault: its password, and secrets of your own in it."""

from __future__ import annotations

import sys

import click

from tokenhub.ctl.client import segment
from tokenhub.ctl.common import (
    Answer,
    Nouns,
    answering,
    client,
    confirm,
    read_secret,
    watching,
    yes_option,
)
from tokenhub.ctl.show import clean, clean_lines


@click.group("vault")
def vault() -> None:
    """Open and close the vault, change its password, keep secrets in it.

    A password or secret that is left out is asked for, or read from standard input, where other
    users of this machine cannot see it.
    """


@vault.command("unlock")
@click.argument("password", required=False)
@answering
def unlock(password: str | None) -> Answer:
    """Open it; the first time, set its password."""
    asking, given = client(), read_secret(password, "Vault password")
    asking.keep_secret(given)
    said = asking.ask("POST", "vault/unlock", body={"admin_password": given})
    was_open = said.get("already_unlocked")
    return Answer(said, "Vault was unlocked already" if was_open else "Vault unlocked")


@vault.command("lock")
@answering
def lock() -> Answer:
    """Close it for all workers of the host."""
    said = client().ask("POST", "vault/lock")
    return Answer(
        said, "Vault was locked already" if said.get("already_locked") else "Vault locked"
    )


@vault.command("rotate")
@click.argument("old", required=False)
@click.argument("new", required=False)
@answering
def rotate(old: str | None, new: str | None) -> Answer:
    """Change its password; on standard input the old one is the first line."""
    asking = client()
    old = read_secret(old, "Old password")
    new = read_secret(new, "New password")
    asking.keep_secret(old, new)
    said = asking.ask("POST", "vault/rotate", body={"old_password": old, "new_password": new})
    return Answer(said, "Vault password changed")


@vault.group("secret", cls=Nouns, default="list")
def secret() -> None:
    """Secrets of your own, by name."""


@secret.command("list")
@watching
def list_secrets() -> Answer:
    """Their names, one on a line."""
    found = client().get_all("vault/secrets", "secrets")
    return Answer(found, "\n".join(map(clean, found["secrets"])) or "no secrets")


@secret.command("get")
@click.argument("key")
@answering
def get_secret(key: str) -> Answer:
    """Print the value of one; the audit says who has read it."""
    found = client().get(f"vault/secrets/{segment(key)}")
    value = str(found["value"])
    return Answer(found, clean_lines(value) if sys.stdout.isatty() else value)


@secret.command("set")
@click.argument("key")
@click.argument("value", required=False)
@answering
def set_secret(key: str, value: str | None) -> Answer:
    """Create or replace one; all of standard input is its value when it is left out."""
    asking, given = client(), read_secret(value, "Value", whole=True)
    asking.keep_secret(given)
    said = asking.ask("PUT", f"vault/secrets/{segment(key)}", body={"value": given})
    return Answer(said, f"Secret {clean(key)} set")


@secret.command("delete")
@click.argument("key")
@yes_option
@answering
def delete_secret(key: str, yes: bool) -> Answer:
    """Remove one."""
    confirm(f"Delete the secret {clean(key)}", yes=yes)
    said = client().ask("DELETE", f"vault/secrets/{segment(key)}")
    return Answer(said, f"Secret {clean(key)} deleted")


COMMANDS: list[tuple[click.Command, tuple[str, ...]]] = [(vault, ())]

"""What commands that change a thing share: `--if-match`, `--dry-run`, how a deletion is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from tokenhub.ctl.client import segment
from tokenhub.ctl.common import Answer, client, confirm, yes_option
from tokenhub.ctl.show import clean, table

Command = Callable[..., Any]

_REVISION = re.compile(r'\*|\d{1,18}|"\d{1,18}"', re.ASCII)


def _tag(_ctx: click.Context, _param: click.Parameter, given: str | None) -> str | None:
    """A revision as `If-Match` has it: 7 and "7" are `"7"`; or `*`."""
    if given is None:
        return None
    if not _REVISION.fullmatch(given):
        raise click.BadParameter("a revision is a number such as 7, or *")
    return f'"{given}"' if given.isdigit() else given


if_match_option = click.option(
    "--if-match", callback=_tag, metavar="REVISION",
    help="Only if that is still its revision; * is any.",
)  # fmt: skip
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Remove nothing; list who depends on it."
)


def deleting(function: Command) -> Command:
    """The options of a command that removes a thing which has revisions and dependents."""
    return dry_run_option(if_match_option(yes_option(function)))


def change(method: str, path: str, *, if_match: str | None, body: dict[str, Any]) -> dict[str, Any]:
    """Change a thing, if it still is the revision that is meant; what the gateway says.

    Args:
        path: of the admin API, with its ids quoted.
        if_match: as the header has it; None = whichever it is.
    """
    asking = client()
    asking.keep_secret(str(body.get("api_key", "")))
    said: dict[str, Any] = asking.ask(method, path, body=body, headers=condition(if_match))
    return said


def delete(
    path: str, noun: str, name: str, *, yes: bool, if_match: str | None, dry_run: bool
) -> Answer:
    """Remove a thing, or say what that would do.

    Args:
        path: of the list that it is in.
        noun: what it is, for people.
        name: its id.
        yes: do not ask.
        dry_run: remove nothing, and so ask nothing.
    """
    place, headers = f"{path}/{segment(name)}", condition(if_match)
    if dry_run:
        found = client().ask("DELETE", place, query={"dry_run": "true"}, headers=headers)
        return _foreseen(found, noun, name)
    confirm(f"Delete the {_small(noun)} {clean(name)}", yes=yes)
    said = client().ask("DELETE", place, headers=headers)
    return Answer(said, f"{noun} {clean(name)} deleted")


def condition(if_match: str | None) -> dict[str, str]:
    """The header that says which revision is meant."""
    return {"If-Match": if_match} if if_match else {}


def _foreseen(found: dict[str, Any], noun: str, name: str) -> Answer:
    told = f"{noun} {clean(name)}"
    if not found["exists"]:
        return Answer(found, f"{told}: there is none")
    verdict = "could not be deleted" if found["would_be_refused"] else "could be deleted"
    line = f"{told} {verdict}; nothing was changed. Dependents: {found['total']}"
    if not found["dependents"]:
        return Answer(found, line)
    rows = [(each.get("kind"), each.get("id"), each.get("effect")) for each in found["dependents"]]
    return Answer(found, line, table(("KIND", "ID", "EFFECT"), rows))


def _small(noun: str) -> str:
    """In the middle of a sentence."""
    return noun if noun.startswith("API") else noun.lower()

"""Commands about who may ask: API keys and teams."""

from __future__ import annotations

from typing import Any

import click

from tokenhub.ctl.changing import change, delete, deleting, if_match_option
from tokenhub.ctl.client import segment
from tokenhub.ctl.common import (
    Answer,
    Nouns,
    answering,
    client,
    read_json,
    watching,
)
from tokenhub.ctl.show import clean, moment, table

json_argument = click.argument("fields", metavar="[JSON|-]", required=False)


@click.group("apikey", cls=Nouns, default="list")
def apikey() -> None:
    """API keys."""


@apikey.command("list")
@watching
def list_keys() -> Answer:
    """All of them, without their secrets."""
    found = client().get_all("apikeys", "keys")
    rows = [
        (
            each.get("id"), each.get("name"), each.get("key_prefix"), each.get("scopes"),
            each.get("enabled"), moment(each.get("created_at")), moment(each.get("last_used_at")),
        )
        for each in found["keys"]
    ]  # fmt: skip
    heads = ("ID", "NAME", "PREFIX", "SCOPES", "ENABLED", "CREATED", "LAST USED")
    return Answer(found, table(heads, rows))


@apikey.command("create")
@json_argument
@answering
def create_key(fields: str | None) -> Answer:
    """Issue one: {"name", "scopes", "monthly_budget_usd", …}. Its secret is printed once."""
    return _issued(client().ask("POST", "apikeys", body=read_json(fields)))


@apikey.command("rotate")
@click.argument("key_id")
@click.option("--grace", metavar="TIME", help="So long the old secret opens too, such as 24h.")
@if_match_option
@answering
def rotate_key(key_id: str, grace: str | None, if_match: str | None) -> Answer:
    """Give it a new secret, which is printed once."""
    body = {"grace": grace} if grace else {}
    path = f"apikeys/{segment(key_id)}/rotate"
    return _issued(change("POST", path, if_match=if_match, body=body))


@apikey.command("edit")
@click.argument("key_id")
@json_argument
@if_match_option
@answering
def edit_key(key_id: str, fields: str | None, if_match: str | None) -> Answer:
    """Change the fields that are given."""
    body = read_json(fields)
    said = change("PATCH", f"apikeys/{segment(key_id)}", if_match=if_match, body=body)
    return Answer(said, f"API key {clean(key_id)} saved")


@apikey.command("delete")
@click.argument("key_id")
@deleting
@answering
def delete_key(key_id: str, **how: Any) -> Answer:
    """Revoke it for good, from the next request on."""
    return delete("apikeys", "API key", key_id, **how)


@apikey.command("paid")
@click.argument("key_id")
@click.option("--amount", type=float, metavar="USD", help="So much; else all that was spent.")
@click.option("--period", type=click.Choice(["day", "month", "total"]), help="Else all three.")
@click.option("--reason", default="", help="For the books.")
@answering
def key_paid(key_id: str, amount: float | None, period: str | None, reason: str) -> Answer:
    """Allow it to spend more."""
    given: dict[str, Any] = {"amount_usd": amount, "period": period, "reason": reason or None}
    body = {name: value for name, value in given.items() if value is not None}
    said = client().ask("POST", f"apikeys/{segment(key_id)}/paid", body=body)
    return Answer(said, f"API key {clean(key_id)} credited")


@click.group("teams", cls=Nouns, default="list")
def teams() -> None:
    """Teams: limits and models that keys share."""


@teams.command("list")
@watching
def list_teams() -> Answer:
    """All of them, by name."""
    found = client().get_all("teams", "teams")
    rows = [
        (
            each.get("id"), each.get("name"), each.get("enabled"), each.get("models"),
            each.get("rpm"), each.get("tpm"), each.get("max_parallel"),
        )
        for each in found["teams"]
    ]  # fmt: skip
    return Answer(found, table(("ID", "NAME", "ENABLED", "MODELS", "RPM", "TPM", "PARALLEL"), rows))


@teams.command("get")
@click.argument("team_id")
@answering
def get_team(team_id: str) -> Answer:
    """One of them, as JSON."""
    return Answer(client().get(f"teams/{segment(team_id)}"))


@teams.command("create")
@json_argument
@answering
def create_team(fields: str | None) -> Answer:
    """Make one: {"name", "models", "rpm", …}."""
    said = client().ask("POST", "teams", body=read_json(fields))
    made = said.get("team") or {}
    return Answer(said, f"Team {clean(made.get('id'))} created")


@teams.command("edit")
@click.argument("team_id")
@json_argument
@if_match_option
@answering
def edit_team(team_id: str, fields: str | None, if_match: str | None) -> Answer:
    """Change the fields that are given."""
    body = read_json(fields)
    said = change("PATCH", f"teams/{segment(team_id)}", if_match=if_match, body=body)
    return Answer(said, f"Team {clean(team_id)} saved")


@teams.command("delete")
@click.argument("team_id")
@deleting
@answering
def delete_team(team_id: str, **how: Any) -> Answer:
    """Remove one that has no keys."""
    return delete("teams", "Team", team_id, **how)


def _issued(said: dict[str, Any]) -> Answer:
    notes = [f"ID: {clean(said.get('id'))}", clean(said.get("warning", ""))]
    return Answer(said, clean(said["key"]), "\n".join(notes))


COMMANDS: list[tuple[click.Command, tuple[str, ...]]] = [
    (apikey, ("apikeys",)), (teams, ("team",)),
]  # fmt: skip

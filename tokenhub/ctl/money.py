"""Commands about money: what was spent, and how much may be."""

from __future__ import annotations

from typing import Any

import click

from tokenhub.ctl.client import segment
from tokenhub.ctl.common import Answer, Nouns, answering, client, confirm, watching, yes_option
from tokenhub.ctl.show import clean, moment, money, table

KINDS = click.Choice(["key", "team"])
PERIODS = click.Choice(["day", "month", "total"])


@click.command("spend")
@click.option("--by", type=KINDS, default="key", show_default=True)
@click.option("--period", type=PERIODS, default="month", show_default=True)
@click.option("--from", "since", default="", metavar="TIME", help="RFC 3339, or unix ms.")
@click.option("--to", "until", default="", metavar="TIME")
@click.option("--id", "subject_id", default="", help="Of this key or team only.")
@watching
def spend(by: str, period: str, since: str, until: str, subject_id: str) -> Answer:
    """What was spent, from the books."""
    query = {"by": by, "period": period, "from": since, "to": until, "id": subject_id}
    found = client().get_all("spend", "spend", **query)
    rows = [
        (
            each.get("subject_id"), each.get("period"), moment(each.get("period_start")),
            money(each.get("spent_usd")), money(each.get("credited_usd")),
            money(each.get("reserved_usd")), each.get("requests"),
        )
        for each in found["spend"]
    ]  # fmt: skip
    heads = (by.upper(), "PERIOD", "SINCE", "SPENT", "CREDITED", "RESERVED", "REQUESTS")
    return Answer(found, table(heads, rows))


@click.group("budgets", cls=Nouns, default="list")
def budgets() -> None:
    """Budgets of keys and teams, by day, month or in total."""


@budgets.command("list")
@click.option("--kind", type=KINDS, default=None, help="With --id: of one key or team.")
@click.option("--id", "subject_id", default="")
@watching
def list_budgets(kind: str | None, subject_id: str) -> Answer:
    """All of them, with what is left."""
    found = client().get_all("budgets", "budgets", subject_kind=kind, subject_id=subject_id)
    rows = [
        (
            each.get("subject_kind"), each.get("subject_id"), each.get("period"),
            money(each.get("limit_usd")), money(each.get("spent_usd")),
            money(each.get("remaining_usd")), each.get("hard"), each.get("mode"),
            each.get("status"), moment(each.get("resets_at")),
        )
        for each in found["budgets"]
    ]  # fmt: skip
    heads = ("KIND", "ID", "PERIOD", "LIMIT", "SPENT", "LEFT", "HARD", "MODE", "STATUS", "RESETS")
    return Answer(found, table(heads, rows))


def subject(function: Any) -> Any:
    """The arguments KIND and ID."""
    inner = click.argument("subject_id", metavar="ID")(function)
    return click.argument("kind", type=KINDS)(inner)


@budgets.command("set")
@subject
@click.argument("period", type=PERIODS)
@click.argument("limit_usd", type=click.FloatRange(min=0))
@click.option("--soft", is_flag=True, help="It alerts, and refuses nobody.")
@click.option("--shadow", is_flag=True, help="It would refuse, and does not yet.")
@answering
def set_budget(kind: str, subject_id: str, period: str, limit_usd: float, **how: bool) -> Answer:
    """Set one, or replace it."""
    mode = "shadow" if how["shadow"] else "enforce"
    body = {"limit_usd": limit_usd, "hard": not how["soft"], "mode": mode}
    said = client().ask("PUT", f"budgets/{kind}/{segment(subject_id)}/{period}", body=body)
    return Answer(said, f"Budget of {kind} {clean(subject_id)} by {period} saved")


@budgets.command("delete")
@subject
@click.argument("period", type=PERIODS)
@yes_option
@answering
def delete_budget(kind: str, subject_id: str, period: str, yes: bool) -> Answer:
    """Remove one; what was spent stays known."""
    confirm(f"Delete the budget of {kind} {clean(subject_id)} by {period}", yes=yes)
    said = client().ask("DELETE", f"budgets/{kind}/{segment(subject_id)}/{period}")
    return Answer(said, f"Budget of {kind} {clean(subject_id)} by {period} deleted")


@budgets.command("paid")
@subject
@click.option("--amount", type=float, metavar="USD", help="So much; else all that was spent.")
@click.option("--period", type=PERIODS, help="Else all three.")
@click.option("--reason", default="", help="For the books.")
@answering
def paid(
    kind: str, subject_id: str, amount: float | None, period: str | None, reason: str
) -> Answer:
    """Allow a key or team to spend more."""
    given: dict[str, Any] = {"amount_usd": amount, "period": period, "reason": reason or None}
    body = {name: value for name, value in given.items() if value is not None}
    said = client().ask("POST", f"budgets/{kind}/{segment(subject_id)}/paid", body=body)
    return Answer(said, f"{kind} {clean(subject_id)} credited")


@budgets.command("credits")
@subject
@watching
def credits(kind: str, subject_id: str) -> Answer:
    """When that was done, why and by whom."""
    found = client().get_all(f"budgets/{kind}/{segment(subject_id)}/credits", "credits")
    rows = [
        (
            moment(each.get("timestamp")), each.get("period"), money(each.get("amount_usd")),
            each.get("actor"), each.get("reason"),
        )
        for each in found["credits"]
    ]  # fmt: skip
    return Answer(found, table(("TIME", "PERIOD", "AMOUNT", "BY", "REASON"), rows))


@budgets.command("release")
@click.argument("host_id")
@answering
def release(host_id: str) -> Answer:
    """Take back what a host holds that will not come back."""
    said = client().ask("POST", "budgets/release", body={"host_id": host_id})
    return Answer(said, f"{said.get('released')} shares, {money(said.get('released_usd'))}")


COMMANDS: list[tuple[click.Command, tuple[str, ...]]] = [
    (spend, ()), (budgets, ("budget",)),
]  # fmt: skip

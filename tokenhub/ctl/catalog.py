"""Commands about what can be routed to: providers, models, aliases, and routing itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click
from rich.table import Table

from tokenhub.ctl.changing import change, delete, deleting, if_match_option
from tokenhub.ctl.client import Failed, segment
from tokenhub.ctl.common import (
    Answer,
    Nouns,
    answering,
    client,
    read_json,
    tell,
    watching,
)
from tokenhub.ctl.show import cell, clean, price, table

json_argument = click.argument("fields", metavar="[JSON|-]", required=False)


@click.group("provider", cls=Nouns, default="list")
def provider() -> None:
    """Providers. JSON that is left out is read from standard input, where no key of it is seen."""


@provider.command("list")
@watching
def list_providers() -> Answer:
    """All of them, by id."""
    asking = client()
    found = asking.get_all("providers", "items")
    models = asking.get_all("models", "items")["items"]
    counts = Counter(each.get("provider_id") for each in models)
    rows = [
        (
            each.get("id"), each.get("type"), each.get("base_url"), each.get("cred_store"),
            each.get("enabled"), counts[each.get("id")], "demo" if each.get("demo") else "store",
        )
        for each in sorted(found["items"], key=lambda each: str(each.get("id")))
    ]  # fmt: skip
    heads = ("ID", "TYPE", "BASE URL", "CREDS", "ENABLED", "MODELS", "SOURCE")
    return Answer(found, table(heads, rows))


@provider.command("add")
@json_argument
@if_match_option
@answering
def add_provider(fields: str | None, if_match: str | None) -> Answer:
    """Create one, or replace it: {"id", "type", "base_url", "api_key"}."""
    return _add("providers", "Provider", read_json(fields), if_match)


@provider.command("edit")
@click.argument("provider_id")
@json_argument
@if_match_option
@answering
def edit_provider(provider_id: str, fields: str | None, if_match: str | None) -> Answer:
    """Change the fields that are given."""
    said = _patch("providers", provider_id, read_json(fields), if_match)
    return Answer(said, f"Provider {clean(provider_id)} saved")


@provider.command("delete")
@click.argument("provider_id")
@deleting
@answering
def delete_provider(provider_id: str, **how: Any) -> Answer:
    """Remove one, its models and its key."""
    return delete("providers", "Provider", provider_id, **how)


@provider.command("discover")
@click.argument("provider_id")
@answering
def discover_provider(provider_id: str) -> Answer:
    """What models it lists, and which of them are registered."""
    return _discover(provider_id)


@provider.command("test")
@json_argument
@click.option("--json", "is_json", is_flag=True, help="The answer as JSON, as it came.")
def test_provider(fields: str | None, is_json: bool) -> None:
    """Try {"base_url", "type", "api_key"} step by step; exit 1 if one fails. Nothing is saved."""
    asking, body = client(), read_json(fields)
    asking.keep_secret(str(body.get("api_key", "")))
    said = asking.ask("POST", "providers/test", body=body)
    words = {True: "ok", False: "failed"}
    rows = [
        (each.get("step"), words.get(each.get("ok")), each.get("message"))
        for each in said["steps"]
    ]  # fmt: skip
    tell(Answer(said, table(("STEP", "RESULT", "MESSAGE"), rows)), is_json=is_json)
    if not said["ok"]:
        raise Failed(f"it fails at: {clean(said['failed_step'])}")


@click.command("discover")
@click.argument("provider_id")
@answering
def discover(provider_id: str) -> Answer:
    """As `provider discover`."""
    return _discover(provider_id)


def _discover(provider_id: str) -> Answer:
    found = client().get(f"providers/{segment(provider_id)}/discover")
    rows = [(each.get("id"), each.get("registered")) for each in found.get("models") or []]
    return Answer(found, table(("MODEL ID", "REGISTERED"), rows))


@click.group("model", cls=Nouns, default="list")
def model() -> None:
    """Models."""


@model.command("list")
@watching
def list_models() -> Answer:
    """All of them, disabled ones too."""
    found = client().get_all("models", "items")
    return Answer(found, _models(found["items"]))


@model.command("add")
@json_argument
@if_match_option
@answering
def add_model(fields: str | None, if_match: str | None) -> Answer:
    """Create one, or replace it: {"id", "provider_id", "weight", "input_per_1k", …}."""
    return _add("models", "Model", read_json(fields), if_match)


@model.command("edit")
@click.argument("model_id")
@json_argument
@if_match_option
@answering
def edit_model(model_id: str, fields: str | None, if_match: str | None) -> Answer:
    """Change the fields that are given."""
    said = _patch("models", model_id, read_json(fields), if_match)
    return Answer(said, f"Model {clean(model_id)} saved")


@model.command("delete")
@click.argument("model_id")
@deleting
@answering
def delete_model(model_id: str, **how: Any) -> Answer:
    """Remove one."""
    return delete("models", "Model", model_id, **how)


@model.command("enable")
@click.argument("model_id")
@if_match_option
@answering
def enable_model(model_id: str, if_match: str | None) -> Answer:
    """Let requests go to it."""
    said = _patch("models", model_id, {"enabled": True}, if_match)
    return Answer(said, f"Model {clean(model_id)} enabled")


@model.command("disable")
@click.argument("model_id")
@if_match_option
@answering
def disable_model(model_id: str, if_match: str | None) -> Answer:
    """Let none go to it."""
    said = _patch("models", model_id, {"enabled": False}, if_match)
    return Answer(said, f"Model {clean(model_id)} disabled")


@click.group("engine")
def engine() -> None:
    """What can be routed to now."""


@engine.command("models")
@watching
def engine_models() -> Answer:
    """Models and the providers that are usable."""
    found = client().get_all("engine/models", "models")
    adapters = f"Adapters: {cell(found.get('adapters') or [])}"
    return Answer(found, adapters, _models(found["models"]))


@click.group("aliases", cls=Nouns, default="list")
def aliases() -> None:
    """Names that stand for several models."""


@aliases.command("list")
@watching
def list_aliases() -> Answer:
    """All of them, by name."""
    found = client().get_all("aliases", "items")
    rows = [
        (each.get("name"), _variants(each), each.get("sticky_by"), each.get("enabled"))
        for each in found["items"]
    ]
    return Answer(found, table(("NAME", "VARIANTS", "STICKY BY", "ENABLED"), rows))


@aliases.command("get")
@click.argument("name")
@answering
def get_alias(name: str) -> Answer:
    """One of them, as JSON."""
    return Answer(client().get(f"aliases/{segment(name)}"))


@aliases.command("set")
@click.argument("name")
@json_argument
@if_match_option
@answering
def set_alias(name: str, fields: str | None, if_match: str | None) -> Answer:
    """Create or replace one: {"variants": [{"model_id", "weight"}], "sticky_by"}."""
    body = read_json(fields)
    said = change("PUT", f"aliases/{segment(name)}", if_match=if_match, body=body)
    return Answer(said, f"Alias {clean(name)} saved")


@aliases.command("delete")
@click.argument("name")
@deleting
@answering
def delete_alias(name: str, **how: Any) -> Answer:
    """Remove one."""
    return delete("aliases", "Alias", name, **how)


@click.group("routing", cls=Nouns, default="get")
def routing() -> None:
    """What applies when a caller does not say."""


@routing.command("get")
@watching
def get_routing() -> Answer:
    """The defaults in force."""
    return Answer(client().get("routing-config"))


@routing.command("set")
@json_argument
@answering
def set_routing(fields: str | None) -> Answer:
    """Save them: {"default_mode", "default_max_budget_usd", "default_max_latency_ms"}."""
    said = client().ask("PUT", "routing-config", body=read_json(fields))
    return Answer(said, "Routing config saved")


@click.command("simulate")
@json_argument
@answering
def simulate(fields: str | None) -> Answer:
    """Where a request would go, and why not elsewhere; nothing is sent."""
    return Answer(client().ask("POST", "routing/simulate", body=read_json(fields)))


def _models(rows: list[dict[str, Any]]) -> Table:
    shown = [
        (
            each.get("id"), each.get("provider_id"), each.get("weight"),
            each.get("max_context_tokens"), price(each.get("input_per_1k")),
            price(each.get("output_per_1k")), each.get("enabled"),
        )
        for each in rows
    ]  # fmt: skip
    heads = ("MODEL", "PROVIDER", "WEIGHT", "CONTEXT", "IN $/1K", "OUT $/1K", "ENABLED")
    return table(heads, shown)


def _variants(alias: dict[str, Any]) -> str:
    return ", ".join(f"{each['model_id']}:{each['weight']}" for each in alias.get("variants") or [])


def _add(path: str, noun: str, body: dict[str, Any], if_match: str | None) -> Answer:
    said = change("POST", path, if_match=if_match, body=body)
    return Answer(said, f"{noun} {clean(body.get('id', ''))} saved")


def _patch(path: str, name: str, body: dict[str, Any], if_match: str | None) -> dict[str, Any]:
    return change("PATCH", f"{path}/{segment(name)}", if_match=if_match, body=body)


COMMANDS: list[tuple[click.Command, tuple[str, ...]]] = [
    (provider, ("providers",)), (model, ("models",)), (engine, ()), (aliases, ("alias",)),
    (routing, ()), (simulate, ()), (discover, ()),
]  # fmt: skip

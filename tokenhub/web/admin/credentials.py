"""The credentials file as it was applied: what is listed, what is not any more, what went wrong.

Also says what the file may hold: what the admin API takes, read by the same readers.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from tokenhub import credentials, store
from tokenhub.config import Settings
from tokenhub.credentials import BadFile, Rules
from tokenhub.domain import Provider
from tokenhub.errors import InvalidRequest
from tokenhub.outbound import check_url
from tokenhub.pricing import PRICE_NAMES
from tokenhub.providers import ADAPTERS
from tokenhub.store import FileEntry
from tokenhub.web import forms, guards
from tokenhub.web.admin import models, providers
from tokenhub.web.answers import answer, read, rfc3339

routes = Blueprint("credentials", __name__)

PROVIDER_FIELDS = (
    "id", "type", "base_url", "endpoints", "native_responses", "api_key", "enabled",
)  # fmt: skip
MODEL_FIELDS = (
    "id", "provider_id", "upstream_model", "weight", "max_context_tokens", "max_output_tokens",
    *PRICE_NAMES, "enabled", "capabilities", "tags", "fallbacks", "tool_name_map",
)  # fmt: skip


@routes.get("/credentials-file")
def report() -> Response:
    """What was last applied, on whichever host, and how the file of this host is now."""
    forms.check_query()
    hub = guards.services()
    path = hub.settings.credentials_file
    entries = read(hub, store.list_file_entries)
    applied = [each for each in entries if each.kind != "autoloaded"]
    autoloaded = [each for each in entries if each.kind == "autoloaded"]
    return answer(
        {
            "path": str(path),
            "exists": credentials.find_version(path) is not None,
            "applied_at": rfc3339(max((each.applied_at for each in applied), default=None)),
            "problems": _problems(hub.settings)
            + [f"{each.kind} {each.id}: {each.problem}" for each in entries if each.problem],
            "providers": [_provider(each) for each in applied if each.kind == "provider"],
            "models": [_model(each) for each in applied if each.kind == "model"],
            "autoloaded_models": [_model(each) for each in autoloaded],
        }
    )


def rules(settings: Settings) -> Rules:
    """What a gateway with these settings takes from its file."""

    def check_provider(provider: Provider) -> None:
        if provider.type not in ADAPTERS:
            raise InvalidRequest(f"type must be one of: {', '.join(sorted(ADAPTERS))}")
        providers.check_endpoints(provider)
        for url in (provider.base_url, *provider.endpoints):
            try:
                check_url(url, allow_private=settings.allow_private_providers)
            except ValueError as error:
                raise InvalidRequest(f"{url} {error}") from None

    return Rules(
        providers={
            **{name: providers.FIELDS[name] for name in PROVIDER_FIELDS},
            "autoload_models": forms.flag,
        },
        models={name: models.FIELDS[name] for name in MODEL_FIELDS},
        check_provider=check_provider,
    )


def _problems(settings: Settings) -> list[str]:
    """What is wrong with the file now; as long as there is anything, nothing of it is applied."""
    try:
        credentials.read(settings.credentials_file, rules(settings))
    except BadFile as error:
        return list(error.problems)
    return []


def _provider(entry: FileEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "is_listed": entry.is_listed,
        "applied_at": rfc3339(entry.applied_at),
        "has_key": bool(entry.values.get("has_key")),
        "autoload_models": bool(entry.values.get("autoload_models")),
        "problem": entry.problem,
    }


def _model(entry: FileEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "provider_id": entry.values.get("provider_id", ""),
        "is_listed": entry.is_listed,
        "applied_at": rfc3339(entry.applied_at),
        "problem": entry.problem,
    }

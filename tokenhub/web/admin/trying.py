"""Try a provider out before it is saved: may we call it, is it there, does it take its key?

One unbilled call, and nothing is stored. What the provider says is shown to the operator who asked,
without anything that looks like a secret; it is not logged.
"""

from __future__ import annotations

import re
from dataclasses import replace
from time import monotonic
from typing import Any

import orjson
from flask import Blueprint, Response

from tokenhub import discovery
from tokenhub.credentials import PROVIDER_TYPE
from tokenhub.domain import Provider
from tokenhub.errors import ProviderError
from tokenhub.outbound import check_url
from tokenhub.providers.reaching import Step, reach
from tokenhub.providers.upstream import endpoint_of
from tokenhub.services import Services
from tokenhub.telemetry.redaction import redact_text
from tokenhub.web import forms, guards
from tokenhub.web.admin import discover, providers
from tokenhub.web.answers import answer, rfc3339

routes = Blueprint("trying", __name__)

TEXT_CHARS_MAX = 500
MODELS_SHOWN_MAX = 1000
SECRET_CHARS_MIN = 6
"""A key that is shorter could be any word of the provider's text."""

_NO_LIST = (404, 405, 501)
"""How a provider answers that has no list of its models; it has let us in, or asks for no key."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

Told = dict[str, Any]


@routes.post("/providers/test")
def test() -> Response:
    """Try an address and a key, step by step; the first step that fails is the last."""
    hub = guards.services()
    values = forms.read_fields(hub, FIELDS, required=("base_url",))
    providers.check_type(hub, values)
    wanted, api_key = _wanted(hub, values)
    began = monotonic()
    steps = _steps(hub, wanted, api_key)
    failed = next((each for each in steps if each["ok"] is False), None)
    listed: list[str] = steps[-1].pop("models", [])
    return answer(
        {
            "ok": failed is None,
            "failed_step": None if failed is None else failed["step"],
            "message": "" if failed is None else failed["message"],
            "latency_ms": round((monotonic() - began) * 1000),
            "steps": steps,
            "models": listed[:MODELS_SHOWN_MAX],
            "model_count": len(listed),
        }
    )


def _wanted(hub: Services, values: dict[str, Any]) -> tuple[Provider, str | None]:
    """The provider as it would be, and the key that it would be called with.

    Raises:
        PermissionDenied: a stored key would go where it does not go now.
        VaultLocked: a stored key is wanted and cannot be had.
    """
    api_key: str = values.pop("api_key", "")
    id_ = values.pop("id", "")
    before = hub.catalog.current().providers.get(id_) if id_ else None
    if before is None:
        fresh = Provider(id_, PROVIDER_TYPE, "", cred_store="none")
        return replace(fresh, **values), api_key or None
    after = replace(before, endpoints=(), **values)
    if api_key:
        return after, api_key
    providers.check_recipient(before, after, api_key)
    return after, hub.gateway.secret_of(before)


def _steps(hub: Services, wanted: Provider, api_key: str | None) -> list[Told]:
    allow_private = hub.settings.allow_private_providers
    try:
        check_url(wanted.base_url, allow_private=allow_private)
    except ValueError as error:
        return [{"step": "address", "ok": False, "message": f"the address {error}"}]
    steps: list[Told] = [{"step": "address", "ok": True, "message": ""}]
    reached = reach(endpoint_of("GET", wanted.base_url).origin, allow_private=allow_private)
    steps += map(_step, reached)
    if all(each.is_ok for each in reached):
        steps.append(_ask(hub, wanted, api_key))
    return steps


def _step(step: Step) -> Told:
    facts = dict(step.facts or {})
    if "expires_at" in facts:
        facts["expires_at"] = rfc3339(facts["expires_at"])
    told = {"step": step.name, "ok": step.is_ok, "message": step.message}
    return {**told, "latency_ms": step.took_ms, **facts}


def _ask(hub: Services, wanted: Provider, api_key: str | None) -> Told:
    """Ask for its models, which nobody bills."""
    began = monotonic()
    told: Told = {"step": "answer", "ok": True, "message": "", "status": 200}
    try:
        found = discovery.list_models(hub.gateway.adapters[wanted.type], wanted, api_key)
        told["models"] = [each.id for each in found]
    except ProviderError as error:
        said = _said(error.said, api_key)
        told |= {"status": error.status, "error_class": error.error_class, "provider_says": said}
        if error.status in _NO_LIST:
            told["message"] = "it is there, and lists no models"
        else:
            told |= {"ok": False, "message": discover.told(error).message}
    return {**told, "latency_ms": round((monotonic() - began) * 1000)}


def _said(body: bytes, api_key: str | None) -> str:
    """The provider's own message on one line, without what looks like a secret."""
    text = _message_in(body)
    if api_key and len(api_key) >= SECRET_CHARS_MIN:
        text = text.replace(api_key, "***")
    text = _CONTROLS.sub(" ", redact_text(text))
    return text[:TEXT_CHARS_MAX]


def _message_in(body: bytes) -> str:
    """Where providers put it; anything else as it is."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[: 4 * TEXT_CHARS_MAX].decode("utf-8", "replace")
    found = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    if isinstance(found, dict):
        found = found.get("message", found)
    return found if isinstance(found, str) else orjson.dumps(found).decode()


def _read_id(name: str, value: Any) -> str:
    """That of a saved provider, whose key is meant; "" = of none."""
    found: str = forms.text()(name, value)
    return found


FIELDS: dict[str, forms.Reader] = {
    "id": _read_id,
    **{name: providers.FIELDS[name] for name in ("type", "base_url", "api_key")},
}

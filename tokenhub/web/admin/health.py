"""How models and providers are doing on this host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response

from tokenhub.board.board import unix_ms
from tokenhub.board.vitals import Probe, Vital
from tokenhub.board.windows import WINDOW_MS, WINDOWS
from tokenhub.catalog import Snapshot
from tokenhub.domain import Drain
from tokenhub.web import forms, guards
from tokenhub.web.answers import answer, rfc3339

routes = Blueprint("health", __name__)

UNKNOWN = "unknown"
"""The state of a provider that nobody has tried."""


@routes.get("/health")
def health() -> Response:
    """How the last minute's attempts went, on this host: by provider and by model."""
    hub = guards.services()
    forms.check_query()
    snapshot = hub.catalog.current()
    vitals = {(each.kind, each.id): each for each in hub.board.vitals.list_all()}
    drains = {who: find_drain(snapshot, *who) for who in snapshot.drains}
    models = [
        drained(vitals["model", id_], drains.get(("model", id_)))
        for id_ in sorted(snapshot.models)
        if ("model", id_) in vitals
    ]
    provider_of = {each.id: each.provider_id for each in snapshot.models.values()}
    providers = []
    for provider_id in sorted(snapshot.providers):
        theirs = [each for each in models if provider_of[each.id] == provider_id]
        drain = drains.get(("provider", provider_id))
        own = vitals.get(("provider", provider_id)) or Vital("provider", provider_id)
        told = _provider(drained(own, drain), theirs, drain)
        providers.append({"provider_id": provider_id, **told})
    return answer(
        {
            "host": hub.host_id,
            "window_secs": WINDOWS * WINDOW_MS // 1000,
            "providers": providers,
            "models": [
                {
                    "model_id": each.id,
                    "provider_id": provider_of[each.id],
                    **shown(each, drains.get(("model", each.id))),
                }
                for each in models
            ],
        }
    )


def find_drain(snapshot: Snapshot, kind: str, id_: str) -> Drain | None:
    """The drain that keeps a provider or a model out of use now."""
    drain = snapshot.drains.get((kind, id_))
    return drain if drain is not None and drain.until_at > unix_ms() else None


def drained(vital: Vital, drain: Drain | None) -> Vital:
    """How something is that an operator keeps out of use."""
    if drain is None:
        return vital
    left_secs = (drain.until_at - unix_ms()) / 1000
    return replace(
        vital,
        state="down",
        share=0.0,
        cooldown_until=max(vital.cooldown_until, drain.until_at),
        cooldown_secs_left=max(vital.cooldown_secs_left, left_secs),
    )


def shown(vital: Vital, drain: Drain | None) -> dict[str, Any]:
    """One row's last minute and its breaker, in the original's fields and more.

    Args:
        vital: see `drained`.
    """
    return {
        "state": vital.state,
        "total_requests": vital.successes + vital.failures,
        "total_errors": vital.failures,
        "consec_errors": vital.failures_in_a_row,
        "avg_latency_ms": vital.latency_ms if vital.successes else None,
        "last_error": vital.last_error,
        "last_error_time": rfc3339(vital.last_failure_at),
        "last_success_at": rfc3339(vital.last_success_at),
        "cooldown_until": rfc3339(vital.cooldown_until if vital.state == "down" else None),
        "breaker": vital.breaker,
        "share": vital.share,
        "cooldown_secs_left": vital.cooldown_secs_left,
        "openings": vital.openings,
        "drained_until": rfc3339(drain.until_at if drain else None),
    }


def _provider(own: Vital, models: Sequence[Vital], drain: Drain | None) -> dict[str, Any]:
    """A provider's row, and what only its models can tell: their own failures are not in it.

    Args:
        models: those of its models that were ever tried.
    """
    everybody = [own, *models]
    failed_last = max(everybody, key=lambda each: each.last_failure_at)
    state = _state(own, models)
    return {
        **shown(own, drain),
        "state": state,
        "consec_errors": max(each.failures_in_a_row for each in everybody),
        "last_error": failed_last.last_error,
        "last_error_time": rfc3339(failed_last.last_failure_at),
        "cooldown_until": rfc3339(_cooldown_until(own, models) if state == "down" else None),
        "probe": shown_probe(own.probe),
    }


def shown_probe(probe: Probe | None) -> dict[str, Any] | None:
    """What the latest probe found; null = nobody asked."""
    if probe is None:
        return None
    return {
        "alive": probe.is_alive,
        "status": probe.status,
        "latency_ms": probe.latency_ms,
        "at": rfc3339(probe.at),
    }


def _state(own: Vital, models: Sequence[Vital]) -> str:
    """down when it is itself or all its models are; healthy when nobody is anything else."""
    if own.state == "down":
        return "down"
    if not models and not own.last_success_at and not own.last_failure_at:
        return UNKNOWN
    states = {each.state for each in models}
    if states == {"down"}:
        return "down"
    return "healthy" if states | {own.state} == {"healthy"} else "degraded"


def _cooldown_until(own: Vital, models: Sequence[Vital]) -> int:
    """When the first of its models may be tried again."""
    if own.state == "down":
        return own.cooldown_until
    return min(each.cooldown_until for each in models)

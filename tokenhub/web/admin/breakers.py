"""Who is held back and until when, and what operators do about it: forgive, drain, ask.

A breaker opens by itself and is this host's; a drain is an operator's word, kept in the database,
and in force on every worker of all hosts until its time is over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.board.vitals import Vital
from tokenhub.catalog import Snapshot
from tokenhub.domain import Drain
from tokenhub.errors import NotFound
from tokenhub.prober import Finding, Prober
from tokenhub.services import Services
from tokenhub.web import access, changes, forms, guards
from tokenhub.web.admin import health
from tokenhub.web.answers import answer, listing, rfc3339

routes = Blueprint("breakers", __name__)

KINDS = ("provider", "model")
COOL_SECS_DEFAULT = 300
COOL_SECS_MAX = 86_400
REASON_CHARS_MAX = 500

Scope = tuple[str, str]
"""Kind and id, in paths with a colon between them."""


@routes.get("/breakers")
def list_all() -> Response:
    """Every provider and model with its breaker, those that are worst off first; on this host."""
    hub = guards.services()
    page = forms.read_page("held")
    wanted = forms.one_of("true", "false", "")("held", request.args.get("held", ""))
    snapshot = hub.catalog.current()
    rows = [_row(snapshot, each) for each in vitals_of(hub, snapshot)]
    if wanted:
        rows = [row for row in rows if row["held"] == (wanted == "true")]
    rows.sort(key=lambda row: (row["share"], row["state"] == "healthy", row["kind"], row["id"]))
    shown = rows[page.offset : page.offset + page.limit]
    return answer({"host": hub.host_id, **listing("breakers", shown, len(rows), page)})


@routes.post("/breakers/<path:scope>/clear")
def clear(scope: str) -> Response:
    """Close a breaker and end a drain; of a provider those of its models too."""
    hub = guards.services()
    kind, id_ = _read_scope(hub, scope)
    values = forms.read_fields(hub, CLEAR_FIELDS, may_be_empty=True)
    subjects = subjects_of(hub.catalog.current(), id_, kinds=(kind,))
    forgive(hub, id_, subjects, action="breaker.clear", reason=values.get("reason", ""))
    return answer({"ok": True})


@routes.post("/health/<path:subject_id>/clear")
def clear_health(subject_id: str) -> Response:
    """Close the breakers of a model, or of a provider and its models, here and on all hosts."""
    hub = guards.services()
    subject_id = forms.path_id(subject_id)
    subjects = subjects_of(hub.catalog.current(), subject_id)
    if not subjects:
        raise NotFound("there is no such provider or model", param="id")
    forgive(hub, subject_id, subjects, action="health.clear")
    return answer({"ok": True})


@routes.post("/breakers/<path:scope>/cool")
def cool(scope: str) -> Response:
    """Keep a provider or a model out of use for a while, on all hosts: as if it rested, so it is
    asked only where nobody else can answer."""
    hub = guards.services()
    who = _read_scope(hub, scope)
    values = forms.read_fields(hub, COOL_FIELDS, required=("reason",))
    now = unix_ms()
    secs = values.get("secs", COOL_SECS_DEFAULT)
    drain = Drain(now + secs * 1000, values["reason"], access.current_admin().actor)
    before = hub.catalog.current().drains.get(who)
    change = changes.change_of(
        hub,
        "drain",
        ":".join(who),
        action="breaker.cool",
        detail={"before": _shown(before), "after": _shown(drain)},
    )
    hub.catalog.apply(change, lambda connection: store.save_drain(connection, who, drain, now))
    return answer({"ok": True, "until": rfc3339(drain.until_at)})


@routes.post("/providers/<path:provider_id>/probe")
def probe(provider_id: str) -> Response:
    """Ask a provider's health URL now. It counts like a round of the prober where that one would
    have asked as well, and else is only told."""
    hub = guards.services()
    provider_id = forms.path_id(provider_id)
    values = forms.read_fields(hub, CLEAR_FIELDS, may_be_empty=True)
    snapshot = hub.catalog.current()
    provider = snapshot.providers.get(provider_id)
    if provider is None:
        raise NotFound("there is no such provider", param="id")
    if provider.type not in hub.gateway.adapters:
        raise NotFound("there is no adapter for this provider's type", param="id")
    is_noted = provider_id in snapshot.usable and not hub.settings.health_probe_disabled
    findings = _prober(hub).probe(provider, is_noted=is_noted)
    best = next((each for each in findings if each.is_alive), findings[0])
    detail = {"before": None, "after": _found(best), "reason": values.get("reason", "")}
    change = changes.change_of(hub, "probe", provider_id, action="provider.probe", detail=detail)
    hub.catalog.apply(change, lambda _: None)
    shown = [{"url": each.url, **_found(each)} for each in findings]
    said = {"ok": True, "provider_id": provider_id, **_found(best)}
    return answer({**said, "noted": is_noted, "endpoints": shown})


def forgive(
    hub: Services, subject_id: str, subjects: Collection[Scope], *, action: str, reason: str = ""
) -> None:
    """Close breakers and end drains, here and on all hosts, with one row in the audit.

    Args:
        subject_id: whose they are: breakers are closed by it, a provider's with those of its
            models.
        subjects: all of them.
    """
    drained = [who for who in sorted(subjects) if who in hub.catalog.current().drains]
    held_back = sorted(
        f"{each.kind} {each.id}"
        for each in hub.board.vitals.list_all()
        if (each.kind, each.id) in subjects and each.share < 1
    )
    detail = {
        "before": {"held_back": held_back, "drained": [" ".join(who) for who in drained]},
        "after": {"held_back": [], "drained": []},
        **({"reason": reason} if reason else {}),
    }
    now = unix_ms()

    def work(connection: Connection) -> None:
        for who in drained:
            if store.delete_drain(connection, who):
                store.record_change(connection, "drain", ":".join(who), now)

    change = changes.change_of(hub, "health", subject_id, action=action, detail=detail)
    hub.catalog.apply(change, work)
    hub.catalog.current()  # which does it: this worker is told as all the others are


def subjects_of(snapshot: Snapshot, subject_id: str, kinds: Iterable[str] = KINDS) -> set[Scope]:
    """What an id stands for: a model, a provider and its models, or both."""
    found = set()
    if "model" in kinds and subject_id in snapshot.models:
        found.add(("model", subject_id))
    if "provider" in kinds and subject_id in snapshot.providers:
        theirs = {m.id for m in snapshot.models.values() if m.provider_id == subject_id}
        found |= {("provider", subject_id), *(("model", each) for each in theirs)}
    return found


def vitals_of(hub: Services, snapshot: Snapshot) -> list[Vital]:
    """How every provider and model is, those that nobody has tried too."""
    known: Mapping[Scope, Vital] = {
        (each.kind, each.id): each for each in hub.board.vitals.list_all()
    }
    providers = [
        known.get(("provider", id_)) or Vital("provider", id_) for id_ in snapshot.providers
    ]
    return providers + [known.get(("model", id_)) or Vital("model", id_) for id_ in snapshot.models]


def _row(snapshot: Snapshot, vital: Vital) -> dict[str, Any]:
    drain = health.find_drain(snapshot, vital.kind, vital.id)
    is_model = vital.kind == "model"
    seen = health.drained(vital, drain)
    return {
        "kind": vital.kind,
        "id": vital.id,
        "provider_id": snapshot.models[vital.id].provider_id if is_model else vital.id,
        **health.shown(seen, drain),
        "held": seen.share < 1,
        "probe": health.shown_probe(vital.probe),
        "drain_reason": drain.reason if drain else None,
        "drained_by": drain.actor if drain else None,
    }


def _read_scope(hub: Services, scope: str) -> Scope:
    """Kind and id of what a path names.

    Raises:
        NotFound: there is none, or the kind is none.
    """
    kind, _, id_ = forms.path_id(scope).partition(":")
    snapshot = hub.catalog.current()
    there_are = {"provider": snapshot.providers, "model": snapshot.models}.get(kind, {})
    if id_ not in there_are:
        raise NotFound(
            "there is no such provider or model: name one as provider:<id> or model:<id>",
            param="scope",
        )
    return kind, id_


def _prober(hub: Services) -> Prober:
    return Prober(
        latest=hub.catalog.latest,
        adapters=hub.gateway.adapters,
        secret_of=hub.gateway.secret_of,
        vitals=hub.board.vitals,
        endpoints=hub.board.endpoints,
    )


def _found(finding: Finding) -> dict[str, Any]:
    return {
        "alive": finding.is_alive,
        "status": finding.status,
        "latency_ms": finding.latency_ms,
    }


def _shown(drain: Drain | None) -> dict[str, Any] | None:
    if drain is None:
        return None
    return {"until": rfc3339(drain.until_at), "reason": drain.reason, "by": drain.actor}


COOL_FIELDS: dict[str, forms.Reader] = {
    "secs": forms.integer(1, COOL_SECS_MAX),
    "reason": forms.text(REASON_CHARS_MAX),
}
CLEAR_FIELDS: dict[str, forms.Reader] = {"reason": forms.text(REASON_CHARS_MAX)}
